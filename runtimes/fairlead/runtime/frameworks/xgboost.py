"""XGBoost: models in JSON or UBJSON. The answer is `Booster.predict`'s: probabilities, scores or margins, as trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions, require
from fairlead.runtime.frameworks.formats import XGBOOST_LEGACY, sniff
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import InferRequest, Tensor


class XgboostFramework(Framework):
    name = "xgboost"
    extra = "xgboost"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        if sniff(path) is XGBOOST_LEGACY:
            raise LoadError(
                f"{path.name} is in XGBoost's old binary format, which XGBoost 3.1 dropped; "
                "load it with an older XGBoost and save it again as model.ubj or model.json"
            )
        return XgboostModel(name, path, options)


class XgboostModel(Model):
    """NaN stands for a missing value, as in XGBoost."""

    platform = "xgboost"
    batchable = True
    compute_bound = True

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        super().__init__(name)
        self.path = path
        self.options = options

    def load(self) -> None:
        xgboost = require("xgboost", "xgboost")
        try:
            # From bytes: from a path, XGBoost would guess the format by the suffix.
            self._booster = xgboost.Booster(model_file=bytearray(self.path.read_bytes()))
        except xgboost.core.XGBoostError as error:
            raise LoadError(f"{self.path.name} cannot be loaded by XGBoost: {_first_line(error)}") from error
        self._booster.set_param({"nthread": self.options.cpus})
        self._config = json.loads(self._booster.save_config())
        # A model that was stopped early predicts with its best iteration, as XGBoost's scikit-learn classes do.
        best = self._booster.attr("best_iteration")
        self._iterations = (0, int(best) + 1) if best is not None else (0, 0)
        features = self._booster.num_features()
        columns = tuple(self._booster.feature_names or ())
        self.inputs = (TensorSpec("input-0", "FP32", (-1, features), any_name=True, columns=columns),)
        probe = self._predict(np.zeros((2, features), np.float32))
        self.outputs = (TensorSpec("output-0", "FP32", (-1, *probe.shape[1:])),)

    def predict(self, request: InferRequest) -> Tensor:
        return Tensor("output-0", self._predict(request.array), "FP32")

    def metadata(self) -> ModelMetadata:
        parameters: dict[str, Any] = {"objective": self._config["learner"]["objective"]["name"]}
        if names := self._booster.feature_names:
            parameters["feature_names"] = list(names)
        inputs, outputs = tuple(self.inputs), tuple(self.outputs)
        return ModelMetadata(self.name, self.platform, inputs=inputs, outputs=outputs, parameters=parameters)

    def _predict(self, rows: Any) -> Any:
        """In place: no DMatrix is built. The door has checked the number of columns."""
        return self._booster.inplace_predict(rows, iteration_range=self._iterations, validate_features=False)


def _first_line(error: Exception) -> str:
    """XGBoost's errors: `[time] file:line: message`, and a stack trace below."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return line.rpartition(": ")[2] or line
