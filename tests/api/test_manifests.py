"""The manifests in the repository: CRDs that are fresh and small, runtimes and samples that a real API server takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from fairlead.api import crd
from fairlead.api.inferenceservice import InferenceService
from fairlead.api.servingruntime import ClusterServingRuntime
from fairlead.api.unsupported import not_acted_on

MANIFESTS = crd.DIRECTORY.parent
RUNTIMES = sorted((MANIFESTS / "runtimes").glob("*.yaml"))
SAMPLES = sorted((MANIFESTS / "samples").glob("*.yaml"))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_the_crds_are_fresh() -> None:
    assert crd.main(["--check"]) == 0


def test_a_stale_crd_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main(["--directory", str(tmp_path), "--check"]) == 1
    assert "inferenceservices.yaml is stale: run `make crds`" in capsys.readouterr().err
    assert crd.main(["--directory", str(tmp_path)]) == 0
    assert crd.main(["--directory", str(tmp_path), "--check"]) == 0


def test_the_crds_are_small() -> None:
    sizes = {kind.type.__name__: len(crd.render(kind)) for kind in crd.KINDS}
    assert sizes["InferenceService"] < 100_000
    assert sum(sizes.values()) < 250_000


def test_the_columns_are_kserves() -> None:
    version = crd.custom_resource_definition(crd.KINDS[0])["spec"]["versions"][0]
    assert [column["name"] for column in version["additionalPrinterColumns"]] == [
        "URL", "Ready", "Prev", "Latest", "PrevRolledoutRevision", "LatestReadyRevision", "Age"
    ]  # fmt: skip


@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_a_runtime_fetches_models_itself_and_runs_without_privileges(path: Path) -> None:
    runtime = ClusterServingRuntime.parse(read(path))
    container = runtime.spec.main_container()
    assert runtime.metadata.name == path.stem
    assert runtime.metadata.annotations["fairlead.dev/storage"] == "runtime"
    assert runtime.spec.speaks("v1")
    assert runtime.spec.speaks("grpc-v2")
    assert [(port["name"], port["containerPort"]) for port in container.ports or []] == [("http", 8080), ("h2c", 8081)]
    unprivileged = {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert unprivileged.items() <= (container.security_context or {}).items()


def test_no_two_runtimes_are_selected_for_the_same_format() -> None:
    offers = [
        offer
        for path in RUNTIMES
        for offer in ClusterServingRuntime.parse(read(path)).spec.supported_model_formats or []
        if offer.auto_select
    ]
    assert len({(offer.name, offer.version) for offer in offers}) == len(offers)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_uses_only_what_has_an_effect(path: Path) -> None:
    for document in documents(path):
        if document["kind"] == "InferenceService":
            assert not_acted_on(InferenceService.parse(document)) == []


@pytest.mark.slow
@pytest.mark.parametrize("path", [*RUNTIMES, *SAMPLES], ids=lambda path: path.stem)
def test_a_real_api_server_takes_the_manifest(cluster: httpx.Client, path: Path) -> None:
    for manifest in documents(path):
        kind = next((kind for kind in crd.KINDS if kind.type.__name__ == manifest["kind"]), None)
        if kind is None:
            continue  # a Secret or a ServiceAccount: Kubernetes' own
        scope = "/namespaces/default" if kind.namespaced else ""
        url = f"/apis/serving.kserve.io/{kind.version}{scope}/{kind.plural}?dryRun=All&fieldValidation=Strict"
        answer = cluster.post(url, json=manifest)
        assert answer.status_code == 201, answer.text
