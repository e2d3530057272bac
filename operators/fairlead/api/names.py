"""The one place for the names that parts agree on: groups, ports, labels, annotations, hosts.

Pure strings and functions of strings; no third-party imports, so that every part, the model server too, can afford it.
"""

from __future__ import annotations

import re

VERSION = "0.1.0"
"""Of Fairlead, as in pyproject.toml: images carry the code without the package's metadata."""

# --- API groups -------------------------------------------------------------------------------------------------

SERVING_GROUP = "serving.kserve.io"
INFERENCE_SERVICE_VERSION = "v1beta1"
SERVING_RUNTIME_VERSION = "v1alpha1"
FAIRLEAD_GROUP = "fairlead.dev"

# --- Ports ------------------------------------------------------------------------------------------------------

HTTP_PORT = 8080
"""A model server's REST port (KServe's)."""
GRPC_PORT = 8081
"""A model server's gRPC port (KServe's)."""
SERVICE_PORT = 80
"""The port of a component's Service; it leads to the first container port."""
GATEWAY_PORT = 8080
"""HTTP/1.1, HTTP/2 and h2c gRPC, one port."""
GATEWAY_AGENT_PORT = 9901
"""The agent's own port: /healthz, /readyz, /metrics, /v1/routes."""
OPERATOR_PORT = 9902
"""The operator's own port: /healthz, /readyz, /metrics, /v1/autoscaling."""
RAY_PORT = 6379
"""The port of a Ray's head, where workers join."""
H2C_APP_PROTOCOL = "kubernetes.io/h2c"
"""`appProtocol` of a Service port that speaks HTTP/2 without TLS: gRPC."""

# --- Field managers ---------------------------------------------------------------------------------------------

OPERATOR = "fairlead-operator"
"""Field manager of all that the operator applies, and its Lease's name."""

# --- Containers -------------------------------------------------------------------------------------------------

PREDICTOR_CONTAINER = "kserve-container"
TRANSFORMER_CONTAINER = "transformer-container"
WORKER_CONTAINER = "worker-container"
RAY_NODE_COUNT_ENV = "RAY_NODE_COUNT"
"""KServe's: of how many pods the predictor is made."""
HEAD_SERVICE_ENV = "HEAD_SVC"
"""KServe's: the Service that leads workers to their head; the head has none."""
RAY_TOKEN_ENV = "RAY_AUTH_TOKEN"  # noqa: S105 - the name, not the token
"""Ray's."""
STORAGE_INITIALIZER_CONTAINER = "storage-initializer"
MODEL_DIR = "/mnt/models"
RELATIVE_URIS = ("./", "../")
"""How a storageUri begins that is meant from its manifest on. Only who reads the file knows where that is, so it gets no further."""
STORAGE_URI_ENV = "STORAGE_URI"
"""The model's address, for a container that fetches it by itself (ours, and custom ones that ask for it)."""

FETCH_ENV_PREFIX = "FAIRLEAD_FETCH_"
"""Of variables that only the process which fetches the model may see. With a number behind it: what one Secret holds."""
FETCH_KEY_NAMES_ENV = FETCH_ENV_PREFIX + "KEY_NAMES"
"""JSON: what an installation calls keys of such Secrets, where that is not the usual name."""
STORAGE_SPEC_PLACEHOLDER = "<scheme-placeholder>://"
"""How the address of `storage.path` begins, as in KServe: the entry of the storage Secret says which scheme, and which bucket, it stands for."""

MODEL_CACHE_ENV = "FAIRLEAD_MODEL_CACHE"
"""A directory in which fetched models stay, for whoever fetches next."""
MODEL_CACHE_LIMIT_ENV = "FAIRLEAD_MODEL_CACHE_LIMIT"
"""What it may take, such as 20Gi."""

# --- Labels -----------------------------------------------------------------------------------------------------

LABEL_INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
LABEL_COMPONENT = "component"
LABEL_APP = "app"
LABEL_VISIBILITY = "networking.kserve.io/visibility"
CLUSTER_LOCAL = "cluster-local"
LABEL_REVISION = "fairlead.dev/revision"
"""On pods (the revision that the pod runs) and ControllerRevisions."""
LABEL_WORKLOAD = "fairlead.dev/workload"
"""On pods, Services and EndpointSlices: the Deployment's name, which is the Service's too."""

LABEL_ROLE = "fairlead.dev/role"
"""On pods of a predictor over several pods, and their Deployments: `head` or `worker`."""

LABEL_DIGEST = "fairlead.dev/digest"
"""On ControllerRevisions: the digest of all that the revision's pods are made of."""

# --- Annotations: KServe's --------------------------------------------------------------------------------------

DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
SCALE_METRIC = "serving.kserve.io/metric"
TARGET_UTILIZATION = "serving.kserve.io/targetUtilizationPercentage"
ENABLE_TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
STOP = "serving.kserve.io/stop"

# --- Annotations: ours ------------------------------------------------------------------------------------------

STORAGE_MODE = "fairlead.dev/storage"
"""On a ServingRuntime, or an InferenceService of custom containers: `runtime` if the container fetches STORAGE_URI by itself; otherwise an
init container does. On an InferenceService, `init` asks for the init container also where the runtime could fetch."""
STORAGE_READ_ONLY = "storage.kserve.io/readonly"
"""On an InferenceService: `"false"` lets its containers write where the model lies."""
CRD_VERSION = "fairlead.dev/version"
"""On a CustomResourceDefinition: the version of Fairlead that it is of."""
ALIASES = "fairlead.dev/aliases"
"""On a runtime that comes with Fairlead: names of KServe's under which an installation offers it too, separated by commas."""
TIMEOUT = "fairlead.dev/timeout"
"""On a workload's Service, for the gateway: seconds a request may take."""
CONTAINER_CONCURRENCY = "fairlead.dev/container-concurrency"
"""On a workload's Service, for the gateway: requests that one pod may be given at a time."""
APPLIED = "fairlead.dev/applied"
"""On what the operator applies: the digest of what it last applied, so that it applies nothing twice."""
MIN_REPLICAS = "fairlead.dev/min-replicas"
"""On a Deployment: the minReplicas it was last scaled by, so that `kubectl scale` holds until that changes."""
PROVEN = "fairlead.dev/proven-revision"
"""On a Deployment that may be at zero: the revision whose pods have been ready, and which therefore can wake up."""
READINESS = "fairlead.dev/readiness"
"""On a workload's Service, for the gateway: `PORT/PATH` that answers 2xx when a pod is ready, or `PORT` that can be connected to."""
SCALE_TO_ZERO_DELAY = "fairlead.dev/scale-to-zero-delay"
"""On an InferenceService, as the four below, a duration such as 30, 30s or 5m: how long nothing asks before the last pod goes."""
SCALE_DOWN_DELAY = "fairlead.dev/scale-down-delay"
"""For how long the highest recommendation holds on the way down."""
STABLE_WINDOW = "fairlead.dev/stable-window"
"""The time over which demand is averaged."""
PANIC_WINDOW = "fairlead.dev/panic-window"
"""The time over which a sudden rise is."""
WARM_REPLICAS = "fairlead.dev/warm-replicas"
"""On an InferenceService: how many replicas are kept ready beyond what demand needs."""
SCALED_OBJECT = "fairlead.dev/scaled-object"
"""On a Deployment for which a ScaledObject of KEDA's is wanted: `"true"`."""
ACTIVATION_TIMEOUT = "fairlead.dev/activation-timeout"
"""How long a wake-up from zero may take. Also on the workload's Service, in seconds, for the gateway: requests wait as long."""
LONGEST_WAKE_UP = 600.0
"""Seconds for which the gateways hold requests while the operator says that a wake-up goes on, however short the timeout above: pods may wait for a node."""
ALLOW_PICKLE = "fairlead.dev/allow-pickle"
"""On an InferenceService or its namespace: `"true"` lets the model server unpickle model files."""
ALLOW_PICKLE_ENV = "FAIRLEAD_ALLOW_PICKLE"
"""How the model server is told so: `true`."""
MAX_BATCH_SIZE_ENV = "FAIRLEAD_MAX_BATCH_SIZE"
"""How the model server is told of `batcher.maxBatchSize`: rows predicted together at most."""
LOGGER_ENV = "FAIRLEAD_LOGGER"
"""How the model server is told of `logger`: JSON with `url`, `mode`, `inferenceService`, `namespace`, `component`, `metadataHeaders` and `annotations`."""
STORAGE_MIRRORS_ENV = "FAIRLEAD_STORAGE_MIRRORS"
"""What whoever fetches a model is told of mirrors: rules `PREFIX -> REPLACEMENT`, one a line or separated by `;`."""

# --- Hosts ------------------------------------------------------------------------------------------------------

NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_RE = re.compile(NAME_PATTERN)
MAX_NAME_LENGTH = 40
"""Of an InferenceService: `{name}-transformer-{revision}`, with a revision of 10 characters, is a Service and has at most 63."""
DEFAULT_DOMAIN = "example.com"
PATH_PREFIX = "/serving"
"""`/serving/{namespace}/{name}/…` reaches the service, `/serving/{namespace}/{name}.{component}/…` one component of it."""


def host(name: str, namespace: str, domain: str, component: str | None = None, tag: str | None = None) -> str:
    """The external host: `{name}-{ns}.{domain}`, `{name}-predictor-{ns}.{domain}`, `prev-{name}-predictor-{ns}.{domain}`."""
    first = name if component is None else f"{name}-{component}"
    if tag is not None:
        first = f"{tag}-{first}"
    return f"{first}-{namespace}.{domain}"


def cluster_host(name: str, namespace: str, component: str = "predictor") -> str:
    """The in-cluster host of a component: `{name}-predictor.{ns}.svc.cluster.local`."""
    return f"{name}-{component}.{namespace}.svc.cluster.local"


def path(name: str, namespace: str, component: str | None = None) -> str:
    """The path prefix under which the gateway serves it, without a trailing slash."""
    return f"{PATH_PREFIX}/{namespace}/{name}" + (f".{component}" if component else "")
