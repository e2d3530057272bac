"""InferenceServices as people read them. Pure: objects and the time in, plain values out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

Object = Mapping[str, Any]


class Share(NamedTuple):
    """A revision's part of the traffic."""

    revision: str
    percent: int
    tag: str | None
    latest: bool


class Scaling(NamedTuple):
    """What demand makes of one revision's replicas."""

    component: str
    revision: str
    ready: int
    desired: int
    mode: str
    demand: str
    """`14.2/7 concurrency`: what was seen, and what one replica is to carry."""
    changed: str
    """How long ago the replicas last changed."""
    why: str


class Start(NamedTuple):
    """What the last start of a revision's pod was made of."""

    revision: str
    seconds: str
    phases: str
    """`image 0.6, import 0.9, load 0.2`."""
    ready: str
    """How long ago it was ready."""


class Summary(NamedTuple):
    """One line of `fairlead get`."""

    namespace: str
    name: str
    url: str
    ready: str
    """`True`, `False` or `Unknown`."""
    revision: str
    """The latest revision that is ready."""
    shares: list[Share]
    scaling: list[Scaling]
    """Of the predictor; empty if its replicas do not follow demand."""
    age: str
    reason: str
    """Why it is not ready; empty if it is."""


def summary(isvc: Object, now: datetime) -> Summary:
    metadata, status = isvc["metadata"], isvc.get("status") or {}
    predictor = (status.get("components") or {}).get("predictor") or {}
    condition = find_condition(isvc, "Ready")
    return Summary(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        url=status.get("url", ""),
        ready=condition.get("status", "Unknown"),
        revision=short_revision(predictor.get("latestReadyRevision", ""), metadata["name"]),
        shares=shares(isvc),
        scaling=scaling(isvc, now, "predictor"),
        age=age(metadata.get("creationTimestamp"), now),
        reason="" if condition.get("status") == "True" else why_not_ready(isvc),
    )


def shares(isvc: Object, component: str = "predictor") -> list[Share]:
    status = ((isvc.get("status") or {}).get("components") or {}).get(component) or {}
    name = isvc["metadata"]["name"]
    return [
        Share(
            short_revision(item.get("revisionName", ""), name), item["percent"], item.get("tag"), item["latestRevision"]
        )
        for item in status.get("traffic") or ()
    ]


def scaling(isvc: Object, now: datetime, component: str) -> list[Scaling]:
    status = ((isvc.get("status") or {}).get("components") or {}).get(component) or {}
    return [
        Scaling(
            component,
            short_revision(item.get("revisionName", ""), isvc["metadata"]["name"]),
            item.get("ready", 0),
            item["desired"],
            item["mode"],
            f"{item['value']:g}/{item['target']:g} {item['metric']}",
            age(item.get("lastScaleTime"), now),
            item.get("reason", ""),
        )
        for item in status.get("autoscaling") or ()
    ]


def starts(isvc: Object, now: datetime) -> list[Start]:
    """Of all components' revisions."""
    components = ((isvc.get("status") or {}).get("components") or {}).values()
    return [
        Start(
            short_revision(item.get("revisionName", ""), isvc["metadata"]["name"]),
            f"{item['seconds']:g}",
            ", ".join(f"{phase} {seconds:g}" for phase, seconds in item["phases"].items()),
            age(item.get("readyTime"), now),
        )
        for component in components
        for item in component.get("starts") or ()
    ]


def replicas(found: list[Scaling]) -> str:
    """`1/2`, ready of desired, for each revision."""
    return " · ".join(f"{one.ready}/{one.desired}" for one in found)


def modes(found: list[Scaling]) -> str:
    """`Panic 14.2/7 concurrency` for each revision."""
    return " · ".join(f"{one.mode} {one.demand}" for one in found)


def short_revision(revision: str, service: str) -> str:
    """`digits-predictor-00002` of the service digits is `00002`."""
    for component in ("predictor", "transformer", "explainer"):
        revision = revision.removeprefix(f"{service}-{component}-")
    return revision.removeprefix(f"{service}-")


def why_not_ready(isvc: Object) -> str:
    """The most telling reason that the status has: the model's own error, else a condition that is not true."""
    status = isvc.get("status") or {}
    model = status.get("modelStatus") or {}
    failure = model.get("lastFailureInfo") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec") and failure.get("message"):
        return _with_reason(failure)
    bad = [c for c in status.get("conditions") or () if c.get("status") != "True"]
    told = [c for c in bad if c.get("message") or c.get("reason")]
    rest = [c for c in told if c["type"] != "Ready"]
    if told:
        ready = [c for c in told if c["type"] == "Ready" and c.get("message")]
        return _with_reason((ready or rest or told)[0])
    generation = isvc["metadata"].get("generation", 1)
    if status.get("observedGeneration", 0) < generation:
        return "the operator has not looked at it yet"
    return ", ".join(f"{c['type']} is {c['status']}" for c in bad)


def _with_reason(entry: Object) -> str:
    reason, message = entry.get("reason", ""), " ".join(str(entry.get("message", "")).split())
    return f"{reason}: {message}" if reason and message else reason or message


def find_condition(isvc: Object, kind: str) -> Object:
    found: Iterator[Object] = (c for c in (isvc.get("status") or {}).get("conditions") or () if c["type"] == kind)
    return next(found, {})


def split(shares: list[Share]) -> str:
    """`00001 80% · 00002 20%`, with the tags in brackets."""
    return " · ".join(f"{s.revision} {s.percent}%{f' ({s.tag})' if s.tag else ''}" for s in shares)


def age(timestamp: str | None, now: datetime) -> str:
    """As kubectl says it, coarser: `45s`, `12m`, `5h`, `3d`."""
    if not timestamp:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(timestamp)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length or (unit == "d" and seconds >= length):
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def event_time(event: Object) -> str:
    """When an event was last seen; events.k8s.io and older core events name it differently."""
    series = event.get("series") or {}
    metadata = event.get("metadata") or {}
    return (
        series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        or event.get("firstTimestamp") or metadata.get("creationTimestamp") or ""
    )  # fmt: skip
