"""The agent's own port, and the command that runs it all."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import pytest

from fairlead.gateway.__main__ import main
from fairlead.gateway.agent import Agent
from fairlead.gateway.server import served

pytestmark = [pytest.mark.haproxy]


async def ask(client: aiohttp.ClientSession, port: int, path: str) -> tuple[int, str]:
    async with client.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, await response.text()


async def test_it_tells_what_is_in_effect(gateway, cluster, run_agent, make_pod, client):
    pod = await make_pod()
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    cluster.serve("iris", {"iris-predictor": 100})
    agent = await run_agent(gateway)
    async with client.get(gateway.url, headers={"host": "iris-ns.example.com"}) as response:
        assert response.status == 200
    async with served(agent, "127.0.0.1", 0) as port:
        assert await ask(client, port, "/healthz") == (200, "ok\n")
        assert await ask(client, port, "/readyz") == (200, "ok\n")
        status, text = await ask(client, port, "/v1/routes/ns/iris")
        assert (status, '"percent": 100, "readyEndpoints": 1' in text) == (200, True)
        status, text = await ask(client, port, "/v1/routes/ns/none")
        assert (status, text) == (404, '{"error": "no InferenceService ns/none is known here"}')
        status, text = await ask(client, port, "/v1/stats")
        assert (
            '{"namespace": "ns", "name": "iris-predictor", "inFlight": 0, "queued": 0, "held": 0, "requests": 1, "responses": 1, "errors": 0}'
            in text
        )
        _, text = await ask(client, port, "/metrics")
        assert 'fairlead_gateway_requests_total{namespace="ns",workload="iris-predictor"} 1.0' in text
        assert "fairlead_gateway_up 1.0" in text


async def test_before_anything_is_in_effect_it_says_so(gateway, cluster, client):
    agent = Agent(gateway.settings, cluster)
    async with served(agent, "127.0.0.1", 0) as port:
        assert (await ask(client, port, "/healthz"))[0] == 200
        assert await ask(client, port, "/readyz") == (503, "waiting for the API server's objects\n")
        assert (await ask(client, port, "/v1/routes/ns/iris"))[0] == 503
        assert (await ask(client, port, "/v1/stats"))[0] == 503
        assert "fairlead_gateway_up 0.0" in (await ask(client, port, "/metrics"))[1]


def test_render_only_writes_what_haproxy_starts_with(tmp_path):
    directory = tmp_path / "gateway"
    assert main(["--directory", str(directory), "--bind", "127.0.0.1:1234", "--render-only"]) == 0
    assert "bind 127.0.0.1:1234" in (directory / "haproxy.cfg").read_text()
    assert (directory / "hosts.map").exists()


def test_a_mistake_is_one_line(tmp_path, capsys):
    assert main(["--directory", str(tmp_path / ("x" * 100)), "--render-only"]) == 1
    assert "choose a shorter --directory" in capsys.readouterr().err


async def test_an_agent_without_its_api_server_ends_quietly_when_told(gateway, tmp_path):
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        "contexts: [{name: c, context: {cluster: k, user: u}}]\n"
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {token: t}}]\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fairlead.gateway", "--directory", str(tmp_path / "agent"), "--listen", "127.0.0.1:0",
        "--kubeconfig", str(kubeconfig), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(60):
        await process.stderr.readline()  # the first failed list: signals are handled by now
        process.terminate()
        output = await process.stderr.read()
    assert await process.wait() == 0
    assert b"Traceback" not in output
