"""A user's own class or function: `MODULE:NAME`, or a .py file that defines one.

What may be there: a subclass of Model, a subclass of kserve.Model (runs unchanged where kserve is installed), an instance
of either, or a plain function `predict(request)`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions, refuse_code
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest


class CustomFramework(Framework):
    name = "custom"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        if not options.allow_pickle:
            raise refuse_code(
                path, "a Python program", "Put it into the model server's image and name it (MODULE:CLASS)"
            )
        return from_file(path, name)


def from_file(path: Path, name: str) -> Model:
    """The model that a .py file defines. For files that the user named; those that came with a model go through `load`."""
    spec = importlib.util.spec_from_file_location(f"fairlead_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # Modules beside it can be imported, as when Python runs the file.
    if str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LoadError(f"{path} raised while it was imported: {type(error).__name__}: {error}") from error
    return as_model(_only_candidate(module, path), name)


def from_import_path(reference: str, name: str) -> Model:
    """The model at `package.module:Name`."""
    return as_model(resolve(reference), name)


def resolve(reference: str) -> Any:
    """What `package.module:Name.inner` stands for. LoadError says which part of it is wrong."""
    module_name, colon, attribute = reference.partition(":")
    if not colon or not module_name or not attribute:
        raise LoadError(f"{reference!r} is not of the form package.module:Name")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        what = f"module {error.name!r} is not installed" if error.name else str(error)
        raise LoadError(f"{reference}: {what}; is it on PYTHONPATH, or in the image?") from error
    except Exception as error:
        raise LoadError(f"{module_name} raised while it was imported: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = (
                ", ".join(key for key in vars(found) if not key.startswith("_"))
                if hasattr(found, "__dict__")
                else "nothing"
            )
            raise LoadError(f"{reference}: there is no {part!r} in {module_name}; it has {names}")
        found = getattr(found, part)
    return found


def as_model(target: Any, name: str) -> Model:
    """Make a Model of a class, an instance or a function."""
    if isinstance(target, type):
        target = _instance(target, name)
    if isinstance(target, Model):
        return target
    if is_kserve(type(target)):
        from fairlead.runtime.frameworks.kserve import adapt

        return adapt(name, target)
    if callable(target):
        return FunctionModel(name, target)
    raise LoadError(
        f"{target!r} is no model: it takes a subclass of fairlead.runtime.Model or of kserve.Model, or a function"
    )


class FunctionModel(Model):
    """A function of one argument, the request; it may be a coroutine function or a generator."""

    def __init__(self, name: str, function: Callable[[InferRequest], Any]) -> None:
        super().__init__(name)
        self.predict = function  # type: ignore[method-assign, assignment]


def is_kserve(kind: type) -> bool:
    """A subclass of kserve.Model? Asked by name: importing kserve costs 129 MB and is for its users alone."""
    return any(
        base.__module__.split(".")[0] == "kserve" and base.__name__ in ("Model", "BaseKServeModel")
        for base in kind.__mro__
    )


def _instance(kind: type, name: str) -> Any:
    """Models take their name. One that takes nothing has given itself one, and is told ours."""
    if not (issubclass(kind, Model) or is_kserve(kind) or "__call__" in dir(kind)):
        raise LoadError(f"{kind.__name__} is no model: derive it from fairlead.runtime.Model")
    parameters = inspect.signature(kind).parameters.values()
    takes_name = any(parameter.name == "name" or parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    try:
        made = kind(name) if takes_name else kind()
    except Exception as error:
        raise LoadError(f"{kind.__name__}() raised {type(error).__name__}: {error}") from error
    if isinstance(made, Model) or is_kserve(kind):
        made.name = name
    return made


def _only_candidate(module: ModuleType, path: Path) -> Any:
    """What a file means to serve: a name `model` or `Model`, its only model class, or its only function `predict`."""
    own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    classes = [
        value
        for value in own.values()
        if isinstance(value, type) and (issubclass(value, Model) or is_kserve(value)) and not inspect.isabstract(value)
    ]
    if "model" in vars(module) and not isinstance(module.model, ModuleType):
        return module.model
    # A base class that another class of the file derives from is not what is served.
    leaves = [each for each in classes if not any(each is not other and issubclass(other, each) for other in classes)]
    if len(leaves) == 1:
        return leaves[0]
    if leaves:
        names = ", ".join(each.__name__ for each in leaves)
        raise LoadError(f"{path} defines several models: {names}; assign the one to serve to a variable named model")
    if callable(own.get("predict")):
        return own["predict"]
    raise LoadError(
        f"{path} defines no model: write a class derived from fairlead.runtime.Model, or a function predict(request)"
    )
