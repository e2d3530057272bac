"""What a directory of a user's holds: the model class and what it needs to run. Sources are parsed, never imported."""

from __future__ import annotations

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from fairlead.cli.errors import CliError

SKIPPED = (
    ".*",
    "__pycache__",
    "*.py[co]",
    "*.egg-info",
    "venv",
    "env",
    "node_modules",
    "build",
    "dist",
    "tests",
    "test_*.py",
    "*_test.py",
    "conftest.py",
    "*.ipynb",
)
"""Names, at any depth, of what no model needs to run: neither searched nor copied into the image."""

_BASES = {
    "fairlead.runtime": {"Model", "Pipeline"},
    "fairlead.runtime.pipeline": {"Pipeline"},
    "kserve": {"Model", "KServeModel"},
}
"""Module -> the classes in it that a model may derive from."""


@dataclass(frozen=True)
class Project:
    directory: Path
    name: str
    """Of the service: a DNS label."""
    target: str
    """`module:Class`."""
    source: str
    """Where modules are found, below the directory: empty, or `src`."""
    requirements_file: str | None
    """`requirements.txt`, if there is one."""
    requirements: tuple[str, ...]
    """Those of pyproject.toml, if there is no requirements.txt."""
    system_packages: tuple[str, ...]

    def digest(self) -> str:
        """Of all that goes into the image: twelve hexadecimal digits."""
        total = hashlib.sha256()
        for path in files(self.directory):
            total.update(f"{path.relative_to(self.directory)}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()[:12]


def read(directory: Path, *, target: str | None = None, name: str | None = None) -> Project:
    """The project in `directory`. Raises CliError, which says what is missing and where it may be given."""
    if not directory.is_dir():
        raise CliError(f"{directory} is not a directory: give the one that holds the model's class")
    document = _pyproject(directory / "pyproject.toml")
    project, ours = document.get("project", {}), document.get("tool", {}).get("fairlead", {})
    source = "src" if (directory / "src").is_dir() else ""
    given = target or ours.get("model")
    found = _checked(directory, source, given) if given else _detected(directory, source)
    requirements_file = "requirements.txt" if (directory / "requirements.txt").is_file() else None
    return Project(
        directory=directory,
        name=_service_name(
            name or ours.get("name") or project.get("name") or directory.resolve().name, given=bool(name)
        ),
        target=found,
        source=source,
        requirements_file=requirements_file,
        requirements=() if requirements_file else tuple(project.get("dependencies", ())),
        system_packages=tuple(ours.get("apt", ())),
    )


def files(directory: Path) -> Iterator[Path]:
    """All that goes into the image, sorted."""
    for path in sorted(directory.iterdir()):
        if skipped(path.name):
            continue
        if path.is_dir():
            yield from files(path)
        else:
            yield path


def skipped(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in SKIPPED)


def _detected(directory: Path, source: str) -> str:
    looked_at = [path for path in files(directory / source) if path.suffix == ".py"]
    models = [f"{_module(path, directory / source)}:{name}" for path in looked_at for name in _model_classes(path)]
    if len(models) == 1:
        return models[0]
    if models:
        raise CliError(f"{directory} defines several models: {', '.join(models)}. Say which with --class MODULE:CLASS")
    looked = ", ".join(str(path.relative_to(directory)) for path in looked_at[:8]) or "no Python files"
    raise CliError(
        f"{directory} defines no model: there is no class derived from fairlead.runtime.Model or kserve.Model in {looked}. "
        "Write one, or name a class or function with --class MODULE:NAME"
    )


def _checked(directory: Path, source: str, target: str) -> str:
    """`target`, once it is sure that it is there; a name that the module imports from elsewhere is believed."""
    module, colon, attribute = target.partition(":")
    if not colon or not module or not attribute:
        raise CliError(f"{target!r} is not of the form MODULE:CLASS, such as my_model:Scorer")
    stem = directory / source / PurePosixPath(*module.split("."))
    path = next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)
    if path is None:
        raise CliError(f"{target}: there is no module {module!r}: {stem.with_suffix('.py')} does not exist")
    names = _top_level_names(_parsed(path))
    if attribute.partition(".")[0] not in names:
        raise CliError(f"{target}: {path} defines no {attribute!r}; it has {', '.join(sorted(names)) or 'nothing'}")
    return target


def _model_classes(path: Path) -> list[str]:
    """Classes of a file that derive from a model's base, in the file or imported; not those that others derive from."""
    tree = _parsed(path)
    known = _imported_bases(tree)
    classes = {
        node.name: [_dotted(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)
    }
    models: set[str] = set()
    while more := {name for name, bases in classes.items() if name not in models and (known | models) & {*bases}}:
        models |= more
    bases_of_others = {base for name in models for base in classes[name]}
    return sorted(models - bases_of_others)


def _imported_bases(tree: ast.Module) -> set[str]:
    """The names by which a file calls the bases: `Model`, `runtime.Model`, `kserve.Model`."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                called = alias.asname or alias.name
                if alias.name in _BASES.get(node.module, ()):
                    found.add(called)
                found |= {f"{called}.{base}" for base in _BASES.get(f"{node.module}.{alias.name}", ())}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                found |= {f"{alias.asname or alias.name}.{base}" for base in _BASES.get(alias.name, ())}
    return found


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _top_level_names(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return found


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise CliError(f"{path}{line}: this is not Python: {error.args[0]}") from None


def _module(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _pyproject(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CliError(f"{path}: {error}") from None


def _service_name(text: str, *, given: bool) -> str:
    """`My_Model.v2` -> `my-model-v2`. A name that the user gave is not mended."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].rstrip("-")
    if not name or not name[0].isalpha() or (given and name != text):
        raise CliError(
            f"{text!r} cannot be a service's name: give --name with a-z, 0-9 and -, beginning with a letter, at most 40"
        )
    return name
