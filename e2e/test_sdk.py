"""KServe's own SDK, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest
from kserve import (
    KServeClient,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
)
from kubernetes.client import V1ObjectMeta

from e2e.cluster import Cluster

pytestmark = pytest.mark.filterwarnings("ignore")


def test_kserves_client_creates_waits_patches_and_deletes(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    def service(key: str, percent: int | None = None) -> V1beta1InferenceService:
        model = V1beta1ModelSpec(
            model_format=V1beta1ModelFormat(name="sklearn"), storage_uri=cluster.model_uri(models[key])
        )
        return V1beta1InferenceService(
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata=V1ObjectMeta(name="digits", namespace=namespace),
            spec=V1beta1InferenceServiceSpec(
                predictor=V1beta1PredictorSpec(model=model, canary_traffic_percent=percent)
            ),
        )

    client = KServeClient(config_file=str(cluster.kubeconfig))
    client.create(service("v1"))
    client.wait_isvc_ready("digits", namespace=namespace, timeout_seconds=120, polling_interval=1)
    client.patch("digits", service("v2", percent=20), namespace=namespace)
    cluster.eventually(
        namespace,
        "digits",
        lambda s: sorted(t["percent"] for t in s["status"]["components"]["predictor"]["traffic"]) == [20, 80],
        "at 80/20",
    )
    assert client.get("digits", namespace=namespace)["status"]["components"]["predictor"]["latestReadyRevision"]
    client.delete("digits", namespace=namespace)
