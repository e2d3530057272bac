"""A user's class becomes an image without a Dockerfile of the user's, and the image a service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from e2e.cluster import Cluster
from e2e.kind import NAME, RUNTIME_IMAGE, KindCluster

SCORER = """
import os

import humanize
from fairlead.runtime import Model, TensorSpec


class Scorer(Model):
    inputs = (TensorSpec("x", "FP32", (-1, 2)),)
    outputs = (TensorSpec("y", "FP32", (-1,)),)

    def load(self):
        assert os.getuid() != 0
        assert humanize.intword(1_200_000) == "1.2 million"

    def predict(self, request):
        return {"y": request["x"].sum(axis=1) + 1}
"""


@pytest.mark.timeout(1000, func_only=True)
def test_a_packaged_class_becomes_ready_and_answers_over_http_and_grpc(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    if not isinstance(cluster, KindCluster):
        pytest.skip("the laptop cluster runs classes as they are: there are no images in it")
    (tmp_path / "scorer.py").write_text(SCORER)
    (tmp_path / "requirements.txt").write_text("humanize>=4\n")
    command = [sys.executable, "-m", "fairlead.cli", "package", str(tmp_path), "--name=scorer", f"--kind={NAME}"]
    done = subprocess.run(
        [*command, f"--base={RUNTIME_IMAGE}"], capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    cluster.kubectl("apply", "--namespace", namespace, "-f", "-", stdin=done.stdout)
    cluster.wait_ready(namespace, "scorer")
    document = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]}]}
    answer = httpx.post(cluster.url(namespace, "scorer", "/v2/models/scorer/infer"), json=document, timeout=60)
    assert answer.json()["outputs"][0]["data"] == [4.5], answer.text

    script = str(Path(__file__).with_name("grpc_infer.py"))
    arguments = [urlsplit(cluster.gateway).netloc, f"scorer-{namespace}.example.com", "scorer", "2"]
    grpc = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert grpc.returncode == 0, grpc.stderr
    assert json.loads(grpc.stdout) == [1.0]
