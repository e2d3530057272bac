"""Content encodings of HTTP bodies: gzip, deflate and zstd in, gzip and deflate out."""

from __future__ import annotations

import zlib
from typing import Any

from fairlead.runtime.errors import InvalidRequest, TooLarge, UnsupportedMedia

SMALLEST_WORTH_IT = 1024
"""Bytes; a smaller answer is sent as it is."""
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body, of at most `limit` bytes: a bomb is refused before it is unpacked."""
    for name in reversed([part.strip().lower() for part in encoding.split(",")]):
        if name in _WINDOW_BITS:
            body = _inflate(body, name, limit)
        elif name == "zstd":
            body = _zstd(body, limit)
        elif name not in ("", "identity"):
            raise UnsupportedMedia(f"Content-Encoding {name!r} is not supported; use gzip, deflate or zstd")
    return body


def _inflate(body: bytes, name: str, limit: int) -> bytes:
    unpacker = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        result = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {name}: {error}") from None
    if len(result) > limit:
        raise TooLarge(f"the body unpacks to more than the limit of {limit} bytes")
    if not unpacker.eof:
        raise InvalidRequest(f"the {name} body is truncated")
    return result


def _zstd(body: bytes, limit: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedMedia("this server has no zstd (pip install zstandard); use gzip") from None
    unpacker: Any = zstandard.ZstdDecompressor().decompressobj()
    result = b""
    try:
        for start in range(0, len(body), 16_384):
            result += unpacker.decompress(body[start : start + 16_384])
            if len(result) > limit:
                raise TooLarge(f"the body unpacks to more than the limit of {limit} bytes")
    except zstandard.ZstdError as error:
        raise InvalidRequest(f"the body is not zstd: {error}") from None
    if not unpacker.eof:
        raise InvalidRequest("the zstd body is truncated")
    return result


def choose(accepted: str) -> str | None:
    """The encoding to answer in, given `Accept-Encoding`: gzip if it may be, else deflate, else none."""
    offered = {}
    for part in accepted.split(","):
        name, _, quality = part.strip().lower().partition(";")
        offered[name.strip()] = quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    for name in ("gzip", "deflate"):
        if offered.get(name, False):
            return name
    return None


def compress(body: bytes, encoding: str) -> bytes:
    """Level 1: on a local network a slower one costs more time than it saves."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return packer.compress(body) + packer.flush()
