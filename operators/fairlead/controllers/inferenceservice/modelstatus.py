"""`status.modelStatus`: what has become of the model, in KServe's words."""

from __future__ import annotations

from fairlead.api.base import Open
from fairlead.controllers.inferenceservice.errors import SpecError
from fairlead.controllers.inferenceservice.failures import Copies
from fairlead.controllers.inferenceservice.revisions import Readiness


def model_status(latest: str, readiness: Readiness, copies: Copies, *, serving: bool) -> Open:
    """`latest`: the revision asked for; `serving`: whether any revision answers requests now."""
    failure = None if readiness is Readiness.READY and copies.failed == 0 else copies.failure
    if readiness is Readiness.READY:
        transition, target = "UpToDate", "Loaded"
    elif failure is not None:
        transition, target = "BlockedByFailedLoad", "FailedToLoad"
    else:
        transition, target = "InProgress", "Loading" if copies.started else "Pending"
    status: Open = {
        "transitionStatus": transition,
        "states": {"activeModelState": "Loaded" if serving else target, "targetModelState": target},
        "copies": {"failedCopies": copies.failed, "totalCopies": copies.total},
    }
    if failure is not None:
        info = {
            "location": failure.pod,
            "reason": failure.reason,
            "message": failure.message,
            "modelRevisionName": latest,
            "time": failure.time,
            "exitCode": failure.exit_code,
        }
        status["lastFailureInfo"] = {key: value for key, value in info.items() if value not in (None, "")}
    return status


def invalid_status(error: SpecError, since: str, *, serving: bool) -> Open:
    """The spec cannot be acted on; what served before still does. `since`: when that was found."""
    target = "FailedToLoad"
    return {
        "transitionStatus": "InvalidSpec",
        "states": {"activeModelState": "Loaded" if serving else target, "targetModelState": target},
        "lastFailureInfo": {"reason": error.reason, "message": error.message, "time": since},
    }
