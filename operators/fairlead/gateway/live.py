"""What the data plane does now with one InferenceService, read from what HAProxy knows. Pure.

The operator asks for each service while it waits, so an answer must not cost more where there are more services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.gateway.plan import split_weights
from fairlead.gateway.routes import ServiceRoutes, Target, Transport
from fairlead.gateway.state import State


def live_routes(service: ServiceRoutes, state: State, lent: Mapping[str, str], conflict: str | None) -> dict[str, Any]:
    """The answer of `/v1/routes/{namespace}/{name}`: what the operator waits for before it says ready, or deletes a workload.

    `lent`: the state's `upstreams` the other way round, an upstream to its backend.
    """
    return {
        "namespace": service.namespace,
        "name": service.name,
        "components": {
            component: {
                "targets": _targets(service, state, lent, f"{service.namespace}/{service.name}/{component}", targets)
            }
            for component, targets in service.components.items()
        },
        "conflict": conflict,
    }


def _targets(
    service: ServiceRoutes, state: State, lent: Mapping[str, str], route: str, wanted: tuple[Target, ...]
) -> list[dict[str, Any]]:
    """The wanted targets with the weights that they have now, then those that still get traffic and should not."""
    percents = _percents(state, route)
    revisions = {target.workload: target.revision for target in wanted}
    return [
        {
            "serviceName": workload,
            "revisionName": revisions.get(workload, ""),
            "percent": percents.get(workload, 0),
            "readyEndpoints": _ready_endpoints(state, lent, service.namespace, workload),
        }
        for workload in [*revisions, *(w for w in percents if w not in revisions)]
    ]


def _percents(state: State, route: str) -> dict[str, int]:
    """By workload. HTTP and gRPC change one after the other: while they differ, a workload has the larger share of the two."""
    percents: dict[str, int] = {}
    for kind in ("http", "grpc"):
        weights = split_weights(state.maps[kind].get(route, ""))
        total = sum(weights.values())
        for backend, weight in weights.items():
            workload = state.maps["upstreams"].get(backend, "//").split("/")[1]
            percents[workload] = max(percents.get(workload, 0), round(100 * weight / total))
    return percents


def _ready_endpoints(state: State, lent: Mapping[str, str], namespace: str, workload: str) -> int:
    """Pods, not ports: a pod that serves HTTP and gRPC counts once."""
    backends: Iterable[str | None] = (lent.get(f"{namespace}/{workload}/{transport}") for transport in Transport)
    return max(sum(slot.admin == "ready" for slot in state.backends.get(b or "", ())) for b in backends)
