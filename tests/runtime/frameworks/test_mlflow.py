"""MLflow's directories are served by the framework inside them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import xgboost
import yaml
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import LoadOptions, load
from fairlead.runtime.tensors import InferRequest, Tensor

X, Y = load_iris(return_X_y=True)
SIGNATURE = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}]'


def describe(directory: Path, flavours: dict[str, Any]) -> Path:
    document = {
        "flavors": {**flavours, "python_function": {"loader_module": "mlflow.any"}},
        "mlflow_version": "3.1.0",
        "run_id": "abc",
        "signature": {"inputs": SIGNATURE, "outputs": None},
    }
    (directory / "MLmodel").write_text(yaml.safe_dump(document))
    return directory


def test_a_sklearn_flavour_in_skops_is_served(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, Y)
    skops.io.dump(estimator, tmp_path / "model.skops")
    model = load(describe(tmp_path, {"sklearn": {"pickled_model": "model.skops"}}), "m")
    model.load()
    answer = model.predict(InferRequest([Tensor("input-0", X)]))
    assert answer.data.tobytes() == estimator.predict(X).tobytes()
    metadata = model.metadata()
    assert (metadata.platform, metadata.parameters["run_id"]) == ("sklearn", "abc")
    assert metadata.parameters["signature"]["inputs"][0]["tensor-spec"]["shape"] == [-1, 4]
    assert model.batchable


def test_a_pickle_inside_is_still_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(LogisticRegression(max_iter=1000).fit(X, Y)))
    describe(tmp_path, {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}})
    with pytest.raises(LoadError, match=r"model\.pkl is a Python pickle, and loading it runs whatever code it holds"):
        load(tmp_path, "m")
    load(tmp_path, "m", LoadOptions(allow_pickle=True)).load()


def test_an_xgboost_flavour_is_served(tmp_path: Path) -> None:
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, Y), 2)
    (tmp_path / "model.xgb").write_bytes(booster.save_raw("ubj"))
    model = load(describe(tmp_path, {"xgboost": {"data": "model.xgb"}}), "m")
    model.load()
    rows = X.astype(np.float32)
    answer = model.predict(InferRequest([Tensor("input-0", rows)]))
    assert answer.data.tobytes() == booster.predict(xgboost.DMatrix(rows)).tobytes()


@pytest.mark.parametrize(
    ("flavours", "says"),
    [
        ({}, "has the flavors python_function; served are onnx, xgboost"),
        ({"onnx": {}}, "does not say where the data of its flavor onnx is"),
        ({"onnx": {"data": "../model.onnx"}}, "which is outside its directory; refused"),
        ({"onnx": {"data": "model.onnx"}}, "names 'model.onnx' as its data, which is not there"),
    ],
)
def test_a_description_that_cannot_be_served_says_why(flavours: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=says):
        load(describe(tmp_path, flavours), "m")


def test_a_description_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("{")
    with pytest.raises(LoadError, match="MLmodel is not YAML"):
        load(tmp_path, "m")
    (tmp_path / "MLmodel").write_text("a: 1")
    with pytest.raises(LoadError, match="names no flavors: it is no MLflow model"):
        load(tmp_path, "m")
