"""An hour of decisions, kept and played again."""

from __future__ import annotations

import json
import pickle

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.autoscaling import Behavior, Observation, Policy, Rules, SpeedLimit, State, decide, initial_state
from fairlead.autoscaling.history import KEPT, History, Step, parsed, replay

BUSY = Observation(running=40, arrivals=100, completions=100, ready=1)


class Recorded:
    """A service whose decisions are recorded, tick by tick."""

    def __init__(self, policy: Policy, replicas: int = 1) -> None:
        self.policy, self.clock = policy, 50.0
        self.state: State = initial_state(self.clock, replicas)
        self.history = History()
        self.decided: list[tuple[float, int]] = []

    def see(self, seen: Observation, ticks: int = 1) -> None:
        for _ in range(ticks):
            self.clock += 1.0
            before = self.state
            decision, self.state = decide(self.clock, seen, self.policy, before)
            self.history.record(self.clock, seen, self.policy, before, decision, self.state)
            self.decided.append((self.clock, decision.desired))

    def replayed(self, policy: Policy | None = None) -> list[Step]:
        """Through JSON, as a client gets it."""
        return list(replay(parsed(json.loads(json.dumps(self.history.document()))), policy))

    @property
    def size(self) -> int:
        return sum(len(pickle.dumps(segment)) for segment in self.history.segments)


def test_a_replay_decides_what_was_decided_and_says_why() -> None:
    service = Recorded(Policy(target=10, min_replicas=0, max_replicas=20))
    service.see(BUSY, 100)
    service.see(BUSY._replace(running=5, arrivals=10, completions=10), 100)
    service.see(Observation(ready=1), 120)
    steps = service.replayed()
    assert [(step.clock, step.decision.desired) for step in steps] == service.decided
    assert not any(step.differs for step in steps)
    assert steps[0].decision.reason
    assert steps[-1].decision.reason == "nothing asks for it"


def test_a_service_at_rest_costs_one_run_however_long() -> None:
    service = Recorded(Policy(min_replicas=0), replicas=0)
    service.see(Observation(), 20_000)
    assert len(service.history.segments) == 1
    assert len(service.history.document()[0]["runs"]) == 1


def test_a_service_that_changes_each_second_costs_less_than_40_bytes_a_second_for_an_hour_and_no_more() -> None:
    service = Recorded(Policy(target=10))
    for tick in range(3 * int(KEPT)):
        service.see(BUSY._replace(running=float(tick % 97)))
    assert service.size < 40 * (KEPT + 600)
    steps = service.replayed()
    assert KEPT <= len(steps) <= KEPT + 600
    assert [(step.clock, step.decision.desired) for step in steps] == service.decided[-len(steps) :]


def test_a_new_policy_and_a_new_beginning_are_replayed_as_such() -> None:
    limits = Behavior(up=Rules(limits=(SpeedLimit("Pods", 1, 30),)))
    service = Recorded(Policy(target=10))
    service.see(BUSY, 30)
    service.policy = Policy(target=2, behavior=limits)
    service.see(BUSY, 90)
    service.state = initial_state(service.clock, 2)
    service.see(BUSY, 30)
    steps = service.replayed()
    assert [(step.clock, step.decision.desired) for step in steps] == service.decided
    assert {step.policy.target for step in steps} == {10, 2}


def test_another_policy_can_be_tried_on_the_same_hour() -> None:
    service = Recorded(Policy(target=10))
    service.see(BUSY, 100)
    service.state = initial_state(service.clock, 4)
    service.see(BUSY, 100)
    other = service.replayed(Policy(target=4))
    assert len(other) == 200
    assert other[-1].decision.desired == 10
    assert other[-1].desired_then == 4


observations = st.builds(
    Observation,
    running=st.floats(0, 1e3),
    waiting=st.integers(0, 100),
    arrivals=st.floats(0, 1e3),
    completions=st.floats(0, 1e3),
    ready=st.integers(0, 9),
    starting=st.integers(0, 9),
    scheduling=st.booleans(),
    complete=st.booleans(),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(observations, st.integers(1, 20)), min_size=1, max_size=20))
def test_whatever_was_seen_is_replayed_to_the_same_decisions(seen: list[tuple[Observation, int]]) -> None:
    service = Recorded(Policy(target=10, min_replicas=0, max_replicas=30))
    for observation, ticks in seen:
        service.see(observation, ticks)
    assert [(step.clock, step.decision.desired) for step in service.replayed()] == service.decided
