"""Probes against real servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fairlead.local.node import prober

HOST = "127.0.0.1"
NAMED: dict[str, Any] = {"name": "c", "ports": [{"containerPort": 1, "name": "other"}]}


async def ask(probe: dict[str, Any], container: dict[str, Any] | None = None) -> str | None:
    async with asyncio.timeout(60):
        return await prober.ask(probe, container or NAMED, HOST, dict(os.environ))


@pytest.fixture
async def http() -> AsyncIterator[int]:
    """Answers with the status that the path asks for, and checks a header."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status = head.split()[1].strip("/")
        if status == "header":
            status = "200" if "X-Probe: yes" in head else "400"
        writer.write(
            b"nonsense\r\n" if status == "nonsense" else f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
        )
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("path", "well"), [("/200", True), ("/302", True), ("/404", False), ("/503", False), ("/nonsense", False)]
)
async def test_http_is_well_from_200_to_399(http: int, path: str, well: bool) -> None:
    assert (await ask({"httpGet": {"path": path, "port": http}}) is None) is well


async def test_http_headers_are_sent_and_ports_found_by_name(http: int) -> None:
    headers = [{"name": "X-Probe", "value": "yes"}]
    container = {"name": "c", "ports": [{"containerPort": http, "name": "web"}]}
    assert await ask({"httpGet": {"path": "/header", "port": "web", "httpHeaders": headers}}, container) is None
    assert "no port named web" in str(await ask({"httpGet": {"port": "web"}}))


async def test_tcp_is_well_if_somebody_listens(http: int) -> None:
    assert await ask({"tcpSocket": {"port": http}}) is None
    assert await ask({"tcpSocket": {"port": 1}}) is not None


async def test_a_command_is_well_if_it_ends_with_zero_and_else_says_why() -> None:
    assert await ask({"exec": {"command": ["true"]}}) is None
    assert await ask({"exec": {"command": ["sh", "-c", "echo broken; exit 3"]}}) == "broken"
    assert await ask({"exec": {"command": ["/no/such/program"]}}) is not None


async def test_grpc_health_is_asked_for_the_whole_server_and_for_one_service(http: int) -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        await servicer.set("model", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await ask({"grpc": {"port": port}}) is None
        assert "status 2" in str(await ask({"grpc": {"port": port, "service": "model"}}))
        assert "does not know" in str(await ask({"grpc": {"port": port, "service": "unknown"}}))
        await servicer.set("model", health_pb2.HealthCheckResponse.SERVING)
        assert await ask({"grpc": {"port": port, "service": "model"}}) is None
    finally:
        await server.stop(0)
    assert await ask({"grpc": {"port": http}}) is not None
