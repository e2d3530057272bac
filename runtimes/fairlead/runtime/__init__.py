"""Fairlead's model server: write a class with `load()` and `predict()`, or point at a model file, and get every protocol.

from fairlead.runtime import Model

class Doubler(Model):
    def predict(self, request):
        return request["x"] * 2
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "errors": ("InvalidRequest", "LoadError", "ServingError"),
    "model": ("Model", "ModelMetadata", "TensorSpec"),
    "tensors": ("InferRequest", "InferResponse", "Tensor"),
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: the process that fetches a model needs no numpy, nor does a start that only hides credentials."""
    for module, exported in _MODULES.items():
        if name in exported:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
