"""The plan, held against a model of HAProxy: whatever HAProxy knows, the commands lead it to the table."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.gateway.plan import grown, initial_state, plan, split_text, split_weights
from fairlead.gateway.routes import Endpoint, RouteTable, Transport, Upstream
from fairlead.gateway.state import DeleteEntry, SetAddress, SetAdmin, SetEntry, SetReturning, State

ENDPOINTS = [Endpoint(f"10.0.0.{n}", 8080) for n in range(1, 8)]


def table(
    upstreams: dict[str, set[Endpoint]], weights: dict[str, int] | None = None, concurrency: int = 0
) -> RouteTable:
    made = RouteTable()
    for key, endpoints in upstreams.items():
        namespace, workload, transport = key.split("/")
        made.upstreams[key] = Upstream(
            namespace, workload, Transport(transport), 60.0, concurrency, frozenset(endpoints), frozenset()
        )
    if weights:
        made.hosts["m.test"] = "ns/m/predictor"
        made.splits[Transport.HTTP]["ns/m/predictor"] = tuple(weights.items())
    return made


tables = st.builds(
    table,
    st.dictionaries(
        st.sampled_from(["ns/a/h1", "ns/b/h1", "ns/c/h1", "ns/a/h2", "ns/d/h2"]),
        st.sets(st.sampled_from(ENDPOINTS)),
    ),
    st.none() | st.dictionaries(st.sampled_from(["ns/a/h1", "ns/b/h1"]), st.integers(1, 100), min_size=1),
    st.sampled_from([0, 4]),
)


def run(state: State, wanted: RouteTable) -> None:
    """As the agent does, with requests that all end between two looks."""
    for _ in range(10):
        needed = plan(state, wanted)
        check(state, needed.commands)
        if needed.needs_reload:
            bigger = grown(state, needed, spare_slots=2)
            state.maps, state.backends = bigger.maps, bigger.backends
        for backend, slots in state.backends.items():
            state.backends[backend] = [replace(slot, busy=0) for slot in slots]
        if not needed.commands and not needed.needs_reload:
            return
    raise AssertionError("the plan does not come to rest")


def check(state: State, commands) -> None:
    """Applies them one by one; after each, no request may be lost that would have been served before and after."""
    for command in commands:
        if isinstance(command, SetAddress):
            assert state.backends[command.backend][command.slot].free
        command.apply(state)
        for split in [*state.maps["http"].values(), *state.maps["grpc"].values()]:
            assert set(split_weights(split)) <= state.maps["upstreams"].keys() or isinstance(command, DeleteEntry)


def served(state: State) -> dict[str, set[Endpoint]]:
    return {
        upstream: {Endpoint(slot.address, slot.port) for slot in state.backends[backend] if slot.admin == "ready"}
        for backend, upstream in state.maps["upstreams"].items()
    }


@settings(deadline=None)
@given(st.lists(tables, min_size=1, max_size=5))
def test_any_history_of_tables_ends_at_the_last_one(history):
    state = initial_state(1, 1, 1)
    for wanted in history:
        run(state, wanted)
    last = history[-1]
    assert served(state) == {key: set(upstream.ready) for key, upstream in last.upstreams.items()}
    assert state.maps["hosts"] == last.hosts
    backends = {upstream: backend for backend, upstream in state.maps["upstreams"].items()}
    for route, split in last.splits[Transport.HTTP].items():
        assert split_weights(state.maps["http"].get(route, "")).keys() == {
            backends[u] for u, _ in split if u in last.upstreams
        }
    for backend, upstream in state.maps["upstreams"].items():
        assert backend.partition("-")[0] == last.upstreams[upstream].transport
        assert (backend in state.returning) == bool(last.upstreams[upstream].ready)
        for slot in state.backends[backend]:
            assert slot.admin != "ready" or slot.maxconn == last.upstreams[upstream].concurrency


@settings(deadline=None)
@given(st.lists(st.tuples(tables, st.booleans()), min_size=1, max_size=5))
def test_what_is_settled_needs_no_second_look(history):
    """Upstreams that are the same object as before are passed over, and what is done is the same as if they were not."""
    state, before, known = initial_state(4, 4, 8), None, {}
    for wanted, keep in history:
        if keep:
            wanted.upstreams |= {key: known[key] for key in wanted.upstreams.keys() & known.keys()}
        known = wanted.upstreams
        for _ in range(3):
            needed = plan(state, wanted, before)
            afresh = plan(state, wanted, before and replace(before, settled={}))
            assert needed.commands == afresh.commands
            assert needed.draining == afresh.draining
            check(state, needed.commands)
            before = needed
    assert needed.settled.keys() == state.maps["upstreams"].keys() or needed.draining or afresh.draining


@settings(deadline=None)
@given(tables)
def test_nothing_is_done_when_nothing_changed(wanted):
    state = initial_state(4, 4, 8)
    run(state, wanted)
    assert plan(state, wanted).commands == []


def test_a_changed_weight_is_one_command():
    state = initial_state(2, 1, 2)
    upstreams = {"ns/a/h1": {ENDPOINTS[0]}, "ns/b/h1": {ENDPOINTS[1]}}
    run(state, table(upstreams, {"ns/a/h1": 80, "ns/b/h1": 20}))
    commands = plan(state, table(upstreams, {"ns/a/h1": 70, "ns/b/h1": 30})).commands
    assert commands == [SetEntry("http", "ns/m/predictor", "100:h1-0001=70,h1-0002=100")]
    assert commands[0].text == "set map http.map ns/m/predictor 100:h1-0001=70,h1-0002=100"


def test_servers_come_before_weights_and_weights_before_hosts():
    commands = plan(initial_state(1, 1, 1), table({"ns/a/h1": {ENDPOINTS[0]}}, {"ns/a/h1": 100})).commands
    assert [command.text for command in commands] == [
        "set server h1-0001/s1 addr 10.0.0.1 port 8080",
        "set server h1-0001/s1 state ready",
        "set server h1-0001/hold state ready",
        "add map upstreams.map h1-0001 ns/a/h1",
        "add map timeouts.map h1-0001 60000",
        "add map http.map ns/m/predictor h1-0001",
        "add map hosts.map m.test ns/m/predictor",
    ]


def test_an_endpoint_that_leaves_is_drained_and_its_server_waits_for_the_last_request():
    state = initial_state(1, 1, 1)
    run(state, table({"ns/a/h1": {ENDPOINTS[0]}}))
    state.backends["h1-0001"][0] = replace(state.backends["h1-0001"][0], busy=3)

    leaving = plan(state, table({"ns/a/h1": {ENDPOINTS[1]}}))
    assert [c.text for c in leaving.commands] == ["set server h1-0001/s1 state drain"]
    assert leaving.missing_slots == {"h1-0001": 1}
    for command in leaving.commands:
        command.apply(state)
    assert plan(state, table({"ns/a/h1": set()})).commands == []
    assert plan(state, table({"ns/a/h1": set()})).draining

    state.backends["h1-0001"][0] = replace(state.backends["h1-0001"][0], busy=0)
    assert plan(state, table({"ns/a/h1": set()})).commands == [
        SetReturning("h1-0001", on=False),  # as long as it had some, they could come back from it
        SetAdmin("h1-0001", 0, "maint"),
    ]


class Drained:
    """A backend of one workload with two slots, whose endpoints leave at second 100 without a request that HAProxy counts."""

    def __init__(self, *remaining):
        self.state = initial_state(1, 1, 3)
        run(self.state, table({"ns/a/h1": set(ENDPOINTS[:2])}))
        self.plan = None
        self.lead(100.0, *remaining)

    def lead(self, now, *endpoints):
        """Returns the commands."""
        self.plan = plan(self.state, table({"ns/a/h1": set(endpoints)}), self.plan, now=now)
        for command in self.plan.commands:
            command.apply(self.state)
        slots = self.state.backends["h1-0001"]
        slots[:] = [replace(slot, busy=0) for slot in slots]  # as HAProxy counts
        return [command.text.removeprefix("set server h1-0001/") for command in self.plan.commands]


def test_the_last_endpoints_server_waits_until_what_it_refused_has_been_tried_again():
    """HAProxy pauses for a second before it does, and counts such a request nowhere meanwhile."""
    backend = Drained()
    for second in (100.0, 100.25, 101.1, 101.9):
        assert backend.lead(second) == []
        assert backend.plan.draining
        assert backend.state.returning == {"h1-0001"}
    assert backend.lead(102.1) == ["hold state maint", "s1 state maint", "s2 state maint"]
    assert not backend.plan.draining


def test_where_another_endpoint_is_ready_what_was_refused_has_gone_there_at_once():
    backend = Drained(ENDPOINTS[0])
    assert backend.lead(100.0, ENDPOINTS[0]) == ["s2 state maint"]
    assert not backend.plan.draining


def test_an_endpoint_that_comes_ends_the_wait_for_what_the_last_one_refused():
    backend = Drained()
    assert backend.lead(100.5, ENDPOINTS[2]) == [
        "s3 addr 10.0.0.3 port 8080", "s3 state ready", "s1 state maint", "s2 state maint",
    ]  # fmt: skip
    assert not backend.plan.draining


def test_an_endpoint_that_leaves_again_is_waited_for_anew():
    backend = Drained()
    backend.lead(101.0, ENDPOINTS[0])
    backend.lead(101.5)
    assert backend.lead(102.1) == []
    assert backend.plan.draining
    assert "hold state maint" in backend.lead(103.6)


def test_a_backend_is_not_lent_again_while_it_waits_for_what_was_refused():
    backend = Drained()
    other = table({"ns/b/h1": set()})
    assert plan(backend.state, other, backend.plan, now=101.0).missing_backends == {Transport.HTTP: 1}
    for now in (102.1, 102.2):
        for command in plan(backend.state, other, backend.plan, now=now).commands:
            command.apply(backend.state)
    assert plan(backend.state, other, now=102.3).missing_backends == {}


def test_an_endpoint_that_comes_back_while_it_drains_keeps_its_server():
    state = initial_state(1, 1, 2)
    run(state, table({"ns/a/h1": {ENDPOINTS[0]}}))
    for command in plan(state, table({"ns/a/h1": set()})).commands:
        command.apply(state)
    assert plan(state, table({"ns/a/h1": {ENDPOINTS[0]}})).commands == [SetAdmin("h1-0001", 0, "ready")]


def test_a_backend_is_not_lent_again_while_its_last_requests_run():
    state = initial_state(1, 1, 1)
    run(state, table({"ns/a/h1": {ENDPOINTS[0]}}))
    needed = plan(state, table({"ns/b/h1": {ENDPOINTS[0]}}))
    assert needed.missing_backends == {Transport.HTTP: 1}
    assert not [c for c in needed.commands if isinstance(c, DeleteEntry)]


def test_what_is_full_at_least_doubles():
    state = initial_state(4, 1, 2)
    wanted = table({f"ns/w{n}/h1": set() for n in range(5)} | {"ns/big/h1": set(ENDPOINTS)})
    run(state, wanted)
    assert sorted(b for b in state.backends if b.startswith("h1-")) == [f"h1-{n:04d}" for n in range(1, 9)]
    assert sorted(len(slots) for slots in state.backends.values()) == [2] * 8 + [7]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 1000), min_size=2))
def test_weights_are_exact(weights):
    text = split_text(tuple(weights.items()), {name: f"h1-{name}" for name in weights})
    assert split_weights(text) == {f"h1-{name}": weight for name, weight in weights.items()}
    assert text.startswith(f"{sum(weights.values())}:")
