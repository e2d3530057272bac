"""Structural OpenAPI v3 schemas, as a CustomResourceDefinition wants them, from pydantic's JSON Schema.

What differs: references are inlined, `null` alternatives go (the API server drops nulls by itself), "anything" becomes
`x-kubernetes-preserve-unknown-fields`, and what it does not name is an unknown field without saying so.
"""

from __future__ import annotations

from typing import Any

from fairlead.api.base import ApiType

Schema = dict[str, Any]
_KEPT = (
    "type",
    "format",
    "description",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "x-kubernetes-validations",
)


def structural_schema(kind: type[ApiType]) -> Schema:
    """The schema of the whole object; `apiVersion`, `kind` and `metadata` are left to the API server."""
    document = kind.model_json_schema(by_alias=True)
    schema = _structural(document, document.get("$defs", {}))
    schema["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    schema["required"] = ["spec"]
    return schema


def _structural(node: Schema, definitions: Schema) -> Schema:
    node = _resolved(node, definitions)
    schema = {key: node[key] for key in _KEPT if key in node}
    if node.get("default") is not None:
        schema["default"] = node["default"]
    match node.get("additionalProperties"):
        case True:
            schema["x-kubernetes-preserve-unknown-fields"] = True
        case dict() as values:
            schema["additionalProperties"] = _structural(values, definitions)
    if "properties" in node:
        schema["properties"] = {name: _structural(field, definitions) for name, field in node["properties"].items()}
    if "items" in node:
        schema["items"] = _structural(node["items"], definitions)
    return schema


def _resolved(node: Schema, definitions: Schema) -> Schema:
    """The node with its reference or its one alternative to null put in place; its own words win."""
    for alternative in node.get("anyOf", ()):
        if alternative.get("type") != "null":
            return _resolved(
                {**alternative, **{key: value for key, value in node.items() if key != "anyOf"}}, definitions
            )
    if "$ref" in node:
        target = definitions[node["$ref"].removeprefix("#/$defs/")]
        return _resolved({**target, **{key: value for key, value in node.items() if key != "$ref"}}, definitions)
    return node
