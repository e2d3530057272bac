"""The access log: one JSON object a line on stdout, off by default."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

import orjson

if TYPE_CHECKING:
    from fairlead.runtime.doors.request import Exchange


class AccessLog:
    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream = stream

    def write(self, exchange: Exchange, status: int, size: int, seconds: float) -> None:
        client = exchange.scope.get("client")
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": client[0] if client else None,
            "method": exchange.method,
            "path": exchange.path,
            "status": status,
            "bytes": size,
            "seconds": round(seconds, 6),
            "request_id": exchange.header(b"x-request-id"),
        }
        self._stream.write(orjson.dumps(line).decode() + "\n")
