"""When a container that ended starts again: restartPolicy and back-off, at a laptop's pace (1 s to 10 s, Kubernetes: 10 s to 5 min)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_DELAY = 1.0
LONGEST_DELAY = 10.0
GOOD_RUN = 10.0
"""Seconds after which a run counts as good and what was before it is forgotten."""

RestartPolicy = Literal["Always", "OnFailure", "Never"]


@dataclass(frozen=True)
class Run:
    """How a container's process did."""

    seconds: float
    was_ready: bool
    exit_code: int


@dataclass(frozen=True)
class Backoff:
    """What earlier runs say about the next start."""

    failures: int = 0

    def after(self, run: Run) -> tuple[Backoff, float]:
        """The next state, and the seconds to wait.

        One that was serving starts again at once: someone killed it, or it met a bad moment. If that happens again before a good run has
        passed, or if it never got as far as serving, it waits 1, 2, 4, 8, 10, 10 … seconds.
        """
        failures = 0 if run.was_ready and run.seconds >= GOOD_RUN else self.failures
        if failures == 0 and run.was_ready:
            return Backoff(1), 0.0
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** max(0, failures - (1 if run.was_ready else 0)))
        return Backoff(failures + 1), delay


def restarts(policy: RestartPolicy, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)
