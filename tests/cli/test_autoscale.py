"""`fairlead autoscale explain`, and what `get` and `describe` tell of scaling."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from fairlead.autoscaling import Observation, Policy, decide, initial_state
from fairlead.autoscaling.history import History
from fairlead.cli.chart import DEMAND, ON_THEIR_WAY, READY, Point, chart
from fairlead.kube.resources import INFERENCE_SERVICES

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCALING = {
    "revisionName": "scaled-predictor-00001",
    "desired": 3,
    "ready": 2,
    "mode": "Panic",
    "metric": "concurrency",
    "value": 14.25,
    "target": 7,
    "reason": "14.25 concurrency over 6 s at 7 a replica",
    "lastScaleTime": "2026-11-21T12:00:00Z",
}


def hour() -> list[dict[str, Any]]:
    """A service that is asleep, woken, busy and idle again."""
    policy, state, history = Policy(target=10, min_replicas=0, max_replicas=8), initial_state(0.0, 0), History()
    seen = [Observation()] * 60
    seen += [Observation(waiting=3, starting=1)] * 5
    seen += [Observation(running=35, arrivals=35, completions=35, ready=2)] * 60
    seen += [Observation(ready=2)] * 100 + [Observation(ready=1)] * 100
    for second, observation in enumerate(seen):
        before = state
        decision, state = decide(float(second), observation, policy, before)
        history.record(float(second), observation, policy, before, decision, state)
    return history.document()


@pytest.fixture
def operator() -> Iterator[str]:
    """An operator's port that knows the service `scaled`, and nothing of others."""
    known = [{"workload": "scaled-predictor", "revision": "scaled-predictor-00001", "history": hour()}]

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            workloads = known if self.path == "/v1/autoscaling/default/scaled" else []
            body = json.dumps({"clock": 324.0, "time": "2026-11-21T12:00:00Z", "workloads": workloads}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(cluster: Any) -> Iterator[None]:
    cluster.service("scaled", status={"components": {"predictor": {"autoscaling": [SCALING]}}})
    yield
    cluster.do("delete", INFERENCE_SERVICES, "scaled", "default")


def test_explain_tells_each_change_with_its_time_and_its_reason(cli: Any, service: None, operator: str) -> None:
    result = cli("autoscale", "explain", "scaled", "--operator", operator)
    assert result.code == 0
    assert "scaled-predictor-00001: 0 replicas, Idle" in result.out
    assert "target 10 concurrency a replica; 0 to 8 replicas" in result.out
    lines = [line.split(maxsplit=6) for line in result.out.splitlines() if line.startswith("11:5")]
    assert lines[0][:2] == ["11:54:36", "0"]
    assert lines[1][:4] == ["11:55:36", "0", "→", "1"]
    assert lines[1][6] == "3 requests wait for it"
    assert any(line[3:4] == ["4"] and line[5] == "Panic" for line in lines)
    assert READY in result.out
    assert "another version" not in result.out


def test_explain_tries_other_settings_on_the_same_hour(cli: Any, service: None, operator: str) -> None:
    result = cli("autoscale", "explain", "scaled", "--operator", operator, "--what-if", "target=5", "--json")
    ticks = json.loads(result.out)["ticks"]
    assert max(tick["desired"] for tick in ticks) == 7
    assert ticks[-1]["reason"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [("nonsense=1", "there is no setting"), ("target=many", "is no float"), ("target=0", "must be above 0")],
)
def test_a_setting_that_is_none_is_named(cli: Any, service: None, operator: str, setting: str, words: str) -> None:
    result = cli("autoscale", "explain", "scaled", "--operator", operator, "--what-if", setting)
    assert result.code == 1
    assert words in result.err


def test_a_service_that_demand_does_not_scale_is_told_so(cli: Any, cluster: Any, operator: str) -> None:
    cluster.service("fixed")
    result = cli("autoscale", "explain", "fixed", "--operator", operator)
    assert result.code == 1
    assert "its replicas are fixed" in result.err
    cluster.do("delete", INFERENCE_SERVICES, "fixed", "default")


def test_without_an_operator_it_says_what_it_looked_for(cli: Any, service: None) -> None:
    result = cli("autoscale", "explain", "scaled")
    assert result.code == 1
    assert "no pod of it is found" in result.err


def test_get_shows_ready_of_desired_and_the_demand(cli: Any, service: None) -> None:
    out = cli("get", "scaled").out
    assert "2/3" in out
    assert "Panic 14.25/7 concurrency" in out
    assert "over 6 s" not in out
    assert "14.25 concurrency over 6 s at 7 a replica" in cli("get", "scaled", "-o", "wide").out


def test_describe_tells_why_it_has_as_many_replicas_as_it_has(cli: Any, service: None) -> None:
    out = cli("describe", "scaled").out
    assert "Scaling" in out
    assert "14.25 concurrency over 6 s at 7 a replica" in out


def test_a_chart_shows_what_is_ready_what_is_on_its_way_and_what_is_needed() -> None:
    points = [Point(NOON + timedelta(seconds=second), 1, 1 + (second > 30), 0.5) for second in range(60)]
    lines = chart(points, width=33, height=4)
    assert len(lines) == 4
    assert lines[0].startswith("2 ┤" + " " * 15)
    assert lines[0].rstrip().endswith(ON_THEIR_WAY)
    assert lines[1] == "1 ┤" + DEMAND * 30
    assert lines[3].split() == ["12:00:00", "12:00:59"]


def test_a_spike_of_one_second_is_seen_in_an_hour() -> None:
    points = [Point(NOON + timedelta(seconds=s), 50 if s == 1800 else 1, 1, 0) for s in range(3600)]
    top = chart(points, width=60, height=5)[0]
    assert top.count(READY) == 1


def test_no_line_of_a_chart_is_wider_than_asked_for() -> None:
    points = [Point(NOON + timedelta(minutes=m), m, 1000 - m, m / 2) for m in range(60)]
    assert max(map(len, chart(points, width=40, height=8))) <= 40
