"""The agent's own port: probes, metrics, and what the data plane does now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fairlead.gateway.agent import Agent, NotInEffect
from fairlead.gateway.stats import metrics
from fairlead.kube.metrics import REGISTRY

DEMAND_TIMEOUT = 20.0
"""Seconds for which `GET /v1/demand` is held back at most."""


def application(agent: Agent) -> web.Application:
    app = web.Application(middlewares=[_not_in_effect])
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _with(agent, _readyz))
    app.router.add_get("/metrics", _with(agent, _metrics))
    app.router.add_get("/v1/stats", _with(agent, _stats))
    app.router.add_get("/v1/demand", _with(agent, _demand))
    app.router.add_get("/v1/routes/{namespace}/{name}", _with(agent, _routes))
    return app


@asynccontextmanager
async def served(agent: Agent, host: str, port: int) -> AsyncIterator[int]:
    """Yields the port, which is a free one if 0 was asked for."""
    runner = web.AppRunner(application(agent), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _with(agent: Agent, view: Callable[[Agent, web.Request], Awaitable[web.Response]]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return await view(agent, request)

    return handler


@web.middleware
async def _not_in_effect(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotInEffect as error:
        return web.json_response({"error": str(error)}, status=503)


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(agent: Agent, _: web.Request) -> web.Response:
    if agent.ready:
        return web.Response(text="ok\n")
    missing = "HAProxy" if agent.catalogue.synced else "the API server's objects"
    return web.Response(text=f"waiting for {missing}\n", status=503)


async def _routes(agent: Agent, request: web.Request) -> web.Response:
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    found = agent.routes(namespace, name)
    if found is None:
        return web.json_response({"error": f"no InferenceService {namespace}/{name} is known here"}, status=404)
    return web.json_response(found)


async def _stats(agent: Agent, _: web.Request) -> web.Response:
    workloads = [
        {
            "namespace": namespace,
            "name": name,
            "inFlight": stats.in_flight,
            "queued": stats.queued,
            "held": stats.held,
            "requests": stats.requests,
            "responses": stats.responses,
            "errors": stats.errors,
        }
        for (namespace, name), stats in sorted((await agent.stats()).items())
    ]
    return web.json_response({"workloads": workloads})


async def _demand(agent: Agent, request: web.Request) -> web.Response:
    """Held back until requests begin to be held for another workload, or for a while."""
    after = request.query.get("after", "")
    await agent.demand.after(int(after) if after.isdecimal() else -1, DEMAND_TIMEOUT)
    held = [
        {"namespace": namespace, "name": name, "held": count}
        for (namespace, name), count in sorted(agent.demand.held.items())
    ]
    return web.json_response({"version": agent.demand.version, "workloads": held})


async def _metrics(agent: Agent, _: web.Request) -> web.Response:
    try:
        workloads = await agent.stats()
    except NotInEffect:
        workloads = {}  # fairlead_gateway_up says so
    once = CollectorRegistry()
    once.register(_Once([*_own_metrics(agent), *metrics(workloads)]))
    text = generate_latest(REGISTRY) + generate_latest(once)
    return web.Response(body=text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


class _Once:
    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


def _own_metrics(agent: Agent) -> Iterable[Metric]:
    programmer = agent.programmer
    yield GaugeMetricFamily("fairlead_gateway_up", "Whether HAProxy follows this agent.", value=float(agent.ready))
    yield CounterMetricFamily("fairlead_gateway_reloads", "Reloads of HAProxy for room.", value=programmer.reloads)
    yield CounterMetricFamily("fairlead_gateway_commands", "Commands sent to HAProxy.", value=programmer.commands)
    yield GaugeMetricFamily(
        "fairlead_gateway_change_seconds", "How long HAProxy's last change took.", value=programmer.seconds
    )
