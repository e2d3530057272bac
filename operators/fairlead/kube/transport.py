"""HTTP to one API server: connection reuse, authentication, time limits, the few safe retries, errors with a place in them."""

from __future__ import annotations

import asyncio
import random
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from fairlead.kube.backoff import Backoff
from fairlead.kube.config import Connection
from fairlead.kube.errors import ApiError, Unavailable, api_error

REQUEST_TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0
ATTEMPTS = 4
LONGEST_WAIT = 30.0
"""A server that asks for more patience than this gets its error reported instead."""
RETRY = Backoff(base=0.1, cap=2.0)
USER_AGENT = "fairlead"
CONNECTIONS = 100
READ_BUFFER = 32 * 1024
"""Bytes, two TLS records. asyncio keeps one for each connection, of 256 KiB by itself, and each watch is a connection."""
SSLProtocol.max_size = READ_BUFFER


class Transport:
    """One aiohttp session. A request that failed is sent again only if that cannot do it twice:

    - a GET, after a lost connection, a timeout, 429, 502, 503 or 504;
    - any request that was refused with 429 or 503 and a Retry-After, for then the server has not begun it;
    - any request answered 401, once, if there are credentials that can be renewed.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        where: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> bytes:
        """The answer's body; raises ApiError."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else {}
        if accept is not None:
            headers["Accept"] = accept
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._send(method, path, query, data, headers, limits, where) as response:
                    return await _read(response, where)
            except ApiError as error:
                if error.status == 401 and not renewed and self.connection.credentials.rejected():
                    renewed = True
                    continue
                delay = _retry_delay(method, error, attempt)
                if delay is None:
                    raise
            await asyncio.sleep(delay)

    @asynccontextmanager
    async def stream(
        self, path: str, *, where: str, query: Mapping[str, str], silence: float | None
    ) -> AsyncGenerator[aiohttp.StreamReader, None]:
        """The body as it arrives. Reads raise TimeoutError after `silence` seconds without a byte; never retried."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        async with self._send("GET", path, query, None, {}, limits, where) as response:
            if response.status == 401:
                self.connection.credentials.rejected()
            if response.status >= 400:
                await _read(response, where)
            try:
                yield response.content
            finally:
                # Of a body that was not read to its end, nothing more is wanted: TLS's farewell could outlast the event loop.
                if (connection := response.connection) is not None and connection.transport is not None:
                    connection.transport.abort()

    @asynccontextmanager
    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        where: str,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        authorization = await self.connection.credentials.authorization()
        try:
            async with self._open().request(
                method,
                self.connection.server + path,
                params=query,
                data=data,
                headers={**headers, "Authorization": authorization} if authorization else headers,
                timeout=limits,
                proxy=self.connection.proxy,
                server_hostname=self.connection.server_hostname,
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            message = f"no answer from {self.connection.server}: {said}"
            raise Unavailable(0, "NoAnswer", message, where=where) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=CONNECTIONS, ssl=self.connection.tls or True, socket_factory=_socket
                ),
                headers={"Accept": "application/json", "User-Agent": USER_AGENT},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=not _is_loopback(self.connection.server),
            )
        return self._session


def _is_loopback(server: str) -> bool:
    """$HTTPS_PROXY does not apply to this machine's own addresses, as in Go and so in kubectl."""
    host = urlsplit(server).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket whose connection counts as lost when the peer's machine has been silent for about half a minute."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # not on every system
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made


async def _read(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = await response.read()
    if response.status < 400:
        return body
    try:
        status: Any = orjson.loads(body)
    except ValueError:
        status = None
    raise api_error(
        response.status,
        status if isinstance(status, dict) else body.decode(errors="replace"),
        where=where,
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdigit() else None


def _retry_delay(method: str, error: ApiError, attempt: int) -> float | None:
    """Seconds until the request may be sent again, or None if it must not be."""
    if attempt >= ATTEMPTS or not isinstance(error, Unavailable):
        return None
    if error.retry_after is not None and error.status in (429, 503):
        # Spread over half as much again: the server told everyone the same number.
        return error.retry_after * random.uniform(1, 1.5) if error.retry_after <= LONGEST_WAIT else None  # noqa: S311
    return RETRY.delay(attempt) if method == "GET" else None
