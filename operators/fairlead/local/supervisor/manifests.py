"""Manifests: the CRDs and runtimes that come with Fairlead, the ConfigMap that KServe's tools read, and the user's files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fairlead.api import names
from fairlead.kube.errors import ApiError
from fairlead.kube.objects import Object
from fairlead.kube.resources import CONFIG_MAPS, resource_for
from fairlead.local.supervisor.errors import UpError

if TYPE_CHECKING:
    from fairlead.kube.client import Client

FIELD_MANAGER = "fairlead-up"
SUFFIXES = (".yaml", ".yml", ".json")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def shipped(kind: str) -> Path:
    """The directory `crds` or `runtimes`: in a source checkout, or inside the installed package. Raises UpError."""
    package = Path(__file__).resolve().parents[2]
    for candidate in (package / "manifests" / kind, package.parents[1] / "manifests" / kind):
        if candidate.is_dir():
            return candidate
    raise UpError(f"this installation has no manifests/{kind}; install Fairlead again")


def read(paths: Iterable[Path]) -> list[Object]:
    """All objects of files and directories, Lists unfolded, models beside them located; raises UpError naming what cannot be read."""
    found: list[Object] = []
    for path in paths:
        if path.is_dir():
            found += read(sorted(entry for entry in path.iterdir() if entry.suffix in SUFFIXES))
            continue
        try:
            documents = [document for document in yaml.load_all(path.read_text(), _Loader) if document is not None]
        except OSError as error:
            raise UpError(f"cannot read {path}: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UpError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        for document in documents:
            found += _objects(document, path)
    return found


def _objects(document: object, path: Path) -> list[Object]:
    if not isinstance(document, dict) or "kind" not in document or "apiVersion" not in document:
        raise UpError(f"{path}: a document has no apiVersion and kind, so it is not a Kubernetes manifest")
    if document["kind"] == "List":
        return [obj for item in document.get("items") or () for obj in _objects(item, path)]
    return [located(document, path.parent if path.is_file() else Path())]


def located(obj: Object, directory: Path) -> Object:
    """The object with every storageUri that begins with ./ or ../ taken from `directory`, as the author of its file wrote it."""
    return {key: _located(key, value, directory) for key, value in obj.items()}


def _located(key: str, value: object, directory: Path) -> object:
    if isinstance(value, dict):
        return located(value, directory)
    if isinstance(value, list):
        return [_located(key, item, directory) for item in value]
    if key == "storageUri" and isinstance(value, str) and value.startswith(names.RELATIVE_URIS):
        return (directory / value).resolve().as_uri()
    return value


def with_aliases(runtimes: Iterable[Object]) -> list[Object]:
    """The runtimes, and copies of them under KServe's names, which serve the manifests that name one and are not selected by themselves."""
    result = []
    for runtime in runtimes:
        metadata, spec = runtime["metadata"], runtime["spec"]
        annotations = dict(metadata.get("annotations") or {})
        aliases = annotations.pop(names.ALIASES, "")
        result.append({**runtime, "metadata": {**metadata, "annotations": annotations}})
        formats = [
            {
                "autoSelect": False,
                **{key: value for key, value in known.items() if key not in ("autoSelect", "priority")},
            }
            for known in spec["supportedModelFormats"]
        ]
        result += [
            {
                **runtime,
                "metadata": {**metadata, "name": name, "annotations": annotations},
                "spec": {**spec, "supportedModelFormats": formats},
            }
            for name in aliases.split(",")
            if name
        ]
    return result


async def apply(client: Client, objects: Iterable[Object]) -> list[Object]:
    """Server-side applies them in order; raises UpError with the API server's words."""
    applied = []
    for obj in objects:
        try:
            resource = resource_for(obj["apiVersion"], obj["kind"])
            if resource.namespaced:
                obj = {**obj, "metadata": {"namespace": "default", **(obj.get("metadata") or {})}}
            applied.append(await client.apply(resource, obj, field_manager=FIELD_MANAGER, strict=True))
        except (ApiError, LookupError, ValueError) as error:
            what = f"{obj['kind']} {(obj.get('metadata') or {}).get('name', '(no name)')}"
            message = error.message if isinstance(error, ApiError) else str(error)
            raise UpError(f"{what} was not accepted: {message}") from None
    return applied


def inferenceservice_config(domain: str = names.DEFAULT_DOMAIN) -> Object:
    """ConfigMap `inferenceservice-config` in `kserve`: where the kserve SDK looks for credentials' keys and the ingress domain."""
    credentials = {
        "storageSpecSecretName": "storage-config",
        "storageSecretNameAnnotation": "serving.kserve.io/storageSecretName",
        "gcs": {"gcsCredentialFileName": "gcloud-application-credentials.json"},
        "s3": {
            "s3AccessKeyIDName": "AWS_ACCESS_KEY_ID",
            "s3SecretAccessKeyName": "AWS_SECRET_ACCESS_KEY",
            "s3Endpoint": "",
            "s3UseHttps": "",
            "s3Region": "",
            "s3VerifySSL": "",
            "s3UseVirtualBucket": "",
            "s3UseAccelerate": "",
            "s3UseAnonymousCredential": "",
            "s3CABundle": "",
        },
    }
    ingress = {"ingressDomain": domain, "urlScheme": "http", "disableIngressCreation": True}
    deploy = {"defaultDeploymentMode": "Standard"}
    return {
        "apiVersion": CONFIG_MAPS.api_version,
        "kind": CONFIG_MAPS.kind,
        "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {
            key: json.dumps(value)
            for key, value in (("credentials", credentials), ("ingress", ingress), ("deploy", deploy))
        },
    }
