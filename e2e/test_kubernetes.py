"""What only a cluster of nodes can show: pods deleted, a node drained, the chart upgraded, rolled back and removed, under load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import Cluster, KubectlError, until
from e2e.kind import SYSTEM, KindCluster
from e2e.load import Load
from e2e.manifests import sklearn

SAMPLES = sorted((Path(__file__).parent.parent / "manifests" / "samples").glob("*.yaml"))


@pytest.fixture
def kind(cluster: Cluster) -> KindCluster:
    if not isinstance(cluster, KindCluster):
        pytest.skip("about pods, nodes and the chart: needs --cluster=kind")
    return cluster


@contextmanager
def served(kind: KindCluster, namespace: str, uri: str, replicas: int = 1) -> Iterator[Load]:
    """A ready service under a steady load, of which in the end nothing may have failed."""
    kind.apply(namespace, sklearn("digits", uri, minReplicas=replicas))
    kind.wait_ready(namespace, "digits")
    with Load(kind.url(namespace, "digits", "/v1/models/digits:predict"), rate=50) as load:
        load.answers.wait_any(50)
        yield load
        load.answers.wait_any(100)
    assert load.answers.failures == []


def pods(kind: KindCluster, namespace: str, selector: str) -> list[str]:
    return kind.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "name").split()


def test_one_of_two_gateway_pods_deleted_costs_no_request(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    with served(kind, namespace, kind.model_uri(models["v1"])):
        first, *_ = pods(kind, SYSTEM, "app.kubernetes.io/name=fairlead-gateway")
        kind.kubectl("delete", "-n", SYSTEM, first, "--timeout=300s", timeout=310)
        kind.kubectl("rollout", "status", "deployment/fairlead-gateway", "-n", SYSTEM, timeout=300)


def test_both_operator_pods_deleted_cost_no_request_and_updates_go_on(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    with served(kind, namespace, kind.model_uri(models["v1"])) as load:
        kind.kubectl("delete", "-n", SYSTEM, *pods(kind, SYSTEM, "app.kubernetes.io/name=fairlead-operator"))
        kind.apply(namespace, sklearn("digits", kind.model_uri(models["v2"])))
        kind.wait_ready(namespace, "digits")
        load.answers.wait(2)
    assert 2 in load.answers.values


def test_one_of_two_model_pods_deleted_costs_no_request(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    with served(kind, namespace, kind.model_uri(models["v1"]), replicas=2):
        first, *_ = pods(kind, namespace, "component=predictor")
        kind.kubectl("delete", "-n", namespace, first)


def test_a_drained_node_costs_no_request(kind: KindCluster, namespace: str, models: dict[str, Path]) -> None:
    node = kind.workers[1]
    try:
        with served(kind, namespace, kind.model_uri(models["v1"]), replicas=2):
            flags = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
            kind.kubectl("drain", node, *flags, timeout=310)
    finally:
        kind.kubectl("uncordon", node)
    kind.kubectl("rollout", "status", "deployment/fairlead-gateway", "-n", SYSTEM, timeout=300)


def test_the_chart_is_upgraded_and_rolled_back_without_a_failed_request(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    with served(kind, namespace, kind.model_uri(models["v1"])):
        kind.helm_upgrade("gateway.logLevel=debug", "operator.logLevel=debug")
        kind.helm("rollback", "fairlead", "--wait", "--timeout", "300s")
    operator = kind.get(SYSTEM, "fairlead-operator", "deployment")["spec"]["template"]["spec"]["containers"][0]
    assert "--log-level=info" in operator["args"]


def test_an_upgrade_brings_the_fields_that_the_charts_own_runtimes_have(kind: KindCluster) -> None:
    """Helm leaves installed CRDs as they are; this makes one that has not heard of a field yet."""
    crd, field = "clusterservingruntimes.serving.kserve.io", "protocolVersions"
    runtime = ("get", "clusterservingruntime", "kserve-sklearnserver", "-o", f"jsonpath={{.spec.{field}}}")
    before = kind.kubectl(*runtime)
    assert before
    path = f"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{field}"
    older = {"op": "replace", "path": "/metadata/annotations/fairlead.dev~1version", "value": "0.0.1"}
    kind.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps([{"op": "remove", "path": path}, older]))
    try:
        until(lambda: kind.kubectl(*runtime), lambda value: not value, "without the field")
    finally:
        kind.helm_upgrade()
    assert kind.kubectl(*runtime) == before


def test_the_charts_own_test_passes(kind: KindCluster) -> None:
    assert "Succeeded" in kind.helm("test", "fairlead")


KSERVE = (
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kserve-controller-manager", "namespace": "kserve"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "kserve"}},
            "template": {
                "metadata": {"labels": {"app": "kserve"}},
                "spec": {"containers": [{"name": "manager", "image": "kserve"}]},
            },
        },
    },
    {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "inferenceservice.serving.kserve.io"},
    },
)


@pytest.mark.parametrize("theirs", KSERVE, ids=lambda item: item["kind"])
def test_the_chart_refuses_to_share_the_cluster_with_kserve(kind: KindCluster, theirs: dict[str, Any]) -> None:
    manifest = json.dumps(theirs)
    kind.kubectl("apply", "-f", "-", stdin=manifest)
    try:
        with pytest.raises(AssertionError, match="ninstall KServe first"):
            kind.helm_upgrade()
    finally:
        kind.kubectl("delete", "-f", "-", stdin=manifest)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_the_api_server_accepts_every_sample(cluster: Cluster, namespace: str, sample: Path) -> None:
    said = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", str(sample))
    assert "(server dry run)" in said


def test_all_pods_meet_the_restricted_pod_security_standard(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    label = "pod-security.kubernetes.io/enforce=restricted"
    kind.kubectl("label", "namespace", namespace, label)
    kind.apply(namespace, sklearn("digits", kind.model_uri(models["v1"])))
    kind.wait_ready(namespace, "digits")
    enforced = kind.kubectl("label", "--dry-run=server", "--overwrite", "namespace", SYSTEM, label)
    assert "labeled" in enforced


def test_uninstalling_leaves_only_the_crds_and_the_users_objects(
    kind: KindCluster, namespace: str, models: dict[str, Path]
) -> None:
    kind.apply(namespace, sklearn("digits", kind.model_uri(models["v1"])))
    kind.wait_ready(namespace, "digits")
    try:
        kind.helm("uninstall", "fairlead", "--wait", "--timeout", "300s")
        ours = "app.kubernetes.io/part-of=fairlead"  # gateways go when their clients have gone
        kind.kubectl("wait", "--for=delete", "pod", "-n", SYSTEM, "-l", ours, "--timeout=300s", timeout=310)
        kinds = (
            "all,configmaps,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,poddisruptionbudgets"
        )
        left = ("get", f"{kinds},clusterservingruntimes", "-A", "-l", ours, "-o", "name")
        until(lambda: kind.kubectl(*left), lambda found: found == "", "without anything of Fairlead's")
        assert "inferenceservices.serving.kserve.io" in kind.kubectl("get", "crds", "-o", "name")
        running = kind.get(namespace, "digits-predictor", "deployment")
        assert running["status"]["readyReplicas"] == 1, "the model's pods go on without the operator"
    finally:
        kind.helm_upgrade()
    kind.wait_ready(namespace, "digits")
    with Load(kind.url(namespace, "digits", "/v1/models/digits:predict"), rate=20) as load:
        load.answers.wait(1, 40)
    assert load.answers.failures == []


def test_kubectl_refuses_a_runtime_with_an_unknown_field(cluster: Cluster, namespace: str) -> None:
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "odd"},
        "spec": {"supportedModelFormat": [], "containers": [{"name": "kserve-container", "image": "x"}]},
    }
    with pytest.raises(KubectlError, match="supportedModelFormat"):
        cluster.kubectl("apply", "-n", namespace, "--validate=strict", "-f", "-", stdin=json.dumps(runtime))
