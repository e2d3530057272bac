"""Every sample, applied as it lies there, becomes Ready and answers over HTTP and gRPC. Where their models lie is told by a mirror."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from e2e.cluster import SAMPLES, Cluster
from e2e.kind import TORCH_IMAGE, KindCluster

FLOWER = [6.8, 2.8, 4.8, 1.4]
VERSICOLOR = 1


@dataclass(frozen=True)
class Asked:
    """What a sample's InferenceService is asked."""

    answers: Mapping[str, Any] = field(default_factory=dict)
    """Model name -> what V1 predicts for the flower."""
    explains: str = ""
    """A model whose `:explain` is answered."""
    grpc: bool = True
    page: bool = False
    """Its own server: GET / is answered."""
    before: str = ""
    """A sample that has to be there first."""


def iris(name: str, answer: Any = VERSICOLOR, **more: Any) -> Asked:
    return Asked({name: answer}, **more)


ASKED = {
    "canaries": iris("iris-versions"),
    "canary": iris("iris", before="sklearn"),
    "custom": Asked(page=True, grpc=False),
    "explainer": iris("iris-explained", explains="iris-explained"),
    "hpa": iris("iris-hpa"),
    "lightgbm": iris("iris-lightgbm"),
    "logger": iris("iris-logged"),
    "multi-model": Asked({"linear": VERSICOLOR, "vectors": VERSICOLOR}),
    "onnx": iris("iris-onnx"),
    "python": iris("petal-rule"),
    "pytorch": iris("iris-pytorch"),
    "runtime": iris("iris-runtime", grpc=False),
    "scale-to-zero": iris("iris-asleep"),
    "sklearn": iris("iris"),
    "transformer": iris("iris-species", "versicolor", grpc=False),
    "xgboost": iris("iris-xgboost"),
}
ELSEWHERE = {
    "local": "its model's address is relative to the file: `fairlead up` and `fairlead apply` know it (tests/cli)",
    "s3": "needs an S3 server and credentials (tests/runtime/storage)",
}


def test_every_sample_is_asked_something() -> None:
    assert ASKED.keys() | ELSEWHERE.keys() == {path.stem for path in SAMPLES.glob("*.yaml")}


@pytest.mark.parametrize("sample", sorted(ASKED))
def test_the_sample_becomes_ready_and_answers(cluster: Cluster, namespace: str, sample: str) -> None:
    asked = ASKED[sample]
    if sample == "pytorch" and isinstance(cluster, KindCluster) and not cluster.has_image(TORCH_IMAGE):
        pytest.skip(f"{TORCH_IMAGE} is not built: make images-all")
    for name in filter(None, (asked.before, sample)):
        cluster.kubectl("apply", "--namespace", namespace, "-f", str(SAMPLES / f"{name}.yaml"))
        service = cluster.wait_ready(namespace, service_in(SAMPLES / f"{name}.yaml"), timeout=240)
    name = service["metadata"]["name"]
    for model, answer in asked.answers.items():
        path = f"/v1/models/{model}:predict"
        reply = httpx.post(cluster.url(namespace, name, path), json={"instances": [FLOWER]}, timeout=60)
        assert reply.status_code == 200, reply.text
        assert told(reply.json()["predictions"]) == answer
    if asked.grpc:
        host = urlsplit(service["status"]["url"]).netloc
        assert grpc_answer(cluster, host, next(iter(asked.answers)))
    if asked.explains:
        path = f"/v1/models/{asked.explains}:explain"
        reply = httpx.post(cluster.url(namespace, name, path), json={"instances": [FLOWER]}, timeout=60)
        assert reply.status_code == 200, reply.text
        assert "average petal width" in reply.text
    if asked.page:
        assert httpx.get(cluster.url(namespace, name, "/"), timeout=60).status_code == 200


def service_in(sample: Path) -> str:
    """The name of the InferenceService in the sample."""
    documents = yaml.safe_load_all(sample.read_text())
    name: str = next(d["metadata"]["name"] for d in documents if d["kind"] == "InferenceService")
    return name


def told(predictions: Any) -> Any:
    """The species, whether the model says it as a label, as a row of probabilities, or beside them."""
    first = predictions[0]
    if isinstance(first, dict):
        first = next(iter(first.values()))
    if isinstance(first, list):
        return first.index(max(first))
    return first


def grpc_answer(cluster: Cluster, host: str, model: str) -> Any:
    script = str(Path(__file__).with_name("grpc_infer.py"))
    arguments = [urlsplit(cluster.gateway).netloc, host, model, "4"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
