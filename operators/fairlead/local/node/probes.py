"""Startup, readiness and liveness: a container's probes as one state machine, with the clock passed in.

A probe that has not succeeded yet is asked often (every 50 ms at first, then after 5 % of the time waited so far), whatever its
`periodSeconds`, which cannot be less than 1: on a laptop someone waits for the answer. A failure still counts only once a period, so
`failureThreshold * periodSeconds` stays the time that the manifest grants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

QUICK = 0.05
QUICK_SHARE = 0.05


class Kind(Enum):
    STARTUP = "startupProbe"
    READINESS = "readinessProbe"
    LIVENESS = "livenessProbe"


@dataclass(frozen=True)
class Thresholds:
    """A probe's timing; the defaults are Kubernetes'."""

    initial_delay: float = 0
    period: float = 10
    timeout: float = 1
    success: int = 1
    failure: int = 3

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Thresholds:
        return cls(
            initial_delay=probe.get("initialDelaySeconds", 0),
            period=max(1, probe.get("periodSeconds", 10)),
            timeout=max(1, probe.get("timeoutSeconds", 1)),
            success=max(1, probe.get("successThreshold", 1)),
            failure=max(1, probe.get("failureThreshold", 3)),
        )


@dataclass(frozen=True)
class Probe:
    """One probe's answers so far. `result` is None until a threshold was reached for the first time."""

    thresholds: Thresholds
    since: float
    next_at: float
    result: bool | None = None
    successes: int = 0
    failures: int = 0
    last_counted: float | None = None

    @classmethod
    def begin(cls, thresholds: Thresholds, now: float) -> Probe:
        return cls(thresholds, since=now, next_at=now + thresholds.initial_delay)

    def answered(self, ok: bool, now: float) -> Probe:
        """The probe after an answer at `now`."""
        limits = self.thresholds
        if ok:
            successes = self.successes + 1
            passed = self.result is True or successes >= limits.success
            pause = limits.period if passed else QUICK
            return replace(
                self,
                successes=successes,
                failures=0,
                last_counted=None,
                result=True if passed else self.result,
                next_at=now + pause,
            )
        counts = self.last_counted is None or now - self.last_counted >= limits.period
        failures = self.failures + counts
        failed = failures >= limits.failure
        started_failing = now if self.result is True else self.since
        waiting = self.result is not True or failed
        pause = min(limits.period, max(QUICK, QUICK_SHARE * (now - started_failing))) if waiting else limits.period
        return replace(
            self,
            successes=0,
            failures=failures,
            last_counted=now if counts else self.last_counted,
            result=False if failed else self.result,
            since=started_failing,
            next_at=now + pause,
        )


class Verdict(Enum):
    """What the probes say of a container as a whole."""

    STARTING = "starting"
    NOT_READY = "not ready"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    """Startup or liveness failed for good: the container is to be restarted."""


@dataclass(frozen=True)
class ContainerProbes:
    """All probes of one run of a container. Readiness and liveness are not asked before startup has succeeded."""

    thresholds: Mapping[Kind, Thresholds]
    running: Mapping[Kind, Probe] = field(default_factory=dict)

    @classmethod
    def begin(cls, container: Mapping[str, Any], now: float) -> ContainerProbes:
        thresholds = {kind: Thresholds.of(container[kind.value]) for kind in Kind if container.get(kind.value)}
        probes = cls(thresholds)
        return probes._start([Kind.STARTUP] if Kind.STARTUP in thresholds else [Kind.READINESS, Kind.LIVENESS], now)

    def due(self, now: float) -> list[Kind]:
        return [kind for kind, probe in self.running.items() if probe.next_at <= now]

    def next_at(self) -> float | None:
        """When the next answer is wanted; None if there is nothing to ask."""
        return min((probe.next_at for probe in self.running.values()), default=None)

    def answered(self, kind: Kind, ok: bool, now: float) -> ContainerProbes:
        probe = self.running[kind].answered(ok, now)
        if kind is Kind.STARTUP and probe.result:
            return replace(self, running={})._start([Kind.READINESS, Kind.LIVENESS], now)
        return replace(self, running={**self.running, kind: probe})

    @property
    def verdict(self) -> Verdict:
        startup, readiness, liveness = (
            self.running.get(kind) for kind in (Kind.STARTUP, Kind.READINESS, Kind.LIVENESS)
        )
        if startup is not None:
            return Verdict.UNHEALTHY if startup.result is False else Verdict.STARTING
        if liveness is not None and liveness.result is False:
            return Verdict.UNHEALTHY
        if Kind.READINESS not in self.thresholds or (readiness is not None and readiness.result):
            return Verdict.READY
        return Verdict.NOT_READY

    def _start(self, kinds: list[Kind], now: float) -> ContainerProbes:
        begun = {kind: Probe.begin(self.thresholds[kind], now) for kind in kinds if kind in self.thresholds}
        return replace(self, running={**self.running, **begun})
