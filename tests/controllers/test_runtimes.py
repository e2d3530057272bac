"""Runtime selection by KServe's rules."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.api.predictor import ModelSpec
from fairlead.api.servingruntime import ClusterServingRuntime, ServingRuntime
from fairlead.controllers.inferenceservice.errors import NoRuntime
from fairlead.controllers.inferenceservice.runtimes import select


def spec(**changes: Any) -> dict[str, Any]:
    formats = [{"name": "sklearn", "version": "1", "autoSelect": True, "priority": changes.pop("priority", 1)}]
    return {"supportedModelFormats": formats, "protocolVersions": ["v1"], "containers": [{"name": "c"}], **changes}


def cluster(name: str, *, created: str = "2026-01-01T00:00:00Z", **changes: Any) -> ClusterServingRuntime:
    metadata = {"name": name, "creationTimestamp": created}
    return ClusterServingRuntime.parse(
        {
            "metadata": metadata,
            "spec": spec(**changes),
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterServingRuntime",
        }
    )


def namespaced(name: str, **changes: Any) -> ServingRuntime:
    return ServingRuntime.parse(
        {
            "metadata": {"name": name},
            "spec": spec(**changes),
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
        }
    )


def model(name: str = "sklearn", version: str | None = None, **fields: Any) -> ModelSpec:
    model_format = {"name": name, **({"version": version} if version else {})}
    return ModelSpec.model_validate({"modelFormat": model_format, **fields})


def test_the_namespaces_come_before_the_clusters_whatever_their_priority() -> None:
    assert select(model(), [namespaced("a")], [cluster("b", priority=9)]).metadata.name == "a"


def test_a_higher_priority_wins_then_the_newer_then_the_name() -> None:
    assert select(model(), [], [cluster("a", priority=1), cluster("b", priority=2)]).metadata.name == "b"
    newer = cluster("z", created="2026-02-01T00:00:00Z")
    assert select(model(), [], [cluster("a"), newer]).metadata.name == "z"
    assert select(model(), [], [cluster("b"), cluster("a")]).metadata.name == "a"


@pytest.mark.parametrize(
    "unfit",
    [
        cluster("x", disabled=True),
        cluster("x", multiModel=True),
        cluster("x", protocolVersions=["v2"]),
        cluster("x", supportedModelFormats=[{"name": "sklearn"}]),
        cluster("x", supportedModelFormats=[{"name": "onnx", "autoSelect": True}]),
    ],
    ids=["disabled", "multi-model", "v1 is meant if no protocol is given", "no autoSelect", "another format"],
)
def test_an_unfit_runtime_is_not_chosen(unfit: ClusterServingRuntime) -> None:
    with pytest.raises(NoRuntime) as raised:
        select(model(), [], [unfit])
    assert raised.value.reason == "NoSupportingRuntime"
    assert "there is x (" in raised.value.message


def test_a_version_must_be_offered_as_it_is_asked_for() -> None:
    assert select(model(version="1"), [], [cluster("a")]).metadata.name == "a"
    with pytest.raises(NoRuntime, match="format sklearn version 2"):
        select(model(version="2"), [], [cluster("a")])


def test_a_named_runtime_needs_no_auto_select() -> None:
    runtime = cluster("a", supportedModelFormats=[{"name": "sklearn"}])
    assert select(model(runtime="a"), [], [runtime]).metadata.name == "a"


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        (model(runtime="gone"), "RuntimeNotRecognized"),
        (model(runtime="off"), "RuntimeDisabled"),
        (model("onnx", runtime="a"), "NoSupportingRuntime"),
        (model(runtime="a", protocolVersion="v2"), "NoSupportingRuntime"),
    ],
)
def test_a_named_runtime_that_cannot_serve_says_why(named: ModelSpec, reason: str) -> None:
    with pytest.raises(NoRuntime) as raised:
        select(named, [], [cluster("a"), cluster("off", disabled=True)])
    assert raised.value.reason == reason
