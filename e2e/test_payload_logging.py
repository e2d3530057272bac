"""`logger`: what a model is asked and answers reaches an address as CloudEvents, through the cluster's own network."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx

from e2e.cluster import PATIENCE, Cluster
from e2e.kind import KindCluster
from e2e.manifests import inference_service, sklearn

DUMPER = """
import http.server, json, os

class Dumper(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        event = {"headers": {k.lower(): v for k, v in self.headers.items()}, "body": body.decode()}
        os.write(1, (json.dumps(event) + "\\n").encode())
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), 8080), Dumper).serve_forever()
"""
"""Prints each event as a line. In one write: events come on several threads, and print() writes a line's end by itself."""


def test_what_a_model_is_asked_and_answers_is_sent_to_the_loggers_address(
    cluster: Cluster, namespace: str, models: dict[str, Path]
) -> None:
    container = {
        "name": "kserve-container",
        "image": "python:3.11-slim",
        "command": ["python", "-c", DUMPER],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
    }
    cluster.apply(namespace, inference_service("dumper", {"containers": [container]}))
    cluster.wait_ready(namespace, "dumper")
    logger = {"url": inside(cluster, namespace, "dumper"), "metadataHeaders": ["X-Tenant"]}
    cluster.apply(namespace, sklearn("digits", cluster.model_uri(models["v1"]), logger=logger))
    service = cluster.wait_ready(namespace, "digits")
    assert "FieldsNotActedOn" not in [condition["type"] for condition in service["status"]["conditions"]]

    question = json.dumps({"instances": [[0.0, 0.0, 0.0, 0.0]]})
    headers = {"content-type": "application/json", "x-request-id": "asked-once", "x-tenant": "acme"}
    url = cluster.url(namespace, "digits", "/v1/models/digits:predict")
    answer = httpx.post(url, content=question, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text

    kind = "org.kubeflow.serving.inference"
    found = events(cluster, namespace, {f"{kind}.request", f"{kind}.response"})
    asked, answered = found[f"{kind}.request"], found[f"{kind}.response"]
    assert (asked["body"], answered["body"]) == (question, answer.text)
    for event in (asked, answered):
        told = {
            name: event["headers"][f"ce-{name}"] for name in ("id", "inferenceservicename", "namespace", "component")
        }
        assert told == {
            "id": "asked-once",
            "inferenceservicename": "digits",
            "namespace": namespace,
            "component": "predictor",
        }
        assert event["headers"]["ce-source"].startswith("digits-predictor-")
        assert json.loads(event["headers"]["ce-metadata"]) == {"X-Tenant": ["acme"]}


def inside(cluster: Cluster, namespace: str, name: str) -> str:
    """A service's address for other pods. The laptop has no DNS: there the gateway leads to it."""
    if isinstance(cluster, KindCluster):
        return f"http://{name}-predictor.{namespace}.svc.cluster.local"
    return cluster.url(namespace, name, "/")


def events(cluster: Cluster, namespace: str, types: set[str], timeout: float = PATIENCE) -> dict[str, dict[str, Any]]:
    """What the dumper has printed, by type, once there is one of each. One may be there twice: its answer was lost."""
    deadline = time.monotonic() + timeout
    selector = "serving.kserve.io/inferenceservice=dumper"
    while True:
        log = cluster.kubectl("logs", "--namespace", namespace, "--selector", selector, "--tail=-1")
        lines = log.splitlines(keepends=True)
        printed = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        found = {event["headers"]["ce-type"]: event for event in printed}
        if found.keys() >= types:
            return found
        assert time.monotonic() < deadline, f"of {types} only {found.keys()}; the log: {lines}"
        time.sleep(0.2)
