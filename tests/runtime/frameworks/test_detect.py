"""What lies in a directory decides the framework; a doubt is an error, and data comes before code."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import pytest

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import detect
from fairlead.runtime.frameworks.base import LoadOptions

ONNX = b"\x08\x09"
UBJ = b"{L\x00\x00\x00\x00\x00\x00\x00\x02L"
TREE = b"tree\nversion=v4\n"


def put(directory: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_bytes(content)
    return directory


@pytest.mark.parametrize(
    ("name", "content", "framework"),
    [
        ("model.onnx", ONNX, "onnx"),
        ("model.ubj", UBJ, "xgboost"),
        ("model.bst", UBJ, "xgboost"),
        ("model.json", b'{"learner":{"attributes":{}}}', "xgboost"),
        ("model.bst", TREE, "lightgbm"),
        ("model.txt", TREE, "lightgbm"),
        ("model.pkl", pickle.dumps({}), "sklearn"),
        ("model.pt", pickle.dumps({}), "torch"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "torch"),
        ("MLmodel", b"flavors: {}", "mlflow"),
        ("model.py", b"", "custom"),
    ],
)
def test_a_file_is_known_by_its_content(name: str, content: bytes, framework: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        assert detect(path)[1].framework == framework


def test_other_json_and_text_is_no_model(tmp_path: Path) -> None:
    put(tmp_path, config__json=b'{"vocab": 3}', readme__txt=b"trees are nice", model__onnx=ONNX)
    assert detect(tmp_path)[0].name == "model.onnx"


def test_data_is_preferred_to_code_and_the_choice_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, model__pkl=pickle.dumps({}), iris__onnx=ONNX, train__py=b"")
    with caplog.at_level(logging.WARNING):
        assert detect(tmp_path)[0].name == "iris.onnx"
    assert "iris.onnx is served; model.pkl, train.py beside it is not" in caplog.text
    assert detect(tmp_path, "sklearn")[0].name == "model.pkl"


def test_two_models_of_one_kind_are_a_doubt_unless_one_is_called_model(tmp_path: Path) -> None:
    put(tmp_path, a__onnx=ONNX, b__onnx=ONNX)
    with pytest.raises(LoadError, match=r"holds several ONNX models: a\.onnx, b\.onnx; rename one to model\.onnx"):
        detect(tmp_path)
    put(tmp_path, model__onnx=ONNX)
    assert detect(tmp_path)[0].name == "model.onnx"


def test_a_directory_alone_in_a_directory_is_the_one_that_is_meant(tmp_path: Path) -> None:
    inner = tmp_path / "1" / "iris"
    inner.mkdir(parents=True)
    (tmp_path / ".fairlead").mkdir()
    put(inner, model__onnx=ONNX)
    assert detect(tmp_path)[0] == inner / "model.onnx"


def test_a_directory_without_a_model_says_what_it_holds(tmp_path: Path) -> None:
    put(tmp_path, readme__md=b"", data__csv=b"")
    with pytest.raises(
        LoadError, match=r"there is no model in .*: it holds data\.csv, readme\.md; known suffixes are \.bst"
    ):
        detect(tmp_path)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nowhere does not exist"):
        detect(tmp_path / "nowhere")


def test_an_unknown_framework_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="framework 'keras' is unknown; known are sklearn, onnx"):
        detect(tmp_path, "keras")


def test_options_come_from_the_environment() -> None:
    environment = {
        "FAIRLEAD_ALLOW_PICKLE": "true",
        "FAIRLEAD_TRUSTED_TYPES": "a.B, c.D",
        "FAIRLEAD_THREADS": "3",
        "PREDICT_PROBA": "1",
    }
    options = LoadOptions.from_environment(environment)
    assert options == LoadOptions(allow_pickle=True, trusted_types=("a.B", "c.D"), threads=3, predict_proba=True)
    assert not LoadOptions.from_environment({"FAIRLEAD_ALLOW_PICKLE": "false"}).allow_pickle
    with pytest.raises(LoadError, match="FAIRLEAD_THREADS='many' is not a number"):
        LoadOptions.from_environment({"FAIRLEAD_THREADS": "many"})
