"""A gateway that is to go stays until another one takes its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fairlead.gateway.succession import RELIEVED, Succession, relieved
from fairlead.kube.objects import Key
from fairlead.kube.resources import ENDPOINT_SLICES


def endpoint_slice(*ready: bool | None, name: str = "gateway-1") -> dict:
    return {
        "metadata": {"namespace": "system", "name": name, "labels": {"kubernetes.io/service-name": "gateway"}},
        "endpoints": [{"addresses": [f"10.0.0.{n}"], "conditions": {"ready": is_so}} for n, is_so in enumerate(ready)],
    }


@pytest.mark.parametrize(
    ("slices", "answer"),
    [
        ([endpoint_slice(True, False)], True),
        ([endpoint_slice(False), endpoint_slice(True)], True),
        ([endpoint_slice(None)], True),  # not known counts as ready, says the API
        ([endpoint_slice(False, False)], False),
        ([endpoint_slice()], False),
        ([{"metadata": {}, "endpoints": None}], False),
        ([], True),
    ],
    ids=["one of two", "in another slice", "unknown", "none ready", "no endpoint", "nothing", "no Service"],
)
def test_a_gateway_is_relieved_by_any_ready_one_or_when_nobody_is_led_here(slices, answer):
    assert relieved(slices) is answer


@pytest.fixture
async def file(cluster, tmp_path: Path) -> AsyncIterator[Path]:
    cluster.put(ENDPOINT_SLICES, endpoint_slice(False))
    task = asyncio.create_task(Succession(cluster, Key("system", "gateway"), tmp_path).run())
    yield tmp_path / RELIEVED
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_file_follows_the_endpoints(cluster, file, eventually):
    cluster.put(ENDPOINT_SLICES, endpoint_slice(False, True))
    await eventually(file.exists)
    cluster.put(ENDPOINT_SLICES, endpoint_slice(False, False))
    await eventually(lambda: not file.exists())
    cluster.delete(ENDPOINT_SLICES, "system", "gateway-1")
    await eventually(file.exists)


async def test_a_file_of_an_agent_before_is_not_believed(cluster, tmp_path, eventually):
    (tmp_path / RELIEVED).touch()
    cluster.put(ENDPOINT_SLICES, endpoint_slice(False))
    task = asyncio.create_task(Succession(cluster, Key("system", "gateway"), tmp_path).run())
    await eventually(lambda: not (tmp_path / RELIEVED).exists())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
