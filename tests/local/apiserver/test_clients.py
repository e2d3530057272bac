"""The official client, the kserve SDK and our own client, unmodified, against a server process."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

from fairlead.kube import resources
from fairlead.kube.client import Client
from fairlead.kube.errors import Conflict, Gone, Invalid, NotFound

CRDS = Path(__file__).parents[3] / "manifests" / "crds"


@pytest.fixture
def connected(server: Any) -> Any:
    return lambda: Client.connect(str(server.kubeconfig))


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def test_our_client_applies_patches_and_meets_the_usual_errors(connected: Any) -> None:
    client = await connected()
    try:
        made = await client.apply(resources.CONFIG_MAPS, config_map("ours", a="1"), field_manager="one")
        with pytest.raises(Conflict, match='conflict with "one"'):
            await client.apply(resources.CONFIG_MAPS, config_map("ours", a="2"), field_manager="two", force=False)
        await client.patch(resources.CONFIG_MAPS, "ours", {"data": {"b": "2"}}, "default")
        with pytest.raises(Conflict, match="the object has been modified"):
            await client.replace(resources.CONFIG_MAPS, made)
        with pytest.raises(Invalid):
            await client.create(resources.CONFIG_MAPS, config_map("Not A Name"))
        await client.delete(resources.CONFIG_MAPS, "ours", "default")
        with pytest.raises(NotFound):
            await client.get(resources.CONFIG_MAPS, "ours", "default")
    finally:
        await client.close()


async def test_a_watch_from_a_list_sees_every_change_after_it_and_only_what_is_selected(connected: Any) -> None:
    client = await connected()
    try:
        begin = await client.list(resources.CONFIG_MAPS, "default", labels="watched=yes")
        seen: list[tuple[str, str]] = []

        async def follow() -> None:
            async for event in client.watch(
                resources.CONFIG_MAPS, "default", resource_version=begin.resource_version, labels="watched=yes"
            ):
                if event.type != "BOOKMARK":
                    seen.append((event.type, event.object["metadata"]["name"]))
                if event.type == "DELETED":
                    return

        following = asyncio.create_task(follow())
        obj = config_map("watched")
        await client.create(resources.CONFIG_MAPS, obj)  # not selected
        await client.patch(resources.CONFIG_MAPS, "watched", {"metadata": {"labels": {"watched": "yes"}}}, "default")
        await client.patch(resources.CONFIG_MAPS, "watched", {"data": {"x": "1"}}, "default")
        await client.patch(resources.CONFIG_MAPS, "watched", {"metadata": {"labels": None}}, "default")
        await asyncio.wait_for(following, 60)
        assert seen == [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")]
        await client.delete(resources.CONFIG_MAPS, "watched", "default")
    finally:
        await client.close()


async def test_a_watch_from_before_the_server_remembers_is_gone(connected: Any) -> None:
    client = await connected()
    try:
        with pytest.raises(Gone, match="too old resource version"):
            async for _ in client.watch(
                resources.CONFIG_MAPS, "default", resource_version="00"
            ):  # a version before the first
                pass
    finally:
        await client.close()


def test_the_official_client_reads_what_it_writes(server: Any) -> None:
    from kubernetes import client, config

    with config.new_client_from_config(str(server.kubeconfig)) as api:
        core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
        assert "default" in [namespace.metadata.name for namespace in core.list_namespace().items]
        created = core.create_namespaced_config_map("default", config_map("official", a="1"))
        assert core.patch_namespaced_config_map("official", "default", {"data": {"b": "2"}}).data == {
            "a": "1",
            "b": "2",
        }
        assert int(core.read_namespaced_config_map("official", "default").metadata.resource_version) > int(
            created.metadata.resource_version
        )
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        body = {
            "metadata": {"name": "official"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        }
        assert apps.create_namespaced_deployment("default", body).spec.template.spec.restart_policy == "Always"
        assert (
            apps.patch_namespaced_deployment_scale("official", "default", {"spec": {"replicas": 3}}).spec.replicas == 3
        )
        assert core.delete_namespaced_config_map("official", "default").status == "Success"
        apps.delete_namespaced_deployment("official", "default")


def test_the_kserve_sdk_creates_patches_replaces_waits_and_deletes(server: Any) -> None:
    if not any(CRDS.glob("*inferenceservices.yaml")):
        pytest.skip("manifests/crds has no InferenceService yet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kserve
    from kubernetes import client

    server.kubectl("apply", "--server-side", "-f", str(CRDS))
    sdk = kserve.KServeClient(config_file=str(server.kubeconfig))
    model = kserve.V1beta1ModelSpec(
        model_format=kserve.V1beta1ModelFormat(name="sklearn"), storage_uri="file:///models/iris"
    )
    spec = kserve.V1beta1InferenceServiceSpec(predictor=kserve.V1beta1PredictorSpec(model=model))
    metadata = client.V1ObjectMeta(name="iris", namespace="default")
    isvc = kserve.V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1", kind="InferenceService", metadata=metadata, spec=spec
    )
    assert sdk.create(isvc)["metadata"]["generation"] == 1
    isvc.spec.predictor.min_replicas = 2
    assert sdk.patch("iris", isvc)["spec"]["predictor"]["minReplicas"] == 2
    isvc.metadata.resource_version = None
    isvc.spec.predictor.min_replicas = 3
    assert sdk.replace("iris", isvc)["metadata"]["generation"] == 3
    traffic = [{"latestRevision": True, "percent": 100, "revisionName": "iris-1"}]
    ready = {"type": "Ready", "status": "True"}
    status = {
        "observedGeneration": 3,
        "url": "http://iris",
        "conditions": [ready],
        "components": {"predictor": {"traffic": traffic}},
    }
    custom = client.CustomObjectsApi()
    custom.patch_namespaced_custom_object_status(
        "serving.kserve.io", "v1beta1", "default", "inferenceservices", "iris", {"status": status}
    )
    sdk.wait_isvc_ready("iris", namespace="default", timeout_seconds=5, polling_interval=1)
    assert sdk.get("iris", namespace="default")["status"]["url"] == "http://iris"
    assert sdk.delete("iris", namespace="default")["status"] == "Success"
