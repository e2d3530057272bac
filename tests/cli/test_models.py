"""`fairlead inspect` and `fairlead serve` on model files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def skops_model(tmp_path: Path) -> Path:
    skops_io = pytest.importorskip("skops.io")
    linear = pytest.importorskip("sklearn.linear_model")
    path = tmp_path / "model.skops"
    skops_io.dump(linear.LogisticRegression().fit([[0.0, 0.0], [1.0, 1.0]], [0, 1]), path)
    return path


def test_inspect_tells_the_format_and_the_tensors(cli: Any, skops_model: Path) -> None:
    code, out, _ = cli("inspect", str(skops_model))
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()}
    assert code == 0
    assert rows["modelFormat"] == "sklearn"
    assert rows["input"].endswith("[-1, 2]")


def test_inspect_does_not_run_a_pickle_unless_told(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"not": "a model"}))
    code, out, _ = cli("inspect", str(path))
    assert code == 0
    assert "yes, when it is loaded" in out
    assert "--allow-pickle loads it" in out


def test_inspect_of_no_model_is_one_line_that_says_what_is_there(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "readme.md").write_text("hello")
    code, _, err = cli("inspect", str(tmp_path))
    assert (code, err.count("\n")) == (1, 1)
    assert "it holds readme.md" in err


def test_serve_hands_its_options_on(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def serve(arguments: list[str]) -> int:
        taken.extend(arguments)
        return 3

    monkeypatch.setattr("fairlead.runtime.cli.serve", serve)
    assert cli("serve", "model.onnx", "--http_port", "9000", "--help").code == 3
    assert taken == ["model.onnx", "--http_port", "9000", "--help"]
