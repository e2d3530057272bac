"""A predictor over several pods (`workerSpec`): a head, workers that join its Ray, the Service by which they find it, and their token.

    Deployment {workload}         1 head              Service {isvc}-head-{revision number}   headless, to the revision's head
    Deployment {workload}-worker  size - 1 workers    Secret  {isvc}-ray                      the token that Ray's processes ask for

Workers of a revision join the head of that revision, so that a rolling update never mixes two in one Ray. Where the model server is ours, each pod
has a replica that takes requests, and the workload's Service leads to all of them; of other servers only the head does.
"""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Mapping
from typing import Any

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import ComponentFields
from fairlead.api.predictor import PredictorFields, WorkerSpec
from fairlead.api.quantity import parse_quantity
from fairlead.controllers.inferenceservice.merging import merged
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.podstorage import is_ours
from fairlead.controllers.inferenceservice.workload import Workload
from fairlead.kube.objects import Object

HEAD, WORKER = "head", "worker"
"""Values of the label `fairlead.dev/role`."""
TOKEN_KEY = "token"  # noqa: S105 - the name of a key
ROLLING: Open = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"}}
"""The next revision's workers are all there before one of this revision's leaves: they serve together or not at all."""
_GPU_SUFFIX = "/gpu"


def worker_spec(fields: ComponentFields) -> WorkerSpec | None:
    return fields.worker_spec if isinstance(fields, PredictorFields) else None


def worker_inputs(source: PodSource) -> Open | None:
    """What of the runtime goes into the workers' template, for the digest; None if there are no workers."""
    if worker_spec(source.fields) is None or source.runtime is None or source.runtime.spec.worker_spec is None:
        return None
    return source.runtime.spec.worker_spec.to_dict()


def group(source: PodSource, head: Open) -> Open | None:
    """What a revision with workers stores beside the head's `template`: `template` of the workers, `size` of the whole, `env`, and whether all serve."""
    asked = worker_spec(source.fields)
    if asked is None:
        return None
    offered = source.runtime.spec.worker_spec if source.runtime is not None else None
    pipeline = asked.pipeline_parallel_size or (offered.pipeline_parallel_size if offered else None) or 1
    tensor = asked.tensor_parallel_size or (offered.tensor_parallel_size if offered else None) or 1
    spec = _worker_pod(source, asked, head["spec"])
    gpus = _gpus(spec["containers"][0])
    size = pods(pipeline * tensor, gpus)
    env = {
        "PIPELINE_PARALLEL_SIZE": str(pipeline),
        "TENSOR_PARALLEL_SIZE": str(tensor),
        names.RAY_NODE_COUNT_ENV: str(size),
    }
    metadata = {field: {**head["metadata"][field]} for field in ("labels", "annotations")}
    return {"template": {"metadata": metadata, "spec": spec}, "size": size, "env": env, "serving": is_ours(source)}


def pods(parallel: int, gpus: int) -> int:
    """KServe's rule: as many as it takes for one GPU to each of `parallel` parts, `gpus` on each pod; a pod for each part where there are none."""
    return math.ceil(parallel / gpus) if gpus else parallel


def head_labels(stored: Open | None) -> dict[str, str]:
    return {names.LABEL_ROLE: HEAD} if stored else {}


def pods_selector(workload: Workload) -> dict[str, str]:
    """The labels of the pods that take requests."""
    if workload.group and workload.group["serving"]:
        return {names.LABEL_WORKLOAD: workload.name}
    return workload.selector


def head_pod(workload: Workload) -> Open:
    """The head's PodSpec."""
    spec: Open = workload.template["spec"]
    return _with_env(spec, workload, workload.group["env"]) if workload.group else spec


def worker_deployment(workload: Workload, stored: Open) -> Object:
    labels = {names.LABEL_WORKLOAD: workload.name, names.LABEL_ROLE: WORKER}
    template = stored["template"]
    identity = {**workload.labels, **labels, names.LABEL_REVISION: workload.revision.name}
    env = {**stored["env"], names.HEAD_SERVICE_ENV: head_name(workload), "ISVC_NAME": workload.isvc.metadata.name}
    metadata = workload.metadata(identity, {})
    return {
        "metadata": {**metadata, "name": worker_name(workload.name)},
        "spec": {
            "replicas": stored["size"] - 1,
            "selector": {"matchLabels": labels},
            "strategy": workload.fields.deployment_strategy or ROLLING,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {**template["metadata"], "labels": {**template["metadata"]["labels"], **identity}},
                "spec": _with_env(template["spec"], workload, env),
            },
        },
    }


def head_service(workload: Workload) -> Object:
    """Leads to the revision's head also before that is ready: it is ready when its own replica is, and workers need not wait for it."""
    labels = {key: value for key, value in workload.labels.items() if key != names.LABEL_WORKLOAD}
    return {
        "metadata": {**workload.metadata(labels, {}), "name": head_name(workload)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_REVISION: workload.revision.name, names.LABEL_ROLE: HEAD},
            "ports": [{"name": "ray", "port": names.RAY_PORT, "targetPort": names.RAY_PORT, "protocol": "TCP"}],
        },
    }


def token(workload: Workload) -> Object:
    """To be created, never to be changed: pods that run have it."""
    labels = {key: value for key, value in workload.labels.items() if key != names.LABEL_WORKLOAD}
    value = base64.b64encode(secrets.token_hex(32).encode()).decode()
    return {"metadata": {**workload.metadata(labels, {}), "name": _token_name(workload)}, "data": {TOKEN_KEY: value}}


def worker_name(workload: str) -> str:
    return f"{workload}-worker"


def head_name(workload: Workload) -> str:
    return f"{workload.isvc.metadata.name}-head-{workload.revision.number}"


def is_worker(obj: Mapping[str, Any]) -> bool:
    return bool(obj["metadata"].get("labels", {}).get(names.LABEL_ROLE) == WORKER)


def _token_name(workload: Workload) -> str:
    return f"{workload.isvc.metadata.name}-ray"


def _worker_pod(source: PodSource, asked: WorkerSpec, head: Open) -> Open:
    """Ours: as the head's, with what runtime and service say of workers. Others': the runtime's worker, with the head's model files."""
    offered = source.runtime.spec.worker_spec if source.runtime is not None else None
    main = {**head["containers"][0], "name": names.WORKER_CONTAINER}
    files: Open = {field: head[field] for field in ("volumes", "initContainers") if field in head}
    base = {**head, "containers": [main]}
    if offered is not None:
        own = offered.pod_fields()
        container = {**own["containers"][0], "name": names.WORKER_CONTAINER}
        if is_ours(source):
            base = merged(base, {**own, "containers": [container]})
        else:
            base = merged(
                files, {**own, "containers": [merged({"volumeMounts": main.get("volumeMounts", [])}, container)]}
            )
    given = asked.pod_fields()
    if containers := given.pop("containers", None):
        given["containers"] = [{**containers[0], "name": names.WORKER_CONTAINER}]
    return merged(base, given)


def _with_env(spec: Open, workload: Workload, env: Mapping[str, str]) -> Open:
    """The first container is told of the group; what the user has set there stays."""
    main, *others = spec["containers"]
    secret = {"name": _token_name(workload), "key": TOKEN_KEY}
    told: list[Open] = [
        *({"name": name, "value": value} for name, value in sorted(env.items())),  # stored objects come back sorted
        {"name": "REQUEST_GPU_COUNT", "value": str(_gpus(main) or 1)},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": names.RAY_TOKEN_ENV, "valueFrom": {"secretKeyRef": secret}},
    ]
    return {**spec, "containers": [merged({"env": told}, main), *others]}


def _gpus(container: Open) -> int:
    """Of any maker: `nvidia.com/gpu`, `amd.com/gpu`."""
    resources = container.get("resources", {})
    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    return sum(int(parse_quantity(amount)) for name, amount in asked.items() if name.endswith(_GPU_SUFFIX))
