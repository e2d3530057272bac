"""`fairlead serve`, handed to the model server with all its options, and `fairlead inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_FORMATS = {"torch": "pytorch", "custom": "python"}
"""`modelFormat.name` where it is not the framework's name."""


def serve(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH|MODULE:CLASS [OPTIONS]...", help="As of `python -m fairlead.runtime`."),
    ] = None,
) -> None:
    from fairlead.runtime import cli

    raise typer.Exit(cli.serve(arguments or []))


def inspect(
    path: Annotated[Path, typer.Argument(help="A model file, or a directory that holds one.")],
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load it even if that runs code that it holds.")
    ] = False,
) -> None:
    """Tells the format, loads the model, and tells what it takes and gives."""
    from fairlead.runtime import frameworks

    file, form = frameworks.detect(path)
    _row("file", str(file))
    _row("format", form.title)
    _row("modelFormat", MODEL_FORMATS.get(form.framework, form.framework))
    _row("runs code", "yes, when it is loaded" if form.runs_code else "no")
    if form.runs_code and not allow_pickle:
        _row("tensors", "not looked at; --allow-pickle loads it, if you trust where it is from")
        return
    model = frameworks.load(path, path.stem, frameworks.LoadOptions(allow_pickle=allow_pickle))
    model.load()
    metadata = model.metadata()
    for role, specs in (("input", metadata.inputs), ("output", metadata.outputs)):
        for spec in specs:
            _row(role, f"{spec.name}  {spec.datatype}  {'any shape' if spec.shape is None else list(spec.shape)}")
    if not metadata.inputs:
        _row("input", "the model does not say what it takes")


def _row(what: str, told: str) -> None:
    print(f"{what:<12} {told}")
