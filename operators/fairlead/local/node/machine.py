"""What all pods of a node share: the API, the directory, addresses, the clock."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fairlead.kube.objects import Object, utcnow
from fairlead.local.node.addresses import Addresses

if TYPE_CHECKING:
    from fairlead.kube.client import Client

NODE_NAME = "laptop"
CLUSTER_MARK = "FAIRLEAD_CLUSTER"
"""Environment variable of every process below one `fairlead up`: what is left of it can be found."""
CONTAINER_MARK = "FAIRLEAD_CONTAINER"
"""The same for one run of one container."""

EventType = Literal["Normal", "Warning"]
Emit = Callable[[Object, EventType, str, str], None]
"""(object, type, reason, message) -> an Event."""


def silent(obj: Object, kind: EventType, reason: str, message: str) -> None:
    """For a machine that tells nobody."""


@dataclass(frozen=True)
class Machine:
    client: Client
    directory: Path
    addresses: Addresses
    emit: Emit = silent
    python: str = sys.executable
    name: str = NODE_NAME
    environment: Mapping[str, str] = field(default_factory=lambda: inherited(os.environ))
    longest_grace: float = float("inf")
    """Seconds that a pod gets at most to end, whatever its manifest says."""
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = utcnow

    def pod_directory(self, uid: str) -> Path:
        return self.directory / "pods" / uid

    @property
    def claims(self) -> Path:
        return self.directory / "volumes"


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The node's own environment for its pods: tools on PATH, proxies, credentials of the person at the keyboard.

    `python` means the node's own, as it does in our images; and a pod is not an administrator by the accident of where it runs.
    """
    kept = {name: value for name, value in environment.items() if name not in ("KUBECONFIG", "FAIRLEAD_URL")}
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    kept["PYTHONUNBUFFERED"] = "1"
    return kept
