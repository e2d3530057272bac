"""Revisions: which ones a component has, which workload carries each, and which have rolled out.

A revision is what a component's pods are made of (not how many there are, nor what share of the traffic they get). `resolve` finds or numbers the
revision that a spec asks for; `advance` moves KServe's four markers as revisions become ready; `place` gives each revision that is still needed a
workload. The three are pure, and run in that order on each reconcile.

The life of a component with `canaryTrafficPercent`, as (workload: revision):

    create v1                  predictor: 1                          first create: the percentage is ignored
    v2, percent 20             predictor: 1, predictor-00002: 2      a canary has a workload of its own
    v3, percent 20             … and predictor-00003: 3              2 keeps its 20 % until 3 is ready, then goes
    no percent (promotion)     predictor-00003: 3                    no pod of 3 restarts
    v4, no percent             predictor-00003: 4                    without a canary: a rolling update in place
    percent 0 (back to v3)     predictor-00003: 4, predictor-00003-2: 3
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

HISTORY_LIMIT = 10
"""Revisions kept for reading and for rolling back, besides those in use."""


class Readiness(Enum):
    """What a revision's workload can do now."""

    PENDING = "pending"
    """It has never been ready, so it never gets traffic."""
    READY = "ready"
    """It can answer a request now, or wakes up for one."""
    LOST = "lost"
    """It was ready, and no pod of it is ready now."""


@dataclass(frozen=True)
class Revision:
    name: str
    number: int
    digest: str
    """Of all that its pods are made of."""
    workload: str
    """The Deployment, and Service, that carries it or last carried it."""


@dataclass(frozen=True)
class Canary:
    """One entry of `spec.canary[]`."""

    name: str
    digest: str
    percent: int
    workload: str


@dataclass(frozen=True)
class Intent:
    """What the spec says of one component."""

    base: str
    """`{isvc}-predictor`: the first workload's name and the prefix of revision names."""
    digest: str
    named_workload: str | None = None
    """`{isvc}-{predictor.name}-predictor`, if the predictor has a name."""
    percent: int | None = None
    """canaryTrafficPercent."""
    canaries: tuple[Canary, ...] = ()
    tag_latest: bool = False
    """The annotation `enable-tag-routing`: the canary is reachable by the tag `latest`."""

    @property
    def splits(self) -> bool:
        return self.percent is not None and self.percent < 100 and not self.canaries


@dataclass(frozen=True)
class Markers:
    """Names of revisions as KServe keeps them in `status.components.<c>`; empty is none."""

    latest_created: str = ""
    latest_ready: str = ""
    latest_rolledout: str = ""
    previous_rolledout: str = ""


@dataclass(frozen=True)
class Resolved:
    revisions: tuple[Revision, ...]
    """All known ones, the new ones included, oldest first."""
    latest: Revision
    """What `spec.<component>` asks for."""
    canaries: Mapping[str, Revision] = field(default_factory=dict)
    """What each entry of `spec.canary[]` asks for, by its name."""

    def named(self, name: str) -> Revision | None:
        return next((revision for revision in self.revisions if revision.name == name), None)

    @property
    def newest(self) -> Revision:
        return self.revisions[-1]


def resolve(intent: Intent, known: Iterable[Revision], markers: Markers, carried: frozenset[str]) -> Resolved:
    """Finds the revisions that the spec asks for among the known ones, and numbers new ones for those it does not find.

    `carried` names the revisions that existing workloads carry. A spec that goes back to one of these, or to the rolled-out one, takes it up again:
    nothing needs to restart. Going back further makes a new revision with the old content.
    """
    revisions = sorted(known, key=lambda revision: revision.number)
    canary_workloads = {canary.workload for canary in intent.canaries}
    ours = [revision for revision in revisions if revision.workload not in canary_workloads]
    usable = carried | {markers.latest_rolledout} | {revision.name for revision in ours[-1:]}
    same = [revision for revision in ours if revision.digest == intent.digest and revision.name in usable]
    latest = (
        _named(same, markers.latest_created) or _named(same, markers.latest_rolledout) or (same[-1] if same else None)
    )
    if latest is None:
        latest = _new(intent.base, intent.digest, intent.base, revisions)
        revisions.append(latest)

    canaries = {}
    for canary in intent.canaries:
        found = [r for r in revisions if r.digest == canary.digest and r.workload == canary.workload]
        if not found:
            found = [_new(intent.base, canary.digest, canary.workload, revisions)]
            revisions.extend(found)
        canaries[canary.name] = found[-1]
    return Resolved(tuple(revisions), latest, canaries)


def advance(intent: Intent, resolved: Resolved, markers: Markers, readiness: Mapping[str, Readiness]) -> Markers:
    """Moves the markers: what became ready, what has all the traffic, what is rolled back to.

    Rolled out means that all traffic may go there, so a revision is rolled out only once it is ready; until then its predecessor stays.
    """
    latest = resolved.latest.name
    markers = replace(markers, latest_created=latest)
    if resolved.named(markers.latest_rolledout) is None:
        markers = _first(intent, resolved, markers, readiness)
    if _ready(latest, readiness):
        markers = replace(markers, latest_ready=latest)

    splitting = intent.splits and resolved.named(markers.latest_rolledout) is not None
    if not splitting and _ready(latest, readiness) and markers.latest_rolledout != latest:
        return replace(markers, previous_rolledout=markers.latest_rolledout, latest_rolledout=latest)
    back = rollback_target(intent, resolved, markers)
    if back is not None and _ready(back.name, readiness):
        return replace(markers, latest_rolledout=back.name)
    return markers


def _first(intent: Intent, resolved: Resolved, markers: Markers, readiness: Mapping[str, Readiness]) -> Markers:
    """The first revision that is ready is rolled out, even if the spec has moved on while it started: something is better than nothing."""
    canary_workloads = {canary.workload for canary in intent.canaries}
    for revision in reversed(resolved.revisions):
        if _ready(revision.name, readiness) and revision.workload not in canary_workloads:
            return replace(markers, latest_ready=revision.name, latest_rolledout=revision.name, previous_rolledout="")
    return markers


def rollback_target(intent: Intent, resolved: Resolved, markers: Markers) -> Revision | None:
    """The revision to go back to when a percentage is set on one that already has all the traffic (KServe's re-rollback), else None.

    Only for the newest revision: a spec that went back by itself to an older one asks for nothing else.
    """
    latest = resolved.latest.name
    if not intent.splits or latest != markers.latest_rolledout or latest != resolved.newest.name:
        return None
    previous = resolved.named(markers.previous_rolledout)
    return None if previous is None or previous.name == latest else previous


def interim(
    intent: Intent, resolved: Resolved, markers: Markers, readiness: Mapping[str, Readiness]
) -> Revision | None:
    """The canary before the latest, which keeps the canary's share until the latest is ready."""
    if not intent.splits or not intent.percent or _ready(resolved.latest.name, readiness):
        return None
    if markers.latest_ready in (resolved.latest.name, markers.latest_rolledout):
        return None
    middle = resolved.named(markers.latest_ready)
    return middle if middle is not None and _ready(middle.name, readiness) else None


def place(
    intent: Intent,
    resolved: Resolved,
    markers: Markers,
    readiness: Mapping[str, Readiness],
    carrying: Mapping[str, str],
) -> dict[str, Revision]:
    """workload -> the revision it is to carry, for all revisions that are needed. Workloads that are not in it are to go.

    `carrying`: existing workloads, and the name of the revision that each carries. The base name is only ever the rolled-out revision's, because
    in-cluster clients use it as the address.
    """
    placed: dict[str, Revision] = {}

    def put(workload: str, revision: Revision) -> None:
        placed[workload] = replace(revision, workload=workload)

    latest, stable = resolved.latest, resolved.named(markers.latest_rolledout)
    if stable is None:
        put(intent.named_workload or intent.base, latest)
    elif _rolls_in_place(intent, latest, stable, carrying):
        put(stable.workload, latest)
    else:
        put(stable.workload, stable)
        for revision in (
            interim(intent, resolved, markers, readiness),
            rollback_target(intent, resolved, markers),
            latest,
        ):
            if revision is not None and all(revision.name != other.name for other in placed.values()):
                put(_workload_apart(revision, intent, placed), revision)
    for canary in intent.canaries:
        put(canary.workload, resolved.canaries[canary.name])
    return placed


def without_clashes(intent: Intent, known: Iterable[Revision], markers: Markers) -> Intent:
    """The intent, with another workload for a canary whose name the rolled-out revision's workload has had since it was a canary itself."""
    stable = _named(known, markers.latest_rolledout)
    if stable is None:
        return intent
    canaries = tuple(
        replace(canary, workload=f"{canary.workload}-2") if canary.workload == stable.workload else canary
        for canary in intent.canaries
    )
    return replace(intent, canaries=canaries)


def expired(revisions: Sequence[Revision], used: frozenset[str]) -> list[Revision]:
    """The revisions to forget: all but the newest ten and those in use."""
    return [revision for revision in revisions[:-HISTORY_LIMIT] if revision.name not in used]


def _rolls_in_place(intent: Intent, latest: Revision, stable: Revision, carrying: Mapping[str, str]) -> bool:
    """Whether the latest takes over the rolled-out revision's workload: not if it is a canary, nor if it was one and runs already."""
    if latest.name == stable.name or intent.splits:
        return False
    runs_apart = latest.workload != stable.workload and carrying.get(latest.workload) == latest.name
    return not runs_apart and intent.named_workload in (None, stable.workload)


def _workload_apart(revision: Revision, intent: Intent, placed: Mapping[str, Revision]) -> str:
    """A workload for a revision beside the rolled-out one: the one it has, else the name it was given, else its own name."""
    taken = {intent.base, *placed, *(canary.workload for canary in intent.canaries)}
    names = [revision.workload]
    if revision.digest == intent.digest and intent.named_workload is not None:
        names.append(intent.named_workload)
    names.append(revision.name)
    names += [f"{revision.name}-{n}" for n in range(2, len(taken) + 3)]
    return next(name for name in names if name not in taken)


def _new(base: str, digest: str, workload: str, revisions: Sequence[Revision]) -> Revision:
    number = revisions[-1].number + 1 if revisions else 1
    return Revision(f"{base}-{number:05d}", number, digest, workload)


def _named(revisions: Iterable[Revision], name: str) -> Revision | None:
    return next((revision for revision in revisions if revision.name == name), None)


def _ready(name: str, readiness: Mapping[str, Readiness]) -> bool:
    return readiness.get(name, Readiness.PENDING) is Readiness.READY
