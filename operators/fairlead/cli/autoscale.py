"""`fairlead autoscale explain`: the last hour of a service's scaling decisions, decided again, as a chart and a table.

The operator keeps what it observed; here the same pure function decides on it again, and so can say why at each moment, or what other settings would have done.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import options
from fairlead.cli.chart import LEGEND, Point, chart
from fairlead.cli.console import show, width
from fairlead.cli.errors import CliError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from fairlead.autoscaling import Policy
    from fairlead.autoscaling.history import Played, Step
    from fairlead.cli.cluster import Target
    from fairlead.kube.client import Client
    from fairlead.kube.objects import Object

OPERATOR_PODS = "app.kubernetes.io/name=fairlead-operator"
TIMEOUT = 10.0


class Action(StrEnum):
    EXPLAIN = "explain"


def autoscale(
    action: Annotated[Action, typer.Argument(help="explain: replay the last hour of decisions.")],
    name: options.Service,
    minutes: Annotated[int, typer.Option(min=1, max=60, help="How far to look back.")] = 60,
    changes: Annotated[int, typer.Option(min=1, help="How many of the latest changes to list.")] = 20,
    what_if: Annotated[
        list[str] | None,
        typer.Option("--what-if", metavar="SETTING=VALUE", help="Decide with another setting, such as target=5."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every tick with its decision, as JSON.")] = False,
    operator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The leading operator's port; found if not given.")
    ] = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.autoscaling.history import parsed, replay
    from fairlead.cli.cluster import Target, connected, get_service, run

    target = Target(kubeconfig, context)

    async def work() -> Object:
        async with connected(target) as client:
            isvc = await get_service(client, name, namespace or client.namespace)
            return await history(client, target, isvc["metadata"]["namespace"], name, operator)

    document = run(work())
    if not document["workloads"]:
        raise CliError(
            f"nothing is known of {name}: its replicas are fixed or somebody else's (an HPA's, KEDA's), or the operator has just started"
        )
    now = datetime.fromisoformat(document["time"])
    began = document["clock"]
    for workload in document["workloads"]:
        recorded = parsed(workload["history"])
        steps = [
            (now - timedelta(seconds=began - step.clock), step)
            for step in replay(recorded, changed(recorded[-1][0], what_if) if what_if else None)
            if began - step.clock <= 60 * minutes
        ]
        if as_json:
            print(json.dumps({"workload": workload["workload"], "ticks": list(_ticks(steps))}))
        else:
            show(*explanation(workload["revision"], recorded, steps, changes, tried=bool(what_if)))


async def history(client: Client, target: Target, namespace: str, name: str, operator: str | None) -> Object:
    """From the operator's port: directly where that can be reached, else through the API server. Raises CliError."""
    from fairlead.kube.errors import ApiError, Forbidden, NotFound
    from fairlead.kube.resources import PODS

    path = f"/v1/autoscaling/{namespace}/{name}"
    if address := operator or target.operator_address():
        return await _directly(address, path)
    from fairlead.api.names import OPERATOR_PORT

    try:
        pods = (await client.list(PODS, None, labels=OPERATOR_PODS)).items
    except Forbidden as error:
        raise CliError(f"{error}; port-forward to the operator's port {OPERATOR_PORT} and give --operator") from None
    refusals = []
    for pod in pods:
        where = pod["metadata"]
        proxy = f"/api/v1/namespaces/{where['namespace']}/pods/{where['name']}:{_port(pod)}/proxy"
        try:
            return await client.raw(proxy + path)
        except Forbidden as error:
            raise CliError(f"{error}; it takes `get` on `pods/proxy` in {where['namespace']}") from None
        except NotFound:
            refusals.append(f"{where['name']} is older than this command")
        except ApiError as error:  # a standby
            refusals.append(f"{where['name']}: {error.message}")
    raise CliError(f"no operator that leads answers: {'; '.join(refusals) or 'no pod of it is found'}")


def _port(pod: Object) -> int:
    """The one that the pod calls `metrics`."""
    from fairlead.api.names import OPERATOR_PORT

    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == "metrics"), OPERATOR_PORT)


async def _directly(address: str, path: str) -> Object:
    import aiohttp

    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.get(f"http://{address}{path}") as answer,
        ):
            answer.raise_for_status()
            found: Object = await answer.json()
            return found
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CliError(f"the operator at {address}: {error or type(error).__name__}") from None


def changed(policy: Policy, settings: Sequence[str]) -> Policy:
    """The policy with other settings. Raises CliError for one that there is not, or a value that is none."""
    from dataclasses import fields, replace

    defaults = {field.name: field.default for field in fields(policy)}
    numbers = {name: int if type(value) is int else float for name, value in defaults.items() if _is_number(value)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in numbers:
            raise CliError(f"--what-if {setting}: there is no setting {name!r}; there are: {', '.join(numbers)}")
        try:
            values[name] = numbers[name](text)
        except ValueError:
            raise CliError(f"--what-if {setting}: {text!r} is no {numbers[name].__name__}") from None
    try:
        return replace(policy, **values)
    except ValueError as error:
        raise CliError(f"--what-if {' '.join(settings)}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def explanation(
    revision: str,
    recorded: Sequence[Played],
    steps: Sequence[tuple[datetime, Step]],
    changes: int,
    *,
    tried: bool,
) -> list[RenderableType]:
    """One revision's hour: where it stands, the chart, and its changes with their reasons, the latest last."""
    from rich.table import Table
    from rich.text import Text

    if not steps:
        return [Text(f"{revision}: no decision in that time", style="bold")]
    _, last = steps[-1]
    would = "would be " if tried else ""
    parts: list[RenderableType] = [
        Text(f"{revision}: {would}{last.decision.desired} replicas, {last.decision.mode}", style="bold"),
        Text(f"  {last.decision.reason}\n  {_settings(last.policy)}\n"),
        *(Text(f"  {line}") for line in chart(_points(steps), width=min(100, width()) - 2)),
        Text(f"  {LEGEND}\n"),
    ]
    rows = list(_changes(steps))
    if hidden := len(rows) - changes:
        parts += [Text(f"  {hidden} earlier changes are not listed (--changes {len(rows)})")] if hidden > 0 else []
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("TIME", "REPLICAS", "READY", "MODE", "WHY"):
        table.add_column(column, overflow="fold", no_wrap=column != "WHY")
    for row in rows[-changes:]:
        table.add_row(*row)
    parts.append(table)
    different = sum(step.differs for _, step in steps)
    if different and not tried:
        parts.append(
            Text(f"{different} of {len(steps)} ticks were decided otherwise: the operator is of another version")
        )
    return parts


def _settings(policy: Policy) -> str:
    most = policy.max_replicas or "unlimited"
    return (
        f"target {policy.target:g} {policy.unit} a replica; {policy.least} to {most} replicas; "
        f"windows {policy.stable_window:g} s and {policy.panic_window:g} s; "
        + (_to_zero(policy) if policy.least == 0 else "never to zero")
    )


def _to_zero(policy: Policy) -> str:
    starts = policy.scale_to_zero_starts
    return f"to zero after {policy.scale_to_zero_delay:g} s" + (f" or {starts:g} times a start" if starts else "")


def _points(steps: Sequence[tuple[datetime, Step]]) -> list[Point]:
    return [
        Point(at, step.seen.ready, step.decision.desired, step.decision.value / step.decision.target)
        for at, step in steps
    ]


def _changes(steps: Sequence[tuple[datetime, Step]]) -> Iterator[tuple[str, str, str, str, str]]:
    """The first tick, and each that decided other replicas or another mode than the one before."""
    desired: int | None = None
    mode = None
    for at, step in steps:
        decision = step.decision
        if (decision.desired, decision.mode) != (desired, mode):
            replicas = (
                f"{decision.desired}" if desired in (None, decision.desired) else f"{desired} → {decision.desired}"
            )
            yield f"{at:%H:%M:%S}", replicas, str(step.seen.ready), str(decision.mode), decision.reason
        desired, mode = decision.desired, decision.mode


def _ticks(steps: Sequence[tuple[datetime, Step]]) -> Iterator[dict[str, Any]]:
    for at, step in steps:
        decision = step.decision
        yield {
            "time": at.isoformat(),
            **step.seen._asdict(),
            "desired": decision.desired,
            "mode": str(decision.mode),
            "value": decision.value,
            "target": decision.target,
            "reason": decision.reason,
        }
