"""The operator and the CRDs that it finds in the cluster: older ones, newer ones, none, and rights that it has not."""

from __future__ import annotations

import copy
import logging
from importlib.metadata import version
from typing import Any

import pytest

from fairlead.api import names
from fairlead.api.crd import KINDS, custom_resource_definition
from fairlead.controllers.crds import MissingCrd, bring_up, is_newer
from fairlead.kube.errors import Forbidden, NotFound
from fairlead.kube.objects import Object
from fairlead.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource

OURS = {crd["metadata"]["name"]: crd for crd in map(custom_resource_definition, KINDS)}


class Cluster:
    """An API server that has these CRDs."""

    def __init__(self, crds: dict[str, Object], *, may_write: bool = True, may_read: bool = True) -> None:
        self.crds, self.may_write, self.may_read = copy.deepcopy(crds), may_write, may_read

    async def get(self, resource: Resource, name: str) -> Object:
        assert resource is CUSTOM_RESOURCE_DEFINITIONS
        if not self.may_read:
            raise Forbidden(403, "Forbidden", f"cannot get {name}")
        if name not in self.crds:
            raise NotFound(404, "NotFound", name)
        return self.crds[name]

    async def apply(self, resource: Resource, obj: Object, *, field_manager: str) -> Object:
        assert (resource, field_manager) == (CUSTOM_RESOURCE_DEFINITIONS, names.OPERATOR)
        if not self.may_write:
            raise Forbidden(403, "Forbidden", f"cannot patch {obj['metadata']['name']}")
        self.crds[obj["metadata"]["name"]] = obj
        return obj


class Events:
    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def emit(self, obj: Object, type: str, reason: str, message: str) -> None:
        self.said.append((obj["metadata"]["name"], reason, message))


def of_version(told: str | None) -> dict[str, Object]:
    """CRDs that are not ours, and say that they are of this version."""
    annotations = {} if told is None else {names.CRD_VERSION: told}
    return {name: {"metadata": {"name": name, "annotations": annotations}} for name in OURS}


async def brought_up(cluster: Any) -> list[tuple[str, str, str]]:
    events: Any = Events()
    await bring_up(cluster, events)
    said: list[tuple[str, str, str]] = events.said
    return said


@pytest.mark.parametrize("told", ["0.0.1", None, "", names.VERSION], ids=["older", "none", "empty", "ours"])
async def test_crds_that_are_not_newer_are_brought_up_to_date(told: str | None) -> None:
    cluster = Cluster(of_version(told))
    assert await brought_up(cluster) == []
    assert cluster.crds == OURS


def test_the_code_says_the_packages_version() -> None:
    assert version("fairlead") == names.VERSION


async def test_crds_that_are_missing_are_made() -> None:
    cluster = Cluster({})
    await brought_up(cluster)
    assert cluster.crds == OURS


async def test_newer_crds_stay_when_the_chart_is_rolled_back() -> None:
    newer = of_version("1000.0.0")
    cluster = Cluster(newer)
    assert await brought_up(cluster) == []
    assert cluster.crds == newer


async def test_older_crds_that_may_not_be_changed_are_told_of_and_the_operator_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(of_version("0.0.1"), may_write=False)
    with caplog.at_level(logging.ERROR):
        said = await brought_up(cluster)
    assert [(name, reason) for name, reason, _ in said] == [(name, "OldCustomResourceDefinition") for name in OURS]
    for message in (said[0][2], caplog.text):
        assert "of version 0.0.1" in message
        assert "kubectl apply --server-side --force-conflicts -f charts/fairlead/crds" in message


async def test_crds_of_this_version_need_no_right_to_change_them() -> None:
    assert await brought_up(Cluster(OURS, may_write=False)) == []


async def test_a_crd_that_is_missing_and_may_not_be_made_ends_the_operator_with_what_to_do() -> None:
    with pytest.raises(MissingCrd, match=r"inferenceservices\.serving\.kserve\.io is not there.*kubectl apply"):
        await brought_up(Cluster({}, may_write=False))


async def test_crds_that_may_not_be_read_are_brought_up_to_date_all_the_same() -> None:
    cluster = Cluster(of_version("0.0.1"), may_read=False)
    assert await brought_up(cluster) == []
    assert cluster.crds == OURS


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ("0.10.0", "0.9.0", True),
        ("0.9.0", "0.10.0", False),
        ("1.0.0", "1.0.0rc1", False),
        ("1.0.1", "1.0.0", True),
        ("", "0.1.0", False),
        ("of the house", "0.1.0", False),
    ],
)
def test_versions_are_compared_by_their_numbers(one: str, other: str, newer: bool) -> None:
    assert is_newer(one, other) is newer
