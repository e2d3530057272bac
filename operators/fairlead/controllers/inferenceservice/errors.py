"""What can be wrong with an InferenceService that only the controller can see.

SpecError                     shown in status as InvalidSpec with the reason that KServe gives it; so is what the API server refuses, which is tried again
├── NoRuntime                 no ServingRuntime serves the model: NoSupportingRuntime, RuntimeNotRecognized, RuntimeDisabled
└── InvalidPredictorSpec      the spec cannot be made into pods

Leftover                      tried again until the garbage collector has been there
"""

from __future__ import annotations

from fairlead.kube.errors import KubeError


class SpecError(Exception):
    """Only a change of the spec, or of the runtimes, can help. `reason` is one of KServe's FailureReasons."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(message)


class NoRuntime(SpecError):
    pass


class InvalidPredictorSpec(SpecError):
    def __init__(self, message: str) -> None:
        super().__init__("InvalidPredictorSpec", message)


class Leftover(KubeError):
    """An earlier InferenceService of this name left a child that is about to go."""
