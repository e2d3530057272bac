"""The model servers' own metrics: read, summed up, and honest about what is not known."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from fairlead.controllers.autoscaler.scraping import (
    LARGEST,
    STALE,
    HttpFetch,
    PodMetrics,
    Scrape,
    Total,
    Unanswered,
    sum_of,
)
from fairlead.kube.objects import Key, Object

WORKLOAD = Key("team", "llm-predictor")
QUEUE = Scrape("vllm:num_requests_waiting", 8080, "/metrics")
TEXT = """# HELP vllm:num_requests_waiting Requests that wait.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="a{b} c",engine="0"} 3.0
vllm:num_requests_waiting{model_name="d",engine="1"} 4 1700000000000
vllm:num_requests_waiting_total 900
other NaN
endless +Inf
enormous 1e308
"""


def pod(address: str, *, ready: bool = True) -> Object:
    condition = {"type": "Ready", "status": str(ready)}
    return {"metadata": {"name": address}, "status": {"podIP": address, "conditions": [condition]}}


class Servers:
    """What each pod answers, at a time that the test moves."""

    def __init__(self) -> None:
        self.now, self.texts, self.asked = 0.0, dict[str, str](), list[str]()
        self.metrics = PodMetrics(self._fetch, clock=lambda: self.now)

    async def _fetch(self, url: str) -> str:
        self.asked.append(url)
        address = url.removeprefix("http://").partition(":")[0]
        if address not in self.texts:
            raise Unanswered("refused")
        return self.texts[address]

    async def total(self, *pods: Object, scrape: Scrape = QUEUE) -> Total:
        await self.metrics.refresh({WORKLOAD: (scrape, pods)})
        return self.metrics.total(WORKLOAD, pods)


def test_the_series_of_a_metric_are_summed_whatever_their_labels_say() -> None:
    assert sum_of(TEXT, "vllm:num_requests_waiting") == 7.0
    assert sum_of(TEXT, "vllm:num_requests_waiting_total") == 900.0


@pytest.mark.parametrize("metric", ["vllm:num_requests", "other", "nothing", "endless", "enormous"])
def test_a_metric_that_is_not_there_or_not_a_number_is_not_zero(metric: str) -> None:
    with pytest.raises(Unanswered, match=metric):
        sum_of(TEXT, metric)


async def test_the_ready_pods_are_asked_and_no_others() -> None:
    servers = Servers()
    servers.texts = {"10.0.0.1": TEXT, "10.0.0.2": "vllm:num_requests_waiting 1"}
    assert await servers.total(pod("10.0.0.1"), pod("10.0.0.2"), pod("10.0.0.3", ready=False)) == (8.0, True)
    assert sorted(servers.asked) == ["http://10.0.0.1:8080/metrics", "http://10.0.0.2:8080/metrics"]


async def test_a_pod_may_have_an_address_of_ipv6() -> None:
    servers = Servers()
    await servers.total(pod("fd00::7"))
    assert servers.asked == ["http://[fd00::7]:8080/metrics"]


async def test_a_pod_that_stops_answering_keeps_its_value_for_a_while_and_is_unknown_then() -> None:
    servers = Servers()
    servers.texts = {"10.0.0.1": TEXT}
    assert await servers.total(pod("10.0.0.1")) == (7.0, True)
    servers.texts = {}
    servers.now = STALE
    assert await servers.total(pod("10.0.0.1")) == (7.0, True)
    servers.now = STALE + 1
    assert await servers.total(pod("10.0.0.1")) == (0.0, False)


async def test_a_counter_counts_by_its_increase_a_second_and_may_begin_anew() -> None:
    servers, tokens = Servers(), Scrape("tokens_total", 8080, "/metrics", rate=True)
    servers.texts = {"10.0.0.1": "tokens_total 1000"}
    assert await servers.total(pod("10.0.0.1"), scrape=tokens) == (0.0, False)
    servers.now, servers.texts = 2.0, {"10.0.0.1": "tokens_total 1500"}
    assert await servers.total(pod("10.0.0.1"), scrape=tokens) == (250.0, True)
    servers.now, servers.texts = 4.0, {"10.0.0.1": "tokens_total 10"}
    assert await servers.total(pod("10.0.0.1"), scrape=tokens) == (5.0, True)


async def test_a_server_that_hangs_does_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.controllers.autoscaler.scraping.BUDGET", 0.02)

    async def fetch(url: str) -> str:
        if "10.0.0.1" in url:
            await asyncio.Event().wait()
        return TEXT

    metrics, pods = PodMetrics(fetch, clock=lambda: 0.0), [pod("10.0.0.1"), pod("10.0.0.2")]
    await metrics.refresh({WORKLOAD: (QUEUE, pods)})
    assert metrics.total(WORKLOAD, pods) == (7.0, False)


async def test_over_http_an_answer_is_bounded_and_an_error_is_no_answer() -> None:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=TEXT)

    async def endless(_: web.Request) -> web.Response:
        return web.Response(body=b"#" * (LARGEST + 1))

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/endless", endless)])
    runner = web.AppRunner(app)
    await runner.setup()
    fetch = HttpFetch()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server = f"http://127.0.0.1:{runner.addresses[0][1]}"
        assert await fetch(f"{server}/metrics") == TEXT
        for path in ("endless", "missing"):
            with pytest.raises(Unanswered):
                await fetch(f"{server}/{path}")
    finally:
        await fetch.close()
        await runner.cleanup()
