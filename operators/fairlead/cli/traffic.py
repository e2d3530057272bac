"""`fairlead traffic`: the split between revisions, and its changes: a percentage, a promotion, a roll-back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import options
from fairlead.cli.console import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.kube.client import Client
    from fairlead.kube.objects import Object

SEEN_SECONDS = 10.0
"""How long the operator is waited for after a change."""
POLL_SECONDS = 0.1


def traffic(
    name: options.Service,
    percent: Annotated[int | None, typer.Argument(min=0, max=100, help="New percentage for the canary.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="All traffic to the canary, for good.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="All traffic back to the stable revision.")] = False,
    canary: Annotated[str | None, typer.Option(help="Which of spec.canary, by its predictor's name.")] = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, get_service, run
    from fairlead.cli.errors import CliError
    from fairlead.kube.resources import INFERENCE_SERVICES

    if (percent is not None) + promote + rollback > 1:
        raise CliError("give one of PERCENT, --promote and --rollback")

    async def work() -> Object:
        async with connected(Target(kubeconfig, context)) as client:
            isvc = await get_service(client, name, namespace or client.namespace)
            patch = change(isvc, percent=percent, promote=promote, rollback=rollback, canary=canary)
            if patch:
                where = isvc["metadata"]["namespace"]
                await client.patch(INFERENCE_SERVICES, name, patch, where, kind="json")
                isvc = await _seen_by_the_operator(client, name, where)
            return isvc

    _print(run(work()))


def change(
    isvc: Mapping[str, Any],
    *,
    percent: int | None = None,
    promote: bool = False,
    rollback: bool = False,
    canary: str | None = None,
) -> list[dict[str, Any]]:
    """The JSON patch of spec that the options ask for; empty if they ask for none. It fails if the service changed meanwhile.

    Raises CliError if there is nothing that could be promoted, or several canaries and none is named.
    """
    if percent is None and not promote and not rollback:
        return []
    held = {"op": "test", "path": "/metadata/resourceVersion", "value": isvc["metadata"]["resourceVersion"]}
    if isvc["spec"].get("canary"):
        return [held, *_change_listed(isvc, _index(isvc, canary), percent, promote)]
    return [held, *_change_latest(isvc, percent, promote, canary)]


def _change_latest(
    isvc: Mapping[str, Any], percent: int | None, promote: bool, canary: str | None
) -> list[dict[str, Any]]:
    from fairlead.cli.errors import CliError

    name = isvc["metadata"]["name"]
    if canary is not None:
        raise CliError(f"{name} has no spec.canary; leave --canary out to change canaryTrafficPercent")
    path = "/spec/predictor/canaryTrafficPercent"
    if not promote:
        return [{"op": "add", "path": path, "value": percent or 0}]
    if "canaryTrafficPercent" not in isvc["spec"]["predictor"]:
        raise CliError(f"{name} has no canary to promote: all traffic goes to the latest revision already")
    return [{"op": "remove", "path": path}]


def _change_listed(isvc: Mapping[str, Any], index: int, percent: int | None, promote: bool) -> list[dict[str, Any]]:
    if percent is not None:
        return [{"op": "replace", "path": f"/spec/canary/{index}/trafficPercent", "value": percent}]
    last = len(isvc["spec"]["canary"]) == 1
    removed = {"op": "remove", "path": "/spec/canary" if last else f"/spec/canary/{index}"}
    return (
        [{"op": "replace", "path": "/spec/predictor", "value": _promoted(isvc, index)}, removed]
        if promote
        else [removed]
    )


def _promoted(isvc: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The stable predictor that the canary becomes; its name is the canary's, so that its pods stay."""
    from fairlead.api.inferenceservice import InferenceService

    spec = InferenceService.parse(isvc).spec
    return (spec.canary or [])[index].predictor.inheriting(spec.predictor).to_dict()


def _index(isvc: Mapping[str, Any], canary: str | None) -> int:
    from fairlead.cli.errors import CliError

    there = [entry["predictor"]["name"] for entry in isvc["spec"]["canary"]]
    if canary is None and len(there) == 1:
        return 0
    if canary not in there:
        which = "which canary?" if canary is None else f"there is no canary {canary!r}."
        raise CliError(f"{which} Give --canary with one of: {', '.join(there)}")
    return there.index(canary)


async def _seen_by_the_operator(client: Client, name: str, namespace: str) -> Object:
    """The service as soon as its status is of its latest spec, or as it is after `SEEN_SECONDS`."""
    import asyncio
    import time

    from fairlead.kube.resources import INFERENCE_SERVICES

    deadline = time.monotonic() + SEEN_SECONDS
    while True:
        isvc = await client.get(INFERENCE_SERVICES, name, namespace)
        seen = (isvc.get("status") or {}).get("observedGeneration", 0) >= isvc["metadata"].get("generation", 1)
        if seen or time.monotonic() >= deadline:
            return isvc
        await asyncio.sleep(POLL_SECONDS)


def _print(isvc: Object) -> None:
    from rich.table import Table

    from fairlead.cli.render import shares, why_not_ready

    split = shares(isvc)
    if not split:
        print(f"{isvc['metadata']['name']} has no traffic yet: {why_not_ready(isvc) or 'no revision is ready'}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("REVISION", "PERCENT", "", "TAG"):
        table.add_column(column, justify="right" if column == "PERCENT" else "left")
    for share in split:
        label = f"{share.revision} (latest)" if share.latest else share.revision
        table.add_row(label, f"{share.percent}%", "█" * round(share.percent / 4), share.tag or "")
    show(table)
    if waits := waiting(isvc):
        print(waits)


def waiting(isvc: Mapping[str, Any]) -> str:
    """What was asked for and is not yet so; empty if all is as asked."""
    from fairlead.cli.render import shares

    wanted = isvc["spec"]["predictor"].get("canaryTrafficPercent")
    split = shares(isvc)
    latest = next((share for share in split if share.latest), None)
    if wanted is None or latest is None or len(split) < 2 or latest.percent == wanted:
        return ""
    return f"{latest.revision} gets its {wanted}% when it is ready: fairlead describe {isvc['metadata']['name']}"
