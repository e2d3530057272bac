"""An explainer: what the predictor says of the same flower with one measurement after the other set to the average."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlead.runtime import InferRequest, Model, Tensor

MEASUREMENTS = ("sepal length", "sepal width", "petal length", "petal width")
AVERAGE = np.array([5.84, 3.06, 3.76, 1.2])


class Occlusion(Model):
    """It has no `predict` of its own, so `self.predict` asks the predictor that `--predictor_host` names."""

    def explain(self, request: InferRequest) -> Any:
        flowers = np.asarray(request.array, dtype=float)
        answers = {"prediction": self._species(request, flowers)}
        for column, name in enumerate(MEASUREMENTS):
            occluded = flowers.copy()
            occluded[:, column] = AVERAGE[column]
            answers[f"average {name}"] = self._species(request, occluded)
        return answers

    def _species(self, request: InferRequest, flowers: np.ndarray) -> Any:
        asked = InferRequest([Tensor("measurements", flowers)], headers=request.headers)
        return self.predict(asked).outputs[0].data
