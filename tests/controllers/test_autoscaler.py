"""The autoscaler's loop in virtual time, over a fake API and agents that say what the test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.controllers.fake_api import FakeApi
from tests.controllers.harness import RecordedEvents

from fairlead.autoscaling import Metric, Mode, Policy
from fairlead.controllers.autoscaler.agents import AgentSilent, Demand, HttpAgents
from fairlead.controllers.autoscaler.board import Board, Scaled, Start
from fairlead.controllers.autoscaler.gauges import Gauges
from fairlead.controllers.autoscaler.loop import Autoscaler
from fairlead.controllers.autoscaler.readings import Counts, Reading, traffic
from fairlead.controllers.autoscaler.scraping import PodMetrics, Scrape, Unanswered
from fairlead.controllers.cluster import Cluster
from fairlead.kube.objects import Key
from fairlead.kube.resources import DEPLOYMENTS, PODS

SERVICE, WORKLOAD = Key("team", "iris"), Key("team", "iris-predictor")
OWNER = {"apiVersion": "v1", "kind": "InferenceService", "metadata": {"name": "iris", "namespace": "team", "uid": "u"}}
BUSY = Policy(metric=Metric.CONCURRENCY, target=1.0, min_replicas=0, max_replicas=4, scale_to_zero_delay=5.0)


class FakeAgents:
    def __init__(self, world: World) -> None:
        self._world = world
        self.counts: dict[str, Counts] = {"gw:1": Counts()}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    async def addresses(self) -> Sequence[str]:
        return list(self.counts)

    async def stats(self, agent: str) -> Reading:
        self.asked.append(agent)
        if agent in self.silent:
            raise AgentSilent(f"{agent} is silent")
        return Reading(self._world.seconds, {WORKLOAD: self.counts[agent]})

    async def demand(self, agent: str, after: int) -> Demand:
        raise AgentSilent(agent)


class World:
    """One workload whose pods are available as soon as they are asked for, unless `starts` is turned off."""

    def __init__(self, replicas: int) -> None:
        self.seconds, self.starts = 1000.0, True
        self.api, self.events, self.board, self.agents = FakeApi(), RecordedEvents(), Board(), FakeAgents(self)
        self.changed: list[Key] = []
        self.shown: Callable[[], float] = lambda: 0.0
        """By how many seconds the wall clock is wrong."""
        self.exported: dict[str, str] = {}
        """By pod address, what its metrics say."""
        labels = {"serving.kserve.io/inferenceservice": "iris", "fairlead.dev/workload": "iris-predictor"}
        metadata = {"name": WORKLOAD.name, "namespace": WORKLOAD.namespace, "labels": labels}
        self.api.put(DEPLOYMENTS, {"metadata": metadata, "spec": {"replicas": replicas}})
        self.board.plan(SERVICE, {WORKLOAD.name: Scaled(OWNER, "r1", BUSY)})
        self.start_operator()

    def start_operator(self) -> None:
        self.autoscaler = Autoscaler(
            Cluster(self.api, self.api.stores, clock=lambda: self.seconds),
            self.board,
            self.agents,
            self.events,
            self.changed.append,
            PodMetrics(self.fetch, clock=lambda: self.seconds),
            clock=lambda: self.seconds,
            now=lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds + self.shown()),
        )

    async def fetch(self, url: str) -> str:
        address = url.removeprefix("http://").partition(":")[0]
        if address not in self.exported:
            raise Unanswered("refused")
        return self.exported[address]

    def node(self) -> None:
        status = {"availableReplicas": self.replicas if self.starts else 0}
        self.api.set_status(DEPLOYMENTS, WORKLOAD, status)
        self.api.deliver()

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            self.node()
            await self.autoscaler.tick(list(self.agents.counts))
            self.seconds += 1.0

    @property
    def replicas(self) -> int:
        return int(self.api.of_deployment(WORKLOAD.name)["spec"]["replicas"])

    @property
    def scalings(self) -> list[str]:
        return [call for call in self.api.calls if call.startswith("scale")]


@pytest.fixture
def world() -> World:
    return World(1)


async def test_without_requests_it_goes_to_zero_after_the_delay_and_says_so_once(world: World) -> None:
    await world.ticks(4)
    assert world.replicas == 1
    await world.ticks(10)
    assert world.replicas == 0
    assert world.events.reasons == ["ScaledToZero"]
    assert len(world.scalings) == 1
    outcome = world.board.outcome(WORKLOAD)
    assert outcome is not None
    assert (outcome.desired, outcome.mode) == (0, Mode.IDLE)
    assert outcome.last_scale is not None


async def test_a_held_request_wakes_it_without_waiting_for_a_tick() -> None:
    world = World(0)
    await world.ticks(2)
    await world.autoscaler.wake({WORKLOAD: 3})
    assert world.replicas == 1
    assert world.events.reasons == ["Activated"]


async def test_a_request_that_waits_while_the_last_pod_is_still_being_sent_away_does_not_wait_for_a_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch, asking = world.api.patch, list[asyncio.Task[None]]()

    async def slow_patch(*arguments: Any, **more: Any) -> Any:
        answer = await patch(*arguments, **more)
        if not asking:
            asking.append(asyncio.create_task(world.autoscaler.wake({WORKLOAD: 1})))
            await asyncio.sleep(0)  # the gateway knows already; the API server's answer is not here yet
        return answer

    monkeypatch.setattr(world.api, "patch", slow_patch)
    while not asking:
        await world.ticks(1)
    await asking[0]
    assert world.events.reasons == ["ScaledToZero", "Activated"]
    assert world.replicas == 1


async def test_a_wake_up_before_the_first_tick_is_heard() -> None:
    world = World(0)
    world.node()
    await world.autoscaler.wake({WORKLOAD: 1})
    assert world.replicas == 1


async def test_requests_in_flight_add_replicas_up_to_the_most(world: World) -> None:
    await world.ticks(2)
    world.agents.counts["gw:1"] = Counts(in_flight=3)
    await world.ticks(10)
    assert world.replicas == 3
    world.agents.counts["gw:1"] = Counts(in_flight=50)
    await world.ticks(10)
    assert world.replicas == 4


async def test_it_grows_but_does_not_shrink_while_a_gateway_is_silent(world: World) -> None:
    world.agents.counts["gw:2"] = Counts()
    world.agents.silent.add("gw:2")
    await world.ticks(60)
    assert world.replicas == 1
    world.agents.counts["gw:1"] = Counts(in_flight=3)
    await world.ticks(10)
    assert world.replicas == 3
    world.agents.counts["gw:1"] = Counts()
    await world.ticks(200)
    assert world.replicas == 3


async def test_a_gateway_that_is_drained_is_heard_for_as_long_as_it_answers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in DNS no more, and its clients have connections to it: what they ask for may be at zero."""
    listed = [["gw:1", "leaving:1"]] * 3 + [["gw:1"]] * 30

    async def addresses() -> list[str]:
        world.node()
        world.seconds += 1.0
        if len(listed) == 30:
            world.agents.counts["leaving:1"] = Counts(in_flight=3)
        if len(listed) == 10:
            assert world.replicas == 3
            world.agents.silent.add("leaving:1")
        if not listed:
            raise EOFError
        return listed.pop(0)

    monkeypatch.setattr("fairlead.controllers.autoscaler.loop.TICK", 0.0)
    monkeypatch.setattr(world.agents, "addresses", addresses)
    world.agents.counts["leaving:1"] = Counts()
    with pytest.raises(ExceptionGroup) as ended:
        await world.autoscaler.run()
    assert [type(error) for error in ended.value.exceptions] == [EOFError]
    assert world.agents.asked.count("gw:1") == 33
    assert world.agents.asked.count("leaving:1") == 3 + 20 + 1


async def test_a_tick_does_not_wait_for_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    answers = [["10.0.0.1:9901"], answer, ["10.0.0.3:9901"]]

    async def resolved(_: str) -> list[str]:
        found = answers.pop(0)
        return await found if isinstance(found, asyncio.Future) else found

    monkeypatch.setattr("fairlead.controllers.autoscaler.agents.resolved", resolved)
    agents = HttpAgents(["agents:9901"])

    async def addresses(within: float) -> Sequence[str]:
        monkeypatch.setattr("fairlead.controllers.autoscaler.agents.RESOLVE_TIMEOUT", within)
        return await agents.addresses()

    assert await addresses(60) == ["10.0.0.1:9901"]
    assert [await addresses(0.001) for _ in range(2)] == [["10.0.0.1:9901"]] * 2
    answer.set_result(["10.0.0.2:9901"])
    assert [await addresses(60) for _ in range(2)] == [["10.0.0.2:9901"], ["10.0.0.3:9901"]]
    await agents.close()


async def test_without_any_gateway_nothing_is_decided(world: World) -> None:
    world.agents.silent.add("gw:1")
    await world.ticks(60)
    assert world.replicas == 1
    assert not world.scalings


async def test_an_operator_that_restarts_does_not_scale_down_on_lost_history(world: World) -> None:
    await world.ticks(2)
    world.agents.counts["gw:1"] = Counts(in_flight=3)
    await world.ticks(10)
    world.start_operator()
    world.agents.counts["gw:1"] = Counts()
    await world.ticks(30)
    assert world.replicas == 3


async def test_an_operator_that_restarts_in_the_middle_of_a_wake_up_goes_on_with_it_and_takes_the_queue_for_work() -> (
    None
):
    world = World(0)
    world.starts = False
    world.agents.counts["gw:1"] = Counts(in_flight=100, held=100)
    await world.ticks(5)
    world.start_operator()
    await world.ticks(5)
    outcome = world.board.outcome(WORKLOAD)
    assert outcome is not None
    assert (world.replicas, outcome.mode) == (1, Mode.ACTIVATING)
    world.starts = True
    world.agents.counts["gw:1"] = Counts(in_flight=100, requests=100)
    world.start_operator()
    await world.ticks(2)
    world.agents.counts["gw:1"] = Counts(requests=100, responses=100)
    await world.ticks(3)
    assert world.replicas <= 2  # as a concurrency of 100 it would be the most there may be, which is four


async def test_a_wall_clock_that_jumps_by_an_hour_changes_no_decision() -> None:
    async def spike(jumps: list[float]) -> list[tuple[int, str]]:
        world, decided = World(1), list[tuple[int, str]]()
        world.shown = lambda: jumps[int(world.seconds) % len(jumps)]
        for counts, ticks in (
            (Counts(in_flight=3), 12),
            (Counts(), 80),
            (Counts(in_flight=1, held=1), 3),
            (Counts(), 3),
        ):
            world.agents.counts["gw:1"] = counts
            for _ in range(ticks):
                await world.ticks(1)
                outcome = world.board.outcome(WORKLOAD)
                decided.append((world.replicas, str(outcome and outcome.mode)))
        return decided

    assert await spike([3600.0, -3600.0, 0.0]) == await spike([0.0])


async def test_what_an_informer_says_late_does_not_undo_a_scaling() -> None:
    world = World(0)
    await world.ticks(2)
    await world.autoscaler.wake({WORKLOAD: 1})  # the informer still says 0
    await world.autoscaler.tick(["gw:1"])
    assert world.replicas == 1
    assert len(world.scalings) == 1


async def test_what_somebody_else_scales_is_the_new_beginning(world: World) -> None:
    await world.ticks(2)
    world.api.rescale(WORKLOAD.name, 3)
    await world.ticks(3)
    assert world.replicas == 3
    await world.ticks(200)
    assert world.replicas == 0


async def test_a_service_that_has_come_up_slowly_gets_its_whole_delay(world: World) -> None:
    first = Policy(metric=Metric.CONCURRENCY, target=1.0, min_replicas=1, max_replicas=4, scale_to_zero_delay=5.0)
    world.board.plan(SERVICE, {WORKLOAD.name: Scaled(OWNER, "r1", first)})
    world.starts = False
    await world.ticks(60)
    world.starts = True
    world.board.plan(SERVICE, {WORKLOAD.name: Scaled(OWNER, "r1", BUSY)})
    await world.ticks(4)
    assert world.replicas == 1


async def test_a_model_that_never_comes_up_is_given_up_and_said_to_be_paused() -> None:
    world = World(0)
    world.starts = False
    world.agents.counts["gw:1"] = Counts(in_flight=1, held=1)
    await world.ticks(130)
    assert world.replicas == 0
    assert world.events.reasons == ["Activated", "WakeUpFailed"]
    outcome = world.board.outcome(WORKLOAD)
    assert outcome is not None
    assert outcome.mode is Mode.PAUSED


async def test_a_metric_of_the_model_servers_own_adds_replicas_and_an_unknown_part_of_it_keeps_them() -> None:
    world = World(2)
    own = Policy(metric=Metric.CUSTOM, custom="queue", target=5.0, min_replicas=0, max_replicas=9, stable_window=10)
    world.board.plan(SERVICE, {WORKLOAD.name: Scaled(OWNER, "r1", own, Scrape("queue", 8080, "/metrics"))})
    labels = {"serving.kserve.io/inferenceservice": "iris", "fairlead.dev/workload": "iris-predictor"}
    for address in ("10.0.0.1", "10.0.0.2"):
        status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
        world.api.put(PODS, {"metadata": {"name": address, "namespace": "team", "labels": labels}, "status": status})
    world.exported = {"10.0.0.1": "queue 3", "10.0.0.2": "queue 15"}
    await world.ticks(12)
    assert world.replicas == 4
    del world.exported["10.0.0.2"]
    await world.ticks(200)
    assert world.replicas == 4
    world.exported["10.0.0.2"] = "queue 0"
    await world.ticks(100)
    assert world.replicas == 1


@pytest.mark.parametrize("value", ["+Inf", "1e300", "NaN", "-1"])
async def test_a_metric_that_makes_no_sense_ends_nothing(value: str) -> None:
    """Anybody's container may export it."""
    world = World(1)
    own = Policy(metric=Metric.CUSTOM, custom="queue", target=5.0, min_replicas=0, max_replicas=9, stable_window=10)
    world.board.plan(SERVICE, {WORKLOAD.name: Scaled(OWNER, "r1", own, Scrape("queue", 8080, "/metrics"))})
    labels = {"serving.kserve.io/inferenceservice": "iris", "fairlead.dev/workload": "iris-predictor"}
    status = {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    world.api.put(PODS, {"metadata": {"name": "iris-1", "namespace": "team", "labels": labels}, "status": status})
    world.exported = {"10.0.0.1": f"queue {value}"}
    await world.ticks(100)
    assert world.replicas == (0 if value == "-1" else 1)
    world.exported = {"10.0.0.1": "queue 40"}
    await world.ticks(20)
    assert world.replicas == 8


async def test_a_workload_that_cannot_be_decided_on_keeps_no_other_from_being(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A tick ends with all of them decided on, a wake-up too: what is wrong with one is said."""
    odd = Key("team", "odd")
    own = world.api.of_deployment(WORKLOAD.name)
    world.api.put(DEPLOYMENTS, {**own, "metadata": {**own["metadata"], "name": odd.name}, "spec": {"replicas": "two"}})
    world.board.plan(Key("team", "an-odd-one"), {odd.name: Scaled(OWNER, "r1", BUSY)})
    world.agents.counts["gw:1"] = Counts(in_flight=3)
    await world.ticks(12)
    assert world.replicas == 3
    await world.autoscaler.wake({odd: 1})
    errors = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert errors == {"team/odd is not decided on"}


async def test_a_quiet_service_costs_no_call_and_no_status(world: World) -> None:
    await world.ticks(20)
    calls, changed = len(world.api.calls), len(world.changed)
    await world.ticks(50)
    assert (len(world.api.calls), len(world.changed)) == (calls, changed)


async def test_no_gateway_is_asked_while_there_is_nothing_to_scale(world: World) -> None:
    world.board.plan(SERVICE, {})
    await world.ticks(3)
    assert world.agents.asked == []


async def test_what_was_decided_can_be_read_as_metrics(world: World) -> None:
    world.agents.counts["gw:1"] = Counts(in_flight=3)
    await world.ticks(12)
    world.board.started(SERVICE, "r1", Start("iris-1", "2026-11-21T12:00:00Z", {"image": 1.5}))
    registry = CollectorRegistry()
    registry.register(Gauges(world.autoscaler))
    labels = {"namespace": "team", "inferenceservice": "iris", "revision": "r1"}

    def read(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"fairlead_{name}", {**labels, **more})

    assert read("autoscaler_desired_replicas") == read("autoscaler_ready_replicas") == 3
    assert read("autoscaler_metric_target", metric="concurrency") == 1.0
    assert read("autoscaler_mode", mode="Panic") == 1.0
    assert read("autoscaler_mode", mode="Idle") == 0.0
    assert read("start_seconds", phase="image") == 1.5


async def test_a_workload_off_the_board_is_left_alone(world: World) -> None:
    world.board.plan(SERVICE, {})
    await world.ticks(60)
    assert world.replicas == 1


def test_rates_come_from_each_gateways_own_counters_and_survive_its_restart() -> None:
    before = {
        "a": Reading(0.0, {WORKLOAD: Counts(requests=100, responses=90)}),
        "b": Reading(0.0, {WORKLOAD: Counts(requests=500)}),
    }
    now = {
        "a": Reading(2.0, {WORKLOAD: Counts(in_flight=5, queued=1, held=2, requests=120, responses=100)}),
        "b": Reading(2.0, {WORKLOAD: Counts(requests=6)}),  # begun anew
        "c": Reading(2.0, {WORKLOAD: Counts(in_flight=1, requests=70)}),  # new: no rate yet
    }
    # Two that are held have arrived too, and will be counted among the requests when they are let go.
    assert traffic(before, now, WORKLOAD) == (3.0, 3.0, 14.0, 5.0)


def test_requests_that_are_let_go_do_not_arrive_a_second_time() -> None:
    before = {"a": Reading(0.0, {WORKLOAD: Counts(in_flight=500, held=500, requests=7)})}
    now = {"a": Reading(1.0, {WORKLOAD: Counts(in_flight=500, requests=507)})}
    assert traffic(before, now, WORKLOAD).arrivals == 0.0
