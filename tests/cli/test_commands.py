"""Each command against an API server: what it prints, what it changes, how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

MANIFEST = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "applied"},
    "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///m"}}},
}
READY = {
    "url": "http://iris-default.example.com",
    "conditions": [{"type": "PredictorReady", "status": "True"}, {"type": "Ready", "status": "True"}],
    "clusterServingRuntimeName": "fairlead-core",
    "modelStatus": {"transitionStatus": "UpToDate", "states": {"activeModelState": "Loaded"}},
    "components": {
        "predictor": {
            "latestReadyRevision": "iris-predictor-00002",
            "latestCreatedRevision": "iris-predictor-00002",
            "traffic": [
                {"revisionName": "iris-predictor-00002", "latestRevision": True, "percent": 20, "serviceName": "b"},
                {"revisionName": "iris-predictor-00001", "latestRevision": False, "percent": 80, "tag": "prev", "serviceName": "a"},
            ],
        }
    },
}  # fmt: skip
FAILED = {
    "conditions": [{"type": "Ready", "status": "False", "reason": "ModelLoadFailed", "message": "no such file"}],
    "modelStatus": {
        "transitionStatus": "BlockedByFailedLoad",
        "states": {"activeModelState": "", "targetModelState": "FailedToLoad"},
        "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "/m: no model file here", "exitCode": 1},
    },
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump(MANIFEST))
    return path


# --- apply, delete ---------------------------------------------------------------------------------------------


def test_apply_says_created_then_unchanged_then_configured(cli: Any, cluster: Any, manifest: Path) -> None:
    assert cli("apply", "-f", str(manifest)) == (0, "inferenceservice applied created\n", "")
    assert cli("apply", "-f", str(manifest)).out == "inferenceservice applied unchanged\n"
    manifest.write_text(manifest.read_text().replace("file:///m", "file:///n"))
    assert cli("apply", "-f", str(manifest)).out == "inferenceservice applied configured\n"
    assert cluster.get("applied")["spec"]["predictor"]["model"]["storageUri"] == "file:///n"
    assert cli("delete", "-f", str(manifest)).out == "inferenceservice applied deleted\n"


def test_apply_takes_directories_and_several_documents(cli: Any, tmp_path: Path) -> None:
    documents = [{**MANIFEST, "metadata": {"name": name}} for name in ("one", "two")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(documents))
    assert cli("apply", "-f", str(tmp_path)).out == "inferenceservice one created\ninferenceservice two created\n"
    assert cli("delete", "one", "two").code == 0


def test_a_dry_run_changes_nothing(cli: Any, manifest: Path) -> None:
    assert cli("apply", "--dry-run", "-f", str(manifest)).out == "inferenceservice applied created (dry run)\n"
    assert cli("get", "applied").code == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("spec: [", "is not YAML"),
        ("a: b", "not a Kubernetes manifest"),
        (yaml.safe_dump({**MANIFEST, "spec": {"predictor": {"modle": {}}}}), "spec.predictor.modle: unknown field"),
        (yaml.safe_dump({**MANIFEST, "metadata": {}}), "a InferenceService has no metadata.name"),
        ("{apiVersion: x/v1, kind: Gadget, metadata: {name: a}}", "Gadget of x/v1 is not a kind that Fairlead works with; apply it with kubectl"),
    ],
)  # fmt: skip
def test_a_bad_manifest_is_one_line_that_names_the_mistake(cli: Any, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    code, out, err = cli("apply", "-f", str(path))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert words in err


def test_what_the_api_server_refuses_is_told_in_its_words(cli: Any, manifest: Path, tmp_path: Path) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A_b"}, "spec": {"containers": []}}
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump(pod))
    code, _, err = cli("apply", "-f", str(path))
    assert (code, err.count("\n")) == (1, 1)
    assert "A_b" in err


def test_deleting_what_is_not_there_fails_unless_that_is_fine(cli: Any) -> None:
    assert cli("delete", "nope").err == "error: there is no InferenceService 'nope' in namespace default\n"
    assert cli("delete", "nope", "--ignore-not-found").code == 0
    assert "nothing to delete" in cli("delete").err


# --- get, describe ---------------------------------------------------------------------------------------------


def test_get_shows_address_readiness_revision_and_split(cli: Any, cluster: Any) -> None:
    cluster.service("iris", status=READY)
    header, row = cli("get", "iris").out.splitlines()
    assert header.split() == ["NAME", "READY", "URL", "REVISION", "TRAFFIC", "REPLICAS", "SCALING", "AGE"]
    assert row.split()[:4] == ["iris", "True", "http://iris-default.example.com", "00002"]
    assert "00002 20% · 00001 80% (prev)" in row


def test_get_says_why_a_service_is_not_ready(cli: Any, cluster: Any) -> None:
    cluster.service("broken", status=FAILED)
    assert "broken is not ready: ModelLoadFailed: /m: no model file here" in cli("get").out


def test_get_prints_json_and_yaml_for_scripts(cli: Any, cluster: Any) -> None:
    cluster.service("iris", status=READY)
    assert json.loads(cli("get", "iris", "-o", "json").out)["metadata"]["name"] == "iris"
    assert yaml.safe_load(cli("get", "-o", "yaml").out)["kind"] == "List"
    assert "iris" in cli("get", "-o", "name").out.splitlines()


def test_get_of_an_empty_namespace_says_so(cli: Any) -> None:
    assert cli("get", "-n", "kube-public") == (0, "no InferenceServices in namespace kube-public\n", "")


def test_a_service_that_is_not_there_is_told_with_those_that_are(cli: Any, cluster: Any) -> None:
    cluster.service("iris")
    code, _, err = cli("describe", "irsi")
    assert code == 1
    assert err.startswith("error: there is no InferenceService 'irsi' in namespace default; there: ")
    assert "iris" in err


def test_describe_tells_conditions_revisions_model_and_events(cli: Any, cluster: Any) -> None:
    cluster.service("broken", status=FAILED)
    cluster.event("broken", "ModelLoadFailed", "the model cannot be loaded")
    out = cli("describe", "broken").out
    for words in (
        "Ready",
        "ModelLoadFailed",
        "/m: no model file here",
        "FailedToLoad",
        "Exit code",
        "the model cannot be loaded",
    ):
        assert words in out


def test_describe_tells_the_traffic(cli: Any, cluster: Any) -> None:
    cluster.service("iris", status=READY)
    out = cli("describe", "iris").out
    assert [line.split() for line in out.splitlines() if "prev" in line] == [
        ["predictor", "iris-predictor-00001", "80%", "prev", "a"]
    ]
    assert "fairlead-core" in out
    assert all(line == line.rstrip() for line in out.splitlines()), "what a script reads has no padding"


# --- traffic ---------------------------------------------------------------------------------------------------


def test_traffic_shows_the_split(cli: Any, cluster: Any) -> None:
    cluster.service("iris", status=READY)
    rows = [line.split() for line in cli("traffic", "iris").out.splitlines()]
    assert rows[1][:3] == ["00002", "(latest)", "20%"]
    assert rows[2][:2] == ["00001", "80%"]


def test_traffic_sets_promotes_and_rolls_back(cli: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.cli.traffic.SEEN_SECONDS", 0)
    cluster.service("iris", status=READY)
    assert cli("traffic", "iris", "30").code == 0
    assert cluster.get("iris")["spec"]["predictor"]["canaryTrafficPercent"] == 30
    assert cli("traffic", "iris", "--rollback").code == 0
    assert cluster.get("iris")["spec"]["predictor"]["canaryTrafficPercent"] == 0
    assert cli("traffic", "iris", "--promote").code == 0
    assert "canaryTrafficPercent" not in cluster.get("iris")["spec"]["predictor"]
    assert "no canary to promote" in cli("traffic", "iris", "--promote").err


def test_a_listed_canary_is_promoted_with_its_name_and_what_it_inherits(
    cli: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.cli.traffic.SEEN_SECONDS", 0)
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///1"}
    canary = {"trafficPercent": 10, "predictor": {"name": "v2", "model": {**model, "storageUri": "file:///2"}}}
    cluster.service("listed", {"predictor": {"name": "v1", "minReplicas": 2, "model": model}, "canary": [canary]})
    assert cli("traffic", "listed", "--promote").code == 0
    assert cluster.get("listed")["spec"] == {
        "predictor": {"name": "v2", "minReplicas": 2, "model": {**model, "storageUri": "file:///2"}}
    }


def test_two_wishes_at_once_are_refused(cli: Any) -> None:
    assert "give one of PERCENT, --promote and --rollback" in cli("traffic", "iris", "5", "--promote").err
    assert cli("traffic", "iris", "101").code == 2


# --- logs ------------------------------------------------------------------------------------------------------


def test_logs_of_all_pods_carry_their_names_and_those_that_wait_say_so(cli: Any, cluster: Any) -> None:
    cluster.service("logged")
    cluster.pod("logged-1", "logged", "logged-predictor-00001", "hello\nworld\n")
    assert cli("logs", "logged").out == "hello\nworld\n"
    cluster.pod("logged-2", "logged", "logged-predictor-00002", None)
    out = cli("logs", "logged", "--tail", "1").out.splitlines()
    assert out[0] == "[logged-1] world"
    assert out[1].startswith('[logged-2] (container "kserve-container" in pod "logged-2" is waiting to start')
    assert cli("logs", "logged", "--revision", "00001").out == "hello\nworld\n"
    assert "no predictor pods of revision 00003; there are: logged-predictor-00001, logged-predictor-00002" in (
        cli("logs", "logged", "--revision", "00003").err
    )


def test_a_service_without_pods_has_no_logs_and_says_where_to_look(cli: Any, cluster: Any) -> None:
    cluster.service("empty")
    assert cli("logs", "empty").err == "error: empty has no predictor pods; `fairlead describe empty` tells why\n"


# --- The rest --------------------------------------------------------------------------------------------------


def test_no_cluster_is_one_line_with_the_fix(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = cli("get")
    assert (code, err.count("\n")) == (1, 1)
    assert "Start a cluster here with `fairlead up`, or set KUBECONFIG" in err


def test_a_cluster_that_is_down_is_one_line_with_the_fix(cli: Any, directory: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((directory / "kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "down").write_text(yaml.safe_dump(config))
    code, _, err = cli("get", "--kubeconfig", str(tmp_path / "down"))
    assert (code, err.count("\n")) == (1, 1)
    assert "the API server does not answer" in err
    assert "`fairlead up` starts one" in err


def test_a_fault_of_ours_is_one_line_too(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.cli.services._dump", lambda *_, **__: 1 / 0)
    code, _, err = cli("get", "-o", "json")
    assert code == 1
    assert (
        err == "error: ZeroDivisionError: division by zero. This is a fault of fairlead; FAIRLEAD_DEBUG=1 shows where\n"
    )


def test_doctor_finds_this_machine_able_and_knows_the_cluster(cli: Any) -> None:
    code, out, _ = cli("doctor")
    assert code == 0
    assert "ready for `fairlead up`" in out
    assert "0 runtimes" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shells_script(cli: Any, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_FAIRLEAD_COMPLETE", "")  # put back after the test
    assert "_FAIRLEAD_COMPLETE=complete_" in cli("completion", shell).out


def test_completion_knows_the_services(cli: Any, cluster: Any) -> None:
    from fairlead.cli.options import complete_service

    cluster.service("iris")
    assert "iris" in complete_service("ir")


def test_help_imports_no_cluster_client() -> None:
    program = "import sys; sys.argv=['fairlead','--help']\ntry:\n from fairlead.cli import main; main()\nexcept SystemExit: pass\n"
    program += (
        "sys.exit(sorted({'aiohttp','numpy','pydantic.main','fairlead.kube.client','grpc'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in ("up", "apply", "predict", "doctor"))
