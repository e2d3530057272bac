"""Is a torch.export file (.pt2) data only? Found out by reading it, without PyTorch.

`torch.export.load` is not safe for files of strangers: it unpickles some entries, evaluates the text of symbolic shapes
as Python, and looks the names of operators up in modules. So a file is loaded only if every pickle in it holds nothing
but tensors, every expression is arithmetic, every operator is one of PyTorch's tensor operators, and nothing in it is
compiled code.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairlead.runtime.frameworks.pickles import TENSOR_GLOBALS, torch_imports

_KNOWN_ENTRIES = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/.*|\.format_version|\.storage_alignment|version"
    r"|models/[^/]+\.json|data/weights/[^/]+|data/constants/[^/]+|data/sample_inputs/[^/]+|extra/[^/]+)"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.(?!from_file|save)\w+(\.\w+)?"
    r"|torch\.sym_\w+"
    r"|math\.(ceil|floor|trunc|sqrt|log2|prod)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|invert)"
)
_EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=&|~]*")
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_NAME = re.compile(r"[A-Za-z_]\w*")
_NAMES = re.compile(
    r"(u|s|zuf|zf|f)\d+|int_oo|oo|zoo|nan|True|False|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|IntTrueDiv|FloatTrueDiv|ModularIndexing"
    r"|CeilToInt|FloorToInt|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal|ToFloat|CeilDiv|Where|Identity|IsNonOverlappingAndDenseIndicator"
    r"|PowByNatural|FloatPow|LShift|RShift|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Abs|Pow|Piecewise|floor|ceiling|sqrt|abs|Integer|Float|Rational"
    r"|Add|Mul|OpaqueUnaryFn_\w+|BitwiseFn_\w+"
)
_TREES = {
    None,
    "builtins.list",
    "builtins.tuple",
    "builtins.dict",
    "collections.OrderedDict",
    "torch.fx.immutable_collections.immutable_list",
}
_EXPRESSION_KEYS = {"expr_str", "min_val", "max_val"}


def complaint(path: Path) -> str | None:
    """What in the file is more than data; None if nothing is. ValueError if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as pack:
            return next(_complaints(pack), None)
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"it is damaged: {error}") from error


def _complaints(pack: zipfile.ZipFile) -> Iterator[str]:
    for entry in pack.namelist():
        name = entry.partition("/")[2]
        if not _KNOWN_ENTRIES.fullmatch(name):
            yield f"an entry {entry!r} (compiled code, or of a format that is not known)"
        elif name.endswith(".json"):
            yield from _document(entry, json.loads(pack.read(entry)))
        elif name.startswith(("data/weights/", "data/constants/", "data/sample_inputs/")):
            yield from _payload(entry, pack.read(entry))


def _payload(entry: str, content: bytes) -> Iterator[str]:
    """Raw numbers, or a file by torch.save."""
    if content.startswith(b"PK"):
        beyond = [name for name in torch_imports(io.BytesIO(content)) if name not in TENSOR_GLOBALS]
        if beyond:
            yield f"a pickle in {entry!r} that imports {', '.join(beyond)}"


def _document(entry: str, document: Any) -> Iterator[str]:
    for key, value in _walk(document):
        if key == "use_pickle" and value and "custom" in entry:
            yield f"a pickled object in {entry!r}"
        elif key == "path_name" and isinstance(value, str) and not re.fullmatch(r"(weight|tensor|const\w*)_\d+", value):
            yield f"an object {value!r} that is no tensor"
        elif key == "target" and isinstance(value, str) and not _OPERATORS.fullmatch(value):
            yield f"an operator {value!r}"
        elif key in _EXPRESSION_KEYS and isinstance(value, str) and not _is_arithmetic(value):
            yield f"an expression {value!r} that is not arithmetic"
        elif key in ("in_spec", "out_spec") and isinstance(value, str) and not _is_plain_tree(value):
            yield "arguments of a type of its own"


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) pair, however deep."""
    todo = [document]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield from item.items()
            todo.extend(item.values())
            # Symbols and their ranges are keys.
            yield from (("expr_str", key) for key in item.get("range_constraints") or ())
        elif isinstance(item, list):
            todo.extend(item)


def _is_arithmetic(text: str) -> bool:
    """Numbers, symbols, and functions of both. No attributes, no texts, nothing that Python could call besides."""
    text = _SYMBOL.sub("s0", text)
    names_only = all(_NAMES.fullmatch(name) for name in _NAME.findall(text))
    return names_only and _EXPRESSION.fullmatch(text) is not None and re.search(r"\.\s*[A-Za-z_]", text) is None


def _is_plain_tree(text: str) -> bool:
    return all(value in _TREES for key, value in _walk(json.loads(text)) if key == "type")
