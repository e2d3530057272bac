"""Schemas in one compiled form: what validation, defaulting, patches and field ownership all need to know of a field.

Built-in kinds come from `builtin_schemas.json` (a real API server's OpenAPI, see `extract_schemas`), custom ones from their
CRD. Children are compiled when first asked for: schemas are recursive and most of them are never used.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

PREFIX: Final = "#/components/schemas/"
OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
JSON_SCHEMA_OR: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"
"""Prefix of the definitions which are any JSON at all (JSON, JSONSchemaPropsOrBool, …)."""


@lru_cache(maxsize=1)
def definitions() -> dict[str, dict[str, Any]]:
    """The built-in definitions by their OpenAPI name."""
    loaded: dict[str, dict[str, Any]] = orjson.loads(Path(__file__).with_name("builtin_schemas.json").read_bytes())
    return loaded


class Schema:
    """One node. `kind` is object | array | string | integer | number | boolean | int-or-string | quantity | any."""

    def __init__(self, raw: dict[str, Any], *, structural: bool) -> None:
        self.raw = raw
        self.structural = structural
        self.kind = self._kind()
        self.preserves_unknown: bool = (
            raw.get("x-kubernetes-preserve-unknown-fields") is True or raw.get("x-kubernetes-embedded-resource") is True
        )
        self.atomic_map: bool = raw.get("x-kubernetes-map-type") == "atomic"
        self.list_type: str = raw.get("x-kubernetes-list-type", "atomic")
        self.list_keys: tuple[str, ...] = tuple(raw.get("x-kubernetes-list-map-keys", ()))
        self.patch_strategies: tuple[str, ...] = tuple(
            s for s in raw.get("x-kubernetes-patch-strategy", "").split(",") if s
        )
        self.patch_merge_key: str = raw.get("x-kubernetes-patch-merge-key", "")
        self.required: tuple[str, ...] = tuple(raw.get("required", ()))

    def _kind(self) -> str:
        if self.raw.get("x-kubernetes-int-or-string") is True or self.raw.get("format") == "int-or-string":
            return "int-or-string"
        found = self.raw.get("type")
        return found if isinstance(found, str) else "any"

    @cached_property
    def properties(self) -> dict[str, Schema]:
        return {name: compiled(raw, self.structural) for name, raw in self.raw.get("properties", {}).items()}

    @cached_property
    def items(self) -> Schema:
        raw = self.raw.get("items")
        return compiled(raw, self.structural) if isinstance(raw, dict) else ANY

    @cached_property
    def additional(self) -> Schema | None:
        """The schema of values under free keys; None if there are no free keys."""
        raw = self.raw.get("additionalProperties")
        if isinstance(raw, dict):
            return compiled(raw, self.structural)
        return ANY if raw is True else None

    @property
    def default(self) -> Any:
        """The value of an absent field. OpenAPI of built-in kinds also prints Go's zero values as defaults: not these."""
        value = self.raw.get("default")
        return value if self.structural or value not in ("", 0, {}, False) else None

    @property
    def open(self) -> bool:
        """Whether fields that the schema does not name are kept."""
        return self.kind == "any" or self.preserves_unknown

    def field(self, name: str) -> Schema:
        """The schema of a field; of an unknown one, what the object's schema says of free keys."""
        return self.properties.get(name) or self.additional or ANY


ANY: Final = Schema({}, structural=False)
"""A value of which nothing is known: maps are merged by key, lists are replaced whole."""


@lru_cache(maxsize=1024)
def builtin(name: str) -> Schema:
    """The compiled built-in definition of that OpenAPI name."""
    raw = definitions()[name]
    if name == QUANTITY:
        return Schema({"type": "quantity"}, structural=False)
    if name.startswith(JSON_SCHEMA_OR) and "properties" not in raw:
        return ANY
    if name.endswith((".FieldsV1", ".RawExtension")):
        return Schema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, structural=False)
    if name.endswith(".IntOrString"):
        return Schema({"x-kubernetes-int-or-string": True}, structural=False)
    return Schema(raw, structural=False)


def compiled(raw: dict[str, Any], structural: bool) -> Schema:
    """The compiled schema of a raw one; what stands beside a `$ref` (list type, patch strategy) is of the field itself."""
    reference = raw.get("$ref")
    if not isinstance(reference, str):
        return Schema(raw, structural=structural)
    target = builtin(reference.removeprefix(PREFIX))
    beside = {key: value for key, value in raw.items() if key.startswith("x-kubernetes-patch")}
    return Schema({**target.raw, **beside}, structural=structural) if beside else target


def of_custom(raw: dict[str, Any]) -> Schema:
    """A CRD version's `openAPIV3Schema`, with Kubernetes' own metadata, apiVersion and kind."""
    root = Schema({"type": "object", **raw}, structural=True)
    root.properties.update(
        metadata=builtin(OBJECT_META),
        apiVersion=Schema({"type": "string"}, structural=True),
        kind=Schema({"type": "string"}, structural=True),
    )
    return root
