"""The real kubectl against a server process."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kubectl


@pytest.fixture(scope="session")
def kubectl(server: Any, widget: dict[str, Any]) -> Any:
    """The server with the test CRD, made by kubectl."""
    assert "created" in server.kubectl("apply", "-f", "-", stdin=json.dumps(widget))
    assert "condition met" in server.kubectl(
        "wait", "--for=condition=Established", "crd/widgets.example.dev", "--timeout=60s"
    )
    return server.kubectl


def manifest(kind: str, name: str, api_version: str = "v1", **rest: Any) -> str:
    return json.dumps({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **rest})


def widget_manifest(name: str, **spec: Any) -> str:
    return manifest("Widget", name, "example.dev/v1", spec={"size": 5, **spec})


def deployment(name: str, image: str = "app:1") -> str:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    return manifest(
        "Deployment", name, "apps/v1", spec={"selector": {"matchLabels": {"app": name}}, "template": template}
    )


def test_client_side_apply_creates_configures_and_leaves_alone(kubectl: Any) -> None:
    assert kubectl("apply", "-f", "-", stdin=deployment("csa")) == "deployment.apps/csa created\n"
    assert kubectl("apply", "-f", "-", stdin=deployment("csa", "app:2")) == "deployment.apps/csa configured\n"
    assert kubectl("apply", "-f", "-", stdin=deployment("csa", "app:2")) == "deployment.apps/csa unchanged\n"
    assert kubectl("get", "deploy", "csa", "-o", "jsonpath={..image}") == "app:2"


def test_server_side_apply_names_the_manager_in_a_conflict_and_gives_way_to_force(kubectl: Any) -> None:
    apply = ("apply", "--server-side", "-f", "-", "--field-manager")
    assert "serverside-applied" in kubectl(*apply, "one", stdin=widget_manifest("ssa"))
    conflict = kubectl(*apply, "two", stdin=widget_manifest("ssa", size=6))
    assert 'Apply failed with 1 conflict: conflict with "one" using example.dev/v1: .spec.size' in conflict
    assert "serverside-applied" in kubectl(*apply, "two", "--force-conflicts", stdin=widget_manifest("ssa", size=6))


def test_client_side_applied_objects_move_to_server_side_apply(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=widget_manifest("moved"))
    assert (
        kubectl("apply", "--server-side", "-f", "-", stdin=widget_manifest("moved", size=6))
        == "widget.example.dev/moved serverside-applied\n"
    )


def test_a_typo_is_refused_with_the_field_by_its_path(kubectl: Any) -> None:
    text = kubectl("apply", "-f", "-", stdin=widget_manifest("typo", modle=1))
    assert (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.modle"'
        in text
    )
    broken = deployment("typo").replace('"image"', '"imge"')
    assert 'strict decoding error: unknown field "spec.template.spec.containers[0].imge"' in kubectl(
        "apply", "-f", "-", stdin=broken
    )
    assert 'Warning: unknown field "spec.modle"' in kubectl(
        "apply", "--validate=warn", "-f", "-", stdin=widget_manifest("typo", modle=1)
    )


def test_invalid_values_and_rules_are_listed_as_kubernetes_lists_them(kubectl: Any) -> None:
    text = kubectl("apply", "-f", "-", stdin=widget_manifest("wrong", size=11, mode="medium"))
    assert 'The Widget "wrong" is invalid:' in text
    assert "* spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10" in text
    assert '* spec.mode: Unsupported value: "medium": supported values: "fast", "slow"' in text
    rule = kubectl("apply", "-f", "-", stdin=widget_manifest("wrong", size=5, max=3))
    assert rule == 'The Widget "wrong" is invalid: spec: Invalid value: "object": size must not exceed max\n'


def test_get_shows_the_crds_columns_wide_ones_and_sorts(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=widget_manifest("columns", mode="fast"))
    status = '{"status":{"traffic":[{"tag":"latest","percent":80},{"tag":"prev","percent":20}]}}'
    kubectl("patch", "widget", "columns", "--subresource=status", "--type=merge", "-p", status)
    header, row = kubectl("get", "wd", "columns").splitlines()
    assert header.split() == ["NAME", "SIZE", "PREV", "AGE"]
    assert row.split()[:3] == ["columns", "5", "20"]
    assert "MODE" in kubectl("get", "wd", "columns", "-o", "wide")
    assert kubectl("get", "wd", "columns", "-o", "name") == "widget.example.dev/columns\n"
    assert "size: 5" in kubectl("get", "wd", "columns", "-o", "yaml")


def test_every_kind_of_patch_and_subresource(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=widget_manifest("patched"))
    kubectl("patch", "wd", "patched", "--type=merge", "-p", '{"spec":{"size":6}}')
    kubectl(
        "patch",
        "wd",
        "patched",
        "--type=json",
        "-p",
        '[{"op":"replace","path":"/spec/size","value":7},{"op":"add","path":"/spec/name","value":"x"}]',
    )
    assert kubectl("get", "wd", "patched", "-o", "jsonpath={.spec.size}{.spec.name} {.metadata.generation}") == "7x 3"
    kubectl(
        "patch",
        "wd",
        "patched",
        "--subresource=status",
        "--type=merge",
        "-p",
        '{"status":{"ready":"yes"},"spec":{"size":1}}',
    )
    assert (
        kubectl("get", "wd", "patched", "-o", "jsonpath={.spec.size}{.status.ready} {.metadata.generation}") == "7yes 3"
    )
    kubectl("apply", "-f", "-", stdin=deployment("patched"))
    kubectl(
        "patch",
        "deploy",
        "patched",
        "-p",
        '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"s"}]}}}}',
    )
    assert sorted(kubectl("get", "deploy", "patched", "-o", "jsonpath={..image}").split()) == ["app:1", "s"]
    assert "strategic" in kubectl("patch", "wd", "patched", "--type=strategic", "-p", "{}")


def test_edit_scale_label_annotate_and_replace(kubectl: Any, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=deployment("edited"))
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/image: app:1/image: app:9/' \"$1\"\n")
    editor.chmod(0o755)
    assert "edited" in kubectl("edit", "deploy", "edited", env={"KUBE_EDITOR": str(editor)})
    assert "scaled" in kubectl("scale", "deploy", "edited", "--replicas=3")
    assert "scaled" in kubectl("scale", "deploy", "edited", "--replicas=0", "--current-replicas=3")
    assert kubectl("get", "deploy", "edited", "-o", "jsonpath={..image} {.spec.replicas}") == "app:9 0"
    kubectl("apply", "-f", "-", stdin=widget_manifest("edited"))
    assert "scaled" in kubectl("scale", "wd", "edited", "--replicas=2")
    assert "labeled" in kubectl("label", "wd", "edited", "tier=gold")
    assert "annotated" in kubectl("annotate", "wd", "edited", "note=x")
    assert kubectl("get", "wd", "-l", "tier in (gold)", "-o", "name") == "widget.example.dev/edited\n"


def test_commands_that_speak_protobuf_or_ask_back(kubectl: Any) -> None:
    assert "created" in kubectl("create", "configmap", "pb", "--from-literal=a=1")
    assert kubectl("get", "cm", "pb", "-o", "jsonpath={.data.a}") == "1"
    assert "created" in kubectl("create", "secret", "generic", "pb", "--from-literal=a=1")
    assert kubectl("get", "secret", "pb", "-o", "jsonpath={.type} {.data.a}") == "Opaque MQ=="
    assert "created" in kubectl("create", "deployment", "pb", "--image=x:1", "--replicas=0")
    assert kubectl("get", "deploy", "pb", "-o", "jsonpath={.spec.replicas} {.spec.strategy.type}") == "0 RollingUpdate"
    assert "created" in kubectl("create", "namespace", "pb")
    assert kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    diff = kubectl("diff", "-f", "-", stdin=manifest("ConfigMap", "pb", data={"a": "2"}))
    assert '-  a: "1"' in diff
    assert '+  a: "2"' in diff


def test_describe_explain_api_resources_and_version(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=widget_manifest("told"))
    assert "Size:  5" in kubectl("describe", "wd", "told")
    kubectl("apply", "-f", "-", stdin=deployment("told"))
    assert "25% max unavailable" in kubectl("describe", "deploy", "told")
    assert "How large it is." in kubectl("explain", "widget.spec.size")
    assert "DeploymentStrategy" in kubectl("explain", "deploy.spec.strategy")
    resources = kubectl("api-resources")
    assert "wd" in resources
    assert "horizontalpodautoscalers" in resources
    assert "+fairlead" in kubectl("version")


def test_deleting_a_namespace_takes_its_objects_and_ends(kubectl: Any) -> None:
    kubectl("create", "namespace", "doomed")
    kubectl("create", "configmap", "c", "-n", "doomed")
    assert 'namespace "doomed" deleted' in kubectl("delete", "namespace", "doomed", "--timeout=60s")
    assert 'namespaces "doomed" not found' in kubectl("create", "configmap", "c", "-n", "doomed")


def pod(name: str, **spec: Any) -> str:
    return manifest("Pod", name, spec={"containers": [{"name": "main", "image": "x"}], "nodeName": "laptop", **spec})


def test_a_pod_terminates_until_its_node_deletes_it(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=pod("ending"))
    kubectl("delete", "pod", "ending", "--wait=false")
    assert "Terminating" in kubectl("get", "pod", "ending")
    kubectl("delete", "pod", "ending", "--grace-period=0", "--force")
    assert "not found" in kubectl("get", "pod", "ending")


def test_logs_are_the_files_that_the_node_writes(kubectl: Any, server: Any) -> None:
    kubectl("apply", "-f", "-", stdin=pod("logging"))
    assert 'container "main" in pod "logging" is waiting to start: ContainerCreating' in kubectl("logs", "logging")
    folder = server.directory / "logs" / "default" / "logging" / "main"
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("crashed\n")
    (folder / "1.log").write_text("one\ntwo\nthree\n")
    status = {
        "status": {
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "x",
                    "imageID": "",
                    "ready": True,
                    "restartCount": 1,
                    "state": {"running": {}},
                }
            ]
        }
    }
    kubectl("patch", "pod", "logging", "--subresource=status", "-p", json.dumps(status))
    assert kubectl("logs", "logging") == "one\ntwo\nthree\n"
    assert kubectl("logs", "logging", "--tail=1") == "three\n"
    assert kubectl("logs", "logging", "--previous") == "crashed\n"
    assert "container nope is not valid for pod logging" in kubectl("logs", "logging", "-c", "nope")
    followed: list[str] = []
    follower = threading.Thread(target=lambda: followed.append(kubectl("logs", "-f", "logging")))
    follower.start()
    with (folder / "1.log").open("a") as file:
        file.write("four\n")
    status["status"]["containerStatuses"][0]["state"] = {"terminated": {"exitCode": 0}}
    kubectl("patch", "pod", "logging", "--subresource=status", "-p", json.dumps(status))
    follower.join(90)
    assert followed == ["one\ntwo\nthree\nfour\n"]


def test_watching_get_shows_changes_and_wait_returns_on_the_condition(kubectl: Any, server: Any) -> None:
    kubectl("apply", "-f", "-", stdin=widget_manifest("watched"))
    command = ["kubectl", "--kubeconfig", str(server.kubeconfig), "get", "wd", "watched", "-w", "--no-headers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[:2] == ["watched", "5"]
        kubectl("patch", "wd", "watched", "--type=merge", "-p", '{"spec":{"size":8}}')
        assert watch.stdout.readline().split()[:2] == ["watched", "8"]
        watch.terminate()
    waiting: list[str] = []
    waiter = threading.Thread(
        target=lambda: waiting.append(
            kubectl("wait", "--for=jsonpath={.status.ready}=yes", "wd/watched", "--timeout=60s")
        )
    )
    waiter.start()
    time.sleep(0.2)
    kubectl("patch", "wd", "watched", "--subresource=status", "--type=merge", "-p", '{"status":{"ready":"yes"}}')
    waiter.join(90)
    assert waiting == ["widget.example.dev/watched condition met\n"]


def test_rollout_status_follows_the_deployments_status(kubectl: Any) -> None:
    kubectl("apply", "-f", "-", stdin=deployment("rolled"))
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
    kubectl("patch", "deploy", "rolled", "--subresource=status", "-p", json.dumps({"status": status}))
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/rolled", "--timeout=60s")
    assert "restarted" in kubectl("rollout", "restart", "deploy/rolled")


def test_a_wrong_token_is_unauthorized(kubectl: Any) -> None:
    assert "Unauthorized" in kubectl("get", "pods", "--token=wrong") or "must be logged in" in kubectl(
        "get", "pods", "--token=wrong"
    )
