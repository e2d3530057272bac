"""What a pickle would import, found out without importing or calling anything of it.

The pickle machine runs with every class and function replaced by a dummy that takes anything: what would have been
imported is noted, nothing happens. Arrays that joblib writes into the stream between opcodes are stepped over.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

TENSOR_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.serialization._get_layout",
        "torch.storage.UntypedStorage",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        *(
            f"torch.{kind}Storage"
            for kind in ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
        ),
        *(
            f"torch.{kind}"
            for kind in [
                "float32",
                "float64",
                "float16",
                "bfloat16",
                "int64",
                "int32",
                "int16",
                "int8",
                "uint8",
                "bool",
            ]
        ),
    }
)
"""All that a pickle of plain tensors needs."""


_COMPRESSIONS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x78": zlib.decompress,
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zX": lzma.decompress,
    b"]\x00": lzma.decompress,
}
"""First bytes -> what undoes it: joblib's compressions."""


def imports(path: Path) -> list[str]:
    """`module.name` of each thing that unpickling the file would import, in order. Damaged pickles: as far as it goes."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head == b"PK\x03\x04":
            return torch_imports(file)
        for magic, decompress in _COMPRESSIONS.items():
            if head.startswith(magic):
                return _scan(io.BytesIO(decompress(file.read())))
        return _scan(file)


def torch_imports(file: BinaryIO) -> list[str]:
    """Of a file that torch.save wrote: its pickles are entries of a zip."""
    found: list[str] = []
    with zipfile.ZipFile(file) as pack:
        for name in pack.namelist():
            if name.endswith(".pkl"):
                with pack.open(name) as entry:
                    found += _scan(io.BytesIO(entry.read()))
    return found


def _scan(stream: BinaryIO) -> list[str]:
    scanner = _Scanner(stream)
    # A pickle may be cut off or absurd; what was seen until then is the answer.
    with contextlib.suppress(Exception):
        scanner.load()
    return list(dict.fromkeys(scanner.seen))


class _Dummy:
    """Stands for any class, function and instance that a pickle names."""

    def __new__(cls, *_: Any, **__: Any) -> _Dummy:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Dummy:
        return _Dummy()

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Array(_Dummy):
    """joblib's NumpyArrayWrapper: the array's bytes follow it in the stream."""

    state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Dtype(_Dummy):
    """numpy.dtype, as far as its size goes."""

    def __init__(self, text: Any = "", *_: Any, **__: Any) -> None:
        self.text = str(text)

    @property
    def size(self) -> int | None:
        """Bytes of an element; None for objects, which follow as a pickle of their own."""
        if self.text.startswith("O"):
            return None
        digits = self.text.lstrip("<>|=biufcSUVMm?")
        width = int(digits) if digits.isdigit() else 1
        return width * 4 if "U" in self.text else width


_Unpickler: Any = vars(pickle)["_Unpickler"]


class _Scanner(_Unpickler):  # type: ignore[misc]
    """The pickle machine in Python, since the one in C cannot be stopped after an object is built."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.stream = stream
        self.seen: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.seen.append(f"{module}.{name}")
        if module == "joblib.numpy_pickle" and name == "NumpyArrayWrapper":
            return _Array
        return _Dtype if (module, name) == ("numpy", "dtype") else _Dummy

    def persistent_load(self, _: Any) -> Any:
        return _Dummy()

    def get_extension(self, code: int) -> None:
        self.seen.append(f"copyreg.extension-{code}")
        self.append(_Dummy)

    def load_build(self) -> None:
        super().load_build()
        if isinstance(self.stack[-1], _Array):
            self._skip_array(self.stack[-1].state)

    dispatch[pickle.BUILD[0]] = load_build

    def _skip_array(self, state: dict[str, Any]) -> None:
        size = state["dtype"].size
        if size is None:
            self.seen += _scan(self.stream)
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.seek(self.stream.read(1)[0], io.SEEK_CUR)
        count = 1
        for length in state["shape"]:
            count *= length
        self.stream.seek(count * size, io.SEEK_CUR)
