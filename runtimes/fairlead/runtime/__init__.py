"""Fairlead's model server: write a class with `load()` and `predict()`, or point at a model file, and get every protocol.

from fairlead.runtime import Model

class Doubler(Model):
    def predict(self, request):
        return request["x"] * 2
"""

from __future__ import annotations

from fairlead.runtime.errors import InvalidRequest, LoadError, ServingError
from fairlead.runtime.model import Model, ModelMetadata, TensorSpec
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor

__all__ = [
    "InferRequest",
    "InferResponse",
    "InvalidRequest",
    "LoadError",
    "Model",
    "ModelMetadata",
    "ServingError",
    "Tensor",
    "TensorSpec",
]
