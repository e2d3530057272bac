"""Models that no pod downloads, on a real kubelet: mounted as an image, or in the node's cache since another pod fetched them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.cluster import Cluster, KubectlError
from e2e.kind import NAME, RUNTIME_IMAGE, KindCluster
from e2e.manifests import sklearn

ROW = {"instances": [[0, 0, 0, 0]]}
CACHE = "/var/lib/fairlead-models"


@pytest.fixture(scope="module")
def kind(cluster: Cluster) -> KindCluster:
    if not isinstance(cluster, KindCluster):
        pytest.skip("about volumes that a kubelet mounts: needs --cluster=kind")
    return cluster


def predictions(kind: KindCluster, namespace: str, name: str) -> list[int]:
    answer = httpx.post(kind.url(namespace, name, f"/v1/models/{name}:predict"), json=ROW, timeout=60)
    answer.raise_for_status()
    found: list[int] = answer.json()["predictions"]
    return found


def pods(kind: KindCluster, namespace: str, name: str) -> list[dict[str, Any]]:
    selector = f"serving.kserve.io/inferenceservice={name}"
    found: dict[str, Any] = json.loads(kind.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))
    items: list[dict[str, Any]] = found["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def run(kind: KindCluster, namespace: str, name: str, code: str) -> str:
    """What Python code prints in the model server's container."""
    pod = pods(kind, namespace, name)[0]["metadata"]["name"]
    return kind.kubectl("exec", pod, "-n", namespace, "-c", "kserve-container", "--", "python", "-c", code)


# --- A model's image ----------------------------------------------------------------------------------------------


@pytest.fixture
def image(kind: KindCluster, namespace: str, models: dict[str, Path], tmp_path: Path) -> str:
    """An image with nothing in it but a model, on the nodes."""
    volume = {"name": "model", "image": {"reference": RUNTIME_IMAGE, "pullPolicy": "IfNotPresent"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "probe", "image": RUNTIME_IMAGE}], "volumes": [volume]},
    }
    tried = kind.kubectl("create", "--dry-run=server", "-n", namespace, "-f", "-", "-o", "json", stdin=json.dumps(pod))
    if "image" not in next(v for v in json.loads(tried)["spec"]["volumes"] if v["name"] == "model"):
        pytest.skip("the API server has no image volumes: the feature gate ImageVolume is off")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.skops").write_bytes((models["v2"] / "model.skops").read_bytes())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY models /models\n")
    name = f"fairlead-e2e/model:{namespace}"
    for command in (
        ("docker", "build", "--quiet", "--tag", name, str(tmp_path)),
        ("kind", "load", "docker-image", "--name", NAME, "--nodes", ",".join(kind.workers), name),
        ("docker", "rmi", name),
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return name


def test_a_models_image_is_mounted_by_the_kubelet_and_nobody_fetches(
    kind: KindCluster, namespace: str, image: str
) -> None:
    kind.apply(namespace, sklearn("iris", f"oci://docker.io/{image}"))
    kind.wait_ready(namespace, "iris")
    assert predictions(kind, namespace, "iris") == [2]
    spec = pods(kind, namespace, "iris")[0]["spec"]
    mounted = next(volume for volume in spec["volumes"] if "image" in volume)
    assert mounted["image"]["reference"] == f"docker.io/{image}"
    assert "initContainers" not in spec
    with pytest.raises(KubectlError, match="Read-only file system"):
        run(kind, namespace, "iris", "open('/mnt/models/more', 'w')")


# --- The node's cache ---------------------------------------------------------------------------------------------

COUNTING = """
import http.server, urllib.request

asked = []

class Source(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/asked":
            content = str(len(asked)).encode()
        else:
            asked.append(self.path)
            content = urllib.request.urlopen("{models}" + self.path).read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

http.server.ThreadingHTTPServer(("", 8080), Source).serve_forever()
"""


class Source:
    """A server of models in the namespace that counts what it is asked for, and can be gone."""

    def __init__(self, kind: KindCluster, namespace: str, models: dict[str, Path]) -> None:
        self.kind, self.namespace, self.models = kind, namespace, models
        upstream = kind.model_uri(models["v1"]).rpartition("/")[0]
        container = {
            "name": "source",
            "image": RUNTIME_IMAGE,
            "command": ["python", "-c", COUNTING.format(models=upstream)],
            "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        }
        labels = {"app": "source"}
        kind.apply(
            namespace,
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "source", "labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "source"},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        )
        kind.kubectl("wait", "--for=condition=Ready", "pod/source", "-n", namespace, "--timeout=120s", timeout=130)

    def uri(self, version: str) -> str:
        """With its digest: what is in the cache then needs no word from the source."""
        digest = hashlib.sha256((self.models[version] / "model.skops").read_bytes()).hexdigest()
        return f"http://source.{self.namespace}.svc.cluster.local/{version}.skops#sha256={digest}"

    def asked(self) -> int:
        read = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/asked').read().decode())"
        return int(self.kind.kubectl("exec", "source", "-n", self.namespace, "--", "python", "-c", read))

    def go(self) -> None:
        self.kind.kubectl("delete", "pod", "source", "-n", self.namespace, "--timeout=110s")


@pytest.fixture(scope="module")
def cached(kind: KindCluster) -> Iterator[KindCluster]:
    """The cluster with a cache on its nodes, made as docs/storage.md says."""
    for node in kind.workers:
        subprocess.run(("docker", "exec", node, "mkdir", "-p", "-m", "1777", CACHE), check=True, timeout=30)
    kind.helm_upgrade(f"storage.cache.hostPath={CACHE}")
    yield kind
    kind.helm_upgrade()


@pytest.fixture
def source(cached: KindCluster, namespace: str, models: dict[str, Path]) -> Source:
    return Source(cached, namespace, models)


def on_one_node(kind: KindCluster, name: str, uri: str, **predictor: Any) -> dict[str, Any]:
    return sklearn(name, uri, nodeSelector={"kubernetes.io/hostname": kind.workers[0]}, **predictor)


def test_a_model_in_the_nodes_cache_is_served_again_when_its_source_is_gone(
    cached: KindCluster, namespace: str, source: Source
) -> None:
    cached.apply(namespace, on_one_node(cached, "iris", source.uri("v2")))
    cached.wait_ready(namespace, "iris")
    assert source.asked() == 1
    source.go()
    cached.apply(namespace, on_one_node(cached, "again", source.uri("v2")))
    cached.wait_ready(namespace, "again")
    assert predictions(cached, namespace, "again") == [2]


def test_a_model_server_that_spoils_its_copy_does_not_spoil_the_caches(
    cached: KindCluster, namespace: str, source: Source
) -> None:
    cached.apply(namespace, on_one_node(cached, "iris", source.uri("v2")))
    cached.wait_ready(namespace, "iris")
    run(cached, namespace, "iris", "open('/mnt/models/v2.skops', 'w').write('spoilt')")
    source.go()
    cached.apply(namespace, on_one_node(cached, "again", source.uri("v2")))
    cached.wait_ready(namespace, "again")
    assert predictions(cached, namespace, "again") == [2]


def test_two_pods_that_start_on_a_node_at_once_fetch_once(cached: KindCluster, namespace: str, source: Source) -> None:
    cached.apply(namespace, on_one_node(cached, "iris", source.uri("v3"), minReplicas=2))
    cached.wait_ready(namespace, "iris")
    deployed = cached.get(namespace, "iris-predictor", "deployment")
    assert deployed["spec"]["replicas"] == 2
    cached.kubectl("rollout", "status", "deployment/iris-predictor", "-n", namespace, "--timeout=120s", timeout=130)
    assert source.asked() == 1
    assert predictions(cached, namespace, "iris") == [3]


def test_with_an_init_container_the_model_server_reads_its_model_and_sees_no_cache(
    cached: KindCluster, namespace: str, source: Source
) -> None:
    service = on_one_node(cached, "iris", source.uri("v2"))
    service["metadata"]["annotations"] = {"fairlead.dev/storage": "init"}
    cached.apply(namespace, service)
    cached.wait_ready(namespace, "iris")
    assert predictions(cached, namespace, "iris") == [2]
    spec = pods(cached, namespace, "iris")[0]["spec"]
    assert not [mount for mount in spec["containers"][0]["volumeMounts"] if "cache" in mount["name"]]
    assert [mount for mount in spec["initContainers"][0]["volumeMounts"] if "cache" in mount["name"]]
    with pytest.raises(KubectlError, match="Read-only file system"):
        run(cached, namespace, "iris", "open('/mnt/models/more', 'w')")
