"""Metrics are what Prometheus' own parser reads, and add up over workers."""

from __future__ import annotations

import orjson
from prometheus_client.parser import text_string_to_metric_families

from fairlead.runtime.operations.metrics import Metrics


def sample(text: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name == name and labels.items() <= each.labels.items():
                return each.value
    raise AssertionError(f"{name}{labels} is not there")


def used() -> Metrics:
    metrics = Metrics()
    metrics.requests.add(("m", "v1", "200"))
    metrics.requests.add(("m", "v1", "200"))
    for seconds in (0.0004, 0.003, 100.0):
        metrics.predict.child(("m",)).observe(seconds)
    metrics.queue_length.read = lambda: {("m",): 3.0}
    metrics.ready.read = lambda: {("m",): 1.0}
    return metrics


def test_the_text_is_what_prometheus_reads():
    text = Metrics.render([used().snapshot()])
    assert sample(text, "fairlead_requests_total", model_name="m", protocol="v1", code="200") == 2
    assert sample(text, "request_predict_seconds_bucket", le="0.0005") == 1
    assert sample(text, "request_predict_seconds_bucket", le="0.005") == 2
    assert sample(text, "request_predict_seconds_bucket", le="+Inf") == 3
    assert sample(text, "request_predict_seconds_count") == 3
    assert abs(sample(text, "request_predict_seconds_sum") - 100.0034) < 1e-6
    assert sample(text, "fairlead_queue_length", model_name="m") == 3


def test_workers_add_up_after_a_trip_over_a_socket():
    snapshots = [orjson.loads(orjson.dumps(used().snapshot())) for _ in range(2)]
    text = Metrics.render(snapshots)
    assert sample(text, "fairlead_requests_total") == 4
    assert sample(text, "request_predict_seconds_count") == 6
    assert sample(text, "fairlead_model_ready") == 1


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.requests.add(('a"b\\c\nd', "v1", "200"))
    assert sample(Metrics.render([metrics.snapshot()]), "fairlead_requests_total", model_name='a"b\\c\nd') == 1


def test_what_a_model_registers_itself_is_there_too():
    from prometheus_client import REGISTRY, Counter

    counter = Counter("users_own", "of a user's model")
    try:
        counter.inc()
        assert sample(Metrics.render([Metrics().snapshot()]), "users_own_total") == 1
    finally:
        REGISTRY.unregister(counter)
