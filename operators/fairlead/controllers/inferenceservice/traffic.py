"""Where a component's traffic goes: the one place where a weight is decided.

Invariants, which the tests hold it to:
- the percentages add up to 100, or there is no target at all (nothing has ever been ready);
- a revision that has never been ready gets nothing;
- a revision without a ready pod gets nothing while another that may serve is ready. When none is, all goes to the rolled-out one, so that the
  gateway can hold requests until its pods are back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.controllers.inferenceservice.revisions import Intent, Markers, Readiness, Resolved, Revision, interim

TAG_PREVIOUS = "prev"
TAG_LATEST = "latest"


@dataclass(frozen=True)
class Target:
    revision: str
    workload: str
    """The Service that carries it."""
    percent: int
    latest: bool = False
    tag: str | None = None
    """The target is reachable under `{tag}-{component host}`, whatever its percentage."""


def traffic(
    intent: Intent,
    resolved: Resolved,
    markers: Markers,
    readiness: Mapping[str, Readiness],
    placed: Mapping[str, Revision],
) -> tuple[Target, ...]:
    """The component's targets, the latest first. `markers` are those that `advance` returned, `placed` what `place` did."""
    rolledout = resolved.named(markers.latest_rolledout)
    if rolledout is None:
        return ()
    workloads = {revision.name: workload for workload, revision in placed.items()}
    if rolledout.name not in workloads:  # its workload is being rolled to the latest, and serves meanwhile
        workloads[rolledout.name] = rolledout.workload
    latest = resolved.latest
    if latest.name == rolledout.name or workloads[latest.name] == workloads[rolledout.name]:
        latest = rolledout

    shares = _shares(intent, resolved, markers, readiness, rolledout)
    weights = _settled(shares, readiness, rolledout.name)
    targets = [
        Target(
            latest.name,
            workloads[latest.name],
            weights.get(latest.name, 0),
            True,
            _latest_tag(intent, latest, rolledout),
        )
    ]
    middle = interim(intent, resolved, markers, readiness)
    if middle is not None:
        targets.append(Target(middle.name, workloads[middle.name], weights.get(middle.name, 0)))
    if latest is not rolledout:
        targets.append(Target(rolledout.name, workloads[rolledout.name], weights[rolledout.name], tag=TAG_PREVIOUS))
    for canary in intent.canaries:
        revision = resolved.canaries[canary.name]
        targets.append(Target(revision.name, canary.workload, weights.get(revision.name, 0), tag=canary.name))
    return tuple(targets)


def _shares(
    intent: Intent, resolved: Resolved, markers: Markers, readiness: Mapping[str, Readiness], rolledout: Revision
) -> dict[str, int]:
    """What the spec asks for: revision -> percentage."""
    if intent.canaries:
        ready = {
            resolved.canaries[canary.name].name: canary.percent
            for canary in intent.canaries
            if readiness.get(resolved.canaries[canary.name].name) is Readiness.READY
        }
        return {rolledout.name: 100 - sum(ready.values()), **ready}
    percent = intent.percent
    if not intent.splits or percent is None or resolved.latest.name == rolledout.name:
        return {rolledout.name: 100}
    canary = interim(intent, resolved, markers, readiness) or resolved.latest
    return {canary.name: percent, rolledout.name: 100 - percent}


def _settled(shares: Mapping[str, int], readiness: Mapping[str, Readiness], rolledout: str) -> dict[str, int]:
    """The shares moved to those that can serve now, in proportion, in whole percents."""
    able = {name: share for name, share in shares.items() if share > 0 and readiness.get(name) is Readiness.READY}
    if not able:
        able = {rolledout: 100}
    total = sum(able.values())
    weights = {name: 100 * share // total for name, share in able.items()}
    # What rounding down left over goes to the largest, so that nothing small is doubled by it.
    weights[max(able, key=lambda name: (able[name], name))] += 100 - sum(weights.values())
    return {**dict.fromkeys(shares, 0), **weights}


def _latest_tag(intent: Intent, latest: Revision, rolledout: Revision) -> str | None:
    return TAG_LATEST if intent.tag_latest and intent.splits and latest is not rolledout else None
