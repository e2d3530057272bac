"""The cluster's CRDs beside those of this version. Helm installs what is in a chart's `crds/` once and never touches it again; the operator does.

A CRD says which version of Fairlead it is of (`fairlead.dev/version`). An older one, or one that does not say, is brought up to date; a newer one stays: to
operators of two versions at once, in an upgrade or after a rollback, the older would take fields away that objects have by now.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from fairlead.api import names
from fairlead.api.crd import KINDS, custom_resource_definition
from fairlead.kube.client import Client
from fairlead.kube.errors import Forbidden, KubeError, NotFound
from fairlead.kube.events import Events
from fairlead.kube.objects import Object
from fairlead.kube.resources import CUSTOM_RESOURCE_DEFINITIONS

log = logging.getLogger(__name__)

BY_HAND = "kubectl apply --server-side --force-conflicts -f charts/fairlead/crds, of the same version as the operator"


class MissingCrd(KubeError):
    """A kind that the operator needs is not in the cluster, and it may not make it."""


async def bring_up(client: Client, events: Events) -> None:
    """Every CRD as this version needs it, or newer. One that is older and may not be changed is told of in the log and by an event on it: the API server
    goes on cutting off the fields that it does not know. Raises MissingCrd."""
    for kind in KINDS:
        wanted = custom_resource_definition(kind)
        name, ours = wanted["metadata"]["name"], version_of(wanted)
        installed = await _installed(client, name)
        if installed is not None and is_newer(version_of(installed), ours):
            log.info("the CRD %s is of version %s and stays; this operator is %s", name, version_of(installed), ours)
            continue
        try:
            await client.apply(CUSTOM_RESOURCE_DEFINITIONS, wanted, field_manager=names.OPERATOR)
        except Forbidden as error:
            if installed is None:
                raise MissingCrd(f"the CRD {name} is not there, and may not be made ({error}): {BY_HAND}") from error
            if version_of(installed) != ours:
                said = (
                    f"this CRD is of version {version_of(installed) or 'unknown'}, the operator is {ours} and may not change it: fields that came "
                    f"since are cut off objects without a word. {BY_HAND}"
                )
                log.error("%s: %s (%s)", name, said, error)
                events.emit(installed, "Warning", "OldCustomResourceDefinition", said)


def version_of(crd: Object) -> str:
    """Empty if it does not say: it is KServe's, or of a time when none said."""
    told: Any = crd["metadata"].get("annotations", {}).get(names.CRD_VERSION, "")
    return str(told)


def is_newer(one: str, other: str) -> bool:
    return _numbers(one) > _numbers(other)


def _numbers(text: str) -> tuple[int, ...]:
    """Pre-releases of one version have one set of CRDs."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(number) for number in found.groups()) if found else ()


async def _installed(client: Client, name: str) -> Object | None:
    try:
        return await client.get(CUSTOM_RESOURCE_DEFINITIONS, name)
    except NotFound:
        return None
    except Forbidden:  # not known, then; by this chart's rights it may be read
        return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name}}
