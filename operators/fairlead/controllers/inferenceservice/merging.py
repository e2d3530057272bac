"""Strategic merge of containers and pods: how a runtime's container and a user's fields become one, as KServe does it.

Maps merge; lists of named things merge by that name (env by name, ports by number, mounts by path), the user's entry winning; args add up, the
runtime's first; any other list or scalar of the user's replaces the runtime's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.base import Open

_KEYS: Mapping[str, str] = {
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "resourceClaims": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
_WHOLE = frozenset({"env", "volumes"})
"""Lists whose items are one of several kinds, so that an item of the user's replaces the runtime's whole."""
_ADDED_UP = frozenset({"args"})
_ONE_OF = frozenset({"readinessProbe", "livenessProbe", "startupProbe"})
"""Maps in which at most one of several fields may be set: they replace, or a user's tcpSocket would meet a runtime's httpGet."""


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Open:
    """`base` overridden by `over`: containers, pod specs, or parts of them."""
    result = dict(base)
    for field, value in over.items():
        below = result.get(field)
        if field in _ONE_OF or below is None:
            result[field] = value
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            result[field] = merged(below, value)
        elif field in _ADDED_UP:
            result[field] = [*below, *value]
        elif field in _KEYS and isinstance(value, list):
            result[field] = _merged_lists(below, value, _KEYS[field], whole=field in _WHOLE)
        else:
            result[field] = value
    return result


def _merged_lists(base: Sequence[Open], over: Sequence[Open], key: str, *, whole: bool) -> list[Open]:
    overrides = {item.get(key): item for item in over}
    result = []
    for item in base:
        override = overrides.pop(item.get(key), None)
        if override is None:
            result.append(item)
        else:
            result.append(override if whole else merged(item, override))
    return [*result, *overrides.values()]
