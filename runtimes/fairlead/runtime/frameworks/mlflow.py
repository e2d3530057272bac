"""MLflow's model directories: the file that `MLmodel` names, loaded by the framework that it is of, without MLflow.

`python_function` alone is a pickle of arbitrary code with an environment of its own, and not for this server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.base import Framework, LoadOptions
from fairlead.runtime.model import Model, ModelMetadata

FLAVOURS = {
    "onnx": ("onnx", ("data",)),
    "xgboost": ("xgboost", ("data",)),
    "lightgbm": ("lightgbm", ("data",)),
    "sklearn": ("sklearn", ("pickled_model", "model_path")),
    "pytorch": ("torch", ("model_data",)),
}
"""MLflow's flavour -> our framework, and the keys under which the flavour may name its data. In order of preference."""


class MlflowFramework(Framework):
    name = "mlflow"

    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        document = read(path)
        framework, data = served_file(path, document)
        from fairlead.runtime.frameworks import detect
        from fairlead.runtime.frameworks import framework as by_name

        # MLflow's names of files say little (model.pth, model.xgb): their content does.
        file, form = detect(data, framework)
        return MlflowModel(by_name(form.framework).load(file, name, options), document)


class MlflowModel(Model):
    """The model inside, with what MLflow recorded about it in the metadata."""

    def __init__(self, inner: Model, document: dict[str, Any]) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self.document = document
        self.platform = inner.platform
        self.compute_bound = inner.compute_bound
        self.predict = inner.predict  # type: ignore[method-assign]

    def load(self) -> None:
        self.inner.load()
        self.inputs, self.outputs = self.inner.inputs, self.inner.outputs
        self.batchable, self.threads = self.inner.batchable, self.inner.threads

    def unload(self) -> None:
        self.inner.unload()

    def metadata(self) -> ModelMetadata:
        inner = self.inner.metadata()
        recorded = {
            "mlflow_version": self.document.get("mlflow_version"),
            "run_id": self.document.get("run_id"),
            "signature": signature(self.document),
        }
        parameters = {**inner.parameters, **{key: value for key, value in recorded.items() if value}}
        return ModelMetadata(self.name, inner.platform, inner.versions, inner.inputs, inner.outputs, parameters)


def read(path: Path) -> dict[str, Any]:
    """The `MLmodel` file. Raises LoadError."""
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} is not YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("flavors"), dict):
        raise LoadError(f"{path} names no flavors: it is no MLflow model")
    return document


def served_file(path: Path, document: dict[str, Any]) -> tuple[str, Path]:
    """(our framework, the file or directory that holds the model) for the flavour that is served."""
    flavours = document["flavors"]
    for flavour, (framework, keys) in FLAVOURS.items():
        if flavour not in flavours:
            continue
        described = flavours[flavour] or {}
        named = next((str(described[key]) for key in keys if described.get(key)), None)
        if named is None:
            raise LoadError(f"{path} does not say where the data of its flavor {flavour} is")
        data = (path.parent / named).resolve()
        if not data.is_relative_to(path.parent.resolve()):
            raise LoadError(f"{path} names {named!r} as its data, which is outside its directory; refused")
        if not data.exists():
            raise LoadError(f"{path} names {named!r} as its data, which is not there")
        return framework, data
    raise LoadError(
        f"{path} has the flavors {', '.join(flavours)}; served are {', '.join(FLAVOURS)}. "
        "Log the model with one of these, or serve it with a custom class"
    )


def signature(document: dict[str, Any]) -> dict[str, Any]:
    """MLflow keeps the inputs and outputs as JSON in a string."""
    found = {}
    for key, value in (document.get("signature") or {}).items():
        if isinstance(value, str):
            try:
                found[key] = json.loads(value)
            except ValueError:
                continue
    return found
