"""What fails under a steady load on a kind cluster when pods go and weights move."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from _figures import Figures
from _kind import GATEWAY_PORT, PLAIN_PORT, SYSTEM, Kind, Unmeasurable
from _kind_model import BODY, NAMESPACE, PODS, PREDICT, THROUGH, answer, fast
from _kind_serving import serve
from _load import http_request
from _steady import Outcome, Steady

from fairlead.api import names
from fairlead.kube.conditions import is_true

RATE = 300.0
CALM = 2.0
"""Seconds of load before something happens, and after it is over."""
COUNTED = 10.0
"""Seconds over which a split is counted."""
PATIENCE = 90.0
GATEWAY = "app.kubernetes.io/name=fairlead-gateway"
POST = http_request(f"{THROUGH}{PREDICT}", BODY)
GET = f"GET {THROUGH}/v1/models/fast HTTP/1.1\r\nHost: bench\r\n\r\n".encode()
"""HTTP lets anyone send a GET again; a POST only if the server has not taken it."""
BINOMIAL_99 = 2.576


def measure_pods(kind: Kind, figures: Figures) -> None:
    """One of two model pods goes: deleted, or its process killed."""
    direct = http_request(PREDICT, BODY)

    def delete(name: str) -> None:
        kind.kubectl("delete", "pod", kind.pods(NAMESPACE, PODS[name])[0]["metadata"]["name"], "-n", NAMESPACE)

    def kill() -> None:
        kind.kill_container(kind.pods(NAMESPACE, PODS["fast"])[0], names.PREDICTOR_CONTAINER)
        time.sleep(CALM)

    for fresh, connections in ((False, "kept"), (True, "new")):
        serve(kind, replicas=2)
        title = f"plain pod of two deleted, {connections} connections"
        outcome = _under_load(kind, title, PLAIN_PORT, direct, lambda: delete("plain"), fresh=fresh)
        figures.add(title, len(outcome.failures), "failed")
        serve(kind, replicas=2)
        title = f"model pod of two deleted, {connections} connections"
        outcome = _under_load(kind, title, GATEWAY_PORT, POST, lambda: delete("fast"), fresh=fresh)
        figures.add(title, len(outcome.failures), "failed", goal=0)
    for method, request, goal in (("GET", GET, 0), ("POST", POST, None)):
        serve(kind, replicas=2)
        title = f"SIGKILL to a model of two, {method}"
        outcome = _under_load(kind, title, GATEWAY_PORT, request, kill)
        figures.add(title, len(outcome.failures), "failed", goal=goal)


def measure_gateways(kind: Kind, figures: Figures) -> None:
    """A gateway pod is deleted: the only one, or one of two."""
    serve(kind, replicas=1)
    for replicas, goal in ((1, 5), (2, 0)):
        for fresh, connections in ((False, "kept"), (True, "new")):
            kind.scale("fairlead-gateway", replicas)
            time.sleep(CALM)  # until every node knows of all of them

            def delete(replicas: int = replicas) -> None:
                name = kind.pods(SYSTEM, GATEWAY)[0]["metadata"]["name"]
                kind.kubectl("delete", "pod", name, "-n", SYSTEM, "--timeout=110s")
                kind.kubectl("rollout", "status", "-n", SYSTEM, "deployment/fairlead-gateway", "--timeout=90s")

            title = f"gateway pod of {replicas} deleted, {connections} connections"
            outcome = _under_load(kind, title, GATEWAY_PORT, POST, delete, fresh=fresh)
            figures.add(title, len(outcome.failures), "failed", goal=goal)
            figures.add(f"{title}: without an answer", outcome.hanging, "requests", goal=0)
            figures.add(f"{title}: slowest answer", outcome.slowest, "s")
    kind.scale("fairlead-gateway", 1)


def measure_weights(kind: Kind, figures: Figures) -> None:
    """A canary's weight goes 0 -> 20 -> 100 and back to 0 under load."""
    serve(kind, replicas=1)
    failed = 0
    with Steady(kind.ports[GATEWAY_PORT], POST, RATE) as load:
        time.sleep(CALM)
        for percent in (0, 20, 100, 0):
            _move(kind, percent)
            failed += len(_told(f"weight to {percent}", load.take()).failures)
            time.sleep(COUNTED if percent == 20 else CALM)
            outcome = _told(f"weight at {percent}", load.take())
            failed += len(outcome.failures)
            if percent == 20:
                figures.add("weight at 20 %: distance from it", _distance(outcome, 0.2), "std errors", goal=BINOMIAL_99)
    figures.add("weights 0 -> 20 -> 100 -> 0 under load", failed, "failed", goal=0)
    kind.kubectl("delete", "isvc", "fast", "-n", NAMESPACE)


def _move(kind: Kind, percent: int) -> None:
    """Returns when the status says that the weight is in effect."""
    kind.apply(fast(kind, version=2, percent=percent))
    deadline = time.monotonic() + PATIENCE
    while not _in_effect(kind.get("isvc", "fast", "-n", NAMESPACE), percent):
        if time.monotonic() > deadline:
            raise Unmeasurable(f"the weight is not {percent} after {PATIENCE:.0f} s")
        time.sleep(0.1)


def _in_effect(service: Any, percent: int) -> bool:
    status = service.get("status", {})
    traffic = status["components"]["predictor"]["traffic"]
    latest = sum(item["percent"] for item in traffic if item["latestRevision"])
    spoken_of = status.get("observedGeneration") == service["metadata"]["generation"]
    return spoken_of and latest == percent and is_true(status["conditions"], "Ready")


def _distance(outcome: Outcome, share: float) -> float:
    """Of the new version's answers from its share, in standard errors of a binomial distribution."""
    total, seen = sum(outcome.answers.values()), outcome.answers[answer(2)]
    return abs(seen - share * total) / math.sqrt(total * share * (1 - share))


def _under_load(
    kind: Kind, title: str, port: int, request: bytes, event: Callable[[], None], *, fresh: bool = False
) -> Outcome:
    with Steady(kind.ports[port], request, RATE, fresh=fresh) as load:
        time.sleep(CALM)
        event()
        time.sleep(CALM)
    return _told(title, load.outcome)


def _told(title: str, outcome: Outcome) -> Outcome:
    print(f"  {title}: {outcome.summary()}", flush=True)
    return outcome
