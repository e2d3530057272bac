"""What services may refer to: ServingRuntimes and ClusterStorageContainers, parsed once for each version, and their namespace's word on pickle."""

from __future__ import annotations

import logging
from typing import TypeVar

from fairlead.api import names
from fairlead.api.errors import InvalidObject
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.servingruntime import ClusterServingRuntime, ServingRuntime
from fairlead.api.storagecontainer import ClusterStorageContainer
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.desired import Runtimes
from fairlead.kube.objects import Key, Object, key_of, resource_version
from fairlead.kube.resources import CLUSTER_SERVING_RUNTIMES, CLUSTER_STORAGE_CONTAINERS, NAMESPACES, SERVING_RUNTIMES

log = logging.getLogger(__name__)

Parsed = ServingRuntime | ClusterServingRuntime | ClusterStorageContainer
R = TypeVar("R", ServingRuntime, ClusterServingRuntime, ClusterStorageContainer)


class Catalogue:
    def __init__(self, cluster: Cluster, *, namespaces: bool = True, allow_pickle: bool = False) -> None:
        """`namespaces`: whether Namespaces may be read; an operator of one namespace may not."""
        self._cluster = cluster
        self._namespaces = namespaces
        self._allow_pickle = allow_pickle
        self._parsed: dict[tuple[str, Key], tuple[str, Parsed | None]] = {}

    def runtimes(self, namespace: str) -> Runtimes:
        namespaced = [self._read(ServingRuntime, obj) for obj in self._cluster.list(SERVING_RUNTIMES, namespace)]
        cluster = [self._read(ClusterServingRuntime, obj) for obj in self._cluster.list(CLUSTER_SERVING_RUNTIMES)]
        return Runtimes([r for r in namespaced if r is not None], [r for r in cluster if r is not None])

    def storage_containers(self) -> list[ClusterStorageContainer]:
        found = [self._read(ClusterStorageContainer, obj) for obj in self._cluster.list(CLUSTER_STORAGE_CONTAINERS)]
        return [container for container in found if container is not None]

    def allows_pickle(self, isvc: InferenceService) -> bool:
        """The service's own annotation, else its namespace's, else the installation's."""
        told = isvc.metadata.annotations.get(names.ALLOW_PICKLE)
        if told is None and self._namespaces:
            namespace = self._cluster.get(NAMESPACES, Key("", isvc.metadata.namespace or ""))
            told = ((namespace or {}).get("metadata", {}).get("annotations") or {}).get(names.ALLOW_PICKLE)
        return self._allow_pickle if told is None else told == "true"

    def _read(self, kind: type[R], obj: Object) -> R | None:
        place, version = (kind.__name__, key_of(obj)), resource_version(obj)
        known = self._parsed.get(place)
        if known is None or known[0] != version:
            try:
                known = (version, kind.parse(obj))
            except InvalidObject as error:
                # One bad object must not keep all others from everyone; a service that names it is told that it is not there.
                log.warning("ignored: %s", error)
                known = (version, None)
            self._parsed[place] = known
        parsed = known[1]
        return parsed if isinstance(parsed, kind) else None
