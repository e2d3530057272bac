"""What a model file says of itself, read without its framework and without running anything of it.

One small reader for each format, from the file's path to a Description. Raises ValueError where a file is damaged.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.runtime.frameworks import mlflow, pickles, pt2
from fairlead.runtime.frameworks.formats import Format
from fairlead.runtime.frameworks.onnxfile import OnnxFile, Value
from fairlead.runtime.frameworks.postponed import import_lock
from fairlead.runtime.frameworks.skopstypes import TRUSTED


@dataclass
class Description:
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    """What else is known, in the order in which it is shown."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library -> version that wrote the file."""
    warnings: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    """Other files that it takes."""


def describe(path: Path, form: Format) -> Description:
    reader = _READERS.get(form.name)
    try:
        return reader(path) if reader else Description()
    except (
        KeyError,
        IndexError,
        TypeError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
        struct.error,
        json.JSONDecodeError,
    ) as error:
        raise ValueError(f"it is damaged, or not {form.title}: {error}") from error


def _onnx(path: Path) -> Description:
    file = OnnxFile.read(path)
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in file.opsets.items())
    known = {"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "com.microsoft", *file.functions}
    foreign = [
        domain for domain in file.opsets if domain not in known and not domain.startswith(("com.microsoft.", "com.ms."))
    ]
    warnings = [f"it may use operators of {domain}, which ONNX Runtime does not have" for domain in foreign]
    versions = {file.producer: file.producer_version or "?"} if file.producer else {}
    details = {"operators": opsets, "IR version": str(file.ir_version), **file.properties}
    return Description(file.inputs, file.outputs, details, versions, warnings, sorted(file.external_data))


def _skops(path: Path) -> Description:
    with zipfile.ZipFile(path) as pack:
        schema = json.loads(pack.read("schema.json"))
    found = Description(versions={"skops": schema["_skops_version"]})
    found.details["estimator"] = f"{schema['__module__']}.{schema['__class__']}"
    features: int | None = None
    for key, node in _nodes(schema):
        if key == "_sklearn_version":
            found.versions.setdefault("scikit-learn", json.loads(node["content"]))
        elif key == "n_features_in_" and features is None and node.get("is_json"):
            features = int(json.loads(node["content"]))
        elif key == "feature_names_in_" and node.get("type") == "json":
            names = [json.loads(item["content"]) for item in node["content"]]
            found.details.setdefault("features", ", ".join(map(str, names)))
    if features:
        found.inputs = [Value("input-0", "FP64", (-1, features))]
    unknown = _untrusted(path)
    if unknown:
        found.warnings.append(
            f"it holds types that are not trusted: allow them with FAIRLEAD_TRUSTED_TYPES={','.join(unknown)}"
        )
    return found


def _untrusted(path: Path) -> list[str]:
    """As skops tells them; it only reads names for that. Nothing where skops is not installed."""
    try:
        with import_lock:
            from fairlead.runtime.frameworks.skops import get_untrusted_types
    except ModuleNotFoundError:
        return []
    return [name for name in get_untrusted_types(file=path) if name not in TRUSTED]


def _nodes(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Attributes in a skops schema, outermost first."""
    todo = deque([schema])
    while todo:
        item = todo.popleft()
        if isinstance(item, dict):
            yield from ((key, value) for key, value in item.items() if isinstance(value, dict))
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)


def _pickle(path: Path) -> Description:
    imported = pickles.imports(path)
    content = path.read_bytes()
    if content[:1] == b"\x78":
        content = zlib.decompress(content)
    found = Description(details={"imports": ", ".join(imported) or "nothing"})
    # The key, perhaps memoised, and a short string after it.
    version = re.search(rb"_sklearn_version(?:\x94|q.|r.{4})?(?:\x8c.|X.{4})(\d+[\w.]*)", content, re.DOTALL)
    if version:
        found.versions["scikit-learn"] = version[1].decode()
    strange = [name for name in imported if name.split(".")[0] not in _USUAL]
    if strange:
        found.warnings.append(f"beyond what models need it imports {', '.join(strange)}: look before you allow it")
    return found


_USUAL = {
    "sklearn",
    "numpy",
    "scipy",
    "joblib",
    "collections",
    "copyreg",
    "_codecs",
    "pandas",
    "xgboost",
    "lightgbm",
    "torch",
    "functools",
}


def _torch_pickle(path: Path) -> Description:
    return Description(details={"imports": ", ".join(pickles.imports(path)) or "nothing"})


def _torchscript(path: Path) -> Description:
    with zipfile.ZipFile(path) as pack:
        modules = sum(1 for name in pack.namelist() if name.endswith(".py"))
    return Description(
        details={"source files": str(modules)},
        warnings=["TorchScript is deprecated: export the model with torch.export"],
    )


def _xgboost_json(path: Path) -> Description:
    document = json.loads(path.read_bytes())
    learner = document["learner"]
    parameters = learner["learner_model_param"]
    return _boosted(
        int(parameters["num_feature"]),
        {"objective": learner["objective"]["name"], "features": ", ".join(learner.get("feature_names") or [])},
        {"xgboost": ".".join(map(str, document["version"]))},
    )


def _xgboost_ubj(path: Path) -> Description:
    content = path.read_bytes()
    at = content.rfind(b"version[#L")
    version = struct.unpack_from(">xBxBxB", content, at + 18) if at >= 0 else ()
    return _boosted(
        int(_ubj_text(content, b"num_feature")),
        {"objective": _ubj_text(content[content.index(b"objective{") :], b"name")},
        {"xgboost": ".".join(map(str, version))} if version else {},
    )


def _ubj_text(content: bytes, name: bytes) -> str:
    """UBJSON: a key, `S`, `L`, eight bytes of length, the text. IndexError if the key is not there."""
    at = content.find(name + b"SL")
    if at < 0:
        raise IndexError(name.decode())
    start = at + len(name) + 10
    (length,) = struct.unpack_from(">q", content, start - 8)
    return content[start : start + length].decode()


def _boosted(features: int, details: dict[str, str], versions: dict[str, str]) -> Description:
    shown = {key: value for key, value in details.items() if value}
    return Description([Value("input-0", "FP32", (-1, features))], [Value("output-0", "FP32", None)], shown, versions)


def _lightgbm(path: Path) -> Description:
    header: dict[str, str] = {}
    with path.open() as file:
        for line in file:
            if line.startswith("Tree="):
                break
            key, _, value = line.strip().partition("=")
            header[key] = value
    features = int(header["max_feature_idx"]) + 1
    classes = int(header.get("num_tree_per_iteration", "1"))
    details = {"objective": header.get("objective", ""), "features": header.get("feature_names", "").replace(" ", ", ")}
    return Description(
        [Value("input-0", "FP64", (-1, features))],
        [Value("output-0", "FP64", (-1, classes) if classes > 1 else (-1,))],
        {key: value for key, value in details.items() if value},
        {"lightgbm model format": header.get("version", "?")},
    )


def _pt2(path: Path) -> Description:
    with zipfile.ZipFile(path) as pack:
        name = next(name for name in pack.namelist() if "/models/" in name and name.endswith(".json"))
        document = json.loads(pack.read(name))
    graph = document["graph_module"]["graph"]
    signature = document["graph_module"]["signature"]
    found = Description(versions={"torch": document.get("torch_version", "?")})
    found.inputs = [
        _pt2_value(graph, spec["user_input"]["arg"]) for spec in signature["input_specs"] if "user_input" in spec
    ]
    found.outputs = [
        _pt2_value(graph, spec["user_output"]["arg"]) for spec in signature["output_specs"] if "user_output" in spec
    ]
    complaint = pt2.complaint(path)
    if complaint:
        found.warnings.append(f"it holds more than data ({complaint}): it is refused unless pickles are allowed")
    return found


_PT2_TYPES = {
    1: "UINT8",
    2: "INT8",
    3: "INT16",
    4: "INT32",
    5: "INT64",
    6: "FP16",
    7: "FP32",
    8: "FP64",
    12: "BOOL",
    13: "BF16",
}
"""torch._export.serde.schema.ScalarType -> V2's datatype."""


def _pt2_value(graph: dict[str, Any], argument: dict[str, Any]) -> Value:
    name = argument.get("as_tensor", {}).get("name", "?")
    tensor = graph["tensor_values"].get(name)
    if tensor is None:
        return Value(name, None, None)
    return Value(name, _PT2_TYPES.get(tensor["dtype"]), tuple(size.get("as_int", -1) for size in tensor["sizes"]))


def _safetensors(path: Path) -> Description:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ValueError("it ends early")
        header = json.loads(file.read(length))
    details = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
    count = 0
    for tensor in header.values():
        size = 1
        for length in tensor["shape"]:
            size *= length
        count += size
    return Description(details={"tensors": str(len(header)), "numbers": f"{count:,}", **details})


def _mlmodel(path: Path) -> Description:
    document = mlflow.read(path)
    flavours = document["flavors"]
    details = {"flavors": ", ".join(flavours)}
    python = (flavours.get("python_function") or {}).get("python_version")
    versions = {"mlflow": str(document.get("mlflow_version", "?")), **({"python": str(python)} if python else {})}
    for flavour, described in flavours.items():
        for key, value in (described or {}).items():
            if key.endswith("_version") and key != "python_version":
                versions[key.removesuffix("_version")] = str(value)
        if flavour in mlflow.FLAVOURS:
            details["served as"] = details.get("served as", mlflow.FLAVOURS[flavour][0])
    details |= {key: json.dumps(value) for key, value in mlflow.signature(document).items()}
    return Description(details=details, versions=versions)


_READERS: dict[str, Callable[[Path], Description]] = {
    "onnx": _onnx,
    "skops": _skops,
    "pickle": _pickle,
    "joblib": _pickle,
    "xgboost-json": _xgboost_json,
    "xgboost-ubj": _xgboost_ubj,
    "lightgbm": _lightgbm,
    "pt2": _pt2,
    "safetensors": _safetensors,
    "torchscript": _torchscript,
    "torch-pickle": _torch_pickle,
    "mlflow": _mlmodel,
}
