"""XGBoost and LightGBM models answer as their libraries do, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_iris

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import LoadOptions, load
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, Tensor

X, Y = load_iris(return_X_y=True)
X32 = X.astype(np.float32)
X_MISSING = np.where(X32 > 6, np.nan, X32)


def served(path: Path) -> Model:
    model = load(path, "m", LoadOptions(threads=1))
    model.load()
    return model


def ask(model: Model, rows: Any) -> Tensor:
    answer = model.predict(InferRequest([Tensor("input-0", rows)]))
    assert isinstance(answer, Tensor)
    return answer


@pytest.mark.parametrize("suffix", ["ubj", "json", "bst"])
@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax", "binary:logistic", "reg:squarederror"])
def test_xgboost_answers_bit_for_bit(objective: str, suffix: str, tmp_path: Path) -> None:
    classes = {"num_class": 3} if objective.startswith("multi") else {}
    target = Y if classes or objective.startswith("reg") else Y > 0
    booster = xgboost.train({"objective": objective, "nthread": 1, **classes}, xgboost.DMatrix(X, target), 5)
    (tmp_path / f"model.{suffix}").write_bytes(booster.save_raw("json" if suffix == "json" else "ubj"))
    model = served(tmp_path)
    for rows in (X32[:1], X32, X_MISSING):
        expected = booster.predict(xgboost.DMatrix(rows))
        answer = ask(model, rows)
        assert (answer.datatype, answer.shape) == ("FP32", expected.shape)
        assert answer.data.tobytes() == expected.tobytes()
    assert model.metadata().parameters["objective"] == objective
    assert [spec.shape for spec in model.metadata().inputs] == [(-1, 4)]
    assert [spec.shape for spec in model.metadata().outputs] == [(-1, *expected.shape[1:])]


def test_an_xgboost_classifier_that_stopped_early_predicts_with_its_best_trees(tmp_path: Path) -> None:
    classifier = xgboost.XGBClassifier(n_estimators=60, learning_rate=0.9, early_stopping_rounds=3, n_jobs=1)
    classifier.fit(X[::2], Y[::2], eval_set=[(X[1::2], Y[1::2])], verbose=False)
    assert classifier.best_iteration < classifier.get_booster().num_boosted_rounds() - 1
    classifier.save_model(tmp_path / "model.ubj")
    assert ask(served(tmp_path), X32).data.tobytes() == classifier.predict_proba(X32).tobytes()


def test_xgboosts_feature_names_are_in_the_metadata(tmp_path: Path) -> None:
    matrix = xgboost.DMatrix(X, Y, feature_names=["a", "b", "c", "d"])
    xgboost.train({"nthread": 1}, matrix, 2).save_model(tmp_path / "model.json")
    model = served(tmp_path)
    assert model.metadata().parameters["feature_names"] == ["a", "b", "c", "d"]
    assert ask(model, X32).shape == (150,)


@pytest.mark.parametrize("name", ["model.txt", "model.bst"])
@pytest.mark.parametrize("objective", ["multiclass", "binary", "regression"])
def test_lightgbm_answers_bit_for_bit(objective: str, name: str, tmp_path: Path) -> None:
    parameters = {"objective": objective, "verbosity": -1, "num_threads": 1}
    if objective == "multiclass":
        parameters["num_class"] = 3
    booster = lightgbm.train(parameters, lightgbm.Dataset(X, np.minimum(Y, 1) if objective == "binary" else Y), 5)
    booster.save_model(tmp_path / name)
    model = served(tmp_path)
    for rows in (X[:1], X, X_MISSING.astype(np.float64)):
        expected = booster.predict(rows)
        answer = ask(model, rows)
        assert (answer.datatype, answer.shape) == ("FP64", expected.shape)
        assert answer.data.tobytes() == expected.tobytes()
    assert [spec.shape for spec in model.metadata().inputs] == [(-1, 4)]
    assert model.metadata().parameters["feature_names"] == ["Column_0", "Column_1", "Column_2", "Column_3"]
    assert model.batchable


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, Y), 2)
    booster.save_model(tmp_path / "model.ubj")
    whole = (tmp_path / "model.ubj").read_bytes()
    (tmp_path / "model.ubj").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match=r"model\.ubj cannot be loaded by XGBoost: \S+"):
        served(tmp_path)


def test_a_lightgbm_model_that_was_cut_off_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("tree\nversion=v4\nnum_class=1\n")
    with pytest.raises(LoadError, match=r"model\.txt ends before its last tree: it was cut off"):
        served(tmp_path)


def test_xgboosts_old_binary_format_is_explained(tmp_path: Path) -> None:
    (tmp_path / "model.bst").write_bytes(b"binf" + bytes(100))
    with pytest.raises(LoadError, match=r"old binary format, which XGBoost 3\.1 dropped"):
        served(tmp_path)
