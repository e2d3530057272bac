"""Which format a model file is of, told by its first bytes and its name, without running anything.

Suffixes lie (KServe's users have XGBoost and LightGBM models in `.bst`), so content decides where it can.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Format:
    name: str
    framework: str
    """Name of the framework that loads it."""
    title: str
    runs_code: bool = False
    """Loading it runs code that it holds."""


ONNX = Format("onnx", "onnx", "ONNX")
SKOPS = Format("skops", "sklearn", "scikit-learn, saved by skops")
PICKLE = Format("pickle", "sklearn", "Python pickle", runs_code=True)
JOBLIB = Format("joblib", "sklearn", "Python pickle, saved by joblib", runs_code=True)
XGBOOST_JSON = Format("xgboost-json", "xgboost", "XGBoost, JSON")
XGBOOST_UBJ = Format("xgboost-ubj", "xgboost", "XGBoost, UBJSON")
XGBOOST_LEGACY = Format("xgboost-binary", "xgboost", "XGBoost, the binary format that XGBoost 3.1 dropped")
LIGHTGBM = Format("lightgbm", "lightgbm", "LightGBM, text")
TORCH_EXPORT = Format("pt2", "torch", "PyTorch, torch.export program")
SAFETENSORS = Format("safetensors", "torch", "weights (safetensors); the class they are for is named apart")
TORCHSCRIPT = Format("torchscript", "torch", "PyTorch, TorchScript (deprecated)")
TORCH_PICKLE = Format("torch-pickle", "torch", "PyTorch, saved by torch.save: a pickle", runs_code=True)
PYTHON = Format("python", "custom", "Python source", runs_code=True)
MLMODEL = Format("mlflow", "mlflow", "MLflow model")

PREFERENCE = (
    MLMODEL, ONNX, SKOPS, XGBOOST_UBJ, XGBOOST_JSON, LIGHTGBM, TORCH_EXPORT, SAFETENSORS, TORCHSCRIPT,
    XGBOOST_LEGACY, JOBLIB, PICKLE, TORCH_PICKLE, PYTHON,
)  # fmt: skip
"""Of several formats in one directory, the first here is served: data before code."""

MODEL_SUFFIXES = frozenset(
    [
        ".onnx",
        ".skops",
        ".joblib",
        ".pkl",
        ".pickle",
        ".ubj",
        ".json",
        ".bst",
        ".xgb",
        ".model",
        ".lgb",
        ".txt",
        ".pt2",
        ".pt",
        ".pth",
        ".safetensors",
        ".py",
    ]
)


def sniff(path: Path) -> Format | None:
    """The format of the file at `path`; None if it is no model that we know."""
    suffix = path.suffix.lower()
    if path.name == "MLmodel":
        return MLMODEL
    if suffix not in MODEL_SUFFIXES:
        return None
    if suffix in (".onnx", ".py"):
        return ONNX if suffix == ".onnx" else PYTHON
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path, suffix)
    if suffix == ".safetensors":
        return SAFETENSORS
    if suffix in (".pt", ".pth", ".pt2"):
        return TORCH_PICKLE
    if suffix in (".joblib", ".pkl", ".pickle", ".skops"):
        return SKOPS if suffix == ".skops" else JOBLIB if suffix == ".joblib" else PICKLE
    return _sniff_trees(head)


def _sniff_trees(head: bytes) -> Format | None:
    """Gradient-boosted trees. JSON and text files may well be something else: configuration, a tokenizer, a readme."""
    if head.startswith((b"tree\n", b"tree\r\n")):
        return LIGHTGBM
    if head.startswith(b"{L\x00\x00\x00\x00\x00\x00\x00"):
        return XGBOOST_UBJ
    if head.lstrip().startswith(b"{") and (b'"learner"' in head or (b'"version"' in head and b'"Config"' in head)):
        return XGBOOST_JSON
    if head.startswith(b"binf"):
        return XGBOOST_LEGACY
    return None


def _sniff_zip(path: Path, suffix: str) -> Format | None:
    try:
        with zipfile.ZipFile(path) as pack:
            names = pack.namelist()
    except zipfile.BadZipFile:
        names = []
    if suffix == ".skops" or "schema.json" in names:
        return SKOPS
    below = {name.partition("/")[2] for name in names}
    if "archive_format" in below or "serialized_exported_program.json" in names:
        return TORCH_EXPORT
    if any(name.startswith("code/") for name in below) and "constants.pkl" in below:
        return TORCHSCRIPT
    if "data.pkl" in below:
        return TORCH_PICKLE
    return {".pt2": TORCH_EXPORT, ".pt": TORCH_PICKLE, ".pth": TORCH_PICKLE}.get(suffix)


def model_files(directory: Path) -> list[tuple[Path, Format]]:
    """The models in a directory, in the order in which they are preferred; within a format, `model.*` first.

    Where the directory holds nothing but one directory (an archive's top level, MLflow's), that one is meant.
    Names that begin with a dot or an underscore are not for us.
    """
    while True:
        entries = sorted(entry for entry in directory.iterdir() if entry.name[0] not in "._")
        if len(entries) != 1 or not entries[0].is_dir():
            break
        directory = entries[0]
    found = [(entry, form) for entry in entries if entry.is_file() and (form := sniff(entry)) is not None]
    return sorted(found, key=lambda pair: (PREFERENCE.index(pair[1]), pair[0].stem != "model", pair[0].name))
