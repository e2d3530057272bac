"""The pod template of a component: the runtime's container and the user's fields made one, with storage, probes and a graceful end.

`inputs` is everything that a template is made from; its digest is what tells revisions apart. Templates themselves are not compared: an operator
that renders them a little differently after an upgrade restarts nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import orjson

from fairlead.api import names
from fairlead.api.base import Metadata, Open
from fairlead.api.component import ComponentFields, with_default_resources
from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec
from fairlead.controllers.inferenceservice.merging import merged
from fairlead.controllers.inferenceservice.multinode import worker_inputs
from fairlead.controllers.inferenceservice.payloads import payload_logging
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.podstorage import is_ours, storage_inputs, stored
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.templates import expand

PRE_STOP_SECONDS = 2
"""Between a pod's leaving its Service and its SIGTERM: the gateways, which learn of it in well under a second, have moved on by then."""
DRAIN_MARGIN_SECONDS = 15
"""What a pod gets to end, beyond the longest request that it may still be answering."""
LOAD_SECONDS = 3600
"""How long a model may load before its liveness probe counts."""
_CALLERS = ("transformer", "explainer")
"""Components that call the predictor."""
READY_PATH = "/v2/health/ready"
"""Ours are ready when all of their models are; it does not matter which name `--model_name` has given the model."""

_NOT_OF_THE_POD = frozenset(
    [
        "name",
        "minReplicas",
        "maxReplicas",
        "scaleTarget",
        "scaleMetric",
        "scaleMetricType",
        "autoScaling",
        "containerConcurrency",
        "timeout",
        "canaryTrafficPercent",
        "logger",
        "batcher",
        "deploymentStrategy",
    ]
)
_STEERING_ANNOTATIONS = (
    "kubectl.kubernetes.io/",
    "serving.kserve.io/",
    "networking.kserve.io/",
    "fairlead.dev/",
    "autoscaling.knative.dev/",
)
"""By these users steer the service; its pods are not described by them, and not replaced when they change."""
_STEERING_LABELS = ("networking.kserve.io/", "networking.knative.dev/", "fairlead.dev/")
_NO_PODS_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration", "autoscaling.knative.dev/")
"""What a component's own annotations may hold because someone copied them, and KServe keeps from pods too."""


def labels_of(isvc: Metadata, fields: ComponentFields) -> dict[str, str]:
    """The user's labels that Deployments and pods get as well."""
    return {**_without(_STEERING_LABELS, isvc.labels), **(fields.labels or {})}


def annotations_of(isvc: Metadata, fields: ComponentFields) -> dict[str, str]:
    """The user's annotations that Deployments and pods get as well."""
    own = _without(_NO_PODS_ANNOTATIONS, fields.annotations or {})
    return {**_without(_STEERING_ANNOTATIONS, isvc.annotations), **own}


def _without(prefixes: tuple[str, ...], entries: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entries.items() if not key.startswith(prefixes)}


def inputs(source: PodSource, settings: Settings) -> Open:
    metadata = source.isvc.metadata
    runtime = source.runtime
    found: Open = {
        "fields": {key: value for key, value in source.fields.to_dict().items() if key not in _NOT_OF_THE_POD},
        "labels": _without(_STEERING_LABELS, metadata.labels),
        "annotations": _without(_STEERING_ANNOTATIONS, metadata.annotations),
    }
    if runtime is not None:
        found["runtime"] = {
            "name": runtime.metadata.name,
            "storage": runtime.metadata.annotations.get(names.STORAGE_MODE),
            "pod": runtime.spec.pod_fields(),
            "labels": runtime.spec.labels,
            "annotations": runtime.spec.annotations,
        }
    if workers := worker_inputs(source):
        found["workers"] = workers
    if source.kind in _CALLERS:
        found["predictorHost"] = _predictor_host(source.isvc, settings)
    if source.allow_pickle:
        found["allowPickle"] = True
    if source.fields.batcher is not None:
        found["maxBatchSize"] = source.fields.batcher.effective_max_batch_size()
    if logged := payload_logging(source):
        found["logger"] = logged
    if stored_by := storage_inputs(source):
        found["storage"] = stored_by
    return found


def digest(found: Open) -> str:
    return hashlib.sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def pod_template(source: PodSource, settings: Settings) -> Open:
    """`metadata` and `spec` of the pods, without the labels that tell one workload from another. Raises SpecError."""
    spec, main = _model_pod(source) if source.model is not None else _custom_pod(source)
    provided = stored(source, main, settings)
    env = [*provided.env, *({"name": name, "value": value} for name, value in _told(source).items())]
    added = {"env": env, "volumeMounts": [*provided.mounts, *provided.own_mounts]}
    main = merged(main, {field: entries for field, entries in added.items() if entries})
    if provided.env_from:
        main["envFrom"] = [*main.get("envFrom", []), *provided.env_from]
    if source.kind in _CALLERS:
        main = _with_callers_args(main, source.isvc, settings)
    main = _with_defaults(main, READY_PATH if is_ours(source) else None)
    others = [_for_neighbour(c, list(provided.mounts)) for c in spec["containers"] if c["name"] != main["name"]]
    spec = {**spec, "containers": [main, *others]}
    if provided.volumes:
        spec["volumes"] = [*spec.get("volumes", []), *provided.volumes]
    if provided.init_containers:
        spec["initContainers"] = [*provided.init_containers, *spec.get("initContainers", [])]
    if is_ours(source):
        # It has nothing to ask the API server, and a kubelet takes 0.3 s and more until the token is mounted.
        spec.setdefault("automountServiceAccountToken", False)
    longest = source.fields.effective_timeout()
    spec.setdefault("terminationGracePeriodSeconds", max(30, PRE_STOP_SECONDS + longest + DRAIN_MARGIN_SECONDS))
    return {"metadata": _metadata(source), "spec": spec}


def _told(source: PodSource) -> dict[str, str]:
    """What the model server learns from its environment. One that is not Fairlead's does not read it."""
    told = {}
    if source.allow_pickle:
        told[names.ALLOW_PICKLE_ENV] = "true"
    if source.fields.batcher is not None:
        told[names.MAX_BATCH_SIZE_ENV] = str(source.fields.batcher.effective_max_batch_size())
    if logged := payload_logging(source):
        told[names.LOGGER_ENV] = orjson.dumps(logged, option=orjson.OPT_SORT_KEYS).decode().replace("$", "$$")
    return told


def _model_pod(source: PodSource) -> tuple[Open, Open]:
    model, runtime = source.model, source.runtime
    if model is None or runtime is None:
        raise InvalidPredictorSpec("a model needs a runtime")
    ours = runtime.spec.main_container()
    main = merged(ours.container_fields(), model.container_fields())
    main["name"] = ours.name or names.PREDICTOR_CONTAINER
    if model.runtime_version and "image" not in model.container_fields():
        main["image"] = _with_tag(main.get("image", ""), model.runtime_version)
    main["resources"] = with_default_resources(main.get("resources"))
    pod = {**runtime.spec.pod_fields()}
    pod["containers"] = [{**c, "name": c.get("name") or names.PREDICTOR_CONTAINER} for c in pod["containers"]]
    spec = expand(merged(pod, source.fields.pod_fields()), source.isvc.metadata)
    return spec, expand(main, source.isvc.metadata)


def _custom_pod(source: PodSource) -> tuple[Open, Open]:
    container = source.fields.main_container()
    if container is None:
        raise InvalidPredictorSpec(f"the {source.kind} has no containers")
    main = {"name": names.PREDICTOR_CONTAINER, **container.container_fields()}
    main["resources"] = with_default_resources(main.get("resources"))
    spec = source.fields.pod_fields()
    spec["containers"] = [{"name": names.PREDICTOR_CONTAINER, **c} for c in spec["containers"]]
    return spec, main


def _predictor_host(isvc: InferenceService, settings: Settings, *, grpc: bool = False) -> str:
    name, namespace = isvc.metadata.name, isvc.metadata.namespace or "default"
    if grpc:  # its addresses have no path: to the pods themselves, at port 80 if that leads to a gRPC port
        container = isvc.spec.predictor.main_container()
        ports = (container.ports if container else None) or [{}]
        port = "" if ports[0].get("name", "").startswith(("h2c", "grpc")) else f":{names.GRPC_PORT}"
        return f"{name}-predictor.{namespace}{port}"
    if settings.gateway_address:
        return settings.gateway_address + names.path(name, namespace, "predictor")
    return f"{name}-predictor.{namespace}"


def _with_callers_args(main: Open, isvc: InferenceService, settings: Settings) -> Open:
    """KServe's arguments, each only where the user has not given it."""
    given = main.get("args", [])
    grpc = any(arg.startswith(("grpc", "--predictor_protocol=grpc")) for arg in given)
    wanted = {
        "--model_name": isvc.metadata.name,
        "--predictor_host": _predictor_host(isvc, settings, grpc=grpc),
        "--http_port": str(main["ports"][0]["containerPort"] if main.get("ports") else names.HTTP_PORT),
    }
    missing = [
        part
        for flag, value in wanted.items()
        if not any(arg == flag or arg.startswith(f"{flag}=") for arg in given)
        for part in (flag, value)
    ]
    return {**main, "args": [*given, *missing]}


def _with_defaults(main: Open, ready_path: str | None) -> Open:
    """Ports, probes, an end that loses no request, and a termination message that says why it failed; the user's own stay."""
    main = {"terminationMessagePolicy": "FallbackToLogsOnError", **main}
    main["ports"] = main.get("ports") or [{"containerPort": names.HTTP_PORT, "protocol": "TCP"}]
    if "readinessProbe" not in main:
        port = main["ports"][0]["containerPort"]
        check: Open = {"httpGet": {"path": ready_path, "port": port}} if ready_path else {"tcpSocket": {"port": port}}
        main["readinessProbe"] = {**check, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 3}
    if "livenessProbe" in main and "startupProbe" not in main:
        # Else a model that loads slowly is killed for it.
        main["startupProbe"] = {**main["readinessProbe"], "periodSeconds": 1, "failureThreshold": LOAD_SECONDS}
        main["startupProbe"].pop("successThreshold", None)
    main["lifecycle"] = {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}, **main.get("lifecycle", {})}
    return main


def _for_neighbour(container: Open, mounts: list[Open]) -> Open:
    """Another container of the pod; a transformer beside the model reads the model's files too."""
    container = {"terminationMessagePolicy": "FallbackToLogsOnError", **container}
    if container["name"] == names.TRANSFORMER_CONTAINER and mounts:
        container = merged(container, {"volumeMounts": mounts})
    return container


def _metadata(source: PodSource) -> Open:
    metadata, runtime = source.isvc.metadata, source.runtime.spec if source.runtime else None
    runtime_labels = (runtime.labels if runtime else None) or {}
    runtime_annotations = (runtime.annotations if runtime else None) or {}
    return {
        "labels": {**runtime_labels, **labels_of(metadata, source.fields)},
        "annotations": {**runtime_annotations, **annotations_of(metadata, source.fields)},
    }


def _with_tag(image: str, tag: str) -> str:
    """`registry:5000/image:1.0` with another tag; a digest gives way to it."""
    repository = image.partition("@")[0]
    head, slash, last = repository.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}:{tag}"
