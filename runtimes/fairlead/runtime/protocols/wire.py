"""How tensors look as bytes: the encoding that V2's binary extension over HTTP and gRPC's `raw_input_contents` share.

Numbers are little-endian and row-major. A BYTES element is its length (four bytes, little-endian) and its bytes. BF16
is widened to float32 for models and rounded to nearest even on its way out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fairlead.runtime.errors import InvalidRequest
from fairlead.runtime.tensors import DTYPES, ITEM_SIZES, Array, Tensor

Buffer = bytes | bytearray | memoryview

_LENGTH = struct.Struct("<I")


def check_shape(name: str, datatype: str, shape: Sequence[Any], max_elements: int) -> int:
    """The number of elements of a tensor that a client describes; InvalidRequest if it cannot be."""
    if datatype not in DTYPES:
        raise InvalidRequest(f"input {name!r}: datatype {datatype!r} is unknown; use one of {', '.join(DTYPES)}")
    for dimension in shape:
        if type(dimension) is not int or dimension < 0:
            raise InvalidRequest(f"input {name!r}: shape {list(shape)} has a dimension that is not a length")
    count: int = math.prod(shape)
    if count > max_elements:
        raise InvalidRequest(f"input {name!r}: {count} elements, over the limit of {max_elements}")
    return count


def decode(name: str, datatype: str, shape: Sequence[int], count: int, raw: Buffer) -> Array:
    """The array in `raw`: a view of it where the type allows, read-only if `raw` is."""
    if datatype == "BYTES":
        return decode_bytes(name, shape, count, raw)
    expected = count * ITEM_SIZES[datatype]
    if len(raw) != expected:
        raise InvalidRequest(
            f"input {name!r}: {datatype} of shape {list(shape)} takes {expected} bytes, the request has {len(raw)}"
        )
    if datatype == "BOOL":
        flags: Array = np.frombuffer(raw, np.uint8) != 0
        return flags.reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    array: Array = np.frombuffer(raw, DTYPES[datatype])
    if not array.flags.aligned:  # a JSON header of any length may come before it; native kernels want it aligned
        array = array.copy()
    return array.reshape(shape)


def decode_bytes(name: str, shape: Sequence[int], count: int, raw: Buffer) -> Array:
    raw = bytes(raw)
    elements = np.empty(count, dtype=object)
    offset, end = 0, len(raw)
    for index in range(count):
        if offset + 4 > end:
            raise InvalidRequest(f"input {name!r}: the request ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset += 4
        if offset + length > end:
            raise InvalidRequest(
                f"input {name!r}: element {index} claims {length} bytes, {end - offset} are left in the request"
            )
        elements[index] = raw[offset : offset + length]
        offset += length
    if offset != end:
        raise InvalidRequest(f"input {name!r}: {end - offset} bytes are left after its {count} elements")
    return elements.reshape(shape)


def encode(tensor: Tensor) -> bytes:
    """A tensor's raw bytes."""
    datatype, array = tensor.datatype, tensor.data
    if datatype == "BYTES":
        parts = []
        for element in array.ravel():
            value = element_bytes(element)
            parts.append(_LENGTH.pack(len(value)))
            parts.append(value)
        return b"".join(parts)
    if datatype == "BF16":
        return _round_to_bf16(np.ascontiguousarray(array, "<f4"))
    return np.ascontiguousarray(array, DTYPES[datatype]).tobytes()


def element_bytes(element: Any) -> bytes:
    """One element of a BYTES tensor: bytes as they are, text in UTF-8."""
    if isinstance(element, bytes):
        return element
    return str(element).encode()


def _round_to_bf16(array: Array) -> bytes:
    bits = array.view("<u4").ravel()
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet_nan = (bits >> 16) | 0x40  # rounding could carry a NaN's mantissa into infinity
    return np.where(np.isnan(array.ravel()), quiet_nan, rounded).astype("<u2").tobytes()
