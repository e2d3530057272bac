"""The Events of a reconcile: what the new status says that the old one did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from fairlead.api.base import Open
from fairlead.controllers.inferenceservice.failures import last_line
from fairlead.controllers.inferenceservice.status import NOT_ACTED_ON
from fairlead.kube.conditions import get_condition


class Transition(NamedTuple):
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def transitions(old: Open, new: Open) -> list[Transition]:
    """In the order in which they came about."""
    return [*_spec(old, new), *_components(old, new), *_model(old, new), *_conditions(old, new)]


def _spec(old: Open, new: Open) -> Iterator[Transition]:
    notes = _condition(new, NOT_ACTED_ON)
    if notes.get("message") and notes.get("message") != _condition(old, NOT_ACTED_ON).get("message"):
        yield Transition("Warning", "NotActedOn", notes["message"])


def _components(old: Open, new: Open) -> Iterator[Transition]:
    before, after = old.get("components", {}), new.get("components", {})
    for kind, now in after.items():
        was: Mapping[str, Any] = before.get(kind, {})
        if _moved("latestCreatedRevision", was, now):
            yield Transition("Normal", "RevisionCreated", f"{now['latestCreatedRevision']} is the latest revision")
        if _moved("latestReadyRevision", was, now):
            yield Transition("Normal", "RevisionReady", f"{now['latestReadyRevision']} is ready")
        if _moved("latestRolledoutRevision", was, now):
            yield _rollout(was, now)
        if _split(was) != _split(now):
            yield Transition(
                "Normal", "TrafficMoved", f"{kind} traffic: {_told(_split(now))}, was {_told(_split(was))}"
            )


def _rollout(was: Mapping[str, Any], now: Mapping[str, Any]) -> Transition:
    revision, before = now["latestRolledoutRevision"], was.get("latestRolledoutRevision")
    if before and revision == was.get("previousRolledoutRevision"):
        return Transition("Normal", "RolledBack", f"{revision} is the rolled-out revision again, instead of {before}")
    return Transition("Normal", "RolledOut", f"{revision} is rolled out" + (f", after {before}" if before else ""))


def _model(old: Open, new: Open) -> Iterator[Transition]:
    """A failure is told once, not again for each restart."""
    if new.get("modelStatus", {}).get("transitionStatus") not in ("BlockedByFailedLoad", "InvalidSpec"):
        return
    failure = _failure(new)
    if failure != _failure(old):
        reason, message, revision = failure
        yield Transition("Warning", reason or "ModelLoadFailed", f"{revision}: {message}" if revision else message)


def _failure(status: Open) -> tuple[str, str, str]:
    info = status.get("modelStatus", {}).get("lastFailureInfo", {})
    return info.get("reason", ""), last_line(info.get("message", "")), info.get("modelRevisionName", "")


def _conditions(old: Open, new: Open) -> Iterator[Transition]:
    was, now = _condition(old, "Ready").get("status"), _condition(new, "Ready")
    if _condition(new, "Stopped").get("status") == "True":
        if _condition(old, "Stopped").get("status") != "True":
            yield Transition("Normal", "Stopped", "the workloads are removed")
    elif now.get("status") == "True" and was != "True":
        yield Transition("Normal", "Ready", f"ready at {new.get('url', '')}")
    elif now.get("status") == "False" and was == "True":
        yield Transition("Warning", "NotReady", now.get("message") or now.get("reason", ""))


def _condition(status: Open, type: str) -> Mapping[str, Any]:
    return get_condition(status.get("conditions", ()), type) or {}


def _moved(marker: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return bool(now.get(marker)) and now.get(marker) != was.get(marker)


def _split(component: Mapping[str, Any]) -> dict[str, int]:
    return {item["revisionName"]: item["percent"] for item in component.get("traffic", ()) if item["percent"]}


def _told(split: Mapping[str, int]) -> str:
    return ", ".join(f"{revision} {percent} %" for revision, percent in split.items()) or "none"
