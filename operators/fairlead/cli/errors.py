"""What went wrong, in one line that tells the fix.

CliError    a command cannot do what it was asked; the message says why and what to do
"""

from __future__ import annotations

import sys

_UNKNOWN_KIND = ("404 page not found", "could not find the requested resource")
INSTALL = "pip install 'fairlead[local]'"


class CliError(Exception):
    """The message is the whole story: one line, with the fix."""


def explained(error: BaseException) -> str:
    """One line for any error; of classes in modules that were never imported, none can be an instance."""
    if isinstance(error, CliError) or _is(error, "fairlead.local.supervisor.errors", "UpError"):
        return _line(error)
    if _is(error, "fairlead.api.errors", "ApiTypeError") or _is(error, "fairlead.runtime.errors", "ServingError"):
        return _line(error)
    if _is(error, "fairlead.kube.errors", "ConfigError"):
        return f"{_line(error)}. Start a cluster here with `fairlead up`, or set KUBECONFIG"
    if _is(error, "fairlead.kube.errors", "ApiError"):
        return _api_error(error)
    if isinstance(error, ModuleNotFoundError):
        return f"this needs the package {error.name}, which is not installed: {INSTALL}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {_line(error)}. This is a fault of fairlead; FAIRLEAD_DEBUG=1 shows where"


def _api_error(error: BaseException) -> str:
    status, reason, message = (getattr(error, name) for name in ("status", "reason", "message"))
    if status == 0:
        return f"the API server does not answer ({message}). Is the cluster up? `fairlead up` starts one here; KUBECONFIG names another"
    if status == 401:
        return (
            f"{message}: the credentials in KUBECONFIG are not accepted; log in again, or `fairlead up` makes new ones"
        )
    if status == 404 and any(words in message for words in _UNKNOWN_KIND):
        where = getattr(error, "where", "")
        return f"{where}: this cluster does not know that kind; install Fairlead's chart, or kubectl apply -f manifests/crds"
    return " ".join(message.split()) or reason


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _is(error: BaseException, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(error, kind)
