"""Ages as `kubectl` prints them."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def since(timestamp: Any, now: float) -> str:
    try:
        return duration(now - datetime.fromisoformat(str(timestamp)).timestamp())
    except ValueError:
        return "<invalid>"


def duration(seconds: float) -> str:
    """Kubernetes' HumanDuration: two units at most, the second only while it matters."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 120:
        return f"{max(s, 0)}s"
    m, h, d = s // 60, s // 3600, s // 86400
    if m < 10:
        return f"{m}m{s % 60}s" if s % 60 else f"{m}m"
    if m < 180:
        return f"{m}m"
    if h < 8:
        return f"{h}h{m % 60}m" if m % 60 else f"{h}h"
    if h < 48:
        return f"{h}h"
    if d < 8:
        return f"{d}d{h % 24}h" if h % 24 else f"{d}d"
    if d < 730:
        return f"{d}d"
    if d < 2920:
        return f"{d // 365}y{d % 365}d" if d % 365 else f"{d // 365}y"
    return f"{d // 365}y"
