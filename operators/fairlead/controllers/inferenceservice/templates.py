"""The Go templates that KServe allows in a runtime's container: `{{.Name}}`, `{{.Labels.x}}`, `{{ index .Annotations "x" }}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fairlead.api.base import Metadata
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec

_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.(?:ObjectMeta\.)?(Name|Namespace)")
_ENTRY = re.compile(r"\.(?:ObjectMeta\.)?(Labels|Annotations)\.(\w+)")
_INDEX = re.compile(r"index\s+\.(?:ObjectMeta\.)?(Labels|Annotations)\s+[\"`]([^\"`]+)[\"`]")


def expand(value: Any, metadata: Metadata) -> Any:
    """`value`, a string or any nesting of lists and dicts, with every template in it replaced from the InferenceService's metadata.

    Raises InvalidPredictorSpec for a template that is none of those above, or that names a label or annotation which is not there.
    """
    if isinstance(value, str):
        return _ACTION.sub(lambda found: _value(found.group(1), metadata), value) if "{{" in value else value
    if isinstance(value, Mapping):
        return {key: expand(item, metadata) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, metadata) for item in value]
    return value


def _value(action: str, metadata: Metadata) -> str:
    if match := _FIELD.fullmatch(action):
        return metadata.name if match.group(1) == "Name" else metadata.namespace or ""
    match = _ENTRY.fullmatch(action) or _INDEX.fullmatch(action)
    if match is None:
        raise InvalidPredictorSpec(
            f"the runtime's template {{{{{action}}}}} is not supported: use {{{{.Name}}}}, {{{{.Namespace}}}}, "
            '{{.Labels.x}}, {{.Annotations.x}} or {{ index .Labels "x" }}'
        )
    kind, name = match.groups()
    entries = metadata.labels if kind == "Labels" else metadata.annotations
    if name not in entries:
        raise InvalidPredictorSpec(
            f"the runtime's template {{{{{action}}}}} needs {kind.lower()[:-1]} {name!r} on the InferenceService"
        )
    return entries[name]
