"""`fairlead package`: the class found without running it, the Dockerfile, and what it asks of docker and kind."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.api.inferenceservice import InferenceService
from fairlead.api.unsupported import not_acted_on
from fairlead.cli.errors import CliError
from fairlead.cli.packaging.dockerfile import dockerfile, dockerignore, inference_service
from fairlead.cli.packaging.project import read

MODEL = "from fairlead.runtime import Model\n\nclass Scorer(Model):\n    pass\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "scorer"
    directory.mkdir()
    return directory


def write(place: Path, **files: str) -> Path:
    """`a__b_py="…"` -> a/b.py."""
    for name, text in files.items():
        path = place / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt").replace("_toml", ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


# --- The class --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (MODEL, "Scorer"),
        ("import kserve\n\nclass Old(kserve.Model): ...\n", "Old"),
        ("from kserve import Model as Base\n\nclass Old(Base): ...\n", "Old"),
        ("from fairlead import runtime\n\nclass New(runtime.Model): ...\n", "New"),
        ("import fairlead.runtime as fr\n\nclass New(fr.Model): ...\n", "New"),
        ("from fairlead.runtime.pipeline import Pipeline\n\nclass Steps(Pipeline): ...\n", "Steps"),
        (MODEL + "class Better(Scorer): ...\n", "Better"),
        (
            "class Model: ...\nclass NotOne(Model): ...\n"
            + MODEL.replace("Model", "Model as M").replace("(Model as M)", "(M)"),
            "Scorer",
        ),
    ],
)
def test_the_only_model_class_is_found_without_running_its_file(source: str, name: str, place: Path) -> None:
    write(place, my_model_py="raise SystemExit('it was run')\n" + source)
    assert read(place).target == f"my_model:{name}"


def test_a_class_in_a_package_and_below_src_is_found_by_its_import_path(place: Path) -> None:
    write(place, src__acme__scoring_py=MODEL, src__acme____init___py="", tests__test_it_py=MODEL)
    project = read(place)
    assert (project.target, project.source) == ("acme.scoring:Scorer", "src")
    assert "ENV PYTHONPATH=/model/src:${PYTHONPATH}" in dockerfile(project, "base")


def test_of_several_models_the_user_says_which(place: Path) -> None:
    write(place, a_py=MODEL, b_py=MODEL)
    with pytest.raises(CliError, match=r"defines several models: a:Scorer, b:Scorer\. Say which with --class"):
        read(place)
    assert read(place, target="b:Scorer").target == "b:Scorer"
    write(place, pyproject_toml='[tool.fairlead]\nmodel = "a:Scorer"\n')
    assert read(place).target == "a:Scorer"


def test_no_model_at_all_says_what_was_looked_at(place: Path) -> None:
    with pytest.raises(CliError, match=r"there is no class derived from .* in no Python files\. Write one"):
        read(place)
    write(place, helpers_py="def predict(request): ...\n")
    with pytest.raises(CliError, match=r"in helpers\.py\. Write one, or name a class or function with --class"):
        read(place)
    assert read(place, target="helpers:predict").target == "helpers:predict"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("Scorer", "is not of the form MODULE:CLASS"),
        ("other:Scorer", r"there is no module 'other': .*other\.py does not exist"),
        ("model:Other", r"defines no 'Other'; it has Model, Scorer"),
    ],
)
def test_a_class_that_is_not_there_is_told_with_what_is(target: str, says: str, place: Path) -> None:
    with pytest.raises(CliError, match=says):
        read(write(place, model_py=MODEL), target=target)


def test_a_file_that_is_not_python_is_named_with_its_line(place: Path) -> None:
    with pytest.raises(CliError, match=r"model\.py, line 2: this is not Python"):
        read(write(place, model_py="x = 1\nclass (:\n"))


@pytest.mark.parametrize(
    ("directory", "expected"), [("My_Model.v2", "my-model-v2"), ("scorer", "scorer"), ("x" * 60, "x" * 40)]
)
def test_the_services_name_is_the_directorys_made_a_label(directory: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / directory).mkdir()
    assert read(write(tmp_path / directory, m_py=MODEL)).name == expected


def test_a_name_that_is_given_is_not_mended(place: Path) -> None:
    write(place, m_py=MODEL)
    assert read(place, name="iris").name == "iris"
    with pytest.raises(CliError, match="'Iris_1' cannot be a service's name: give --name"):
        read(place, name="Iris_1")


def test_the_digest_is_of_what_goes_into_the_image_alone(place: Path) -> None:
    write(place, m_py=MODEL, notes_txt="one")
    before = read(place).digest()
    write(place, tests__test_m_py="x", venv__lib_py="y")
    (place / ".git").mkdir()
    assert read(place).digest() == before
    write(place, notes_txt="two")
    assert read(place).digest() != before


# --- The texts --------------------------------------------------------------------------------------------------------


def test_requirements_are_a_layer_before_the_sources_and_the_user_is_not_root(place: Path) -> None:
    lines = dockerfile(read(write(place, m_py=MODEL, requirements_txt="humanize\n")), "acme/base:1").splitlines()
    assert "FROM acme/base:1" in lines
    order = [
        lines.index("USER 0:0"),
        lines.index("COPY requirements.txt /model/"),
        lines.index("COPY . /model/"),
        lines.index("USER 65532:65532"),
        lines.index('ENTRYPOINT ["python", "-m", "fairlead.runtime", "--model_class=m:Scorer"]'),
    ]
    assert order == sorted(order)
    assert lines[-1] == 'CMD ["--model_name=scorer"]'


def test_dependencies_of_a_pyproject_are_installed_where_there_is_no_requirements_file(place: Path) -> None:
    write(
        place,
        m_py=MODEL,
        pyproject_toml='[project]\nname = "Acme Scorer"\ndependencies = ["humanize>=4", "x; python_version>\'3\'"]\n[tool.fairlead]\napt = ["libgl1"]\n',
    )
    project = read(place)
    text = dockerfile(project, "base")
    assert project.name == "acme-scorer"
    assert "pip install --root-user-action=ignore 'humanize>=4' 'x; python_version>'\"'\"'3'\"'\"''" in text
    assert "apt-get install -y --no-install-recommends libgl1 &&" in text


def test_nothing_is_installed_where_nothing_is_needed(place: Path) -> None:
    text = dockerfile(read(write(place, m_py=MODEL)), "base")
    assert "pip install" not in text
    assert "apt-get" not in text


def test_what_no_model_needs_stays_out_and_the_users_own_rules_hold_too() -> None:
    lines = dockerignore("*.csv\n").splitlines()
    assert {"**/.*", "**/__pycache__", "**/tests", "**/venv", "Dockerfile", "*.csv"} <= {*lines}


def test_the_manifest_is_a_valid_service_of_which_everything_has_an_effect(place: Path) -> None:
    isvc = InferenceService.parse(inference_service(read(write(place, m_py=MODEL)), "scorer:1"))
    assert not_acted_on(isvc) == []
    container = (isvc.spec.predictor.containers or [])[0]
    assert (container.image, container.args) == ("scorer:1", ["--model_name=scorer"])


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Programs on PATH that only tell how they were called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "calls"

    def program(name: str, code: int = 0) -> None:
        (programs / name).write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {log}\n'
            f'case "$*" in *inspect*) echo 750000000; exit;; *nodes*) echo lab-control-plane; echo lab-worker; echo lab-worker2; exit;; build*) cp "$3" {tmp_path}/Dockerfile; cat "$3.dockerignore" > {tmp_path}/ignored;; esac\n'
            f"echo noise\nexit {code}\n"
        )
        (programs / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("docker", "kind"):
        program(name)

    def told() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    told.program = program  # type: ignore[attr-defined]
    return told


def test_it_builds_loads_and_prints_a_manifest_to_apply_and_nothing_else(
    cli: Any, place: Path, calls: Any, tmp_path: Path
) -> None:
    write(place, m_py=MODEL)
    code, out, err = cli("package", str(place), "--kind", "lab", "--push", "--tag", "acme/scorer:3")
    assert code == 0, err
    (document,) = yaml.safe_load_all(out)
    assert document["spec"]["predictor"]["containers"][0]["image"] == "acme/scorer:3"
    assert "acme/scorer:3 takes 750 MB" in err
    asked = calls()
    assert asked[0].startswith("docker build --file ")
    assert asked[0].endswith(f"--tag acme/scorer:3 {place}")
    assert asked[-3:] == [
        "docker push acme/scorer:3",
        "kind get nodes --name lab",
        "kind load docker-image acme/scorer:3 --name lab --nodes lab-worker,lab-worker2",
    ]
    assert f"FROM fairlead/runtime-core:{version('fairlead')}" in (tmp_path / "Dockerfile").read_text()
    assert "**/tests" in (tmp_path / "ignored").read_text()
    assert sorted(path.name for path in place.iterdir()) == ["m.py"]


def test_the_tag_is_the_sources_digest_where_none_is_given(cli: Any, place: Path, calls: Any) -> None:
    write(place, m_py=MODEL)
    code, out, _ = cli("package", str(place), "--base", "acme/base:1", "--build-arg", "PIP_INDEX_URL=https://x/simple")
    assert code == 0
    assert yaml.safe_load(out)["spec"]["predictor"]["containers"][0]["image"] == f"scorer:{read(place).digest()}"
    assert "--build-arg PIP_INDEX_URL=https://x/simple" in calls()[0]


def test_a_build_that_fails_is_told_and_nothing_is_pushed(cli: Any, place: Path, calls: Any) -> None:
    calls.program("docker", 1)
    code, out, err = cli("package", str(write(place, m_py=MODEL)), "--push")
    assert (code, out) == (1, "")
    assert "error: the image scorer:" in err
    assert not any(call.startswith("docker push") for call in calls())


def test_without_a_program_to_build_it_says_what_to_do(
    cli: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = cli("package", str(write(place, m_py=MODEL)))
    assert code == 1
    assert "neither docker nor podman is on PATH" in err
    assert "--dockerfile" in err


def test_the_dockerfile_alone_can_be_printed_or_written(cli: Any, place: Path, tmp_path: Path) -> None:
    write(place, m_py=MODEL)
    code, out, _ = cli("package", str(place), "--dockerfile", "--base", "ray")
    assert code == 0
    assert f"FROM fairlead/runtime-ray:{version('fairlead')}\n" in out
    code, nothing, err = cli("package", str(place), "-o", str(tmp_path / "to"), "--base", "ray")
    assert (code, nothing) == (0, "")
    assert (tmp_path / "to" / "Dockerfile").read_text() == out
    assert "**/tests" in (tmp_path / "to" / "Dockerfile.dockerignore").read_text()
    assert f"docker build -f {tmp_path}/to/Dockerfile -t scorer {place}" in err


def test_entrypoint_and_command_are_json_as_docker_wants_them(place: Path) -> None:
    lines = dockerfile(read(write(place, m_py=MODEL)), "base").splitlines()
    assert json.loads(lines[-2].removeprefix("ENTRYPOINT "))[:3] == ["python", "-m", "fairlead.runtime"]
