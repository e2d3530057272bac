"""What the charts render: lint-clean, nothing mistyped accepted, no more rights and templates than needed, every value documented."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api import names
from fairlead.api.crd import KINDS, custom_resource_definition
from fairlead.controllers.__main__ import parser
from fairlead.gateway.succession import RELIEVED

ROOT = Path(__file__).parents[2]
FAIRLEAD = ROOT / "charts" / "fairlead"
SERVICE = ROOT / "charts" / "inferenceservice"
ONE_MODEL = ("model.format=sklearn", "model.storageUri=s3://models/iris")

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="needs helm on PATH")


def helm(*arguments: str) -> str:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=110, check=False)
    if done.returncode != 0:
        raise ValueError(done.stdout + done.stderr)
    return done.stdout


def render(chart: Path, *settings: str) -> list[dict[str, Any]]:
    flags = [word for setting in settings for word in ("--set", setting)]
    text = helm("template", "iris", str(chart), "--namespace", "fairlead-system", *flags)
    return [document for document in yaml.safe_load_all(text) if document]


def find(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def values(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The paths of all values, those that are given as one thing (resources, labels) as one."""
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and key not in ("resources", "monitoringNamespaceLabels"):
            yield from values(value, f"{path}.")
        else:
            yield path


def test_the_operator_is_told_of_mirrors_and_of_pickle(tmp_path: Path) -> None:
    given = tmp_path / "values.yaml"
    given.write_text(
        json.dumps({"storage": {"mirrors": {"gs://a/": "s3://b/", "hf://": "https://c/"}, "allowPickle": True}})
    )
    rendered = yaml.safe_load_all(helm("template", "iris", str(FAIRLEAD), "--values", str(given)))
    operator = find([o for o in rendered if o], "Deployment", "fairlead-operator")
    arguments = operator["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--storage-mirrors=gs://a/ -> s3://b/;hf:// -> https://c/;" in arguments
    assert "--allow-pickle" in arguments


@pytest.mark.parametrize(("chart", "settings"), [(FAIRLEAD, ()), (SERVICE, ONE_MODEL)], ids=["fairlead", "service"])
def test_helm_lint_has_nothing_to_say(chart: Path, settings: tuple[str, ...]) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart), *flags)


@pytest.mark.parametrize(
    ("chart", "setting", "named"),
    [
        (FAIRLEAD, "operator.replica=3", "replica"),
        (FAIRLEAD, "gateway.service.type=Ingress", "/gateway/service/type"),
        (FAIRLEAD, "ingress.urlPort=99999", "/ingress/urlPort"),
        (FAIRLEAD, "image.registry=registry.example.com", "/image/registry"),
        (SERVICE, "canaryTrafficPercent=120", "/canaryTrafficPercent"),
        (SERVICE, "model.storageUri=models/iris", "/model/storageUri"),
        (SERVICE, "name=Iris", "/name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(chart: Path, setting: str, named: str) -> None:
    settings = ONE_MODEL if chart is SERVICE else ()
    with pytest.raises(ValueError, match=re.escape(named)):
        render(chart, *settings, setting)


@pytest.mark.parametrize("chart", [FAIRLEAD, SERVICE], ids=["fairlead", "inferenceservice"])
def test_every_value_is_in_the_reference(chart: Path) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    section = reference.split(f"## charts/{chart.name}\n")[1].split("\n## ")[0]
    given = set(values(yaml.safe_load((chart / "values.yaml").read_text())))
    assert given == set(re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE))


def test_the_chart_stays_small() -> None:
    assert len([path for path in (FAIRLEAD / "templates").rglob("*") if path.is_file()]) < 15


def test_the_chart_carries_the_generated_crds() -> None:
    carried = [yaml.safe_load(path.read_text()) for path in (FAIRLEAD / "crds").glob("*.yaml")]
    assert {crd["metadata"]["name"] for crd in carried} == {
        custom_resource_definition(kind)["metadata"]["name"] for kind in KINDS
    }


def test_an_upgrade_begins_with_the_crds_and_an_installation_does_not() -> None:
    job = find(render(FAIRLEAD), "Job", "fairlead-crds")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert parser().parse_args(container["args"]).apply_crds == "only"
    operator = find(render(FAIRLEAD), "Deployment", "fairlead-operator")["spec"]["template"]["spec"]
    assert parser().parse_args(operator["containers"][0]["args"]).apply_crds == "first"
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == operator["serviceAccountName"]
    assert container["image"] == operator["containers"][0]["image"]


@pytest.mark.parametrize(("annotations", "verbs"), [("true", [["create"], ["get"]]), ("false", [["create"]])])
def test_no_role_has_a_wildcard_and_secrets_are_made_and_at_most_got_by_name(
    annotations: str, verbs: list[list[str]]
) -> None:
    roles = [
        o for o in render(FAIRLEAD, f"storage.secretAnnotations={annotations}") if o["kind"] in ("Role", "ClusterRole")
    ]
    rules = [rule for role in roles for rule in role["rules"]]
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == verbs


def test_the_operator_is_told_of_the_cache_and_of_the_configuration() -> None:
    objects = render(FAIRLEAD, "storage.cache.hostPath=/var/lib/models", "config.namespace=ks")
    arguments = find(objects, "Deployment", "fairlead-operator")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--model-cache=hostPath:/var/lib/models", "--model-cache-limit=20Gi", "--config-namespace=ks"} <= {
        *arguments
    }
    assert find(objects, "Role", "fairlead-operator-config")["metadata"]["namespace"] == "ks"
    parser().parse_args(arguments)


def test_every_container_is_unprivileged_with_a_read_only_root_file_system() -> None:
    objects = render(FAIRLEAD)
    pods = [o["spec"]["template"]["spec"] for o in objects if o["kind"] in ("Deployment", "Job")]
    pods += [o["spec"] for o in objects if o["kind"] == "Pod"]
    assert len(pods) == 4
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"]
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_container_that_takes_requests_holds_no_credentials() -> None:
    pod = find(render(FAIRLEAD), "Deployment", "fairlead-gateway")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [c["name"] for c in containers if "token" in {m["name"] for m in c["volumeMounts"]}] == ["agent"]


def test_nothing_is_restarted_or_turned_off_because_a_busy_node_answers_late() -> None:
    pods = [o["spec"]["template"]["spec"] for o in render(FAIRLEAD) if o["kind"] == "Deployment"]
    containers = [c for pod in pods for c in [*pod.get("initContainers", []), *pod["containers"]]]
    probes = [c[kind] for c in containers for kind in ("livenessProbe", "readinessProbe") if kind in c]
    assert len(probes) == 5
    assert all(probe["timeoutSeconds"] >= 5 for probe in probes)


def test_a_gateway_that_goes_has_time_to_hand_over_and_to_finish() -> None:
    objects = render(FAIRLEAD, "gateway.drainSeconds=20", "gateway.successorSeconds=100", "gateway.finishSeconds=300")
    pod = find(objects, "Deployment", "fairlead-gateway")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 20 + 100 + 20 + 300


@pytest.mark.parametrize(
    ("relieved_after", "slept"),
    [(0, [20]), (3, [20, 1, 1, 20]), (None, [20, 1, 1, 1, 1, 1, 20])],
    ids=["another is ready", "another becomes ready", "no other comes"],
)
def test_a_gateway_that_goes_waits_for_its_successor(
    relieved_after: int | None, slept: list[int], tmp_path: Path
) -> None:
    """`relieved_after`: the agent makes its file when the hook has slept so often."""
    objects = render(FAIRLEAD, "gateway.drainSeconds=20", "gateway.successorSeconds=5")
    pod = find(objects, "Deployment", "fairlead-gateway")["spec"]["template"]["spec"]
    (haproxy,) = pod["containers"]
    shell, flag, hook = haproxy["lifecycle"]["preStop"]["exec"]["command"]
    directory = next(word for word in pod["initContainers"][1]["args"] if word.startswith("--directory="))
    file = f"{directory.removeprefix('--directory=')}/{RELIEVED}"
    assert file in hook
    instead = (
        f'sleep() {{ echo "$1" >> slept; [ "$(wc -l < slept)" -ne {relieved_after or -1} ] || touch {RELIEVED}; }}'
    )
    if relieved_after == 0:
        (tmp_path / RELIEVED).touch()
    subprocess.run([shell, flag, f"{instead}; {hook.replace(file, RELIEVED)}"], cwd=tmp_path, check=True, timeout=60)
    assert [int(line) for line in (tmp_path / "slept").read_text().split()] == slept


@pytest.mark.parametrize("part", ["operator", "gateway"])
def test_a_drain_takes_one_pod_of_a_part_at_a_time(part: str) -> None:
    budget = find(render(FAIRLEAD), "PodDisruptionBudget", f"fairlead-{part}")["spec"]
    pods = find(render(FAIRLEAD), "Deployment", f"fairlead-{part}")["spec"]["template"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()


def test_the_control_planes_requests_are_small() -> None:
    objects = render(FAIRLEAD, "operator.replicas=1", "gateway.replicas=1")
    pods = [o["spec"]["template"]["spec"] for o in objects if o["kind"] == "Deployment"]
    sidecars = [c for pod in pods for c in pod.get("initContainers", []) if c.get("restartPolicy") == "Always"]
    containers = [c for pod in pods for c in pod["containers"]] + sidecars
    assert {c["name"] for c in containers} == {"operator", "haproxy", "agent"}
    assert sum(int(c["resources"]["requests"]["cpu"].removesuffix("m")) for c in containers) <= 150


def test_one_registry_and_tag_lead_all_images_elsewhere() -> None:
    text = helm(
        "template", "f", str(FAIRLEAD), "--set", "image.registry=registry.example.com/ml/", "--set", "image.tag=9.9"
    )
    images = re.findall(r"(?:image: |--storage-initializer-image=)(\S+)", text)
    assert images
    assert all(re.fullmatch(r"registry\.example\.com/ml/fairlead/[a-z-]+:9\.9", image) for image in images), images


def test_kserves_runtime_names_lead_to_our_runtimes_and_are_never_selected_by_themselves() -> None:
    objects = render(FAIRLEAD)
    ours = find(objects, "ClusterServingRuntime", "fairlead-core")["spec"]
    alias = find(objects, "ClusterServingRuntime", "kserve-sklearnserver")["spec"]
    assert alias["containers"] == ours["containers"]
    assert not any(known["autoSelect"] for known in alias["supportedModelFormats"])
    assert {known["name"] for known in alias["supportedModelFormats"]} >= {"sklearn", "xgboost"}


def test_the_parts_listen_where_the_others_look_for_them() -> None:
    objects = render(FAIRLEAD, "networkPolicies.enabled=true", "monitoring.serviceMonitor=true")
    agents = find(objects, "Service", "fairlead-gateway-agents")["spec"]["ports"]
    assert [port["port"] for port in agents] == [names.GATEWAY_AGENT_PORT]
    operator = find(objects, "Deployment", "fairlead-operator")["spec"]["template"]["spec"]["containers"][0]
    assert f"--listen=0.0.0.0:{names.OPERATOR_PORT}" in operator["args"]
    assert (
        f"--gateway-agents=fairlead-gateway-agents.fairlead-system.svc:{names.GATEWAY_AGENT_PORT}" in operator["args"]
    )
    assert find(objects, "ServiceMonitor", "fairlead-gateway")["spec"]["endpoints"][0]["port"] == agents[0]["name"]


def test_the_dashboard_asks_only_for_metrics_that_exist() -> None:
    config = find(render(FAIRLEAD, "monitoring.dashboard=true"), "ConfigMap", "fairlead-dashboard")
    panels = json.loads(config["data"]["fairlead.json"])["panels"]
    asked = {
        name.removesuffix("_total").removesuffix("_bucket")
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"\b(?:fairlead|controller_runtime|workqueue)_\w+", target["expr"])
    }
    sources = [
        *(ROOT / "operators/fairlead/kube").glob("metrics.py"),
        *(ROOT / "operators/fairlead/gateway").glob("*.py"),
    ]
    code = "".join(path.read_text() for path in sources)
    workload = {"requests", "responses", "errors", "in_flight", "queued", "held"}
    assert workload == {name.removeprefix("fairlead_gateway_") for name in asked} & workload
    for name in asked:
        short = name.removeprefix("fairlead_gateway_")
        assert f'"{name}"' in code or f'"{short}"' in code, name


def test_one_service_is_rendered_as_its_values_say() -> None:
    (isvc,) = render(SERVICE, *ONE_MODEL, "canaryTrafficPercent=0", "minReplicas=0", "predictor.nodeSelector.disk=ssd")
    assert isvc["metadata"]["name"] == "iris"
    assert isvc["spec"] == {
        "predictor": {
            "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/iris"},
            "minReplicas": 0,
            "canaryTrafficPercent": 0,
            "nodeSelector": {"disk": "ssd"},
        }
    }


def test_labels_and_annotations_reach_the_service() -> None:
    (isvc,) = render(SERVICE, *ONE_MODEL, "labels.team=vision", "annotations.owner=ada", "transformer.timeout=5")
    assert isvc["metadata"]["labels"]["team"] == "vision"
    assert isvc["metadata"]["annotations"] == {"owner": "ada"}
    assert isvc["spec"]["transformer"] == {"timeout": 5}
