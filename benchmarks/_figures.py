"""What every benchmark does with its figures: a table for people, JSON for programs.

figures = Figures("The gateway")
figures.add("added p50", 71.0, "us", goal=80)                 # met when value <= goal
figures.add("requests/s against minimal", 0.93, "ratio", goal=0.9, at_least=True)
figures.finish(path_or_none)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Figures:
    def __init__(self, title: str) -> None:
        self.title = title
        self.figures: dict[str, dict[str, Any]] = {}

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        goal: float | None = None,
        at_least: bool = False,
        met: bool | None = None,
    ) -> None:
        """Record one figure. `met` follows from `goal` unless it is given; without a goal it is None."""
        if met is None and goal is not None:
            met = value >= goal if at_least else value <= goal
        sign = ">=" if at_least else "<="
        shown = None if goal is None else f"{sign} {goal:g}"
        self.figures[name] = {"value": value, "unit": unit, "goal": shown, "met": met}

    def finish(self, path: Path | None = None) -> None:
        """Print the table; write `{"figures": {name: {value, unit, goal, met}}}` where asked."""
        width = max([len(name) for name in self.figures], default=10)
        print(f"\n{self.title}")
        for name, figure in self.figures.items():
            verdict = {True: "met", False: "NOT MET", None: ""}[figure["met"]]
            print(
                f"  {name:{width}}  {figure['value']:>12,.3f} {figure['unit']:<12} {figure['goal'] or '':>12}  {verdict}"
            )
        if path is not None:
            path.write_text(json.dumps({"figures": self.figures}, indent=2) + "\n")
