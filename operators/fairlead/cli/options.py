"""Parameters that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer


def complete_service(incomplete: str) -> list[str]:
    """The services whose names begin so, for the shell; nothing if the cluster does not answer at once."""
    import asyncio

    from fairlead.cli.cluster import Target, service_names

    async def names() -> list[str]:
        async with asyncio.timeout(1.5):
            return await service_names(Target())

    try:
        return [name for name in asyncio.run(names()) if name.startswith(incomplete)]
    except Exception:
        return []


Service = Annotated[str, typer.Argument(metavar="NAME", help="The InferenceService.", autocompletion=complete_service)]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; the context's if not given.")]
Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", help="Path of a kubeconfig; KUBECONFIG, ~/.kube/config or `up`'s if not given."),
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
