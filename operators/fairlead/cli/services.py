"""`fairlead get` and `fairlead describe`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import options
from fairlead.cli.console import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from fairlead.kube.objects import Object


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def get(
    name: Annotated[
        str | None, typer.Argument(autocompletion=options.complete_service, help="One service; all if not given.")
    ] = None,
    namespace: options.Namespace = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print it.")] = Output.TABLE,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, get_service, run
    from fairlead.kube.resources import INFERENCE_SERVICES

    async def work() -> tuple[list[Object], str]:
        async with connected(Target(kubeconfig, context)) as client:
            where = namespace or client.namespace
            if name is not None:
                return [await get_service(client, name, where)], where
            found = await client.list(INFERENCE_SERVICES, None if all_namespaces else where)
            return found.items, where

    items, where = run(work())
    if output not in (Output.TABLE, Output.WIDE):
        _dump(items, output, single=name is not None)
    elif items:
        show(*service_table(items, with_namespace=all_namespaces, wide=output is Output.WIDE))
    else:
        print(f"no InferenceServices in {'any namespace' if all_namespaces else f'namespace {where}'}")


def describe(
    name: options.Service,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, get_service, run
    from fairlead.kube.resources import EVENTS

    async def work() -> tuple[Object, list[Object]]:
        async with connected(Target(kubeconfig, context)) as client:
            isvc = await get_service(client, name, namespace or client.namespace)
            fields = f"involvedObject.kind=InferenceService,involvedObject.name={name}"
            events = await client.list(EVENTS, isvc["metadata"]["namespace"], fields=fields)
            return isvc, events.items

    isvc, events = run(work())
    show(*description(isvc, events))


def service_table(items: Sequence[Object], *, with_namespace: bool = False, wide: bool = False) -> list[RenderableType]:
    """The services, and below them, for each that is not ready, a line that says why. `wide`: also why it has as many replicas as it has."""
    from rich.table import Table
    from rich.text import Text

    from fairlead.cli.render import modes, replicas, split, summary
    from fairlead.kube.objects import utcnow

    rows = [summary(item, utcnow()) for item in sorted(items, key=_key)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ["NAME", "READY", "URL", "REVISION", "TRAFFIC", "REPLICAS", "SCALING", "AGE"]
    for column in [*(["NAMESPACE"] if with_namespace else []), *columns, *(["SCALED", "WHY"] if wide else [])]:
        table.add_column(column, overflow="fold", no_wrap=column in ("NAME", "READY", "REPLICAS", "AGE", "SCALED"))
    for row in rows:
        scaled = [replicas(row.scaling), modes(row.scaling)]
        cells = [*([row.namespace] if with_namespace else []), row.name, _ready(row.ready), row.url, row.revision]
        why = [" · ".join(one.changed for one in row.scaling), "; ".join(one.why for one in row.scaling)]
        table.add_row(*cells, split(row.shares), *scaled, row.age, *(why if wide else []))
    return [table, *(Text(f"{row.name} is not ready: {row.reason}", style="red") for row in rows if row.reason)]


def description(isvc: Object, events: Sequence[Object]) -> list[RenderableType]:
    """Everything that the status says, and the events, oldest first."""
    from rich.padding import Padding
    from rich.text import Text

    from fairlead.cli.render import age, event_time, scaling, starts, summary
    from fairlead.kube.objects import utcnow

    now = utcnow()
    row, status = summary(isvc, now), isvc.get("status") or {}
    parts: list[RenderableType] = [_facts(isvc, row, status)]

    def section(title: str, header: list[str], rows: list[list[Any]]) -> None:
        if rows:
            parts.extend((Text(f"\n{title}", style="bold"), Padding(_grid(header, rows), (0, 0, 0, 2), expand=False)))

    conditions = status.get("conditions") or []
    section(
        "Conditions",
        ["TYPE", "STATUS", "REASON", "MESSAGE"],
        [[c["type"], _ready(c["status"]), c.get("reason", ""), c.get("message", "")] for c in conditions],
    )
    section("Traffic", ["COMPONENT", "REVISION", "PERCENT", "TAG", "SERVICE"], _traffic_rows(status))
    section(
        "Scaling",
        ["COMPONENT", "REVISION", "READY", "DESIRED", "MODE", "DEMAND", "CHANGED", "WHY"],
        [list(map(str, one)) for component in status.get("components") or () for one in scaling(isvc, now, component)],
    )
    canaries = status.get("canaryStatuses") or []
    section(
        "Canaries",
        ["NAME", "READY", "PERCENT"],
        [[c["name"], _ready(str(c["ready"])), f"{c['trafficPercent']}%"] for c in canaries],
    )
    section(
        "Starts",
        ["REVISION", "SECONDS", "MADE OF", "READY"],
        [[one.revision, one.seconds, one.phases, one.ready] for one in starts(isvc, now)],
    )
    section("Model", ["", ""], _model_rows(status.get("modelStatus") or {}))
    section(
        "Events",
        ["AGE", "TYPE", "REASON", "MESSAGE"],
        [
            [age(event_time(e), now), e.get("type", ""), e.get("reason", ""), e.get("message") or e.get("note", "")]
            for e in sorted(events, key=event_time)
        ],
    )
    return parts


def _facts(isvc: Object, row: Any, status: Object) -> RenderableType:
    predictor = (status.get("components") or {}).get("predictor") or {}
    runtime = status.get("servingRuntimeName") or status.get("clusterServingRuntimeName")
    facts = [
        ["Name", row.name],
        ["Namespace", row.namespace],
        ["Age", row.age],
        ["Ready", _ready(row.ready)],
        ["Why not", row.reason],
        ["URL", row.url],
        ["Address", (status.get("address") or {}).get("url", "")],
        ["Runtime", runtime or ""],
        ["Latest revision", predictor.get("latestCreatedRevision", "")],
        ["Latest ready", predictor.get("latestReadyRevision", "")],
        ["Rolled out", predictor.get("latestRolledoutRevision", "")],
        ["Before that", predictor.get("previousRolledoutRevision", "")],
    ]
    return _grid(None, [fact for fact in facts if fact[1]])


def _traffic_rows(status: Object) -> list[list[str]]:
    return [
        [component, t.get("revisionName", ""), f"{t['percent']}%", t.get("tag", ""), t.get("serviceName", "")]
        for component, state in (status.get("components") or {}).items()
        for t in state.get("traffic") or ()
    ]


def _model_rows(model: Object) -> list[list[str]]:
    states, failure, copies = model.get("states") or {}, model.get("lastFailureInfo") or {}, model.get("copies") or {}
    rows = [
        ["Transition", model.get("transitionStatus", "")],
        ["Active", states.get("activeModelState", "")],
        ["Target", states.get("targetModelState", "")],
        [
            "Copies",
            f"{copies['totalCopies']}, failed {copies.get('failedCopies', 0)}" if "totalCopies" in copies else "",
        ],
        ["Failure", failure.get("reason", "")],
        ["Exit code", str(failure["exitCode"]) if "exitCode" in failure else ""],
        ["Where", failure.get("location", "")],
        ["Message", failure.get("message", "")],
    ]
    return [row for row in rows if row[1]]


def _grid(header: list[str] | None, rows: list[list[Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    named = header is not None and any(header)
    table = Table(box=None, pad_edge=False, show_header=named, header_style="dim")
    for column in header or ["", ""]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def _ready(status: str) -> Any:
    from rich.text import Text

    return Text(status, style={"True": "green", "False": "red"}.get(status, "yellow"))


def _key(item: Object) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _dump(items: list[Object], output: Output, *, single: bool) -> None:
    import json

    import yaml

    if output is Output.NAME:
        print("\n".join(item["metadata"]["name"] for item in items))
        return
    for item in items:
        item["metadata"].pop("managedFields", None)
    document = items[0] if single else {"apiVersion": "v1", "kind": "List", "items": items}
    print(
        json.dumps(document, indent=2) if output is Output.JSON else yaml.safe_dump(document, sort_keys=False), end="\n"
    )
