"""OpenAPI: what `kubectl explain`, `kubectl apply` and clients with a dynamic schema read.

Version 3 has an index and a document for each group version; a document's URL carries its hash, so that kubectl keeps it.
Version 2 is answered with a valid empty document: nothing that is in use today needs more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from .extract_schemas import closure, references
from .kinds import Kind, Kinds
from .schema import OBJECT_META, PREFIX, definitions

WRITE_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")
EMPTY_V2_PROTOBUF = b"\x0a\x032.0\x12\x16\x0a\x08fairlead\x12\x0av1.34.0+fl"
"""`swagger: "2.0"` and `info` of an openapi.v2.Document; field 1 and 2, and 1 and 2 within."""
EMPTY_V2 = {"swagger": "2.0", "info": {"title": "fairlead", "version": "v1.34.0+fl"}, "paths": {}, "definitions": {}}


class OpenApi:
    """The documents for the kinds as they are now; made when asked for."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        self._generation = -1
        self._documents: dict[str, bytes] = {}

    def _group_versions(self) -> dict[str, list[Kind]]:
        found: dict[str, list[Kind]] = {}
        for kind in self.kinds.all():
            found.setdefault(f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}", []).append(
                kind
            )
        return found

    def index(self) -> dict[str, Any]:
        """/openapi/v3. The hash is of what a document is made from: documents are large, and this is asked often."""
        paths = {}
        for name, kinds in self._group_versions().items():
            seed = orjson.dumps([[kind.openapi_name, kind.custom] for kind in kinds])
            digest = hashlib.sha256(seed).hexdigest()[:32].upper()
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
        return {"paths": paths}

    def document(self, name: str) -> bytes | None:
        """/openapi/v3/{api/v1 | apis/group/version}; None if there is no such group version."""
        if self._generation != self.kinds.generation:
            self._documents.clear()
            self._generation = self.kinds.generation
        if name not in self._documents:
            kinds = self._group_versions().get(name)
            if kinds is None:
                return None
            self._documents = {
                name: orjson.dumps(_document(kinds))
            }  # one at a time: they are large and kubectl caches them
        return self._documents[name]


def _document(kinds: list[Kind]) -> dict[str, Any]:
    roots = [OBJECT_META, *(kind.definition for kind in kinds if kind.definition)]
    custom = {kind.openapi_name: _custom_schema(kind) for kind in kinds if kind.custom is not None}
    roots.extend(name for schema in custom.values() for name in references(schema))
    schemas = {**closure(definitions(), roots), **custom}
    paths: dict[str, Any] = {}
    for kind in kinds:
        paths.update(_paths(kind))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.0+fairlead"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _gvk(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _custom_schema(kind: Kind) -> dict[str, Any]:
    raw = kind.custom or {}
    properties = {
        "apiVersion": {"type": "string", "description": "The versioned schema of this representation of an object."},
        "kind": {"type": "string", "description": "The REST resource that this object represents."},
        **raw.get("properties", {}),
        "metadata": {"$ref": PREFIX + OBJECT_META, "description": "Standard object's metadata."},
    }
    return {"type": "object", **raw, "properties": properties, "x-kubernetes-group-version-kind": [_gvk(kind)]}


def _paths(kind: Kind) -> Iterator[tuple[str, Any]]:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    yield collection, {"get": _operation(kind, "list"), "post": _operation(kind, "post")}
    types = (*PATCH_TYPES, "application/strategic-merge-patch+json") if kind.custom is None else PATCH_TYPES
    patch = _operation(kind, "patch")
    patch["requestBody"] = {"content": {name: {"schema": {"type": "object"}} for name in types}}
    yield (
        f"{collection}/{{name}}",
        {
            "get": _operation(kind, "get"),
            "put": _operation(kind, "put"),
            "patch": patch,
            "delete": _operation(kind, "delete"),
        },
    )


def _operation(kind: Kind, action: str) -> dict[str, Any]:
    writes = action in ("post", "put", "patch")
    content = {"application/json": {"schema": {"$ref": PREFIX + kind.openapi_name}}}
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in WRITE_PARAMETERS
            if writes
        ],
        "responses": {"200": {"description": "OK", "content": content}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
