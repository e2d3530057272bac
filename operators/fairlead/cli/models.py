"""`fairlead serve` and `fairlead inspect`: handed to the model server, which knows their options."""

from __future__ import annotations

from typing import Annotated

import typer

Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="[OPTIONS]...", help="As of `python -m fairlead.runtime`.")
]


def serve(arguments: Arguments = None) -> None:
    from fairlead.runtime import cli

    raise typer.Exit(cli.serve(arguments or []))


def inspect(arguments: Arguments = None) -> None:
    from fairlead.runtime import cli

    raise typer.Exit(cli.inspect(arguments or []))
