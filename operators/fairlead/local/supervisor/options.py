"""What a user may choose for a laptop cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.local.supervisor.home import Home


@dataclass(frozen=True)
class Options:
    home: Home
    files: Sequence[Path] = ()
    port: int = 8080
    ephemeral: bool = False
    fake: bool = False
    """Pods that only pretend: for benchmarks of the control plane."""
