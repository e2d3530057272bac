"""scikit-learn without what a model server need not pay for each request, and with the same answers, bit for bit.

scikit-learn validates its input in every step: 140 us for a LogisticRegression that computes for 5. The door has checked
shape and datatype already. So, when a model is loaded, estimators that look at nothing but the numbers (linear models,
scalers, pipelines of them) get a function that does the same arithmetic in the same order. It is taken only if it gives
the very bits of the library on probes; a scikit-learn that computes in another way makes it step aside by itself. Any
other estimator is called as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fairlead.runtime.tensors import Array

log = logging.getLogger(__name__)

Function = Callable[[Any], Any]


def method(estimator: Any, name: str) -> Function:
    """`estimator.<name>`, as cheap as it can be had."""
    library: Function = getattr(estimator, name)
    features: int = getattr(estimator, "n_features_in_", 0)
    shortcut = _shortcut(estimator, name) if features else None
    if shortcut is not None and _agree(library, shortcut, features):
        return _guarded(shortcut, library)
    return library


def takes_columns(estimator: Any) -> bool:
    """Does any part of it select columns by name, or take text in some of them?"""
    return any(type(part).__name__ == "ColumnTransformer" or _has_text(part) for part in _parts(estimator))


def forget_feature_names(estimator: Any) -> None:
    """Fitted on a DataFrame, an estimator warns at every array that has no names. Ours come in the right order."""
    for part in _parts(estimator):
        vars(part).pop("feature_names_in_", None)


def single_threaded(estimator: Any) -> None:
    """joblib's threads cost milliseconds for a prediction of microseconds, and make the order of a forest's sum a race."""
    for part in _parts(estimator):
        if vars(part).get("n_jobs") not in (None, 1):
            part.n_jobs = 1


def _parts(estimator: Any) -> Iterator[Any]:
    """The estimator and those that it is made of, fitted or not."""
    seen: set[int] = set()
    todo = [estimator]
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (list, tuple)):
            todo.extend(item)
        elif hasattr(item, "get_params") and hasattr(item, "__dict__"):
            yield item
            todo.extend(
                value
                for value in vars(item).values()
                if isinstance(value, (list, tuple)) or hasattr(value, "get_params")
            )


def _has_text(part: Any) -> bool:
    return any(np.asarray(values).dtype.kind in "OU" for values in getattr(part, "categories_", ()))


def _guarded(shortcut: Function, library: Function) -> Function:
    """The shortcut is for finite matrices of float64; what else comes gets the library's answer, or its error."""

    def call(rows: Any) -> Any:
        if (
            type(rows) is np.ndarray
            and rows.dtype == np.float64
            and rows.ndim == 2
            and rows.shape[0]
            and np.isfinite(rows).all()
        ):
            return shortcut(rows)
        return library(rows)

    return call


def _agree(library: Function, shortcut: Function, features: int) -> bool:
    """Same bits, same types, same shapes, on matrices of several heights and memory layouts?"""
    random = np.random.default_rng(0)
    try:
        for height in (1, 2, 7, 33):
            for scale in (1e-3, 1.0, 1e3):
                rows = random.normal(0.0, scale, (height, features))
                for layout in (rows, np.asfortranarray(rows)):
                    expected, given = np.asarray(library(layout.copy(order="K"))), np.asarray(shortcut(layout))
                    if (
                        expected.dtype != given.dtype
                        or expected.shape != given.shape
                        or expected.tobytes() != given.tobytes()
                    ):
                        return False
    except Exception as error:
        log.debug("no shortcut: %s", error)
        return False
    return True


def _shortcut(estimator: Any, name: str) -> Function | None:
    """The same arithmetic without the checks; None for an estimator that is not known to be that simple."""
    kind = type(estimator).__name__
    if not type(estimator).__module__.startswith("sklearn."):
        return None
    if kind == "Pipeline":
        return _pipeline(estimator, name)
    if name == "transform":
        return _scaler(estimator, kind)
    if hasattr(estimator, "coef_") and hasattr(estimator, "intercept_") and isinstance(estimator.coef_, np.ndarray):
        return _linear(estimator, name)
    return None


def _pipeline(pipeline: Any, name: str) -> Function | None:
    steps = [step for _, step in pipeline.steps if step is not None and step != "passthrough"]
    if not steps:
        return None
    transforms = [_shortcut(step, "transform") for step in steps[:-1]]
    last = _shortcut(steps[-1], name)
    if last is None or None in transforms:
        return None
    known: list[Function] = [each for each in (*transforms, last) if each is not None]

    def call(rows: Array) -> Any:
        for function in known:
            rows = function(rows)
        return rows

    return call


def _scaler(scaler: Any, kind: str) -> Function | None:
    if kind == "StandardScaler":
        mean, scale = scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None

        def standard(rows: Array) -> Array:
            rows = rows.copy() if mean is None else rows - mean
            if scale is not None:
                rows /= scale
            return rows

        return standard
    if kind == "MinMaxScaler" and not scaler.clip:
        factor, low = scaler.scale_, scaler.min_

        def min_max(rows: Array) -> Array:
            rows = rows * factor
            rows += low
            return rows

        return min_max
    return None


def _linear(model: Any, name: str) -> Function | None:
    weights, bias = model.coef_, model.intercept_
    classes = getattr(model, "classes_", None)
    if classes is None:
        transposed = weights.T
        return (lambda rows: rows @ transposed + bias) if name == "predict" else None
    scores = _scores(weights, bias)
    if name == "decision_function":
        return scores
    if name == "predict":
        if weights.shape[0] == 1:
            return lambda rows: classes.take((scores(rows) > 0).astype(int))
        return lambda rows: classes.take(scores(rows).argmax(axis=1))
    return None


def _scores(weights: Array, bias: Array) -> Function:
    transposed = weights.T
    if weights.shape[0] == 1:
        return lambda rows: (rows @ transposed + bias).reshape(-1)
    return lambda rows: rows @ transposed + bias
