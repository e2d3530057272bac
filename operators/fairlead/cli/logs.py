"""`fairlead logs`: of all pods of a service, with their names before the lines if there are several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fairlead.cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from fairlead.kube.client import Client
    from fairlead.kube.objects import Object


def logs(
    name: options.Service,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what comes.")] = False,
    revision: Annotated[str | None, typer.Option(help="Only this revision's pods: 00002, or its whole name.")] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the container before the last restart.")
    ] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only so many of the last lines.")] = None,
    component: Annotated[str, typer.Option(help="predictor, transformer or explainer.")] = "predictor",
    container: Annotated[
        str | None, typer.Option("--container", "-c", help="Another container than the model's.")
    ] = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, get_service, run
    from fairlead.cli.errors import CliError

    if follow and previous:
        raise CliError("--previous is over and cannot be followed; leave one of --follow and --previous out")

    async def work() -> None:
        async with connected(Target(kubeconfig, context)) as client:
            where = namespace or client.namespace
            await get_service(client, name, where)
            pods = await _pods(client, name, where, component)
            chosen = of_revision(pods, name, revision)
            if not chosen:
                raise CliError(nothing_to_read(pods, name, component, revision))
            if follow:
                await _follow(client, chosen, container, tail)
            else:
                await _print(client, chosen, container, tail, previous)

    run(work())


def of_revision(pods: Sequence[Mapping[str, Any]], service: str, revision: str | None) -> list[Mapping[str, Any]]:
    """The pods that run the revision, given in short or in full; all without one."""
    from fairlead.cli.render import short_revision

    return [
        pod for pod in pods if revision is None or revision in (_revision(pod), short_revision(_revision(pod), service))
    ]


def nothing_to_read(pods: Sequence[Mapping[str, Any]], service: str, component: str, revision: str | None) -> str:
    """Why there is no log, and what there is instead."""
    if not pods:
        return f"{service} has no {component} pods; `fairlead describe {service}` tells why"
    there = ", ".join(sorted({_revision(pod) for pod in pods}))
    return f"{service} has no {component} pods of revision {revision}; there are: {there}"


def main_container(pod: Mapping[str, Any]) -> str:
    """The container that serves: KServe's name for it, else the first."""
    from fairlead.api import names

    there: list[str] = [container["name"] for container in pod["spec"]["containers"]]
    known = (names.PREDICTOR_CONTAINER, names.TRANSFORMER_CONTAINER)
    return next((name for name in known if name in there), there[0])


def _revision(pod: Mapping[str, Any]) -> str:
    from fairlead.api import names

    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels.get(names.LABEL_REVISION, "")


async def _pods(client: Client, service: str, namespace: str, component: str) -> list[Object]:
    from fairlead.api import names
    from fairlead.kube.resources import PODS

    labels = f"{names.LABEL_INFERENCE_SERVICE}={service},{names.LABEL_COMPONENT}={component}"
    found = await client.list(PODS, namespace, labels=labels)
    return sorted(found.items, key=lambda pod: pod["metadata"]["name"])


async def _print(
    client: Client, pods: Sequence[Mapping[str, Any]], container: str | None, tail: int | None, previous: bool
) -> None:
    """All logs; a pod that has none is told of, and is an error only if it is the only one."""
    from fairlead.kube.errors import BadRequest

    for pod in pods:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        chosen = container or main_container(pod)
        try:
            text = await client.logs(name, namespace, container=chosen, tail=tail, previous=previous)
        except BadRequest as error:
            if len(pods) == 1:
                raise
            _emit(pod, [f"({error.message})"], several=True)
        else:
            _emit(pod, text.splitlines(), several=len(pods) > 1)


async def _follow(client: Client, pods: Sequence[Mapping[str, Any]], container: str | None, tail: int | None) -> None:
    import asyncio

    async def one(pod: Mapping[str, Any]) -> None:
        metadata = pod["metadata"]
        lines = client.follow_logs(
            metadata["name"], metadata["namespace"], container=container or main_container(pod), tail=tail
        )
        async for line in lines:
            _emit(pod, [line], several=len(pods) > 1)

    async with asyncio.TaskGroup() as group:
        for pod in pods:
            group.create_task(one(pod))


def _emit(pod: Mapping[str, Any], lines: Sequence[str], *, several: bool) -> None:
    prefix = f"[{pod['metadata']['name']}] " if several else ""
    for line in lines:
        print(f"{prefix}{line}", flush=True)
