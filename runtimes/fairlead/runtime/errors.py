"""Every error that a client can be told of, with its HTTP status and gRPC code: the one place where these are decided.

ServingError                 500 INTERNAL             base; anything unforeseen is answered like this one
├── InvalidRequest           400 INVALID_ARGUMENT     what the client sent is wrong; models may raise it too
│   ├── UnsupportedMedia     415 INVALID_ARGUMENT     an encoding that we do not read
│   └── MethodNotAllowed     405 UNIMPLEMENTED
├── NotFound                 404 NOT_FOUND            no such path
│   └── ModelNotFound        404 NOT_FOUND            no such model or version
├── TooLarge                 413 RESOURCE_EXHAUSTED   body or tensor over the limit
├── NotReady                 503 UNAVAILABLE          the model is loading, failed to load, or the server drains
├── Overloaded               503 UNAVAILABLE          the queue is full; carries Retry-After
├── DeadlineExceeded         504 DEADLINE_EXCEEDED    the client's deadline passed while the request waited
├── NotSupported             501 UNIMPLEMENTED        the protocol has it, this model or server does not
└── ModelError               500 INTERNAL             the model itself raised
LoadError                    never sent as an answer to a prediction: why a model could not load, in plain words
"""

from __future__ import annotations

from typing import ClassVar

# grpc.StatusCode's numbers, so that this module, and models, need no grpc.
GRPC_INVALID_ARGUMENT = 3
GRPC_DEADLINE_EXCEEDED = 4
GRPC_NOT_FOUND = 5
GRPC_RESOURCE_EXHAUSTED = 8
GRPC_UNIMPLEMENTED = 12
GRPC_INTERNAL = 13
GRPC_UNAVAILABLE = 14


class ServingError(Exception):
    """An error with a message for the client and the status that says whose fault it is."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[int] = GRPC_INTERNAL
    retry_after: int | None = None
    """Seconds; sent as `Retry-After`."""

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else type(self).__name__


class InvalidRequest(ServingError):
    http_status = 400
    grpc_code = GRPC_INVALID_ARGUMENT


class UnsupportedMedia(InvalidRequest):
    http_status = 415


class MethodNotAllowed(InvalidRequest):
    http_status = 405
    grpc_code = GRPC_UNIMPLEMENTED


class NotFound(ServingError):
    http_status = 404
    grpc_code = GRPC_NOT_FOUND


class ModelNotFound(NotFound):
    def __init__(self, name: str, version: str | None = None) -> None:
        which = f"Model with name {name}" if version is None else f"Version {version} of model {name}"
        super().__init__(f"{which} does not exist.")


class TooLarge(ServingError):
    http_status = 413
    grpc_code = GRPC_RESOURCE_EXHAUSTED


class NotReady(ServingError):
    http_status = 503
    grpc_code = GRPC_UNAVAILABLE
    retry_after = 1


class Overloaded(ServingError):
    http_status = 503
    grpc_code = GRPC_UNAVAILABLE
    retry_after = 1


class DeadlineExceeded(ServingError):
    http_status = 504
    grpc_code = GRPC_DEADLINE_EXCEEDED


class NotSupported(ServingError):
    http_status = 501
    grpc_code = GRPC_UNIMPLEMENTED


class ModelError(ServingError):
    """The model raised: `cause` keeps what it raised, the message names its type."""

    def __init__(self, model: str, cause: BaseException) -> None:
        super().__init__(f"Model {model} failed: {type(cause).__name__}: {cause}")
        self.cause = cause


class LoadError(ServingError):
    """A model that cannot be loaded: the message names the file, what is wrong with it and what to do."""
