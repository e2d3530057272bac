"""From objects to the routing table."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.gateway import essentials
from fairlead.gateway.routes import Endpoint, Target, Transport, route_table, service_routes


def isvc(
    name: str = "iris",
    namespace: str = "ns",
    *,
    spec: tuple[str, ...] = ("predictor",),
    labels=None,
    created="2026-01-01T00:00:00Z",
    **traffic,
):
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}, "creationTimestamp": created},
        "spec": {component: {} for component in spec},
        "status": {"components": {component: {"traffic": items} for component, items in traffic.items()}},
    }


def target(workload: str, percent: int = 100, tag: str | None = None) -> dict[str, Any]:
    item = {"revisionName": f"{workload}-r", "serviceName": workload, "percent": percent, "latestRevision": True}
    return item | ({"tag": tag} if tag else {})


def service(name: str, ports: list[dict[str, Any]] | None = None, **annotations: str):
    ports = ports or [{"name": "http", "port": 80}]
    return {
        "metadata": {
            "name": name,
            "annotations": {f"fairlead.dev/{k.replace('_', '-')}": v for k, v in annotations.items()},
        },
        "spec": {"ports": ports},
    }


def endpoint_slice(ports: dict[str, int], *addresses: str, ready: bool | None = True, family: str = "IPv4"):
    conditions = {} if ready is None else {"ready": ready}
    return {
        "metadata": {"name": "slice"},
        "addressType": family,
        "ports": [{"name": name, "port": port} for name, port in ports.items()],
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
    }


def routes_of(obj, services=(), slices=None):
    """Of the objects, and the same of what the agent keeps of them."""
    found = service_routes(obj, {s["metadata"]["name"]: s for s in services}, slices or {}, "example.com")
    kept_services = {s["metadata"]["name"]: essentials.service(s) for s in services}
    kept_slices = {name: [essentials.endpoint_slice(s) for s in several] for name, several in (slices or {}).items()}
    kept = service_routes(essentials.inference_service(obj), kept_services, kept_slices, "example.com")
    assert kept == found
    return found


def test_a_predictor_has_external_and_cluster_hosts_and_paths():
    routes = routes_of(isvc(predictor=[target("p")]))
    assert set(routes.hosts) == {
        "iris-ns.example.com", "iris-predictor-ns.example.com",
        "iris.ns", "iris.ns.svc", "iris.ns.svc.cluster.local",
        "iris-predictor.ns", "iris-predictor.ns.svc", "iris-predictor.ns.svc.cluster.local",
    }  # fmt: skip
    assert set(routes.hosts.values()) == {"ns/iris/predictor"}
    assert routes.paths == {"ns/iris": "ns/iris/predictor", "ns/iris.predictor": "ns/iris/predictor"}


def test_the_main_host_and_path_lead_to_the_transformer():
    routes = routes_of(isvc(spec=("predictor", "transformer"), predictor=[target("p")], transformer=[target("t")]))
    assert routes.hosts["iris-ns.example.com"] == routes.paths["ns/iris"] == "ns/iris/transformer"
    assert routes.hosts["iris-predictor-ns.example.com"] == routes.paths["ns/iris.predictor"] == "ns/iris/predictor"


def test_explanations_are_the_explainers_and_only_on_the_services_own_host_and_path():
    routes = routes_of(isvc(spec=("predictor", "explainer"), predictor=[target("p")], explainer=[target("e")]))
    assert routes.hosts["iris-ns.example.com"] == routes.paths["ns/iris"] == "ns/iris/predictor"
    assert routes.hosts["iris-ns.example.com:explain"] == routes.paths["ns/iris:explain"] == "ns/iris/explainer"
    assert "iris-predictor-ns.example.com:explain" not in routes.hosts


def test_a_tag_has_a_host_that_leads_to_its_target_alone_whatever_its_weight():
    routes = routes_of(isvc(predictor=[target("old", 100, "prev"), target("new", 0, "latest")]))
    assert routes.hosts["prev-iris-predictor-ns.example.com"] == "ns/iris/predictor/prev"
    assert routes.routes["ns/iris/predictor/latest"] == (Target("new", "new-r", 100),)


def test_a_cluster_local_service_has_cluster_hosts_only():
    routes = routes_of(
        isvc(labels={"networking.kserve.io/visibility": "cluster-local"}, predictor=[target("p", 100, "prev")])
    )
    assert not [host for host in routes.hosts if host.endswith("example.com")]
    assert "iris-predictor.ns" in routes.hosts


def test_a_service_without_status_is_known_but_has_nothing_to_serve():
    obj = isvc()
    del obj["status"]
    table = route_table([routes_of(obj)])
    assert table.hosts["iris-ns.example.com"] == "ns/iris/predictor"
    assert table.splits == {Transport.HTTP: {}, Transport.GRPC: {}}


def test_pods_ports_come_from_the_slices_by_the_services_port_name():
    ports = [{"name": "http", "port": 80}, {"name": "grpc", "port": 8081, "appProtocol": "kubernetes.io/h2c"}]
    slices = {
        "p": [
            endpoint_slice({"http": 8080, "grpc": 9000}, "10.0.0.1"),
            endpoint_slice({"http": 8080, "grpc": 9000}, "10.0.0.2", ready=False),
        ]
    }
    upstreams = routes_of(isvc(predictor=[target("p")]), [service("p", ports)], slices).upstreams
    assert upstreams["ns/p/h1"].ready == {Endpoint("10.0.0.1", 8080)}
    assert upstreams["ns/p/h1"].unready == {Endpoint("10.0.0.2", 8080)}
    assert upstreams["ns/p/h2"].ready == {Endpoint("10.0.0.1", 9000)}


def test_an_endpoint_that_does_not_say_is_ready():
    slices = {"p": [endpoint_slice({"http": 8080}, "10.0.0.1", ready=None)]}
    assert routes_of(isvc(predictor=[target("p")]), [service("p")], slices).upstreams["ns/p/h1"].ready


def test_a_dual_stack_pod_is_one_endpoint():
    slices = {
        "p": [endpoint_slice({"http": 8080}, "fd00::1", family="IPv6"), endpoint_slice({"http": 8080}, "10.0.0.1")]
    }
    assert routes_of(isvc(predictor=[target("p")]), [service("p")], slices).upstreams["ns/p/h1"].ready == {
        Endpoint("10.0.0.1", 8080)
    }
    del slices["p"][1]
    assert routes_of(isvc(predictor=[target("p")]), [service("p")], slices).upstreams["ns/p/h1"].ready == {
        Endpoint("fd00::1", 8080)
    }


@pytest.mark.parametrize(
    ("written", "timeout", "concurrency"),
    [
        ({}, 60.0, 0),
        ({"timeout": "1.5", "container_concurrency": "4"}, 1.5, 4),
        ({"timeout": "soon", "container_concurrency": "-1"}, 60.0, 0),
    ],
)
def test_timeout_and_concurrency_are_the_services(written, timeout, concurrency):
    upstream = routes_of(isvc(predictor=[target("p")]), [service("p", **written)]).upstreams["ns/p/h1"]
    assert (upstream.timeout, upstream.concurrency) == (timeout, concurrency)


def test_each_kind_of_request_goes_to_its_port_or_to_the_only_one():
    h2c = [{"name": "h2c", "port": 80, "appProtocol": "kubernetes.io/h2c"}]
    both = [{"name": "http", "port": 80}, {"name": "grpc", "port": 8081, "appProtocol": "kubernetes.io/h2c"}]
    for ports, http, grpc in ((None, "ns/p/h1", "ns/p/h1"), (h2c, "ns/p/h2", "ns/p/h2"), (both, "ns/p/h1", "ns/p/h2")):
        table = route_table([routes_of(isvc(predictor=[target("p")]), [service("p", ports)])])
        assert table.splits[Transport.HTTP]["ns/iris/predictor"] == ((http, 100),)
        assert table.splits[Transport.GRPC]["ns/iris/predictor"] == ((grpc, 100),)


def test_a_target_whose_service_is_not_known_yet_leaves_its_share_to_the_others():
    table = route_table([routes_of(isvc(predictor=[target("a", 80), target("b", 20)]), [service("a")])])
    assert table.splits[Transport.HTTP]["ns/iris/predictor"] == (("ns/a/h1", 80),)


def test_what_another_controller_has_said_of_a_service_keeps_no_other_from_being_served():
    """KServe with Knative names revisions, which have no Service of ours, and its tags no percentage. A slice may say that all ports are meant."""
    knative = [
        {"latestRevision": True, "percent": 100, "revisionName": "old-00001"},
        {"tag": "prev", "revisionName": "x"},
    ]
    named = [{"serviceName": "old-predictor"}]
    everywhere = {**endpoint_slice({}, "10.0.0.1"), "ports": [{"name": "http"}]}
    services = [
        routes_of(isvc("old", predictor=knative)),
        routes_of(isvc("odd", predictor=named), [service("old-predictor")], {"old-predictor": [everywhere]}),
        routes_of(
            isvc("iris", predictor=[target("p")]), [service("p")], {"p": [endpoint_slice({"http": 8080}, "10.0.0.1")]}
        ),
    ]
    assert services[0].components["predictor"] == ()
    assert services[1].components["predictor"] == (Target("old-predictor", "", 0),)
    assert services[1].upstreams["ns/old-predictor/h1"].ready == frozenset()
    assert set(route_table(services).splits[Transport.HTTP]) == {"ns/iris/predictor"}


def test_a_host_that_two_services_claim_goes_to_the_older_and_the_younger_is_told():
    older = routes_of(isvc("a", "b-c", created="2026-01-01T00:00:00Z", predictor=[target("p")]))
    younger = routes_of(isvc("a-b", "c", created="2026-02-01T00:00:00Z", predictor=[target("p")]))
    for order in ([older, younger], [younger, older]):
        table = route_table(order)
        assert table.hosts["a-b-c.example.com"] == "b-c/a/predictor"
        assert table.hosts["a-b-predictor-c.example.com"] == "c/a-b/predictor"
        assert list(table.conflicts) == [("c", "a-b")]
        assert "a-b-c.example.com already belongs to InferenceService b-c/a" in table.conflicts[("c", "a-b")]


@pytest.mark.parametrize(
    ("mode", "seconds"), [(None, 90.0), ("Idle", 90.0), ("Activating", 600.0), ("Paused", 0.0)], ids=str
)
def test_requests_wait_as_long_as_the_operator_says_that_a_wake_up_goes_on(mode, seconds):
    obj = isvc(predictor=[target("p")])
    if mode:
        obj["status"]["components"]["predictor"]["autoscaling"] = [{"revisionName": "p-r", "mode": mode}]
    routes = routes_of(obj, [service("p", activation_timeout="90")])
    assert routes.upstreams["ns/p/h1"].hold == seconds


def test_a_workload_that_is_not_started_for_requests_holds_them_as_the_gateway_does():
    assert routes_of(isvc(predictor=[target("p")]), [service("p")]).upstreams["ns/p/h1"].hold is None


def test_why_a_component_is_not_ready_is_known_by_its_route():
    obj = isvc(predictor=[target("p")])
    obj["status"]["conditions"] = [
        {"type": "PredictorReady", "status": "False", "message": "p-r failed: no such file"},
        {"type": "IngressReady", "status": "False", "message": "not yet"},
        {"type": "Ready", "status": "False", "message": "p-r failed: no such file"},
    ]
    assert route_table([routes_of(obj)]).troubles == {"ns/iris/predictor": "p-r failed: no such file"}
    obj["status"]["conditions"][0]["status"] = "True"
    assert route_table([routes_of(obj)]).troubles == {}


def test_only_what_the_routes_are_made_of_is_a_change():
    before, after, moved = isvc(predictor=[target("p")]), isvc(predictor=[target("p")]), isvc(predictor=[target("q")])
    after["metadata"] |= {"resourceVersion": "2", "annotations": {"owner": "ada"}}
    after["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    after["spec"]["predictor"]["model"] = {"storageUri": "s3://models/iris"}
    before, after, moved = map(essentials.inference_service, (before, after, moved))
    assert essentials.same(before, after)
    assert not essentials.same(before, moved)
    assert not essentials.same(None, before)
    assert not essentials.same(before, None)
