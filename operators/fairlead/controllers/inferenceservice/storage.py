"""How a model's files come into its pods: fetched by the model server itself, by an init container, or mounted from a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec

VOLUME = "kserve-provision-location"
CLAIM_VOLUME = "kserve-pvc-source"
_PVC = "pvc://"


@dataclass(frozen=True)
class Source:
    uri: str
    path: str = names.MODEL_DIR


@dataclass(frozen=True)
class Provision:
    """What to add to a pod and its serving containers."""

    env: tuple[Open, ...] = ()
    mounts: tuple[Open, ...] = ()
    volumes: tuple[Open, ...] = ()
    init_containers: tuple[Open, ...] = ()


def provision(
    sources: Sequence[Source], *, by_runtime: bool, initializer_image: str, security: Open | None, mirrors: str = ""
) -> Provision:
    """`by_runtime`: the container fetches STORAGE_URI itself; it can do so for one source at the usual place."""
    told: list[Open] = [{"name": names.STORAGE_MIRRORS_ENV, "value": mirrors}] if mirrors else []
    env: list[Open] = []
    mounts: list[Open] = []
    volumes: list[Open] = []
    init_containers: list[Open] = []
    for number, source in enumerate(sources, 1):
        if source.uri.startswith(names.RELATIVE_URIS):
            raise InvalidPredictorSpec(
                f"storageUri {source.uri!r} is relative to a manifest, which only `fairlead up` and `fairlead apply` know: "
                "apply it with these, or write file:///…"
            )
        suffix = "" if number == 1 else f"-{number}"
        if source.uri.startswith(_PVC):
            volume, mount = _claim(source, CLAIM_VOLUME + suffix)
            volumes.append(volume)
            mounts.append(mount)
        elif by_runtime and len(sources) == 1 and source.path == names.MODEL_DIR:
            env += [{"name": names.STORAGE_URI_ENV, "value": source.uri}, *told]
        else:
            volumes.append({"name": VOLUME + suffix, "emptyDir": {}})
            mounts.append({"name": VOLUME + suffix, "mountPath": source.path, "readOnly": True})
            init_containers.append(_initializer(source, suffix, initializer_image, security, told))
    return Provision(tuple(env), tuple(mounts), tuple(volumes), tuple(init_containers))


def _claim(source: Source, name: str) -> tuple[Open, Open]:
    claim, _, path = source.uri.removeprefix(_PVC).partition("/")
    if not claim:
        raise InvalidPredictorSpec(f"storageUri {source.uri!r} names no claim: write pvc://CLAIM/PATH")
    mount: Open = {"name": name, "mountPath": source.path, "readOnly": True}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}, mount


def _initializer(source: Source, suffix: str, image: str, security: Open | None, env: Sequence[Open]) -> Open:
    container: Open = {
        "name": names.STORAGE_INITIALIZER_CONTAINER + suffix,
        "image": image,
        "command": ["python", "-m", "fairlead.runtime.storage"],
        "args": [source.uri, source.path],
        "volumeMounts": [{"name": VOLUME + suffix, "mountPath": source.path}],
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if env:
        container["env"] = list(env)
    return {**container, "securityContext": security} if security else container
