"""A pod's volumes as directories: which ones, what lies in them, and where each container sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.kube.objects import Object
from fairlead.local.node import objects
from fairlead.local.node.environment import ContainerConfigError, Sources
from fairlead.local.node.pod_process import NeedsCluster, image_directories

_SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108  paths in a pod
"""Where images with a read-only root file system have an emptyDir. A process of this machine has the machine's; what else lies there, such as a
virtual environment or a model, has to stay where its name says."""
SUPPORTED = "emptyDir, configMap, secret, projected, hostPath and persistentVolumeClaim"


@dataclass(frozen=True)
class Volume:
    """A directory to be there before the pod starts, and the files to write into it."""

    path: Path
    files: Mapping[str, bytes] = field(default_factory=dict)
    mode: int = 0o644


def volumes(pod: Object, pod_directory: Path, claims: Path, sources: Sources) -> dict[str, Volume]:
    """By volume name. `claims` is where PersistentVolumeClaims of all namespaces live; raises NeedsCluster, ContainerConfigError."""
    planned = {}
    for volume in pod["spec"].get("volumes") or ():
        planned[volume["name"]] = _volume(
            volume, pod_directory / "volumes" / volume["name"], claims / objects.namespace(pod), sources
        )
    return planned


def mounts(container: Mapping[str, Any], planned: Mapping[str, Volume], pod_directory: Path) -> dict[str, Path]:
    """mount path -> directory for one container; raises ContainerConfigError for a volume that the pod does not have."""
    found = {
        path: pod_directory / "image" / container["name"] / path.strip("/") for path in image_directories(container)
    }
    for mount in container.get("volumeMounts") or ():
        if mount["name"] not in planned:
            raise ContainerConfigError(
                f"container {container['name']} mounts volume {mount['name']}, which the pod does not have"
            )
        if mount["mountPath"].rstrip("/") in _SCRATCH:
            continue
        found[mount["mountPath"]] = planned[mount["name"]].path / mount.get("subPath", "")
    return found


def _volume(volume: Mapping[str, Any], path: Path, claims: Path, sources: Sources) -> Volume:
    if "emptyDir" in volume:
        return Volume(path)
    if "hostPath" in volume:
        return Volume(Path(volume["hostPath"]["path"]))
    if "persistentVolumeClaim" in volume:
        return Volume(claims / volume["persistentVolumeClaim"]["claimName"])
    if "configMap" in volume:
        source = volume["configMap"]
        found = sources.config_map(source["name"])
        return Volume(path, _files("ConfigMap", source["name"], source, found), source.get("defaultMode", 0o644))
    if "secret" in volume:
        source = volume["secret"]
        found = sources.secret(source["secretName"])
        return Volume(path, _files("Secret", source["secretName"], source, found), source.get("defaultMode", 0o600))
    if "projected" in volume:
        return Volume(path, _projected(volume, sources))
    kind = next((key for key in volume if key != "name"), "none")
    raise NeedsCluster(
        f"volume {volume['name']} is of the kind {kind}, which needs a real cluster; this node has {SUPPORTED}"
    )


def _projected(volume: Mapping[str, Any], sources: Sources) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for item in volume["projected"].get("sources") or ():
        if "configMap" in item:
            name = item["configMap"]["name"]
            files |= _files("ConfigMap", name, item["configMap"], sources.config_map(name))
        elif "secret" in item:
            name = item["secret"]["name"]
            files |= _files("Secret", name, item["secret"], sources.secret(name))
        else:
            kind = next(iter(item), "none")
            raise NeedsCluster(
                f"volume {volume['name']} projects {kind}, which needs a real cluster; this node has configMap and secret"
            )
    return files


def _files(kind: str, name: str, source: Mapping[str, Any], found: Mapping[str, bytes] | None) -> dict[str, bytes]:
    if found is None:
        if source.get("optional"):
            return {}
        raise ContainerConfigError(f'{kind} "{name}" not found (a volume of the pod)')
    if not source.get("items"):
        return dict(found)
    missing = [item["key"] for item in source["items"] if item["key"] not in found]
    if missing and not source.get("optional"):
        raise ContainerConfigError(f'{kind} "{name}" has no key "{missing[0]}" (a volume of the pod)')
    return {item["path"]: found[item["key"]] for item in source["items"] if item["key"] in found}
