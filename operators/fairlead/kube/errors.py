"""What can go wrong between us and an API server.

KubeError
├── ConfigError                 no usable kubeconfig or service account
├── TerminalError               (raised by a reconcile) retrying cannot help until the object changes
└── ApiError                    the API server answered with an error, or not at all
    ├── BadRequest       400
    ├── Unauthorized     401
    ├── Forbidden        403
    ├── NotFound         404
    ├── AlreadyExists    409    create of a name that is taken
    ├── Conflict         409    the object changed meanwhile, or another field manager owns the field
    ├── Gone             410    that resourceVersion is no longer kept: list again
    ├── Invalid          422
    └── Unavailable      429, 502, 503, 504, or no answer at all (status 0)
        └── WatchStalled        a watch that neither spoke nor closed
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """Anything this package raises on purpose."""


class ConfigError(KubeError):
    """The way to the API server could not be worked out; the message says which file or field, and what to do."""


class TerminalError(KubeError):
    """A reconcile that fails with this is not retried: only a change of the object, or of what it refers to, can help."""


class ApiError(KubeError):
    """An error of one request: `where` is the request in words, the rest is what the API server's Status said."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        where: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.where = where
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""
        code = f"{status} {reason}" if status else reason
        super().__init__(f"{where}: {message} ({code})" if where else f"{message} ({code})")


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class AlreadyExists(ApiError):
    pass


class Conflict(ApiError):
    pass


class Gone(ApiError):
    pass


class Invalid(ApiError):
    pass


class Unavailable(ApiError):
    pass


class WatchStalled(Unavailable):
    pass


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def api_error(
    status: int, body: Mapping[str, Any] | str, *, where: str = "", retry_after: float | None = None
) -> ApiError:
    """The error for an answer: `body` is the Status object, or whatever text came in its place (a proxy's page)."""
    if isinstance(body, str):
        text = " ".join(body.split())[:300] or "no explanation was given"
        body = {"message": text}
    reason = str(body.get("reason") or _reason(status))
    kind = AlreadyExists if status == 409 and reason == "AlreadyExists" else _BY_STATUS.get(status, ApiError)
    details = body.get("details")
    return kind(
        status,
        reason,
        str(body.get("message") or "no explanation was given"),
        where=where,
        details=details if isinstance(details, Mapping) else None,
        retry_after=retry_after,
    )


def _reason(status: int) -> str:
    kind = _BY_STATUS.get(status)
    return kind.__name__ if kind else "Unknown"
