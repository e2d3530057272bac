"""One component's next step: revisions, placement and traffic decided together from what the spec says and what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fairlead.controllers.inferenceservice.revisions import (
    Canary,
    Intent,
    Markers,
    Readiness,
    Revision,
    advance,
    place,
    resolve,
    rollback_target,
    without_clashes,
)
from fairlead.controllers.inferenceservice.traffic import Target, traffic


@dataclass(frozen=True)
class Observed:
    """What is there of one component."""

    revisions: tuple[Revision, ...] = ()
    markers: Markers = field(default_factory=Markers)
    carrying: Mapping[str, str] = field(default_factory=dict)
    """Existing workloads, and the revision that each was last told to carry."""
    readiness: Mapping[str, Readiness] = field(default_factory=dict)
    asleep: frozenset[str] = frozenset()
    """Revisions that are ready because a request wakes them, and have no pod now."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """The traffic that the status gives each revision."""


@dataclass(frozen=True)
class Plan:
    """What is to be there of one component."""

    revisions: tuple[Revision, ...]
    latest: Revision
    canaries: tuple[tuple[Canary, Revision], ...]
    markers: Markers
    placed: Mapping[str, Revision]
    targets: tuple[Target, ...]
    pending_rollback: str | None = None
    """The revision that is being brought back and takes over when it is ready."""
    warming: frozenset[str] = frozenset()
    """Revisions that are to get traffic as soon as they have a pod."""

    @property
    def home(self) -> str | None:
        """The workload of the rolled-out revision, to which the in-cluster address leads."""
        return next((r.workload for r in self.revisions if r.name == self.markers.latest_rolledout), None)

    @property
    def in_use(self) -> frozenset[str]:
        """Revisions that must not be forgotten."""
        markers = {self.markers.latest_rolledout, self.markers.previous_rolledout, self.markers.latest_ready}
        return frozenset({self.latest.name, *markers, *(revision.name for revision in self.placed.values())})


def plan(intent: Intent, observed: Observed) -> Plan:
    """What is to be there.

    A revision at zero pods that would be given its first share of the traffic is woken before: until it has a pod, all else stays as it is.
    """
    decided = _plan(intent, observed, observed.readiness)
    if not any(observed.shares.values()):
        return decided
    shared = {revision for revision, share in observed.shares.items() if share} | {observed.markers.latest_rolledout}
    cold = observed.asleep - shared
    warming = frozenset(target.revision for target in decided.targets if target.percent and target.revision in cold)
    if not warming:
        return decided
    readiness = {**observed.readiness, **dict.fromkeys(warming, Readiness.PENDING)}
    return replace(_plan(intent, observed, readiness), warming=warming)


def _plan(intent: Intent, observed: Observed, readiness: Mapping[str, Readiness]) -> Plan:
    """Decides; the order matters: a revision is found before it is judged, and judged before it is given a place or traffic."""
    intent = without_clashes(intent, observed.revisions, observed.markers)
    resolved = resolve(intent, observed.revisions, observed.markers, frozenset(observed.carrying.values()))
    markers = advance(intent, resolved, observed.markers, readiness)
    placed = place(intent, resolved, markers, readiness, observed.carrying)
    there = _where_placed(readiness, observed.carrying, markers, placed)
    targets = traffic(intent, resolved, markers, there, placed)
    workloads = {revision.name: workload for workload, revision in placed.items()}
    revisions = tuple(_placed(resolved.revisions, workloads))
    canaries = tuple((canary, resolved.canaries[canary.name]) for canary in intent.canaries)
    back = rollback_target(intent, resolved, markers)
    return Plan(revisions, resolved.latest, canaries, markers, placed, targets, back.name if back else None)


def _where_placed(
    readiness: Mapping[str, Readiness], carrying: Mapping[str, str], markers: Markers, placed: Mapping[str, Revision]
) -> Mapping[str, Readiness]:
    """Readiness for traffic: a revision that is moving to another workload is not ready there because its pods were where it came from.

    The rolled-out revision keeps its readiness: its workload serves with whatever pods it has.
    """
    moving = {
        revision.name
        for workload, revision in placed.items()
        if carrying.get(workload) != revision.name and revision.name != markers.latest_rolledout
    }
    return {**readiness, **dict.fromkeys(moving, Readiness.PENDING)}


def _placed(revisions: Iterable[Revision], workloads: Mapping[str, str]) -> Iterable[Revision]:
    for revision in revisions:
        yield replace(revision, workload=workloads.get(revision.name, revision.workload))
