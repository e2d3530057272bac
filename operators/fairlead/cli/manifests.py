"""`fairlead apply` and `fairlead delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import options

if TYPE_CHECKING:
    from fairlead.kube.client import Client
    from fairlead.kube.objects import Object
    from fairlead.kube.resources import Resource

FIELD_MANAGER = "fairlead-cli"
STDIN = "-"

Files = Annotated[
    list[str], typer.Option("--filename", "-f", help="A file, a directory, or - for standard input; may be repeated.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Ask the API server whether it would take them; change nothing.")
]


def apply(
    filename: Files,
    namespace: options.Namespace = None,
    dry_run: DryRun = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, run

    objects = read(filename)

    async def work() -> None:
        async with connected(Target(kubeconfig, context)) as client:
            for obj in objects:
                print(await _apply(client, obj, namespace or client.namespace, dry_run=dry_run))

    run(work())


def delete(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", autocompletion=options.complete_service)
    ] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", help="Delete what is in these manifests.")
    ] = None,
    namespace: options.Namespace = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is no error.")
    ] = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, run
    from fairlead.cli.errors import CliError
    from fairlead.kube.errors import NotFound
    from fairlead.kube.resources import INFERENCE_SERVICES

    if not names and not filename:
        raise CliError("nothing to delete: give names of services, or -f FILE")
    wanted: list[tuple[Resource, str, str | None]] = [(INFERENCE_SERVICES, name, namespace) for name in names or ()]
    for obj in reversed(read(filename or [])):
        metadata = obj["metadata"]
        wanted.append((resource(obj), metadata["name"], namespace or metadata.get("namespace")))

    async def work() -> None:
        async with connected(Target(kubeconfig, context)) as client:
            for kind, name, where in wanted:
                try:
                    await client.delete(kind, name, (where or client.namespace) if kind.namespaced else None)
                except NotFound:
                    if not ignore_not_found:
                        raise CliError(
                            f"there is no {kind.kind} {name!r} in namespace {where or client.namespace}"
                        ) from None
                else:
                    print(f"{kind.kind.lower()} {name} deleted")

    run(work())


def read(filenames: list[str]) -> list[Object]:
    """The objects in files, checked as far as that needs no cluster; raises UpError, InvalidObject or CliError."""
    from fairlead.api.crd import KINDS
    from fairlead.cli.errors import CliError
    from fairlead.local.supervisor import manifests

    objects = manifests.read([Path("/dev/stdin" if name == STDIN else name) for name in filenames])
    types = {kind.type.__name__: kind.type for kind in KINDS}
    for obj in objects:
        resource(obj)
        if not (obj.get("metadata") or {}).get("name"):
            raise CliError(f"a {obj['kind']} has no metadata.name")
        if obj["kind"] in types:
            types[obj["kind"]].parse(obj)
    return objects


def resource(obj: Object) -> Resource:
    from fairlead.cli.errors import CliError
    from fairlead.kube.resources import resource_for

    try:
        return resource_for(obj["apiVersion"], obj["kind"])
    except LookupError as error:
        raise CliError(f"{error.args[0]}; apply it with kubectl") from None


async def _apply(client: Client, obj: Object, namespace: str, *, dry_run: bool) -> str:
    """What was done, in kubectl's words."""
    from fairlead.kube.errors import NotFound

    kind = resource(obj)
    metadata: dict[str, Any] = obj["metadata"]
    where = metadata.get("namespace") or namespace
    placed = {**obj, "metadata": {**metadata, **({"namespace": where} if kind.namespaced else {})}}
    try:
        before = (await client.get(kind, metadata["name"], where if kind.namespaced else None))["metadata"]
    except NotFound:
        before = None
    after = await client.apply(kind, placed, field_manager=FIELD_MANAGER, dry_run=dry_run)
    if before is None:
        done = "created"
    else:
        done = "unchanged" if before["resourceVersion"] == after["metadata"]["resourceVersion"] else "configured"
    return f"{kind.kind.lower()} {metadata['name']} {done}{' (dry run)' if dry_run else ''}"
