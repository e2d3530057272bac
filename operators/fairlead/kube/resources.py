"""Where each kind lives in the API: the one list of the kinds that Fairlead touches."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and its place: `deployments` of `apps/v1`, namespaced."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests spell it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        """As kubectl and RBAC spell it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """`/apis/apps/v1/namespaces/team-a/deployments/iris/status`; without a namespace, all namespaces."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EVENTS = Resource("", "v1", "events", "Event")

DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS = Resource("batch", "v1", "jobs", "Job")
HORIZONTAL_POD_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

INFERENCE_SERVICES = Resource(
    names.SERVING_GROUP, names.INFERENCE_SERVICE_VERSION, "inferenceservices", "InferenceService"
)
SERVING_RUNTIMES = Resource(names.SERVING_GROUP, names.SERVING_RUNTIME_VERSION, "servingruntimes", "ServingRuntime")
CLUSTER_SERVING_RUNTIMES = Resource(
    names.SERVING_GROUP,
    names.SERVING_RUNTIME_VERSION,
    "clusterservingruntimes",
    "ClusterServingRuntime",
    namespaced=False,
)
CLUSTER_STORAGE_CONTAINERS = Resource(
    names.SERVING_GROUP,
    names.SERVING_RUNTIME_VERSION,
    "clusterstoragecontainers",
    "ClusterStorageContainer",
    namespaced=False,
)

ALL: tuple[Resource, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Resource))

_BY_KIND = {(resource.api_version, resource.kind): resource for resource in ALL}


def resource_for(api_version: str, kind: str) -> Resource:
    """The resource of a manifest; raises LookupError naming the kind if Fairlead does not know it."""
    try:
        return _BY_KIND[api_version, kind]
    except KeyError:
        raise LookupError(f"{kind} of {api_version} is not a kind that Fairlead works with") from None
