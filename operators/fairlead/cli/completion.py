"""`fairlead completion`: the shell's script."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell | None, typer.Argument(help="bash, zsh or fish; $SHELL's if not given.")] = None,
) -> None:
    """Use it so: `source <(fairlead completion bash)`, or write it to a file that the shell reads at its start."""
    from fairlead.cli.app import command
    from fairlead.cli.errors import CliError

    if shell is None:
        name = Path(os.environ.get("SHELL", "")).name
        if name not in list(Shell):
            raise CliError("which shell? fairlead completion bash|zsh|fish")
        shell = Shell(name)
    os.environ["_FAIRLEAD_COMPLETE"] = f"source_{shell}"  # what the script itself sets to ask for completions
    command(prog_name="fairlead")
