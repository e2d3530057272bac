"""The agent against a real HAProxy: changes under load, restarts, and what it says is in effect."""

from __future__ import annotations

import asyncio

import pytest

pytestmark = [pytest.mark.haproxy]


async def test_a_new_service_is_served_without_a_reload(gateway, cluster, run_agent, make_pod, client):
    agent = await run_agent(gateway)
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    await until_served(client, gateway, "iris-ns.example.com")
    assert agent.programmer.reloads == 0


async def test_weights_change_under_load_without_a_failure(gateway, cluster, run_agent, make_pod, load, eventually):
    old, new = await make_pod("old"), await make_pod("new")
    cluster.workload("iris", "old", [old.endpoint])
    cluster.workload("iris", "new", [new.endpoint])
    cluster.serve("iris", {"old": 100})
    agent = await run_agent(gateway)
    async with load(gateway.url, "iris-ns.example.com") as result:

        async def more_answers() -> None:
            before = sum(result.pods.values())
            await eventually(lambda: sum(result.pods.values()) >= before + 40)

        for percent in (20, 60, 100, 40, 0):
            cluster.serve("iris", {"old": 100 - percent, "new": percent})
            await eventually(lambda percent=percent: shares(agent).get("new", 0) == percent)
            await more_answers()
        before = new.requests
        await more_answers()
    assert not result.failures
    assert result.pods["old"] > 40 < result.pods["new"]
    assert new.requests == before


def shares(agent) -> dict[str, int]:
    targets = agent.routes("ns", "iris")["components"]["predictor"]["targets"]
    return {target["serviceName"]: target["percent"] for target in targets}


async def test_pods_come_and_go_under_load_without_a_failure(gateway, cluster, run_agent, make_pod, load, eventually):
    pods = [await make_pod(str(number)) for number in range(4)]
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pods[0].endpoint])
    agent = await run_agent(gateway)
    async with load(f"{gateway.url}/sleep/0.02", "iris-ns.example.com") as result:
        for number in range(12):
            present = [pods[(number + k) % 4] for k in range(1 + number % 2)]
            before = [pod.requests for pod in present]
            cluster.workload("iris", "iris-predictor", [pod.endpoint for pod in present])
            await asyncio.sleep(0.1)
            await eventually(
                lambda present=present, before=before: all(
                    pod.requests > had for pod, had in zip(present, before, strict=True)
                )
            )
    assert not result.failures
    assert agent.programmer.reloads == 0


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "new connections"])
async def test_the_pool_grows_under_load_without_a_failure(
    gateway, cluster, run_agent, make_pod, load, client, keep_alive
):
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    agent = await run_agent(gateway)
    async with load(f"{gateway.url}/sleep/0.01", "iris-ns.example.com", keep_alive=keep_alive) as result:
        for number in range(10):
            cluster.serve(f"more-{number}", {f"more-{number}-predictor": 100})
            cluster.workload(f"more-{number}", f"more-{number}-predictor", [pod.endpoint])
        for number in range(10):
            await until_served(client, gateway, f"more-{number}-ns.example.com")
        await asyncio.sleep(0.2)
    assert not result.failures
    assert 1 <= agent.programmer.reloads <= 3


async def test_a_pool_that_doubles_again_and_again_serves_every_service(
    make_haproxy, cluster, run_agent, make_pod, client
):
    gateway = await make_haproxy(http_backends=1)
    pod = await make_pod()
    agent = await run_agent(gateway)
    for number in range(40):
        cluster.serve(f"s-{number}", {f"s-{number}-predictor": 100})
        cluster.workload(f"s-{number}", f"s-{number}-predictor", [pod.endpoint])
        if number in (1, 4, 10):  # each is one too many for a pool that has grown for those before
            await until_served(client, gateway, f"s-{number}-ns.example.com")
        await asyncio.sleep(0.02)  # so that it grows while more come
    for number in range(40):
        await until_served(client, gateway, f"s-{number}-ns.example.com")
    assert 3 <= agent.programmer.reloads <= 6


async def test_a_reload_loses_no_request_that_is_held(make_haproxy, cluster, run_agent, make_pod, client, eventually):
    gateway = await make_haproxy(hold_timeout=60.0, http_backends=1)
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [])
    agent = await run_agent(gateway)

    async def ask() -> int:
        async with client.get(gateway.url, headers={"host": "iris-ns.example.com"}) as response:
            return response.status

    async def is_held() -> bool:
        return bool(await gateway.haproxy.held())

    asking = asyncio.create_task(ask())
    await eventually(is_held)
    pod = await make_pod()
    cluster.serve("more", {"more-predictor": 100})
    cluster.workload("more", "more-predictor", [pod.endpoint])
    await until_served(client, gateway, "more-ns.example.com")
    assert agent.programmer.reloads == 1
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    assert await asking == 200


async def test_more_pods_than_slots_get_room(gateway, cluster, run_agent, make_pod, client, eventually):
    pods = [await make_pod(str(number)) for number in range(6)]
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint for pod in pods])
    agent = await run_agent(gateway)
    await eventually(lambda: agent.routes("ns", "iris")["components"]["predictor"]["targets"][0]["readyEndpoints"] == 6)
    assert agent.programmer.reloads == 1


async def test_a_killed_haproxy_that_is_started_again_serves_soon(gateway, cluster, run_agent, make_pod, client):
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    agent = await run_agent(gateway)
    await gateway.stop()
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    await gateway.start()
    await until_served(client, gateway, "iris-ns.example.com", within=10.0)
    assert agent.ready


async def test_a_haproxy_whose_agent_is_gone_starts_with_the_last_routes(
    gateway, cluster, run_agent, make_pod, client, eventually
):
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    agent = await run_agent(gateway)
    await eventually(lambda: "iris-ns.example.com" in (gateway.settings.directory / "hosts.map").read_text())
    agent.task.cancel()
    await gateway.stop()
    await gateway.start()
    await until_served(client, gateway, "iris-ns.example.com", within=10.0)


async def test_an_agent_that_restarts_changes_nothing_that_is_right(
    gateway, cluster, run_agent, make_pod, load, eventually
):
    one, two = await make_pod("one"), await make_pod("two")
    cluster.serve("iris", {"one": 50, "two": 50})
    cluster.workload("iris", "one", [one.endpoint], timeout="7", container_concurrency="3")
    cluster.workload("iris", "two", [two.endpoint])
    first = await run_agent(gateway)
    async with load(gateway.url, "iris-ns.example.com") as result:
        first.task.cancel()
        await asyncio.sleep(0.1)
        second = await run_agent(gateway)
        await asyncio.sleep(0.1)
    assert not result.failures
    assert (second.programmer.commands, second.programmer.reloads) == (0, 0)


async def test_a_reload_by_someone_else_is_noticed(gateway, cluster, run_agent, make_pod, client):
    agent = await run_agent(gateway)
    await gateway.haproxy.reload()
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    await until_served(client, gateway, "iris-ns.example.com")
    assert agent.ready


async def test_routes_say_what_is_in_effect(gateway, cluster, run_agent, make_pod, eventually):
    pod = await make_pod()
    cluster.serve("iris", {"old": 75, "new": 25})
    cluster.workload("iris", "old", [pod.endpoint])
    cluster.workload("iris", "new", [])
    agent = await run_agent(gateway)
    assert agent.routes("ns", "iris") == {
        "namespace": "ns",
        "name": "iris",
        "components": {
            "predictor": {
                "targets": [
                    {"serviceName": "old", "revisionName": "old", "percent": 75, "readyEndpoints": 1},
                    {"serviceName": "new", "revisionName": "new", "percent": 25, "readyEndpoints": 0},
                ]
            }
        },
        "conflict": None,
    }
    assert agent.routes("ns", "unknown") is None
    await gateway.stop()
    await eventually(lambda: not agent.ready)


async def test_an_agent_that_restarts_counts_anew_what_its_haproxy_has_counted_on(
    gateway, cluster, run_agent, make_pod, client
):
    """A jump of the counters would be taken for a thousand requests in one second."""
    pod = await make_pod()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint])
    first = await run_agent(gateway)
    for _ in range(20):
        await until_served(client, gateway, "iris-ns.example.com")
    assert (await first.stats())[("ns", "iris-predictor")].requests == 20
    first.task.cancel()
    await asyncio.gather(first.task, return_exceptions=True)
    second = await run_agent(gateway)
    await until_served(client, gateway, "iris-ns.example.com")
    assert (await second.stats())[("ns", "iris-predictor")].requests == 1


async def test_stats_count_requests_in_flight_and_answered(gateway, cluster, run_agent, make_pod, client, eventually):
    pod = await make_pod()
    pod.open.clear()
    cluster.serve("iris", {"iris-predictor": 100})
    cluster.workload("iris", "iris-predictor", [pod.endpoint], container_concurrency="2")
    agent = await run_agent(gateway)

    async def numbers(**expected: int) -> bool:
        stats = (await agent.stats())[("ns", "iris-predictor")]
        return all(getattr(stats, name) == value for name, value in expected.items())

    async def slow() -> None:
        async with client.get(gateway.url, headers={"host": "iris-ns.example.com"}) as response:
            assert response.status == 200

    slow_ones = [asyncio.create_task(slow()) for _ in range(5)]
    await eventually(lambda: numbers(in_flight=5, queued=3, held=0))
    pod.open.set()
    await asyncio.gather(*slow_ones)
    await eventually(lambda: numbers(in_flight=0, queued=0, requests=5, errors=0))
    assert pod.most_active == 2


async def until_served(client, gateway, host: str, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while True:
            try:
                async with client.get(gateway.url, headers={"host": host}) as response:
                    if response.status == 200:
                        return
            except OSError:
                pass
            await asyncio.sleep(0.01)
