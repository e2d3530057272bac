"""InferenceServices that the scenarios apply."""

from __future__ import annotations

from typing import Any


def inference_service(name: str, predictor: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": predictor, **spec},
    }


def sklearn(name: str, uri: str, **predictor: Any) -> dict[str, Any]:
    """A service of one scikit-learn model; further fields go into the predictor (canaryTrafficPercent, minReplicas, …)."""
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    return inference_service(name, {"model": model, **predictor})
