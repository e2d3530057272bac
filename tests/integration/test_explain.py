"""`fairlead autoscale explain` on a cluster: through the API server's proxy to the operator's pod that leads."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from tests.integration.conftest import ApiServer

from fairlead.cli.autoscale import OPERATOR_PODS, history
from fairlead.cli.cluster import Target
from fairlead.cli.errors import CliError
from fairlead.kube.client import Client
from fairlead.kube.resources import PODS

LABEL, _, VALUE = OPERATOR_PODS.partition("=")


def own_address() -> str:
    """An address of this machine that is not loopback: the API server proxies to no other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
    return address


@pytest.fixture
async def operators(client: Client, namespace: str) -> AsyncIterator[None]:
    """A standby's pod and the leader's."""

    async def answer(request: web.Request) -> web.Response:
        if request.match_info["role"] == "standby":
            return web.json_response({"message": "another operator leads"}, status=503)
        return web.json_response({"asked": str(request.match_info["service"]), "workloads": []})

    address, runners = own_address(), []
    for role in ("standby", "leader"):
        app = web.Application()
        app.add_routes([web.get("/v1/autoscaling/team/{service}", _as(role, answer))])
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, address, 0).start()
        port = runner.addresses[0][1]
        container = {"name": "operator", "image": "x", "ports": [{"name": "metrics", "containerPort": port}]}
        pod = {
            "metadata": {"name": role, "namespace": namespace, "labels": {LABEL: VALUE}},
            "spec": {"containers": [container]},
        }
        made = await client.create(PODS, pod)
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        await client.replace(PODS, {**made, "status": status}, subresource="status")
    yield
    for role in ("standby", "leader"):
        await client.delete(PODS, role, namespace)
    for runner in runners:
        await runner.cleanup()


def _as(role: str, answer: Any) -> Any:
    async def handler(request: web.Request) -> web.Response:
        request.match_info["role"] = role
        found: web.Response = await answer(request)
        return found

    return handler


async def test_the_leader_is_found_through_the_api_server(
    client: Client, kube_apiserver: ApiServer, operators: None
) -> None:
    assert (await history(client, Target(kube_apiserver.kubeconfig), "team", "iris", None))["asked"] == "iris"


async def test_where_no_operator_runs_it_says_so(client: Client, kube_apiserver: ApiServer) -> None:
    with pytest.raises(CliError, match="no pod of it is found"):
        await history(client, Target(kube_apiserver.kubeconfig), "team", "iris", None)
