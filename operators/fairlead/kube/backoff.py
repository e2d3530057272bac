"""How long to wait before trying again: doubled for each failure in a row, up to a cap, and spread at random."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """`base`, twice that, four times … up to `cap` seconds; then up to `jitter` of it less.

    The spread is downwards so that `cap` is a promise, and so that many waiters do not come back together.
    """

    base: float
    cap: float
    jitter: float = 0.2

    def delay(self, failures: int, rand: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1 is the first); `rand` gives [0, 1)."""
        # 2**63 s is beyond any cap; larger exponents would overflow a float.
        full = min(self.cap, self.base * 2.0 ** min(max(failures - 1, 0), 63))
        return full * (1 - self.jitter * rand())
