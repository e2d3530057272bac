"""Whatever users do and pods suffer, in whatever order: traffic goes where something answers, and in the end it is as the spec says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.controllers.fake_api import Crash
from tests.controllers.harness import Harness, isvc
from tests.controllers.test_journeys import canary

from fairlead.kube.resources import DEPLOYMENTS

MODELS = ("v1", "v2", "v3")


@dataclass(frozen=True)
class Spec:
    uri: str
    percent: int | None = None
    name: str | None = None
    canaries: tuple[tuple[str, int, str], ...] = ()
    stopped: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        predictor: dict[str, Any] = {}
        if self.percent is not None:
            predictor["canaryTrafficPercent"] = self.percent
        if self.name is not None:
            predictor["name"] = self.name
        if self.canaries:
            predictor["canary"] = [canary(*entry) for entry in self.canaries]
        annotations = {"serving.kserve.io/stop": "true"} if self.stopped else {}
        return isvc(self.uri, annotations=annotations, **predictor)


models = st.sampled_from(MODELS)
mostly = st.sampled_from([set(MODELS)] * 2 + [{"v1", "v2"}, {"v1"}, {"v2", "v3"}, set()])
percents = st.sampled_from((None, 0, 20, 50, 100))
names = st.sampled_from((None, None, None, None, "a", "b"))
canaries = st.lists(
    st.tuples(st.sampled_from(("b", "c")), st.sampled_from((0, 10, 50)), models),
    max_size=2,
    unique_by=lambda entry: entry[0],
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    name = draw(names)
    named = draw(st.integers(0, 3)) == 0
    entries = tuple(entry for entry in draw(canaries) if entry[0] != name) if named else ()
    return Spec(draw(models), draw(percents), name, entries, draw(st.integers(0, 15)) == 0)


actions = st.one_of(
    st.tuples(st.just("apply"), specs()),
    st.tuples(st.just("loads"), mostly),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("gateway"), st.sampled_from(("follows", "stuck", "absent"))),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("reconcile"), st.integers(1, 4)),
    st.tuples(st.just("reconcile"), st.integers(5, 9)),
    st.tuples(st.just("stale"), st.none()),
    st.tuples(st.just("wait"), st.sampled_from((0.2, 2.0))),
)


class Watched(Harness):
    """A harness that holds every step to the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = Spec("v1")
        delete = self.api.delete

        async def checked(resource: Any, name: str, *args: Any, **kwargs: Any) -> None:
            if resource == DEPLOYMENTS and not self.spec.stopped:
                self.may_go(name)
            await delete(resource, name, *args, **kwargs)

        self.api.delete = checked  # type: ignore[method-assign]

    def may_go(self, name: str) -> None:
        carried = {t["serviceName"] for c in self._routed().values() for t in c["targets"]}
        assert name not in carried, f"{name} is deleted while the gateway still leads to it"
        weights = {t["serviceName"]: t["percent"] for t in self.predictor["traffic"]}
        assert weights.get(name, 0) == 0, f"{name} is deleted while the status sends it traffic"

    def check(self) -> None:
        traffic = self.status.get("components", {}).get("predictor", {}).get("traffic", [])
        assert not traffic or sum(target["percent"] for target in traffic) == 100, traffic
        assert all("latestRevision" in target for target in traffic)
        for target in traffic:
            if target["percent"] and not self.available(target["serviceName"]):
                rolled_out = self.predictor["latestRolledoutRevision"]
                assert (target["revisionName"], target["percent"]) == (rolled_out, 100), (
                    f"{target} gets traffic and has no pod: {traffic}"
                )

    def available(self, workload: str) -> int:
        found: int = self.api.of(DEPLOYMENTS).get(workload, {}).get("status", {}).get("availableReplicas", 0)
        return found

    def _routed(self) -> dict[str, Any]:
        return dict((self.gateway.routes or {}).get("components", {}))


async def act(harness: Watched, action: str, value: Any) -> None:
    match action:
        case "apply":
            harness.spec = value
            harness.apply(value.manifest)
        case "loads":
            harness.loads = lambda uri: uri in value
        case "lose":
            workloads = sorted(harness.workloads)
            if workloads:
                harness.lose_pods(workloads[value % len(workloads)])
                await harness.once()  # before the node has brought any back
                harness.check()
        case "gateway":
            harness.gateway.stuck, harness.gateway.absent = value == "stuck", value == "absent"
        case "restart":
            harness.restart_operator()
        case "wait":
            harness.seconds += value
        case "stale":  # a reconcile before the informers have seen the last one's writes
            await harness.once_stale()
        case "reconcile":
            for _ in range(value):
                harness.run_node()
                harness.gateway.follow()
                await harness.once()
                harness.check()
                harness.seconds += 0.1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(actions, min_size=4, max_size=20), specs())
def test_traffic_never_goes_where_nothing_answers_and_all_converges(
    history: list[tuple[str, Any]], final: Spec
) -> None:
    async def run() -> None:
        harness = Watched()
        harness.apply(Spec("v1").manifest)
        for action, value in [("reconcile", 2), *history]:
            await act(harness, action, value)
        harness.gateway.stuck = harness.gateway.absent = False
        harness.loads = lambda uri: True
        harness.spec = Spec(final.uri, final.percent, final.name, final.canaries)
        harness.apply(harness.spec.manifest)
        await harness.settle(rounds=80)
        harness.check()
        converged(harness)

    asyncio.run(run())


def converged(harness: Watched) -> None:
    """All that the spec asks for is in effect, and nothing else is left."""
    spec = harness.spec
    assert harness.ready == "True", harness.status["conditions"]
    traffic = harness.predictor["traffic"]
    assert {t["serviceName"] for t in traffic} == set(harness.workloads)
    assert harness.services.keys() == {*harness.workloads, "iris-predictor"}
    rolled_out = next(t for t in traffic if t["revisionName"] == harness.predictor["latestRolledoutRevision"])
    assert harness.services["iris-predictor"] == rolled_out["serviceName"]
    shares = {name: percent for name, percent, _ in spec.canaries}
    if shares:
        assert {t["tag"]: t["percent"] for t in traffic if "tag" in t} == shares
    elif spec.percent in (None, 100):
        assert [(t["latestRevision"], t["percent"]) for t in traffic] == [(True, 100)]
    elif len(traffic) == 2:
        assert [t["percent"] for t in traffic] == [spec.percent, 100 - (spec.percent or 0)]
    latest = next(t for t in traffic if t["latestRevision"])
    assert harness.workloads[latest["serviceName"]] == spec.uri


# --- A crash after any single call -----------------------------------------------------------------------------------

LIFE = (
    Spec("v1"),
    Spec("v2", 20),
    Spec("v3", 20),
    Spec("v3"),
    Spec("v3", 0),
    Spec("v1", None, None, (("b", 10, "v2"),)),
)


async def live(
    on_settled: Callable[[Watched], None] | None = None, crash_at: int | None = None, *, after: bool = False
) -> Watched:
    harness = Watched()
    harness.api.crash_at, harness.api.crash_after_effect = crash_at, after
    for spec in LIFE:
        harness.spec = spec
        harness.apply(spec.manifest)
        try:
            await harness.settle(rounds=80)
        except Crash:
            harness.api.crash_at = None
            harness.restart_operator()
            await harness.settle(rounds=80)
        harness.check()
        if on_settled is not None:
            on_settled(harness)
    return harness


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "after its effect"])
async def test_a_crash_at_any_call_converges_to_the_same_end(after: bool) -> None:
    undisturbed = await live(converged)
    for call in range(len(undisturbed.api.calls)):
        harness = await live(crash_at=call, after=after)
        assert harness.traffic == undisturbed.traffic, f"crashed at call {call}: {undisturbed.api.calls[call]}"
        assert harness.workloads == undisturbed.workloads
        assert harness.services == undisturbed.services
