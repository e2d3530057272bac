"""What an ONNX file says of itself, read without ONNX Runtime and without the `onnx` package.

A protobuf reader for the few fields wanted (numbers from onnx.proto); the weights are stepped over, not read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

ELEMENT_TYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64", 8: "BYTES", 9: "BOOL",
    10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
"""TensorProto.DataType -> V2 datatype."""


class Value(NamedTuple):
    """An input or output. `datatype` is None for sequences, maps and exotic numbers; free dimensions are names or -1."""

    name: str
    datatype: str | None
    shape: tuple[int | str, ...] | None


@dataclass
class OnnxFile:
    producer: str = ""
    producer_version: str = ""
    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    """Operator domain ("" is ONNX's own) -> version."""
    functions: set[str] = field(default_factory=set)
    """Domains of functions that the model brings itself."""
    properties: dict[str, str] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    external_data: set[str] = field(default_factory=set)
    """Files that hold weights, as the model names them."""

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """ValueError if the file is not ONNX or is cut off."""
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise ValueError("it is empty")
            # Unmapped when the last view of it is gone.
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        model = cls()
        try:
            model._model(view)
        except (IndexError, UnicodeDecodeError) as error:
            raise ValueError("it ends early, or is no ONNX at all") from error
        if not model.opsets:
            raise ValueError("it names no operator set")
        return model

    def _model(self, view: memoryview) -> None:
        for number, value in _fields(view):
            if isinstance(value, int):
                self.ir_version = value if number == 1 else self.ir_version
            elif number == 2:
                self.producer = _text(value)
            elif number == 3:
                self.producer_version = _text(value)
            elif number == 7:
                self._graph(value, top=True)
            elif number == 8:
                opset = dict(_fields(value))
                self.opsets[_text(opset.get(1, b""))] = _number(opset.get(2, 0))
            elif number == 14:
                entry = dict(_fields(value))
                self.properties[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
            elif number == 25:
                self._function(value)

    def _graph(self, view: memoryview, *, top: bool = False) -> None:
        initialized = set()
        inputs = []
        for number, value in _fields(view):
            if isinstance(value, int):
                continue
            if number == 1:
                self._node(value)
            elif number == 5:
                initialized.add(self._tensor(value))
            elif number == 15:
                for _, part in _fields(value):
                    if not isinstance(part, int):
                        self._tensor(part)
            elif top and number == 11:
                inputs.append(_value(value))
            elif top and number == 12:
                self.outputs.append(_value(value))
        # Before ONNX 1.3 weights were listed among the inputs.
        self.inputs += [item for item in inputs if item.name not in initialized]

    def _function(self, view: memoryview) -> None:
        for number, value in _fields(view):
            if isinstance(value, int):
                continue
            if number == 7:
                self._node(value)
            elif number == 10:
                self.functions.add(_text(value))

    def _node(self, view: memoryview) -> None:
        """Only what may hold tensors or graphs: the attributes."""
        for number, value in _fields(view):
            if isinstance(value, int):
                continue
            if number == 5:
                for field_number, part in _fields(value):
                    if isinstance(part, int):
                        continue
                    if field_number in (5, 10):
                        self._tensor(part)
                    elif field_number in (6, 11):
                        self._graph(part)

    def _tensor(self, view: memoryview) -> str:
        """Note where its data lies; the answer is its name."""
        name = ""
        for number, value in _fields(view):
            if isinstance(value, int):
                continue
            if number == 8:
                name = _text(value)
            elif number == 13:
                entry = dict(_fields(value))
                if _text(entry.get(1, b"")) == "location":
                    self.external_data.add(_text(entry.get(2, b"")))
        return name


def _value(view: memoryview) -> Value:
    name, datatype, shape = "", None, None
    for number, value in _fields(view):
        if number == 1:
            name = _text(value)
        elif number == 2 and not isinstance(value, int):
            for kind, tensor in _fields(value):
                if kind == 1 and not isinstance(tensor, int):
                    datatype, shape = _tensor_type(tensor)
    return Value(name, datatype, shape)


def _tensor_type(view: memoryview) -> tuple[str | None, tuple[int | str, ...] | None]:
    datatype, shape = None, None
    for number, value in _fields(view):
        if number == 1 and isinstance(value, int):
            datatype = ELEMENT_TYPES.get(value)
        elif number == 2 and not isinstance(value, int):
            shape = tuple(_dimension(part) for part_number, part in _fields(value) if part_number == 1)
    return datatype, shape


def _dimension(view: memoryview | int) -> int | str:
    length: int | str = -1
    if not isinstance(view, int):
        for number, value in _fields(view):
            if number == 1:
                length = _number(value)
            elif number == 2:
                length = _text(value) or -1
    return length


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message: (number, integer or bytes). IndexError where it ends early."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(view, at)
            yield number, value
        elif wire == BYTES:
            length, at = _varint(view, at)
            if at + length > end:
                raise IndexError(at)
            yield number, view[at : at + length]
            at += length
        elif wire in (FIXED32, FIXED64):
            at += 4 if wire == FIXED32 else 8
        else:
            raise IndexError(at)


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise IndexError(at)


def _text(value: memoryview | bytes | int) -> str:
    return "" if isinstance(value, int) else bytes(value).decode()


def _number(value: memoryview | bytes | int) -> int:
    return value if isinstance(value, int) else 0
