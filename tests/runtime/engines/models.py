"""Models that the engines' tests serve, by import path, in processes of their own."""

from __future__ import annotations

import numpy as np

from fairlead.runtime import Model, TensorSpec
from fairlead.runtime.pipeline import Pipeline


class Scale(Model):
    inputs = (TensorSpec("pixels", "FP64", (-1, 64)),)

    def predict(self, request):
        return {"scaled": request["pixels"] / 16.0}


class Classifier(Model):
    """Weights that are made, not loaded: the same in every process."""

    batchable = True

    def load(self):
        self.weights = np.random.default_rng(0).normal(size=(64, 10))

    def predict(self, request):
        # Row by row: BLAS would sum in another order for another number of rows.
        scores = np.array([(row[:, None] * self.weights).sum(axis=0) for row in request["scaled"]])
        return {"scores": scores, "digit": scores.argmax(axis=1)}


class Digits(Pipeline):
    steps = (Scale, Classifier)
    inputs = Scale.inputs


class Broken(Model):
    def load(self):
        raise ValueError("the weights are not here")


class BrokenPipeline(Pipeline):
    steps = (Scale, Broken)


def expected(pixels):
    weights = np.random.default_rng(0).normal(size=(64, 10))
    return np.array([(row[:, None] * weights).sum(axis=0) for row in pixels / 16.0])
