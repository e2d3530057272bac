"""What is asked of HAProxy's sockets, where HAProxy is killed before it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.gateway.haproxy import Haproxy, HaproxyGone
from fairlead.gateway.settings import Settings
from fairlead.gateway.state import AddEntry

CALLS: dict[str, Callable[[Haproxy], Awaitable[Any]]] = {
    "send": lambda haproxy: haproxy.send([AddEntry("hosts", "iris.example.com", "ns/iris/predictor")]),
    "state": lambda haproxy: haproxy.state(),
    "stats": lambda haproxy: haproxy.stats(),
    "held": lambda haproxy: haproxy.held(),
    "process_id": lambda haproxy: haproxy.process_id(),
}


@pytest.mark.parametrize("answer", ["", "h1-00", "# pxname,svname,qcur\nh1-0001,BACK", "0x55 iris.example.com"])
@pytest.mark.parametrize("call", CALLS)
async def test_an_answer_that_breaks_off_is_none(tmp_path: Path, call: str, answer: str) -> None:
    """Half a table would be read as services without pods, or not at all."""

    async def worker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer.encode())
        writer.close()
        await writer.wait_closed()

    settings = Settings(directory=tmp_path)
    server = await asyncio.start_unix_server(worker, settings.admin_socket)
    async with server:
        with pytest.raises(HaproxyGone):
            await CALLS[call](Haproxy(settings))
