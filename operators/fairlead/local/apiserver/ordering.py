"""The order of two lists of keys put together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def interleave(live: Sequence[K], wanted: Sequence[K]) -> list[K]:
    """All keys once: `wanted` in its order, each key that only `live` has just after what precedes it there.

    >>> interleave(["a", "x", "b"], ["b", "a", "c"])
    ['b', 'a', 'x', 'c']
    """
    named = set(wanted)
    followers: dict[K | None, list[K]] = {}
    leader: K | None = None
    for key in dict.fromkeys(live):
        if key in named:
            leader = key
        else:
            followers.setdefault(leader, []).append(key)
    result = followers.get(None, [])
    for key in dict.fromkeys(wanted):
        result.append(key)
        result.extend(followers.get(key, ()))
    return result
