"""Where a synchronous predict runs: on the event loop while it is short, in a worker thread otherwise.

A thread hop costs 50-100 us, as much as many a model; a predict on the event loop delays everything else by its own
time. So a model that declares its time to depend on its inputs alone (`Model.compute_bound`) runs inline at the sizes
where it is measured to be quick. Each size class (power of two of the input elements) is measured by itself, first in
the thread, by the thread's CPU time: neither waiting for the interpreter's lock nor a busy or throttled machine, which make
no predict slower by itself, count.
"""

from __future__ import annotations

INLINE_SECONDS = 0.001
"""Longest predict that may run on the event loop: what it may add to another request's latency."""
TRIALS = 3
"""Runs in the thread before a size may run inline."""
FIRST_HOLD = 64
"""Runs in the thread after a size proved slow inline; doubled each time, up to LAST_HOLD."""
LAST_HOLD = 65_536
_WEIGHT = 0.2  # of the newest measurement in the moving average


class _SizeClass:
    __slots__ = ("average", "hold", "next_hold")

    def __init__(self) -> None:
        self.average = 0.0
        self.hold = TRIALS
        self.next_hold = FIRST_HOLD


class Placement:
    """The measured times of one model, by size class, and what follows from them."""

    def __init__(self, *, compute_bound: bool) -> None:
        self._compute_bound = compute_bound
        self._classes: dict[int, _SizeClass] = {}

    def inline(self, elements: int) -> bool:
        """May a predict on so many input elements run on the event loop?"""
        if not self._compute_bound:
            return False
        known = self._classes.get(elements.bit_length())
        return known is not None and known.hold <= 0 and known.average < INLINE_SECONDS

    def measured(self, elements: int, seconds: float, *, inline: bool) -> None:
        """Note the CPU time that a predict took."""
        if not self._compute_bound:
            return
        size = elements.bit_length()
        known = self._classes.get(size)
        if known is None:
            known = self._classes[size] = _SizeClass()
        known.average = seconds if known.average == 0.0 else known.average + _WEIGHT * (seconds - known.average)
        if not inline:
            known.hold -= 1
        elif known.average >= INLINE_SECONDS:
            known.hold = known.next_hold
            known.next_hold = min(2 * known.next_hold, LAST_HOLD)
