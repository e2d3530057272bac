"""Many HTTP requests at one instant, each on a connection of its own, from one thread that takes hardly any CPU time.

With asyncio 500 connections take a tenth of a second of a core before the first request is sent, and what the burst wakes waits for that core, too.
"""

from __future__ import annotations

import selectors
import socket
import time
from dataclasses import dataclass

from _load import http_request


@dataclass(frozen=True)
class Ended:
    """`seconds` are since the first request was sent; `body` is empty where there was no answer, or none that says yes, and `failure` says why."""

    seconds: float
    body: bytes = b""
    failure: str = ""


def at_once(port: int, path: str, body: bytes, count: int, *, timeout: float) -> list[Ended]:
    """Blocks until all have ended, `timeout` seconds at most."""
    request = http_request(path, body, {"Connection": "close"})
    began, ended = time.monotonic(), list[Ended]()
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout)
                connection.sendall(request)
            except OSError as error:
                ended.append(Ended(time.monotonic() - began, failure=f"{type(error).__name__}: {error}"))
            else:
                selector.register(connection, selectors.EVENT_READ, bytearray())
        while selector.get_map() and (left := began + timeout - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if (answer := _read(key)) is not None:
                    ended.append(_judged(time.monotonic() - began, answer))
                    _close(selector, key)
        for key in list(selector.get_map().values()):
            ended.append(Ended(timeout, failure=f"no answer within {timeout:g} s"))
            _close(selector, key)
    return ended


def _read(key: selectors.SelectorKey) -> bytes | str | None:
    """The whole answer, a reason why there is none, or None until it has ended."""
    try:
        chunk = _connection(key).recv(1 << 16)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    key.data.extend(chunk)
    return None if chunk else bytes(key.data)


def _judged(seconds: float, answer: bytes | str) -> Ended:
    if isinstance(answer, str):
        return Ended(seconds, failure=answer)
    head, whole, body = answer.partition(b"\r\n\r\n")
    if not whole:
        return Ended(seconds, failure="the connection was closed")
    status = head.split(b" ", 2)[1].decode()
    return Ended(seconds, body) if status == "200" else Ended(seconds, failure=f"{status}: {body[:300].decode()}")


def _close(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    selector.unregister(key.fileobj)
    _connection(key).close()


def _connection(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj
