"""Built-in frameworks: `load(path, name, options)` makes a Model of the file or directory at `path`.

    formats.py   what lies there        base.py      options, and what a framework is
    sklearn.py onnxrt.py xgboost.py lightgbm.py torch.py mlflow.py custom.py     one file each

Data formats are loaded; formats whose loading runs code are refused unless the options allow it.
"""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions
from fairlead.runtime.frameworks.formats import MODEL_SUFFIXES, Format, model_files, sniff
from fairlead.runtime.model import Model

__all__ = ["FRAMEWORKS", "Framework", "LoadOptions", "detect", "framework", "load"]

log = logging.getLogger(__name__)

FRAMEWORKS = {
    "sklearn": ("sklearn", "SklearnFramework"),
    "onnx": ("onnxrt", "OnnxFramework"),
    "xgboost": ("xgboost", "XgboostFramework"),
    "lightgbm": ("lightgbm", "LightgbmFramework"),
    "torch": ("torch", "TorchFramework"),
    "mlflow": ("mlflow", "MlflowFramework"),
    "custom": ("custom", "CustomFramework"),
}
"""Name -> (module here, class)."""


def load(path: Path, name: str, options: LoadOptions | None = None) -> Model:
    """A Model for what lies at `path`; its `load()` reads it. Raises LoadError, which says what to do."""
    options = options or LoadOptions()
    file, form = detect(path, options.framework)
    return framework(form.framework).load(file, name, options)


def detect(path: Path, wanted: str | None = None) -> tuple[Path, Format]:
    """The file to serve and its format; of `wanted`, a framework's name, if that is given. Raises LoadError."""
    if not path.exists():
        raise LoadError(f"{path} does not exist")
    if path.is_dir():
        found = model_files(path)
    else:
        form = sniff(path)
        found = [(path, form)] if form else []
    if wanted is not None:
        if wanted not in FRAMEWORKS:
            raise LoadError(f"framework {wanted!r} is unknown; known are {', '.join(FRAMEWORKS)}")
        found = [(file, form) for file, form in found if form.framework == wanted]
    if not found:
        raise LoadError(_nothing(path, wanted))
    (file, form), others = found[0], found[1:]
    rivals = [other for other, other_form in others if other_form == form]
    if rivals and file.stem != "model":
        names = ", ".join(path.name for path in [file, *rivals])
        raise LoadError(f"{path} holds several {form.title} models: {names}; rename one to model{file.suffix}")
    if others:
        log.warning("%s is served; %s beside it is not", file.name, ", ".join(path.name for path, _ in others))
    return file, form


def framework(name: str) -> Framework:
    module, attribute = FRAMEWORKS[name]
    made: Framework = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)()
    return made


def _nothing(path: Path, wanted: str | None) -> str:
    kind = f"{wanted} model" if wanted else "model"
    if path.is_file():
        return f"{path} is no {kind} that can be told by its content; known suffixes are {', '.join(sorted(MODEL_SUFFIXES))}"
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    held = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
    return f"there is no {kind} in {path}: it holds {held}; known suffixes are {', '.join(sorted(MODEL_SUFFIXES))}"
