"""Storage on a real API server: the pods that credentials, images and caches make are accepted, and applied once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from tests.controllers.test_storage import ACCOUNT, pod, service, storage_container, with_storage
from tests.integration.conftest import ApiServer, run_api_server
from tests.integration.world import install

from fairlead.controllers.cluster import holds
from fairlead.controllers.inferenceservice.podsource import Surroundings
from fairlead.kube.client import Client
from fairlead.kube.objects import Object
from fairlead.kube.resources import CLUSTER_STORAGE_CONTAINERS, DEPLOYMENTS, SECRETS

CACHE = {"model_cache": "hostPath:/var/lib/models", "model_cache_limit": "20Gi"}
WITH_CONTAINER = dataclasses.replace(ACCOUNT, containers=[storage_container()])

SHAPES: dict[str, tuple[Object, Surroundings, dict[str, Any]]] = {
    "credentials": (service(), ACCOUNT, {}),
    "init": (service(), ACCOUNT, {"ours": False}),
    "storage-key": (with_storage(key="minio", path="iris", parameters={"bucket": "models"}), Surroundings(), {}),
    "storage-container": (service(), WITH_CONTAINER, {}),
    "claim": (service("pvc://models/iris"), Surroundings(), {}),
    "cache": (service(), ACCOUNT, CACHE),
    "cache-init": (service(), ACCOUNT, {"ours": False, "model_cache": "claim:models"}),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_api_server_takes_the_pods_as_they_are(shape: str, client: Client, namespace: str) -> None:
    obj, surroundings, options = SHAPES[shape]
    spec = pod(obj, surroundings, **options)
    labels = {"app": shape}
    deployment = {
        "metadata": {"name": shape, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
    made = await client.apply(DEPLOYMENTS, deployment, field_manager="test", strict=True)
    assert holds(made, deployment), "else it would be applied again and again"


async def test_a_secrets_metadata_is_all_that_the_operator_gets(client: Client, namespace: str) -> None:
    metadata = {"name": "minio", "namespace": namespace, "annotations": {"serving.kserve.io/s3-region": "eu"}}
    await client.create(SECRETS, {"metadata": metadata, "stringData": {"AWS_SECRET_ACCESS_KEY": "key"}})
    got = await client.metadata(SECRETS, "minio", namespace)
    assert got["metadata"]["annotations"] == {"serving.kserve.io/s3-region": "eu"}
    assert "data" not in got


async def test_kserves_own_storage_containers_are_accepted(client: Client) -> None:
    await install(client)
    container = {
        "name": "storage-initializer",
        "image": "kserve/storage-initializer:v0.20.0",
        "resources": {"limits": {"memory": "1Gi"}},
    }
    formats = [
        {"prefix": "gs://"},
        {"regex": "https://(.+?).blob.core.windows.net/(.+)"},
        {"regex": "https?://(.+)/(.+)"},
    ]
    obj = {"metadata": {"name": "default"}, "spec": {"container": container, "supportedUriFormats": formats}}
    made = await client.apply(CLUSTER_STORAGE_CONTAINERS, obj, field_manager="test", strict=True)
    assert made["spec"]["workloadType"] == "initContainer"
    assert made["spec"]["container"] == container
    await client.delete(CLUSTER_STORAGE_CONTAINERS, "default")


@pytest.fixture(scope="module")
def with_image_volumes(tmp_path_factory: pytest.TempPathFactory, kube_apiserver: ApiServer) -> Iterator[ApiServer]:
    """A server whose feature gate ImageVolume is on, as it is by default from 1.35 on."""
    with run_api_server(tmp_path_factory.mktemp("image-volumes"), "--feature-gates=ImageVolume=true") as server:
        yield server


async def test_an_image_as_a_volume_is_accepted_where_the_feature_is_on(with_image_volumes: ApiServer) -> None:
    spec = pod(service("oci://registry.example.com/iris:1"), image_volumes=True)
    labels = {"app": "image"}
    deployment = {
        "metadata": {"name": "image", "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }
    async with await Client.connect(with_image_volumes.kubeconfig) as client:
        made = await client.apply(DEPLOYMENTS, deployment, field_manager="test", strict=True)
        assert holds(made, deployment)
