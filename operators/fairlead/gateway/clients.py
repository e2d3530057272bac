"""Clients that have closed their connections while their requests wait.

From the end of a request to the choice of its server HAProxy does not look at the client's connection, unless it happens to read from it. It would let
requests wait for ten minutes that nobody waits for any more, and count them. The kernel knows: it tells of connections that the other side alone has closed.
(Not of one whose body is larger than what the kernel takes in of it: its end comes after bytes that nobody reads. Those wait to the end.)
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_CLOSE_WAIT = "08"


def closed(ports: Collection[int]) -> list[str]:
    """`ADDRESS:PORT` of each client that has closed its connection to one of our ports. Nothing where the kernel does not say."""
    found: list[str] = []
    for table in _TABLES:
        try:
            found += closed_in(table.read_text(), ports)
        except OSError:
            continue
    return found


def closed_in(table: str, ports: Collection[int]) -> Iterator[str]:
    """Of a table as /proc/net/tcp and tcp6 have it. A client that came by IPv4 to a socket of IPv6 is told both ways."""
    for line in table.splitlines()[1:]:
        _, local, remote, state, _ = line.split(None, 4)
        if state == _CLOSE_WAIT and int(local.partition(":")[2], 16) in ports:
            address, _, port = remote.partition(":")
            for text in _addresses(bytes.fromhex(address)):
                yield f"{text}:{int(port, 16)}"


def ports_of(binds: Iterable[str]) -> set[int]:
    """Of HAProxy's `bind` addresses, `HOST:PORT` with or without options; a Unix socket has none."""
    found = (bind.split()[0].rpartition(":")[2] for bind in binds)
    return {int(port) for port in found if port.isdecimal()}


def _addresses(words: bytes) -> Iterator[str]:
    """The kernel writes addresses as numbers of 32 bits, in the machine's order."""
    raw = words
    if sys.byteorder == "little":
        raw = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(raw) == 4:
        yield socket.inet_ntop(socket.AF_INET, raw)
        return
    yield socket.inet_ntop(socket.AF_INET6, raw)
    if raw.startswith(b"\0" * 10 + b"\xff\xff"):
        yield socket.inet_ntop(socket.AF_INET, raw[12:])
