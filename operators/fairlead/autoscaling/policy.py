"""The knobs of one revision's autoscaling. Defaults are Knative's unless a comment says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from fairlead.api import names
from fairlead.autoscaling.behavior import Behavior

DEFAULT_CONCURRENCY = 100.0
"""Requests in flight per replica where neither scaleTarget nor containerConcurrency says otherwise."""
DEFAULT_RPS = 200.0
UTILIZATION = 0.7
"""The share of a replica's capacity that is planned for: 100 in flight at most means one replica for each 70."""
SMALLEST_TARGET = 0.01
LONGEST_DELAY = 600.0
"""Seconds to zero at most, however long a start takes, where nobody has asked for more."""
LONGEST_PATIENCE = names.LONGEST_WAKE_UP - 60.0
"""Seconds that a start may make a wake-up last. Requests that wait are to hear why it has failed, so the gateways hold them for a minute longer."""


class Metric(StrEnum):
    """What a target speaks of: requests in flight, requests a second, or a sum that the model servers export."""

    CONCURRENCY = "concurrency"
    RPS = "rps"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a revision's owner asked for. Times are seconds, `target` is per replica with utilization applied.

    `max_replicas` 0 means no limit. `drain_seconds` is ours: requests that wait are work to be done within it. `warm_replicas` are kept
    beyond what demand needs. `custom` names the metric where it is one of the model servers' own. `scale_to_zero_starts` and `activation_starts` are ours:
    the delay to zero and the patience of a wake-up grow with what a start is seen to take (`delay_to_zero`, `patience`); 0 where their owner has set the seconds.
    """

    metric: Metric = Metric.CONCURRENCY
    custom: str = ""
    target: float = DEFAULT_CONCURRENCY * UTILIZATION
    min_replicas: int = 1
    max_replicas: int = 0
    warm_replicas: int = 0
    stable_window: float = 60.0
    panic_window: float = 6.0
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay: float = 0.0
    scale_to_zero_delay: float = 30.0
    scale_to_zero_starts: float = 5.0
    activation_timeout: float = 120.0
    activation_starts: float = 2.0
    drain_seconds: float = 6.0
    behavior: Behavior = field(default_factory=Behavior)

    def __post_init__(self) -> None:
        if self.target <= 0:
            raise ValueError(f"target: {self.target} per replica: it must be above 0")
        if self.min_replicas < 0 or self.warm_replicas < 0:
            raise ValueError(f"{min(self.min_replicas, self.warm_replicas)} replicas: there cannot be less than none")
        if self.max_replicas and self.min_replicas > self.max_replicas:
            raise ValueError(f"minReplicas {self.min_replicas} and maxReplicas {self.max_replicas} leave no choice")
        if self.panic_window > self.stable_window:
            raise ValueError(
                f"panic window {self.panic_window} s is longer than the stable window {self.stable_window} s"
            )

    @property
    def unit(self) -> str:
        """What a value is counted in, for people."""
        return self.custom or str(self.metric)

    @property
    def least(self) -> int:
        """Fewest replicas, the warm ones among them."""
        return max(self.min_replicas, min(self.warm_replicas, self.max_replicas or self.warm_replicas))

    def delay_to_zero(self, seconds_to_start: float) -> float:
        """Seconds without a sign of life until the last replica goes.

        The longer a start, the dearer is one too many: a model that takes a minute stays for five, and is there for spikes that are three minutes apart.
        """
        return max(self.scale_to_zero_delay, min(LONGEST_DELAY, self.scale_to_zero_starts * seconds_to_start))

    def patience(self, seconds_to_start: float, failures: int) -> float:
        """Seconds until a wake-up has failed: one that took three minutes the last time is not given up after two.

        Nor is one for good of which no start has been seen: each failure in a row doubles the time.
        """
        if not self.activation_starts:
            return self.activation_timeout
        asked = max(self.activation_starts * seconds_to_start, self.activation_timeout * 2.0**failures)
        return max(self.activation_timeout, min(LONGEST_PATIENCE, asked))

    def bounded(self, replicas: int) -> int:
        """`replicas` within [least, max_replicas]."""
        upper = self.max_replicas or replicas
        return max(self.least, min(replicas, upper))


def target_per_replica(
    metric: Metric, scale_target: float | None, container_concurrency: int, utilization: float = UTILIZATION
) -> float:
    """The target to plan with: `max(0.01, capacity * utilization)`, Knative's rule.

    The capacity is scaleTarget, else containerConcurrency (for concurrency), else 100 in flight or 200 requests/s; a
    concurrency above what one container is ever given is no target, so containerConcurrency caps it.
    A custom metric's target is taken as it is: its owner knows what a full replica looks like.
    """
    if metric is Metric.CUSTOM:
        return max(SMALLEST_TARGET, scale_target or 1.0)
    if metric is Metric.RPS:
        return max(SMALLEST_TARGET, (scale_target or DEFAULT_RPS) * utilization)
    capacity = scale_target or float(container_concurrency) or DEFAULT_CONCURRENCY
    if container_concurrency:
        capacity = min(capacity, float(container_concurrency))
    return max(SMALLEST_TARGET, capacity * utilization)
