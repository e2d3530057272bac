"""`fairlead inspect PATH`: what a model file is, what goes in and out, and what it takes to serve it.

Nothing of the file is run, and its framework need not be installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.api.names import ALLOW_PICKLE
from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import detect
from fairlead.runtime.frameworks.describe import Description, describe
from fairlead.runtime.frameworks.formats import SAFETENSORS, Format
from fairlead.runtime.frameworks.onnxfile import Value
from fairlead.runtime.storage.errors import size_text
from fairlead.runtime.storage.verify import sha256

LIBRARIES = {
    "sklearn": "sklearn",
    "onnx": "onnxruntime",
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "torch": "torch",
}
"""Framework, which is the extra's name too -> the module that it needs."""


@dataclass
class Report:
    path: Path
    form: Format
    size: int
    digest: str
    description: Description

    def needs(self) -> list[str]:
        """What it takes to serve it, as sentences."""
        said = []
        framework = self.description.details.get("served as", self.form.framework)
        module = LIBRARIES.get(framework)
        if module:
            here = "installed" if importlib.util.find_spec(module) else "not installed here"
            said.append(f"pip install 'fairlead[{framework}]' ({here})")
        if self.form is SAFETENSORS:
            said.append("the class that the weights are for: FAIRLEAD_MODEL_CLASS=package.module:Class")
        if self.form.runs_code:
            said.append(f'permission to run the code in it: annotation {ALLOW_PICKLE}: "true", or --allow_pickle')
        said += [f"the file {name} beside it" for name in self.description.beside]
        return said

    def lines(self) -> list[str]:
        """For people."""
        about = self.description
        rows = [
            ("format", self.form.title),
            ("framework", self.form.framework),
            ("size", size_text(self.size)),
            ("sha256", self.digest),
            *(("input" if index == 0 else "", value_text(value)) for index, value in enumerate(about.inputs)),
            *(("output" if index == 0 else "", value_text(value)) for index, value in enumerate(about.outputs)),
            *about.details.items(),
            ("written by", ", ".join(f"{library} {version}" for library, version in about.versions.items())),
            *(("to serve it" if index == 0 else "", need) for index, need in enumerate(self.needs())),
            *(("warning", warning) for warning in about.warnings),
        ]
        shown = [(name, text) for name, text in rows if text]
        width = max(len(name) for name, _ in shown)
        return [str(self.path), *(f"  {name:<{width}}  {text}" for name, text in shown)]

    def document(self) -> dict[str, object]:
        """For programs."""
        about = self.description
        return {
            "path": str(self.path),
            "format": self.form.name,
            "framework": self.form.framework,
            "size": self.size,
            "sha256": self.digest,
            "runsCode": self.form.runs_code,
            "inputs": [value._asdict() for value in about.inputs],
            "outputs": [value._asdict() for value in about.outputs],
            "details": about.details,
            "versions": about.versions,
            "needs": self.needs(),
            "warnings": about.warnings,
        }


def report(path: Path, framework: str | None = None) -> Report:
    """Raises LoadError if there is no model at `path`, or one that cannot be read."""
    file, form = detect(path, framework)
    try:
        description = describe(file, form)
    except ValueError as error:
        raise LoadError(f"{file} cannot be read: {error}") from error
    except OSError as error:
        raise LoadError(f"{file} cannot be read: {error.strerror}") from error
    return Report(file, form, file.stat().st_size, sha256(file), description)


def value_text(value: Value) -> str:
    """`X  FP32 [-1, 4]`."""
    shape = "of any shape" if value.shape is None else "[" + ", ".join(map(str, value.shape)) + "]"
    return f"{value.name}  {value.datatype or 'no tensor'} {shape}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fairlead inspect", description="Tell what a model file is, and what it takes to serve it."
    )
    parser.add_argument("path", type=Path, help="a model file, or a directory with one")
    parser.add_argument("--framework", help="where the files fit several")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args(argv)
    try:
        found = report(arguments.path, arguments.framework)
    except LoadError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps(found.document(), indent=2) if arguments.json else "\n".join(found.lines()))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
