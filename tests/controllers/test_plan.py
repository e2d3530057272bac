"""Revisions, placement and traffic, as pure values: invariants of any single decision, after any history of decisions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers.inferenceservice.plan import Observed, Plan, plan
from fairlead.controllers.inferenceservice.revisions import (
    HISTORY_LIMIT,
    Canary,
    Intent,
    Markers,
    Readiness,
    Revision,
    expired,
)

BASE = "iris-predictor"
READY, PENDING, LOST = Readiness.READY, Readiness.PENDING, Readiness.LOST


@dataclass
class World:
    """What plans have made so far, and how it fares."""

    revisions: tuple[Revision, ...] = ()
    markers: Markers = field(default_factory=Markers)
    carrying: dict[str, str] = field(default_factory=dict)
    fates: dict[str, Readiness] = field(default_factory=dict)
    """Of what each workload carries."""
    serving: dict[str, str] = field(default_factory=dict)
    """What a workload carried when it last was ready: those pods stay until the next ones are."""

    @property
    def readiness(self) -> dict[str, Readiness]:
        found = {revision: self.fates[workload] for workload, revision in self.carrying.items()}
        stable = self.markers.latest_rolledout
        if stable and found.get(stable) is not READY:
            home = next((r.workload for r in self.revisions if r.name == stable), "")
            found[stable] = READY if self.serving.get(home) else LOST
        return found

    @property
    def observed(self) -> Observed:
        return Observed(self.revisions, self.markers, dict(self.carrying), self.readiness)

    def carry_out(self, decided: Plan) -> None:
        self.revisions, self.markers = decided.revisions, decided.markers
        for workload, revision in decided.placed.items():
            if self.carrying.get(workload) != revision.name:
                self.carrying[workload], self.fates[workload] = revision.name, PENDING
        for workload in self.carrying.keys() - decided.placed.keys():
            for of in (self.carrying, self.fates, self.serving):
                of.pop(workload, None)

    def happen(self, workload: str, fate: Readiness) -> None:
        if workload not in self.carrying or (fate is LOST and self.fates[workload] is PENDING):
            return
        self.fates[workload] = fate
        if fate is READY:
            self.serving[workload] = self.carrying[workload]
        elif fate is LOST:
            self.serving.pop(workload, None)


digests = st.sampled_from("ABC")
canaries = st.lists(
    st.tuples(st.sampled_from("bc"), digests, st.sampled_from((0, 10, 50))), max_size=2, unique_by=lambda c: c[0]
)


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    entries = draw(canaries) if draw(st.integers(0, 3)) == 0 else []
    named = draw(st.sampled_from((None, None, None, "b", "d")))
    return Intent(
        BASE,
        draw(digests),
        named_workload=f"iris-{named}-predictor" if named and named not in [c[0] for c in entries] else None,
        percent=draw(st.sampled_from((None, 0, 20, 99, 100))),
        canaries=tuple(Canary(name, digest, percent, f"iris-{name}-predictor") for name, digest, percent in entries),
    )


fates = st.tuples(st.integers(0, 4), st.sampled_from((READY, READY, READY, LOST, PENDING)))
histories = st.lists(st.one_of(intents(), fates), min_size=3, max_size=30)


def check(intent: Intent, before: Observed, decided: Plan) -> None:
    targets, readiness = decided.targets, before.readiness
    stable = decided.markers.latest_rolledout
    assert not targets or sum(target.percent for target in targets) == 100
    assert bool(targets) == bool(stable)
    assert sum(target.latest for target in targets) == bool(targets)
    for target in targets:
        if target.percent and readiness.get(target.revision) is not READY:
            assert (target.revision, target.percent) == (stable, 100), "weight on what is not ready"
    if stable != before.markers.latest_rolledout:
        assert readiness[stable] is READY, "rolled out before it was ready"

    placed = [revision.name for revision in decided.placed.values()]
    assert len(placed) == len(set(placed)), "one revision in two workloads"
    assert all(revision.workload == workload for workload, revision in decided.placed.items())
    if stable:
        assert decided.home in decided.placed, "the rolled-out revision has lost its workload"
        if BASE in decided.placed:
            assert decided.home == BASE, "the in-cluster address leads elsewhere"
    assert {target.workload for target in targets} <= decided.placed.keys()

    if intent.splits and targets and readiness.get(stable) is READY and decided.latest.name != stable:
        share = sum(target.percent for target in targets if target.revision != stable)
        assert share in (0, intent.percent)


@settings(max_examples=250, deadline=None)
@given(histories)
def test_every_decision_keeps_the_invariants_and_repeats_itself(history: list[Intent | tuple[int, Readiness]]) -> None:
    world, intent = World(), Intent(BASE, "A")
    for happening in history:
        if isinstance(happening, Intent):
            intent = happening
        elif world.carrying:
            index, fate = happening
            world.happen(sorted(world.carrying)[index % len(world.carrying)], fate)
        for _ in range(2):  # the second decides on what the first has made
            before = world.observed
            decided = plan(intent, before)
            check(intent, before, decided)
            world.carry_out(decided)
        again = plan(intent, world.observed)
        assert again.revisions == decided.revisions, "a decision that is carried out needs no new revision"
        assert again.placed.keys() == decided.placed.keys()


@settings(max_examples=100, deadline=None)
@given(histories, intents())
def test_once_all_is_ready_what_is_asked_for_is_in_effect(
    history: list[Intent | tuple[int, Readiness]], final: Intent
) -> None:
    world, intent = World(), Intent(BASE, "A")
    for happening in [*history, final]:
        if isinstance(happening, Intent):
            intent = happening
        elif world.carrying:
            world.happen(sorted(world.carrying)[happening[0] % len(world.carrying)], happening[1])
        world.carry_out(plan(intent, world.observed))
    for _ in range(6):
        for workload in list(world.carrying):
            world.happen(workload, READY)
        decided = plan(final, world.observed)
        world.carry_out(decided)
    assert decided.latest.digest == final.digest
    assert decided.pending_rollback is None
    weights = {target.tag or "": target.percent for target in decided.targets}
    if final.canaries:
        assert {canary.name: canary.percent for canary in final.canaries}.items() <= weights.items()
    elif not final.splits:
        assert weights == {"": 100}
    elif len(weights) > 1:
        assert weights == {"": final.percent, "prev": 100 - (final.percent or 0)}


def test_revisions_beyond_the_newest_ten_are_forgotten_unless_in_use() -> None:
    revisions = [Revision(f"r{n}", n, "d", "w") for n in range(1, HISTORY_LIMIT + 4)]
    assert [r.name for r in expired(revisions, frozenset({"r2"}))] == ["r1", "r3"]


def test_shares_that_must_move_do_so_in_proportion_and_in_whole_percents() -> None:
    intent = Intent(BASE, "A", canaries=(Canary("b", "B", 10, "b"), Canary("c", "C", 20, "c")))
    revisions = (Revision("r1", 1, "A", BASE), Revision("r2", 2, "B", "b"), Revision("r3", 3, "C", "c"))
    seen = Observed(
        revisions, Markers("r1", "r1", "r1"), {BASE: "r1", "b": "r2", "c": "r3"}, {"r1": LOST, "r2": READY, "r3": READY}
    )
    assert [(t.revision, t.percent) for t in plan(intent, seen).targets] == [("r1", 0), ("r2", 33), ("r3", 67)]


def test_the_first_revision_that_is_ready_serves_even_if_the_spec_has_moved_on_meanwhile() -> None:
    revisions = (Revision("r1", 1, "A", BASE), Revision("r2", 2, "B", BASE))
    seen = Observed(revisions, Markers("r2"), {BASE: "r2"}, {"r1": READY, "r2": PENDING})
    decided = plan(Intent(BASE, "B"), seen)
    assert [(t.revision, t.workload, t.percent) for t in decided.targets] == [("r1", BASE, 100)]
    assert {w: r.name for w, r in decided.placed.items()} == {BASE: "r2"}, "and the update goes on in place"
    beside = plan(Intent(BASE, "B", percent=20), seen)
    assert {w: r.name for w, r in beside.placed.items()} == {BASE: "r1", "r2": "r2"}, "a canary goes beside it"


def test_a_canary_keeps_its_numbered_workload_while_others_come_and_go() -> None:
    revisions = (Revision("r1", 1, "A", BASE), Revision("r2", 2, "B", "r2"))
    seen = Observed(revisions, Markers("r2", "r2", "r1"), {BASE: "r1", "r2": "r2"}, {"r1": READY, "r2": READY})
    decided = plan(Intent(BASE, "B", percent=50), seen)
    assert decided.placed.keys() == {BASE, "r2"}
    assert replace(revisions[1]) in decided.placed.values()


def test_a_revision_that_moves_to_a_workload_of_its_own_gets_no_traffic_before_it_is_ready_there() -> None:
    """An update rolls in place; before it is through, a percentage makes a canary of it, whose pods are ready where it came from."""
    one, two = Revision(f"{BASE}-00001", 1, "A", BASE), Revision(f"{BASE}-00002", 2, "B", BASE)
    markers = Markers(two.name, one.name, one.name)
    observed = Observed((one, two), markers, {BASE: two.name}, {one.name: READY, two.name: READY})
    decided = plan(Intent(BASE, "B", percent=20), observed)
    assert decided.placed[BASE].name == one.name
    assert {target.revision: target.percent for target in decided.targets} == {two.name: 0, one.name: 100}
