"""What two parts of the operator tell each other: which workloads demand scales, by which policy, and what was decided last.

It is kept in memory only. After a restart the controller's first reconciles fill it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fairlead.api.base import Open
from fairlead.autoscaling import Mode, Policy
from fairlead.controllers.autoscaler.scraping import Scrape
from fairlead.kube.objects import Key, Object, timestamp

KEPT_STARTS = 8
"""Revisions of a service of which the start is remembered."""


@dataclass(frozen=True)
class Scaled:
    """A workload whose replicas follow demand."""

    owner: Object
    """The InferenceService, for events."""
    revision: str
    policy: Policy
    scrape: Scrape | None = None
    """Where its own metric is read, if it scales by one."""


@dataclass(frozen=True)
class Outcome:
    """A decision as the status tells it, taken down when the replicas or the mode changed."""

    desired: int
    mode: Mode
    metric: str
    value: float
    target: float
    reason: str
    last_scale: datetime | None = None

    def status(self) -> Open:
        found: Open = {
            "desired": self.desired,
            "mode": str(self.mode),
            "metric": self.metric,
            "value": round(self.value, 2),
            "target": round(self.target, 2),
            "reason": self.reason,
        }
        if self.last_scale is not None:
            found["lastScaleTime"] = timestamp(self.last_scale)
        return found


@dataclass(frozen=True)
class Start:
    """What one pod's start was made of; see `starts`."""

    pod: str
    at: str
    """When it was ready."""
    seconds: Mapping[str, float]
    """By phase, of those that are known."""

    def status(self) -> Open:
        phases = {phase: round(seconds, 2) for phase, seconds in self.seconds.items()}
        return {
            "pod": self.pod,
            "readyTime": self.at,
            "seconds": round(sum(self.seconds.values()), 2),
            "phases": phases,
        }


class Board:
    def __init__(self) -> None:
        self._scaled: dict[Key, dict[str, Scaled]] = {}
        self._outcomes: dict[Key, Outcome] = {}
        self._starts: dict[Key, dict[str, Start]] = {}

    def plan(self, service: Key, workloads: Mapping[str, Scaled]) -> None:
        """All of the service's workloads that demand scales; none takes the service off the board."""
        for gone in self._scaled.get(service, {}).keys() - workloads.keys():
            self._outcomes.pop(Key(service.namespace, gone), None)
        if workloads:
            self._scaled[service] = dict(workloads)
        else:
            self._scaled.pop(service, None)

    def scaled(self) -> dict[Key, Scaled]:
        """By the workload's namespace and name."""
        return {
            Key(service.namespace, name): scaled
            for service, workloads in self._scaled.items()
            for name, scaled in workloads.items()
        }

    def of(self, service: Key) -> Mapping[str, Scaled]:
        """By the workload's name."""
        return self._scaled.get(service, {})

    def decided(self, workload: Key, outcome: Outcome) -> None:
        self._outcomes[workload] = outcome

    def outcome(self, workload: Key) -> Outcome | None:
        return self._outcomes.get(workload)

    def started(self, service: Key, revision: str, start: Start) -> None:
        known = self._starts.setdefault(service, {})
        known.pop(revision, None)
        known[revision] = start
        while len(known) > KEPT_STARTS:
            del known[next(iter(known))]

    def starts(self, service: Key) -> Mapping[str, Start]:
        """The latest of each revision that has been measured."""
        return self._starts.get(service, {})

    def all_starts(self) -> Mapping[Key, Mapping[str, Start]]:
        return self._starts

    def forget(self, service: Key) -> None:
        """It is gone."""
        self.plan(service, {})
        self._starts.pop(service, None)
