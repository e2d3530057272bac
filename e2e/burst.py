"""Many requests at one instant, over HTTP or gRPC, and what became of each."""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc

from fairlead.api import names

INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLS_A_CHANNEL = 50


@dataclass
class Answers:
    """Seconds until each right answer, in the order in which they came, and the others' texts."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


def burst(gateway: str, namespace: str, name: str, count: int, *, rpc: bool = False, timeout: float = 100) -> Answers:
    """Predictions of a model over four features."""
    return asyncio.run(
        _calls(gateway, namespace, name, count, timeout) if rpc else _posts(gateway, namespace, name, count, timeout)
    )


async def _posts(gateway: str, namespace: str, name: str, count: int, timeout: float) -> Answers:
    answers, url = Answers(), f"{gateway}{names.path(name, namespace)}/v1/models/{name}:predict"

    async def post(session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        try:
            async with session.post(url, json={"instances": [[0.0] * 4]}) as response:
                text = await response.text()
                if response.status == 200 and "predictions" in text:
                    answers.seconds.append(time.monotonic() - began)
                else:
                    answers.failures.append(f"{response.status}: {text[:300]}")
        except (aiohttp.ClientError, OSError) as error:
            answers.failures.append(f"{type(error).__name__}: {error}")

    limits: dict[str, Any] = {
        "timeout": aiohttp.ClientTimeout(total=timeout),
        "connector": aiohttp.TCPConnector(limit=0, force_close=True),
    }
    async with aiohttp.ClientSession(**limits) as session:
        await asyncio.gather(*(post(session) for _ in range(count)))
    return answers


async def _calls(gateway: str, namespace: str, name: str, count: int, timeout: float) -> Answers:
    answers, message = Answers(), _request(name)
    options = [
        ("grpc.default_authority", names.host(name, namespace, names.DEFAULT_DOMAIN)),
        ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
        ("grpc.enable_retries", 0),
    ]

    async def call(channel: grpc.aio.Channel) -> None:
        began = time.monotonic()
        try:
            await channel.unary_unary(INFER)(message, timeout=timeout)
            answers.seconds.append(time.monotonic() - began)
        except grpc.aio.AioRpcError as error:
            answers.failures.append(f"{error.code().name}: {error.details()}")

    address = gateway.removeprefix("http://")
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(count // CALLS_A_CHANNEL + 1)]
    try:
        await asyncio.gather(*(call(channels[number // CALLS_A_CHANNEL]) for number in range(count)))
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    return answers


def _request(model: str) -> bytes:
    """A ModelInferRequest of one FP64 row, written by hand: generated messages of two packages cannot live in one process."""
    shape = _field(3, bytes([1, 4]))
    tensor = _field(1, b"input-0") + _field(2, b"FP64") + shape
    return _field(1, model.encode()) + _field(5, tensor) + _field(7, struct.pack("<4d", 0, 0, 0, 0))


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value
