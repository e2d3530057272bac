"""A model of your own: any class with `load` and `predict`. This one needs no training: petals tell the species of an iris."""

from __future__ import annotations

from typing import Any

import numpy as np

from fairlead.runtime import InferRequest, Model, TensorSpec


class PetalRule(Model):
    inputs = (TensorSpec("measurements", "FP64", (-1, 4), any_name=True),)
    outputs = (TensorSpec("species", "INT64", (-1,)),)
    batchable = True

    def load(self) -> None:
        self.borders = np.array([0.8, 1.65])

    def predict(self, request: InferRequest) -> Any:
        return {"species": np.searchsorted(self.borders, request.array[:, 3])}
