"""`fairlead inspect` reads every format without its framework and without running anything of it."""

from __future__ import annotations

import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
import xgboost
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairlead.runtime.errors import LoadError
from fairlead.runtime.inspect import Report, main, report

X, Y = load_iris(return_X_y=True)


def save_onnx(path: Path) -> None:
    model = LogisticRegression(max_iter=1000).fit(X, Y)
    path.write_bytes(to_onnx(model, X[:1].astype(np.float32), options={"zipmap": False}).SerializeToString())


def save_skops(path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    skops.io.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y), path)


def save_joblib(path: Path) -> None:
    joblib.dump(LogisticRegression(max_iter=1000).fit(X, Y), path)


def save_xgboost(path: Path) -> None:
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, xgboost.DMatrix(X, Y), 2)
    path.write_bytes(booster.save_raw(path.suffix[1:]))


def save_lightgbm(path: Path) -> None:
    parameters = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    lightgbm.train(parameters, lightgbm.Dataset(X, Y), 2).save_model(path)


def save_pt2(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        shapes = {"input": {0: torch.export.Dim("batch")}}
        program = torch.export.export(torch.nn.Linear(4, 3), (torch.zeros(2, 4),), dynamic_shapes=shapes)
        torch.export.save(program, path)


def values(found: list[Any]) -> list[str]:
    return [f"{value.datatype} {list(value.shape) if value.shape else None}" for value in found]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "save", "inputs", "outputs", "says"),
    [
        ("model.onnx", save_onnx, ["FP32 [-1, 4]"], ["INT64 [-1]", "FP32 [-1, 3]"], ["skl2onnx", "ai.onnx.ml"]),
        (
            "model.skops",
            save_skops,
            ["FP64 [-1, 4]"],
            [],
            ["sklearn.pipeline.Pipeline", "a, b, c, d", "scikit-learn 1."],
        ),
        ("model.joblib", save_joblib, [], [], ["scikit-learn 1.", "sklearn.linear_model._logistic.LogisticRegression"]),
        ("model.ubj", save_xgboost, ["FP32 [-1, 4]"], ["FP32 None"], ["multi:softprob", "xgboost 3."]),
        ("model.json", save_xgboost, ["FP32 [-1, 4]"], ["FP32 None"], ["multi:softprob", "xgboost 3."]),
        ("model.txt", save_lightgbm, ["FP64 [-1, 4]"], ["FP64 [-1, 3]"], ["multiclass", "Column_0, Column_1"]),
        ("model.pt2", save_pt2, ["FP32 [-1, 4]"], ["FP32 [-1, 3]"], ["torch 2."]),
    ],
)
def test_a_file_tells_what_it_is(
    name: str, save: Any, inputs: list[str], outputs: list[str], says: list[str], tmp_path: Path
) -> None:
    save(tmp_path / name)
    found = report(tmp_path)
    assert values(found.description.inputs) == inputs
    assert values(found.description.outputs) == outputs
    text = "\n".join(found.lines())
    assert all(each in text for each in says), text
    assert f"sha256       {found.digest}" in text
    assert not found.description.warnings


def test_what_it_takes_to_serve_a_pickle_is_said(tmp_path: Path) -> None:
    save_joblib(tmp_path / "model.joblib")
    needs = report(tmp_path).needs()
    assert needs[0] == "pip install 'fairlead[sklearn]' (installed)"
    assert needs[1].startswith('permission to run the code in it: annotation fairlead.dev/allow-pickle: "true"')


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_code_in_a_pickle_is_named_and_not_run(compress: Any, tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=1000).fit(X, Y)
    labelled = LogisticRegression(max_iter=1000).fit(X, np.array(["a", "b", "c"], dtype=object)[Y])
    joblib.dump([model, labelled, Malicious(tmp_path / "it-ran")], tmp_path / "model.joblib", compress=compress)
    found = report(tmp_path)
    assert found.description.warnings == ["beyond what models need it imports posix.system: look before you allow it"]
    assert not (tmp_path / "it-ran").exists()


def test_names_that_a_pickle_makes_up_at_run_time_are_found_too(tmp_path: Path) -> None:
    """STACK_GLOBAL takes its names from the stack, where a reader of opcodes alone would not see them."""
    program = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940\x30h\x00h\x01\x93\x8c\x04true\x85R."
    (tmp_path / "model.pkl").write_bytes(program)
    assert "os.system" in report(tmp_path).description.details["imports"]


def test_an_untrusted_type_in_a_skops_file_is_named(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    skops.io.dump(FunctionTransformer(os.path.basename), tmp_path / "model.skops")
    assert report(tmp_path).description.warnings == [
        "it holds types that are not trusted: allow them with FAIRLEAD_TRUSTED_TYPES=posixpath.basename"
    ]


def test_weights_want_a_class_and_say_how_many_they_are(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(
        {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float32)}, tmp_path / "model.safetensors", {"by": "me"}
    )
    found = report(tmp_path)
    assert found.description.details == {"tensors": "2", "numbers": "10", "by": "me"}
    assert any("FAIRLEAD_MODEL_CLASS" in need for need in found.needs())


def test_an_mlflow_directory_tells_its_flavours_and_versions(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(
        "mlflow_version: 3.1.0\nflavors:\n  python_function: {python_version: 3.11.7}\n  xgboost: {data: m.xgb, xgb_version: 3.0.1}\n"
    )
    found = report(tmp_path)
    assert found.description.versions == {"mlflow": "3.1.0", "python": "3.11.7", "xgb": "3.0.1"}
    assert found.needs() == ["pip install 'fairlead[xgboost]' (installed)"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b"\x3a\xff"),
        ("model.skops", b"PK\x03\x04"),
        ("model.json", b'{"learner": 3, "version": 1}'),
        ("model.ubj", b"{L\0\0\0\0\0\0\0\x07learner"),
        ("model.txt", b"tree\nversion=v4\n"),
        ("model.safetensors", b"\xff" * 20),
        ("model.pt2", b"PK\x03\x04"),
    ],
)
def test_a_damaged_file_is_an_error_of_ours(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError, match=rf"{name} cannot be read: "):
        report(tmp_path)


def test_the_command_prints_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_onnx(tmp_path / "model.onnx")
    assert main([str(tmp_path)]) == 0
    assert "  input        X  FP32 [-1, 4]\n" in capsys.readouterr().out
    assert main([str(tmp_path / "model.onnx"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["framework"], document["inputs"][0]["shape"]) == ("onnx", [-1, 4])
    assert main([str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/nothing does not exist\n"


def test_no_framework_is_imported(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "model.pkl").write_bytes(pickle.dumps({}))
    save_onnx(tmp_path / "other.onnx")
    program = "import sys; from fairlead.runtime.inspect import main; main(sys.argv[1:]);"
    program += "sys.exit(any(name in sys.modules for name in ('sklearn', 'onnxruntime', 'torch', 'pandas', 'joblib')))"
    run = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert isinstance(report(tmp_path), Report)
