"""Bodies: what requests carry, and in which form an answer is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from . import errors
from .protobuf import decode_object

PATCH_FORMS = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


def parse(body: bytes, content_type: str) -> Any:
    """JSON, YAML or Kubernetes' protobuf. Raises StatusError 400, or 415 for a form that is not spoken here (CBOR)."""
    kind = content_type.partition(";")[0].strip().lower()
    if "protobuf" in kind and body:
        return decode_object(body)
    if "cbor" in kind:
        raise errors.unsupported_media_type(
            kind, "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    if not body.strip():
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        if "yaml" not in kind:
            raise errors.bad_request(f"the body is not JSON: {fault}") from None
    return _parse_yaml(body)


def _parse_yaml(body: bytes) -> Any:
    import yaml  # 2 MB that most servers never need: kubectl sends JSON even as apply-patch+yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(body, Loader=loader)  # noqa: S506
    except yaml.YAMLError as fault:
        raise errors.bad_request(f"the body is not YAML: {fault}") from None


def patch_form(content_type: str, *, custom: bool) -> str:
    """merge, json, strategic or apply. Raises StatusError 415; custom kinds know no strategic merge."""
    kind = content_type.partition(";")[0].strip().lower()
    form = PATCH_FORMS.get(kind)
    if form is None or (form == "strategic" and custom):
        offered = ", ".join(t for t, f in PATCH_FORMS.items() if not (custom and f == "strategic"))
        raise errors.unsupported_media_type(kind, offered)
    return form


def accepted(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The media types of an Accept header, in its order, with their parameters."""
    for part in header.split(","):
        kind, *parameters = part.strip().split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        yield kind.strip().lower(), {name.strip(): value.strip() for name, _, value in pairs}


def wanted_form(header: str) -> str:
    """Table, PartialObject or plain: the first form of an Accept header that is spoken here. Raises StatusError 406."""
    if not header or header == "*/*" or header == "application/json":
        return "plain"
    for kind, parameters in accepted(header):
        if kind not in ("application/json", "*/*", "application/*"):
            continue
        shape = parameters.get("as", "")
        if not shape:
            return "plain"
        if parameters.get("g") == "meta.k8s.io" and parameters.get("v") == "v1":
            if shape == "Table":
                return "Table"
            if shape in ("PartialObjectMetadata", "PartialObjectMetadataList"):
                return "PartialObject"
    raise errors.not_acceptable("application/json")
