"""Requests through a real HAProxy: who gets them, and with what."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

pytestmark = [pytest.mark.haproxy]


async def test_a_host_leads_to_its_service(gateway, make_pod, make_service, client):
    one, two = await make_pod("one"), await make_pod("two")
    await gateway.serve(
        make_service("one", {"one-predictor": (100, [one.endpoint])}),
        make_service("two", {"two-predictor": (100, [two.endpoint])}),
    )
    for name in ("one", "two"):
        async with client.get(f"{gateway.url}/v2/health/ready?x=1", headers={"host": f"{name}.test"}) as response:
            answer = await response.json()
            assert (answer["pod"], answer["path"]) == (name, "/v2/health/ready?x=1")


async def test_hosts_are_compared_without_case_and_port(gateway, make_pod, make_service, client):
    pod = await make_pod()
    await gateway.serve(make_service("one", {"one-predictor": (100, [pod.endpoint])}))
    async with client.get(gateway.url, headers={"host": "ONE.Test:8080"}) as response:
        assert response.status == 200
