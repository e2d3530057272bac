"""What `fairlead up` shows: services, their traffic and rates, and the newest reasons. Pure: objects in, lines and tables out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fairlead.api import names
from fairlead.kube.objects import Object
from fairlead.local.node import objects

EVENTS_SHOWN = 6


@dataclass(frozen=True)
class Target:
    """A share of a component's traffic."""

    revision: str
    percent: int
    tag: str
    ready_pods: int
    pods: int
    rate: float | None
    """Requests a second."""


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    url: str
    ready: bool
    reason: str
    """Why it is not ready; empty if it is."""
    targets: tuple[Target, ...]

    @property
    def is_up(self) -> bool:
        """Whether a pod of it is ready: one at zero is ready too, and would be woken by whoever asks it something."""
        return any(target.ready_pods for target in self.targets)

    @property
    def traffic(self) -> str:
        """`80 % iris-predictor-00001, 20 % iris-predictor-00002`."""
        return ", ".join(f"{target.percent} % {target.revision}" for target in self.targets) or "no traffic"


@dataclass(frozen=True)
class Happening:
    """An event, as one line."""

    moment: str
    warning: bool
    about: str
    reason: str
    message: str


@dataclass(frozen=True)
class Picture:
    services: tuple[Service, ...] = ()
    happenings: tuple[Happening, ...] = ()
    troubles: tuple[str, ...] = ()
    """Of the cluster's own processes."""


def services(
    inferenceservices: Iterable[Object], pods: Iterable[Object], rates: Mapping[tuple[str, str], float], gateway: str
) -> tuple[Service, ...]:
    """`rates` is requests a second by (namespace, workload)."""
    by_workload: dict[tuple[str, str], list[Object]] = {}
    for pod in pods:
        if objects.is_active(pod):
            workload = (objects.namespace(pod), objects.labels(pod).get(names.LABEL_WORKLOAD, ""))
            by_workload.setdefault(workload, []).append(pod)
    found = [_service(isvc, by_workload, rates, gateway) for isvc in inferenceservices]
    return tuple(sorted(found, key=lambda service: (service.namespace, service.name)))


def _service(
    isvc: Object,
    by_workload: Mapping[tuple[str, str], list[Object]],
    rates: Mapping[tuple[str, str], float],
    gateway: str,
) -> Service:
    namespace, name = objects.namespace(isvc), objects.name(isvc)
    ready = objects.condition(isvc, "Ready") or {}
    targets = []
    for component in ((isvc.get("status") or {}).get("components") or {}).values():
        for item in component.get("traffic") or ():
            workload = (namespace, item.get("serviceName", ""))
            pods = by_workload.get(workload, [])
            ready_pods = sum(objects.is_ready(pod) for pod in pods)
            revision, percent = item.get("revisionName", ""), int(item.get("percent", 0))
            targets.append(Target(revision, percent, item.get("tag", ""), ready_pods, len(pods), rates.get(workload)))
    return Service(
        namespace,
        name,
        gateway + names.path(name, namespace),
        ready.get("status") == "True",
        "" if ready.get("status") == "True" else _why_not(isvc, ready),
        tuple(targets),
    )


def _why_not(isvc: Object, ready: Object) -> str:
    """The most telling of the conditions: one that is false says more than Ready itself."""
    conditions = (isvc.get("status") or {}).get("conditions") or ()
    false = [
        item for item in conditions if item.get("status") == "False" and item["type"] != "Ready" and item.get("message")
    ]
    telling = false[0] if false else ready
    words = [str(telling.get("reason", "")), str(telling.get("message", ""))]
    return ": ".join(word for word in words if word) or "starting"


def happenings(events: Iterable[Object], limit: int = EVENTS_SHOWN) -> tuple[Happening, ...]:
    """The newest last."""
    newest = sorted(
        events, key=lambda event: (event.get("lastTimestamp") or "", event["metadata"].get("resourceVersion", ""))
    )
    return tuple(_happening(event) for event in newest[-limit:])


def _happening(event: Object) -> Happening:
    about = event.get("involvedObject") or {}
    return Happening(
        str(event.get("lastTimestamp") or "")[11:19],
        event.get("type") == "Warning",
        f"{about.get('kind', '')} {about.get('name', '')}",
        str(event.get("reason", "")),
        " ".join(str(event.get("message", "")).split()),
    )


def news(before: Picture, after: Picture) -> list[str]:
    """What changed, in plain lines, for a terminal that is none."""
    lines = []
    known = {(service.namespace, service.name): service for service in before.services}
    for service in after.services:
        old = known.pop((service.namespace, service.name), None)
        name = f"{service.namespace}/{service.name}"
        if old is None or (old.ready, old.reason) != (service.ready, service.reason):
            lines.append(f"{name}: ready at {service.url}" if service.ready else f"{name}: not ready: {service.reason}")
        if service.targets and (old is None or old.traffic != service.traffic):
            lines.append(f"{name}: traffic: {service.traffic}")
    lines += [f"{namespace}/{name}: deleted" for namespace, name in known]
    seen = set(before.happenings)
    lines += [f"{h.about}: {h.reason}: {h.message}" for h in after.happenings if h.warning and h not in seen]
    return lines + [trouble for trouble in after.troubles if trouble not in before.troubles]


def render(picture: Picture) -> RenderableType:
    """The live view."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("SERVICE", "READY", "REVISION", "TRAFFIC", "PODS", "REQ/S"):
        table.add_column(
            column, no_wrap=column != "REVISION", justify="right" if column in ("TRAFFIC", "PODS", "REQ/S") else "left"
        )
    for service in picture.services:
        _rows(table, service)
    parts: list[RenderableType] = [Text()]
    parts.append(
        table
        if picture.services
        else Text("no InferenceService yet: kubectl apply -f FILE, or fairlead apply -f FILE", "dim")
    )
    parts += [Text(f"{service.name}: {service.reason}", "yellow") for service in picture.services if service.reason]
    parts += [Text(trouble, "red") for trouble in picture.troubles]
    if picture.happenings:
        parts.append(Text())
    for event in picture.happenings:
        words = f"{event.moment}  {event.about}  {event.reason}  {event.message}"
        parts.append(Text(words, "yellow" if event.warning else "dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _rows(table: Table, service: Service) -> None:
    ready = Text("yes", "green") if service.ready else Text("no", "red")
    label = service.name if service.namespace == "default" else f"{service.namespace}/{service.name}"
    if not service.targets:
        table.add_row(label, ready, "-", "-", "-", "-")
    for index, target in enumerate(service.targets):
        revision = target.revision + (f" ({target.tag})" if target.tag else "")
        rate = "-" if target.rate is None else f"{target.rate:.1f}"
        first = (label, ready) if index == 0 else ("", "")
        table.add_row(*first, revision, f"{target.percent} %", f"{target.ready_pods}/{target.pods}", rate)
