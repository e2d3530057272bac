"""scikit-learn: skops files, and joblib or pickle files where that is allowed.

The estimator answers as it would in Python, bit for bit; what the door has checked already (shape, datatype) and what
`lean.py` has proved to change nothing is not paid for again.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.runtime.errors import InvalidRequest, LoadError
from fairlead.runtime.frameworks import lean, skopstypes
from fairlead.runtime.frameworks.base import Framework, LoadOptions, refuse_code, require
from fairlead.runtime.frameworks.formats import SKOPS, sniff
from fairlead.runtime.frameworks.postponed import import_lock
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import Array, InferRequest, Tensor, datatype_of

log = logging.getLogger(__name__)

METHODS = ("predict", "predict_proba", "decision_function", "transform")
"""What an estimator can be asked for, by the request parameter `method`."""


class SklearnFramework(Framework):
    name = "sklearn"
    extra = "sklearn"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        form = sniff(path)
        if form is not None and form.runs_code and not options.allow_pickle:
            raise refuse_code(
                path, f"a {form.title}", "Save the model with skops (skops.io.dump) or as ONNX (skl2onnx)"
            )
        return SklearnModel(name, path, options)


class SklearnModel(Model):
    """Any estimator with `predict` (or only `transform`). Rows in, rows out."""

    platform = "sklearn"
    batchable = True
    compute_bound = True

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        super().__init__(name)
        self.path = path
        self.options = options
        self.columns: tuple[str, ...] = ()
        """Feature names, where the estimator was fitted on a DataFrame."""
        self.by_name = False
        """Its columns differ in kind: it takes them by name, and gets a DataFrame."""

    def load(self) -> None:
        self.estimator = _read(self.path, self.options)
        self.columns = tuple(map(str, getattr(self.estimator, "feature_names_in_", ())))
        self.by_name = bool(self.columns) and lean.takes_columns(self.estimator)
        self.method = _default_method(self.estimator, self.options)
        if self.by_name:
            self._pandas = require("pandas", "sklearn,pandas")
        else:
            lean.forget_feature_names(self.estimator)
        lean.single_threaded(self.estimator)
        self._predict = lean.method(self.estimator, self.method)
        self._declare()

    def predict(self, request: InferRequest) -> Tensor:
        try:
            return self._answer(request)
        except ValueError as error:
            # scikit-learn's own words for rows that it cannot take: NaN, infinity, another number of columns.
            if str(error).startswith(("Input ", "X has ", "Expected 2D", "Found array")):
                raise InvalidRequest(str(error).splitlines()[0]) from error
            raise

    def _answer(self, request: InferRequest) -> Tensor:
        if request.parameters:
            method = _requested_method(self.estimator, request.parameters)
            if method is not None and method != self.method:
                return _answer(method, getattr(self.estimator, method)(self._rows(request)))
        return _answer("output-0", self._predict(self._rows(request)))

    def metadata(self) -> ModelMetadata:
        parameters: dict[str, Any] = {"estimator": type(self.estimator).__name__, "method": self.method}
        if self.columns:
            parameters["feature_names"] = list(self.columns)
        classes = getattr(self.estimator, "classes_", None)
        if isinstance(classes, np.ndarray):
            parameters["classes"] = classes.tolist()
        return ModelMetadata(
            self.name, self.platform, inputs=tuple(self.inputs), outputs=tuple(self.outputs), parameters=parameters
        )

    def _declare(self) -> None:
        """Inputs from the number of features, outputs from a first prediction, which warms the estimator up as well."""
        features = getattr(self.estimator, "n_features_in_", None)
        if features is None or self.by_name:
            return
        self.inputs = (TensorSpec("input-0", "FP64", (-1, features), any_name=True, columns=self.columns),)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer = self._predict(np.zeros((2, features)))
            first = _answer("output-0", answer)
            self.outputs = (TensorSpec("output-0", first.datatype, (-1, *first.shape[1:])),)
        except Exception as error:
            log.info(
                "%s: the outputs are not declared, since a row of zeros cannot be predicted: %s", self.path.name, error
            )

    def _rows(self, request: InferRequest) -> Any:
        """What the estimator takes: the one matrix that came, or a DataFrame of the columns that did."""
        tensors = request.inputs
        if len(tensors) == 1 and not (self.by_name and tensors[0].data.ndim == 1):
            array = _text(tensors[0])
            return self._frame(dict(zip(self.columns, array.T, strict=False)), array) if self.by_name else array
        if not self.by_name:
            raise InvalidRequest(
                f"the request has {len(tensors)} inputs; this model takes one, with a column for each feature"
            )
        given = {tensor.name: _text(tensor).reshape(-1) for tensor in tensors}
        missing = [column for column in self.columns if column not in given]
        if missing:
            raise InvalidRequest(f"input {missing[0]!r} is missing; the model's features are {', '.join(self.columns)}")
        return self._frame(given)

    def _frame(self, columns: dict[str, Array], array: Array | None = None) -> Any:
        if array is not None and (array.ndim != 2 or array.shape[1] != len(self.columns)):
            raise InvalidRequest(f"the input has shape {list(array.shape)}, the model takes [-1, {len(self.columns)}]")
        return self._pandas.DataFrame({column: columns[column] for column in self.columns})


def _read(path: Path, options: LoadOptions) -> Any:
    require("sklearn", "sklearn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        form = sniff(path)
        estimator = _read_skops(path, options) if form is SKOPS else _read_pickle(path)
    for warning in caught:
        if "unpickle" in str(warning.message):
            log.warning("%s: %s", path.name, str(warning.message).splitlines()[0])
    if not any(hasattr(estimator, method) for method in METHODS):
        raise LoadError(f"{path.name} holds a {type(estimator).__name__}, which has neither predict() nor transform()")
    return estimator


def _read_skops(path: Path, options: LoadOptions) -> Any:
    require("skops", "sklearn")
    with import_lock:
        from fairlead.runtime.frameworks import skops

    try:
        trusted = {*options.trusted_types, *skopstypes.TRUSTED}
        unknown = [each for each in skops.get_untrusted_types(file=path) if each not in trusted]
        if unknown:
            raise LoadError(
                f"{path.name} holds types that skops does not trust by itself: {', '.join(unknown)}. "
                f"If you trust them, allow them by name: FAIRLEAD_TRUSTED_TYPES={','.join(unknown)}"
            )
        estimator = skops.load(path, trusted=sorted(trusted))
        skopstypes.check(estimator)
        return estimator
    except LoadError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Any:
    joblib = require("joblib", "sklearn")
    log.warning(
        "%s is unpickled, as allowed: code that it holds runs now. skops and ONNX files need no such trust", path.name
    )
    try:
        return joblib.load(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> LoadError:
    if isinstance(error, ModuleNotFoundError):
        return LoadError(
            f"{path.name} needs the module {error.name}, which is not installed; install it in the model server's image"
        )
    return LoadError(
        f"{path.name} cannot be read: {type(error).__name__}: {error}. "
        "It may be damaged, or saved by another version of scikit-learn"
    )


def _default_method(estimator: Any, options: LoadOptions) -> str:
    if options.predict_proba:
        if not hasattr(estimator, "predict_proba"):
            raise LoadError(
                f"probabilities are asked for (PREDICT_PROBA), but {type(estimator).__name__} has no predict_proba()"
            )
        return "predict_proba"
    return next(method for method in METHODS if hasattr(estimator, method))


def _requested_method(estimator: Any, parameters: dict[str, Any]) -> str | None:
    method = parameters.get("method")
    if method is None:
        return None
    if method not in METHODS or not hasattr(estimator, method):
        able = ", ".join(each for each in METHODS if hasattr(estimator, each))
        raise InvalidRequest(f"parameter method is {method!r}; this model has {able}")
    return str(method)


def _text(tensor: Tensor) -> Array:
    """Strings travel as bytes; scikit-learn knows them as str."""
    if tensor.datatype != "BYTES":
        return tensor.data
    decode = np.frompyfunc(lambda value: value.decode() if isinstance(value, bytes) else value, 1, 1)
    decoded: Array = decode(tensor.data)
    return decoded


def _answer(name: str, result: Any) -> Tensor:
    """Sparse matrices and lists of arrays (several outputs) become one tensor with a row for each row."""
    if hasattr(result, "toarray"):
        result = result.toarray()
    if isinstance(result, list) and result and isinstance(result[0], np.ndarray):
        result = np.stack(result, axis=1)
    array = result if isinstance(result, np.ndarray) else np.asarray(result)
    if array.dtype.kind in "UO":
        array = np.frompyfunc(lambda value: str(value).encode(), 1, 1)(array)
    return Tensor(name, array, datatype_of(array.dtype))
