"""What agents answer, and what it means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from fairlead.controllers.inferenceservice.gateways import Answer, HttpGateways, confirm, has_left
from fairlead.controllers.inferenceservice.traffic import Target
from fairlead.kube.objects import Key

WANTED = {"predictor": (Target("r2", "b", 20, True), Target("r1", "a", 80))}


def answer(*targets: tuple[str, int, int], conflict: str | None = None) -> Answer:
    items = [{"serviceName": name, "percent": percent, "readyEndpoints": ready} for name, percent, ready in targets]
    return Answer("gw:1", {"conflict": conflict, "components": {"predictor": {"targets": items}}})


AS_WANTED = answer(("a", 80, 1), ("b", 20, 1))


def test_all_gateways_must_do_what_the_status_says() -> None:
    assert confirm([AS_WANTED, AS_WANTED], WANTED, was_ready=False).status == "True"
    behind = answer(("a", 100, 1))
    assert confirm([AS_WANTED, behind], WANTED, was_ready=False).reason == "Programming"


def test_a_service_that_was_ready_stays_so_while_its_split_moves() -> None:
    assert confirm([answer(("a", 100, 1))], WANTED, was_ready=True).status == "True"
    assert confirm([answer(("a", 100, 0))], WANTED, was_ready=True).reason == "NoReadyEndpoints"


def test_ready_endpoints_of_a_target_without_weight_do_not_count() -> None:
    found = {"predictor": (Target("r1", "a", 100, True), Target("r2", "b", 0))}
    assert confirm([answer(("a", 100, 0), ("b", 0, 3))], found, was_ready=False).reason == "NoReadyEndpoints"


@pytest.mark.parametrize(
    ("given", "status", "reason"),
    [
        (Answer("gw:1", error="refused"), "False", "GatewayUnreachable"),
        (Answer("gw:1"), "Unknown", "Programming"),
        (answer(("a", 80, 1), ("b", 20, 1), conflict="host is team/other's"), "False", "HostConflict"),
    ],
)
def test_what_keeps_a_gateway_from_serving_is_the_reason(given: Answer, status: str, reason: str) -> None:
    found = confirm([AS_WANTED, given], WANTED, was_ready=False)
    assert (found.status, found.reason) == (status, reason)


def test_without_targets_nothing_is_confirmed() -> None:
    assert confirm([AS_WANTED], {"predictor": ()}, was_ready=True).reason == "NoTraffic"


def test_a_workload_is_left_only_when_all_agents_say_so() -> None:
    assert has_left([AS_WANTED], "c")
    assert not has_left([AS_WANTED], "a")
    assert not has_left([AS_WANTED, Answer("gw:2", error="timed out")], "c")
    assert has_left([Answer("gw:1")], "c"), "a gateway that does not know the service sends nothing"


@pytest.fixture
async def agent() -> AsyncIterator[str]:
    async def routes(request: web.Request) -> web.Response:
        if request.match_info["name"] == "gone":
            raise web.HTTPNotFound
        found: dict[str, Any] = {"namespace": request.match_info["namespace"], "components": {}, "conflict": None}
        return web.json_response(found)

    app = web.Application()
    app.router.add_get("/v1/routes/{namespace}/{name}", routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_each_address_of_an_agents_host_is_asked(agent: str) -> None:
    gateways = HttpGateways([agent, "127.0.0.1:1"])
    found = {answer.agent: answer for answer in await gateways.ask(Key("team", "iris"))}
    here = found[f"127.0.0.1:{agent.rpartition(':')[2]}"]
    assert here.routes is not None
    assert here.routes["namespace"] == "team"
    assert found["127.0.0.1:1"].error
    [gone, *_] = [a for a in await gateways.ask(Key("team", "gone")) if a.agent.startswith("127.0.0.1") and not a.error]
    assert gone.routes is None
    await gateways.close()


async def test_no_agents_are_no_answers() -> None:
    assert await HttpGateways([]).ask(Key("team", "iris")) == ()
