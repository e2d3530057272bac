"""Durations as annotations give them."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d{1,6}(?:\.\d+)?)(ms|s|m|h)")
_BARE = re.compile(r"\d{1,6}(?:\.\d+)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float | None:
    """Seconds, of a text such as 30, 30s, 1.5m or Go's 1h15m; None if it is no duration."""
    text = text.strip()
    if _BARE.fullmatch(text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
