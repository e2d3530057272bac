"""Who is in a Service's EndpointSlice, and how."""

from __future__ import annotations

from typing import Any

from fairlead.kube.objects import Object
from fairlead.local.node.endpoints import endpoint_slice


def service(**spec: Any) -> Object:
    return {
        "metadata": {"name": "iris", "namespace": "ns", "uid": "u", "labels": {"component": "predictor"}},
        "spec": {"selector": {"app": "iris"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec},
    }


def pod(
    name: str = "p", ready: bool = True, ip: str | None = "127.64.0.1", app: str = "iris", **metadata: Any
) -> Object:
    status: Object = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]}
    if ip:
        status["podIP"] = ip
    ports = [{"containerPort": 8080, "name": "http"}, {"containerPort": 8081, "name": "h2c"}]
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": app}, **metadata},
        "spec": {"containers": [{"name": "c", "ports": ports}]},
        "status": status,
    }


def endpoints(*pods: Object, **spec: Any) -> list[Object]:
    found = endpoint_slice(service(**spec), pods, "laptop")
    assert found is not None
    return list(found["endpoints"])


def test_the_slice_carries_the_services_labels_and_belongs_to_it() -> None:
    found = endpoint_slice(service(), [pod()], "laptop")
    assert found is not None
    assert found["metadata"]["name"].startswith("iris-")
    assert (
        found["metadata"]["labels"] | {"component": "predictor", "kubernetes.io/service-name": "iris"}
        == found["metadata"]["labels"]
    )
    assert found["metadata"]["ownerReferences"][0]["uid"] == "u"


def test_pods_that_are_not_selected_or_have_no_address_yet_or_have_ended_are_left_out() -> None:
    ended = pod("ended")
    ended["status"]["phase"] = "Failed"
    assert endpoints(pod(app="other"), pod(ip=None), ended) == []


def test_an_unready_pod_is_there_but_not_ready() -> None:
    (endpoint,) = endpoints(pod(ready=False))
    assert endpoint["conditions"] == {"ready": False, "serving": False, "terminating": False}


def test_a_pod_on_its_way_out_still_serves_but_gets_nothing_new() -> None:
    (endpoint,) = endpoints(pod(deletionTimestamp="2026-11-21T10:00:00Z"))
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_unready_pods_are_published_where_the_service_asks_for_it() -> None:
    (endpoint,) = endpoints(pod(ready=False), publishNotReadyAddresses=True)
    assert endpoint["conditions"]["ready"] is True


def test_target_ports_are_found_by_number_by_name_and_by_the_services_own_number() -> None:
    ports: list[Object] = [
        {"name": "a", "port": 80, "targetPort": 9000},
        {"name": "b", "port": 81, "targetPort": "h2c", "appProtocol": "kubernetes.io/h2c"},
        {"name": "c", "port": 82},
        {"name": "d", "port": 83, "targetPort": "unknown"},
    ]
    found = endpoint_slice(service(ports=ports), [pod()], "laptop")
    assert found is not None
    assert found["ports"] == [
        {"name": "a", "port": 9000, "protocol": "TCP"},
        {"name": "b", "port": 8081, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        {"name": "c", "port": 82, "protocol": "TCP"},
    ]


def test_a_service_without_a_selector_has_no_slice_of_ours() -> None:
    assert endpoint_slice(service(selector=None), [pod()], "laptop") is None


def test_the_order_of_pods_makes_no_difference() -> None:
    one, two = pod("a", ip="127.64.0.1"), pod("b", ip="127.64.0.2")
    assert endpoints(one, two) == endpoints(two, one)
