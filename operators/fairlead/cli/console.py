"""Tables and other rich output: for a terminal as wide as it is, for a pipe in whole lines without padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPED_WIDTH = 500
"""Columns where there is no terminal, so that nothing that a script reads is wrapped."""


def show(*parts: RenderableType) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        for part in parts:
            console.print(part)
        return
    console.width = PIPED_WIDTH
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    for line in captured.get().splitlines():
        print(line.rstrip())


def width() -> int:
    """Columns of the terminal; of a plain one where there is none."""
    import shutil

    return shutil.get_terminal_size((80, 24)).columns
