"""Prints what extras of this project install, one requirement a line, so that an image can install it without the code.

python tools/extras.py runtime sklearn onnx > requirements.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

_OWN = re.compile(r"^fairlead\[(.+)\]$")


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """The project's own dependencies and those of the extras; extras that name extras are followed."""
    optional = project["optional-dependencies"]
    assert isinstance(optional, dict)
    found: dict[str, None] = dict.fromkeys(project["dependencies"])  # type: ignore[call-overload]
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"no extra {extra!r} in pyproject.toml; there are {', '.join(optional)}")
        for requirement in optional[extra]:
            own = _OWN.match(requirement)
            names = requirements(project, own.group(1).split(",")) if own else [requirement]
            found.update(dict.fromkeys(names))
    return list(found)


if __name__ == "__main__":
    pyproject = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())
    sys.stdout.write("\n".join(requirements(pyproject["project"], sys.argv[1:])) + "\n")
