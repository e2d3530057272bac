"""LightGBM: models saved as text. The answer is `Booster.predict`'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions, require
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import InferRequest, Tensor


class LightgbmFramework(Framework):
    name = "lightgbm"
    extra = "lightgbm"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        return LightgbmModel(name, path, options)


class LightgbmModel(Model):
    """NaN stands for a missing value, as in LightGBM."""

    platform = "lightgbm"
    batchable = True
    compute_bound = True

    def __init__(self, name: str, path: Path, options: LoadOptions) -> None:
        super().__init__(name)
        self.path = path
        self.options = options

    def load(self) -> None:
        lightgbm = require("lightgbm", "lightgbm")
        _check_whole(self.path)
        try:
            # From text, not from the path: what LightGBM prints about a file it prints to the standard output.
            self._booster = lightgbm.Booster(model_str=self.path.read_text())
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
            raise LoadError(f"{self.path.name} cannot be loaded by LightGBM: {error}") from error
        features = self._booster.num_feature()
        columns = tuple(self._booster.feature_name())
        self.inputs = (TensorSpec("input-0", "FP64", (-1, features), any_name=True, columns=columns),)
        probe = self._predict(np.zeros((2, features)))
        self.outputs = (TensorSpec("output-0", "FP64", (-1, *probe.shape[1:])),)

    def predict(self, request: InferRequest) -> Tensor:
        return Tensor("output-0", self._predict(request.array))

    def metadata(self) -> ModelMetadata:
        parameters: dict[str, Any] = {"feature_names": list(self._booster.feature_name())}
        if classes := self._booster.num_model_per_iteration():
            parameters["trees_per_iteration"] = classes
        inputs, outputs = tuple(self.inputs), tuple(self.outputs)
        return ModelMetadata(self.name, self.platform, inputs=inputs, outputs=outputs, parameters=parameters)

    def _predict(self, rows: Any) -> Any:
        return self._booster.predict(rows, num_threads=self.options.cpus)


def _check_whole(path: Path) -> None:
    """LightGBM ends the process, and not with an exception, on some models that were cut off."""
    with path.open("rb") as file:
        text = file.read()
    if b"end of trees" not in text:
        raise LoadError(f"{path.name} ends before its last tree: it was cut off; save or copy it again")
