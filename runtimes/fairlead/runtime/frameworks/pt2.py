"""Is a torch.export file (.pt2) data only? Found out by reading it, without PyTorch.

`torch.export.load` is not safe for files of strangers. It unpickles some entries, gives the text of symbolic shapes to
sympy, which evaluates it, compiles guards and names into Python source, and looks operators up by name in any module. So
a file is loaded only if every pickle in it holds nothing but tensors, every operator is one of PyTorch's tensor operators,
every expression is arithmetic, every guard compares sizes, every other text is a plain name, and nothing is compiled code.
What is not known is refused: a new version of the format may need a line here.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
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
_PLAIN = re.compile(r"[\w.+-]*")


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
    """Of the JSON documents: the graphs, and the lists of weights and constants."""
    for key, value in _walk(document):
        if not _PLAIN.fullmatch(key):
            yield f"a name {key!r}"
        elif key in ("as_custom_obj", "class_fqn"):
            yield f"an object of a class of its own in {entry!r}"
        elif key == "path_name" and not re.fullmatch(r"(weight|tensor)_\d+", str(value)):
            yield f"an object {value!r} that is no tensor"
        elif key == "range_constraints" and not all(_is_arithmetic(symbol) for symbol in value):
            yield f"a symbol that is not a name in {entry!r}"
        elif key == "guards_code" and value:
            yield from (
                f"a guard {guard!r} that does more than compare sizes" for guard in value if not _is_guard(guard)
            )
        elif isinstance(value, str):
            yield from _text(key, value)
        elif isinstance(value, list) and key != "guards_code":
            yield from (found for item in value if isinstance(item, str) for found in _text(key, item))


def _text(key: str, value: str) -> Iterator[str]:
    if key in ("target", "as_operator"):
        if not _OPERATORS.fullmatch(value):
            yield f"an operator {value!r}"
    elif key in _EXPRESSION_KEYS:
        if not _is_arithmetic(value):
            yield f"an expression {value!r} that is not arithmetic"
    elif key in ("in_spec", "out_spec"):
        if not _is_plain_tree(value):
            yield "arguments that are not plain tensors, lists, tuples and dicts"
    elif not _PLAIN.fullmatch(value):
        yield f"a name {value!r}"


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) pair, however deep; without what a node notes of its origin, which is for people."""
    todo = [document]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            for key, value in item.items():
                if key != "metadata":
                    yield key, value
                    todo.append(value)
        elif isinstance(item, list):
            todo.extend(item)


def _is_arithmetic(text: str) -> bool:
    """Numbers, symbols, and functions of both. No attributes, no texts, nothing that Python could call besides."""
    text = _SYMBOL.sub("s0", text)
    names_only = all(_NAMES.fullmatch(name) for name in _NAME.findall(text))
    return names_only and _EXPRESSION.fullmatch(text) is not None and re.search(r"\.\s*[A-Za-z_]", text) is None


def _is_guard(text: str) -> bool:
    """`L['x'].size()[0] % 8 == 0`: sizes of inputs, numbers, arithmetic and comparisons."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError):
        return False
    return all(isinstance(node, _GUARD_NODES) and _GUARD_CHECKS.get(type(node), _anything)(node) for node in nodes)


def _anything(_: Any) -> bool:
    return True


_GUARD_NODES = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript, ast.Call, ast.Attribute, ast.Name,
    ast.Constant, ast.Load, ast.cmpop, ast.boolop, ast.operator, ast.unaryop,
)  # fmt: skip
_GUARD_CHECKS: dict[type[ast.AST], Callable[[Any], bool]] = {
    ast.Name: lambda node: node.id == "L" or _NAMES.fullmatch(node.id) is not None,
    ast.Attribute: lambda node: node.attr in ("size", "stride", "storage_offset", "dim", "numel"),
    ast.Call: lambda node: not node.keywords and isinstance(node.func, (ast.Attribute, ast.Name)),
    ast.Constant: lambda node: (
        isinstance(node.value, (int, float)) or re.fullmatch(r"\w*", str(node.value)) is not None
    ),
}


def _is_plain_tree(text: str) -> bool:
    """pytree's JSON: `[1, {"type": "builtins.dict", "context": "[\\"x\\"]", "children_spec": […]}]`."""
    for key, value in _walk(json.loads(text)):
        if key == "type" and value not in _TREES:
            return False
        # Keys of dicts, as JSON in a string.
        if key == "context" and not re.fullmatch(r"[\w\s\[\],\"-]*", str(value)):
            return False
    return True
