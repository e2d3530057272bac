"""What an error tells the user to install can be installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_extra_that_an_error_names_is_one_of_the_distribution():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for file in (ROOT / "runtimes" / "fairlead").rglob("*.py")
        for found in re.findall(r'require\("[\w.]+", "([\w,]+)"\)|fairlead\[([\w,]+)\]', file.read_text())
        for extra in "".join(found).split(",")
    }
    assert {"sklearn", "pandas", "onnx"} <= named
    assert named - {"extra"} <= set(extras)  # that one stands for any, in a docstring
