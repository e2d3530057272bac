"""What the parts of autoscaling.py on kind share: the cluster, the figures, and the services that they make and wait for."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from _figures import Figures
from _kind import GATEWAY_PORT, SYSTEM, Kind, Object

from fairlead.api import names
from fairlead.kube.client import Client

NAMESPACE = "bench"
SOON = {names.SCALE_TO_ZERO_DELAY: "1s", names.STABLE_WINDOW: "4s", names.PANIC_WINDOW: "2s"}
"""So that a benchmark need not wait long for zero."""
PARTS = ("fairlead-operator", "fairlead-gateway")


@dataclass(frozen=True)
class Bench:
    kind: Kind
    client: Client
    figures: Figures
    options: argparse.Namespace

    @property
    def gateway(self) -> int:
        """The gateway's port here."""
        return self.kind.ports[GATEWAY_PORT]

    def make_namespace(self, name: str) -> None:
        """Whatever an earlier run left in it goes first."""
        self.kind.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait", timeout=180)
        self.kind.kubectl("create", "namespace", name)

    def apply(self, *objects: Object, namespace: str = NAMESPACE) -> None:
        self.kind.kubectl("apply", "-n", namespace, "-f", "-", objects=objects)

    def await_ready(self, services: Iterable[str], *, namespace: str = NAMESPACE) -> None:
        wanted = [f"isvc/{name}" for name in services]
        self.kind.kubectl("wait", "-n", namespace, "--for=condition=Ready", *wanted, "--timeout=180s", timeout=200)

    def two_of_everything(self) -> None:
        """As the chart has it by itself."""
        for part in PARTS:
            self.kind.scale(part, 2)

    def await_system(self) -> None:
        for part in PARTS:
            self.kind.kubectl("rollout", "status", "-n", SYSTEM, f"deployment/{part}", "--timeout=120s")


def p99(values: Sequence[float]) -> float:
    """The largest where there are fewer than a hundred."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]
