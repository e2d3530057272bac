"""A custom model for Ray Serve: a preprocessor and a classifier, each a deployment of its own.

The demo writes this file's directory, with what the two have learned, where the model server fetches it from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import skops.io

from fairlead.runtime import InferRequest, Model, TensorSpec
from fairlead.runtime.pipeline import Pipeline

LEARNED = Path(__file__).parent / "learned"


class Standardize(Model):
    """Grey values to mean 0 and deviation 1, pixel by pixel."""

    inputs = (TensorSpec("pixels", "FP64", (-1, 64), any_name=True),)
    batchable = True

    def load(self) -> None:
        self.scaler = skops.io.load(LEARNED / "scaler.skops")

    def predict(self, request: InferRequest) -> Any:
        return {"standardized": self.scaler.transform(request.array)}


class Classify(Model):
    """The digit."""

    outputs = (TensorSpec("digit", "INT64", (-1,)),)
    batchable = True

    def load(self) -> None:
        self.classifier = skops.io.load(LEARNED / "classifier.skops")

    def predict(self, request: InferRequest) -> Any:
        return {"digit": self.classifier.predict(request.array)}


class Digits(Pipeline):
    steps = (Standardize, Classify)
    inputs = Standardize.inputs
    outputs = Classify.outputs


model = Digits
