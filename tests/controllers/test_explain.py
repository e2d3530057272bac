"""The operator's endpoint for a service's decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from aiohttp import ClientSession, web
from tests.controllers.test_autoscaler import SERVICE, World

from fairlead.autoscaling.history import parsed, replay
from fairlead.controllers.autoscaler import explain


async def served(world: World, path: str) -> tuple[int, Any]:
    app = web.Application()
    app.add_routes([explain.route(world.autoscaler)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.json()
    finally:
        await runner.cleanup()


async def test_what_was_decided_can_be_decided_again_by_who_asks() -> None:
    world = World(1)
    world.autoscaler.running = True
    await world.ticks(20)
    status, answer = await served(world, f"/v1/autoscaling/{SERVICE.namespace}/{SERVICE.name}")
    assert status == 200
    [workload] = answer["workloads"]
    assert (workload["workload"], workload["revision"]) == ("iris-predictor", "r1")
    steps = list(replay(parsed(workload["history"])))
    assert len(steps) == 20
    assert steps[-1].decision.desired == world.replicas == 0
    assert steps[-1].clock <= answer["clock"]
    assert datetime.fromisoformat(answer["time"]).tzinfo is not None


async def test_a_service_that_demand_does_not_scale_has_no_workloads() -> None:
    world = World(1)
    world.autoscaler.running = True
    assert (await served(world, "/v1/autoscaling/team/other"))[1]["workloads"] == []


async def test_an_operator_that_does_not_lead_says_so() -> None:
    assert (await served(World(1), "/v1/autoscaling/team/iris"))[0] == 503
