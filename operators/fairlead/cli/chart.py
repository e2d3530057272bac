"""A chart of replicas over time for the terminal, in plain characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import NamedTuple

READY, ON_THEIR_WAY, DEMAND = "█", "░", "•"
LEGEND = f"{READY} ready  {ON_THEIR_WAY} on their way  {DEMAND} what demand needs"


class Point(NamedTuple):
    """A moment: replicas that were ready, that were wanted, and that the demand needed (not a whole number)."""

    at: datetime
    ready: int
    wanted: int
    needed: float


def chart(points: Sequence[Point], *, width: int = 72, height: int = 8) -> list[str]:
    """Lines of at most `width` characters: `height` rows, an axis, and the times below it.

    Each column stands for an equal share of the time and shows the highest of it: a spike of one second is never lost.
    """
    if not points:
        return []
    top = max(1, *(max(point.ready, point.wanted, ceil(point.needed)) for point in points))
    rows = min(height, top)
    margin = len(str(top)) + 2
    columns = _columns(points, width - margin)
    lines = []
    for row in range(rows, 0, -1):
        label = str(round(top * row / rows))
        bar = "".join(_cell(column, row, top / rows) for column in columns)
        lines.append(f"{label:>{margin - 2}} ┤{bar.rstrip()}")
    lines.append(f"{0:>{margin - 2}} └{'─' * len(columns)}")
    lines.append(" " * margin + _times(points[0].at, points[-1].at, len(columns)))
    return lines


def _columns(points: Sequence[Point], width: int) -> list[Point | None]:
    """A point for each column; None where the first has not begun. What was last known goes on where nothing happened."""
    begin, end = points[0].at.timestamp(), points[-1].at.timestamp()
    seconds = max(1.0, end - begin)
    cells: list[list[Point]] = [[] for _ in range(width)]
    for point in points:
        cells[min(width - 1, int((point.at.timestamp() - begin) / seconds * width))].append(point)
    found: list[Point | None] = []
    last: Point | None = None
    for cell in cells:
        if cell:
            ready, wanted = max(point.ready for point in cell), max(point.wanted for point in cell)
            found.append(Point(cell[0].at, ready, wanted, max(point.needed for point in cell)))
            last = cell[-1]
        else:
            found.append(last)
    return found


def _cell(point: Point | None, row: int, per_row: float) -> str:
    if point is None:
        return " "
    if point.needed > 0 and ceil(point.needed / per_row) == row:
        return DEMAND
    if ceil(point.ready / per_row) >= row:
        return READY
    return ON_THEIR_WAY if ceil(point.wanted / per_row) >= row else " "


def _times(begin: datetime, end: datetime, width: int) -> str:
    first, last = f"{begin:%H:%M:%S}", f"{end:%H:%M:%S}"
    return first + last.rjust(max(1, width - len(first)))
