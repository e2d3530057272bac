"""A spec becomes a pod template: merging, storage, probes, templates, and what makes a revision."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.controllers.harness import RUNTIME, isvc

from fairlead.api.inferenceservice import InferenceService
from fairlead.api.servingruntime import ClusterServingRuntime
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec
from fairlead.controllers.inferenceservice.merging import merged
from fairlead.controllers.inferenceservice.notes import notes
from fairlead.controllers.inferenceservice.pods import digest, inputs, pod_template
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.workloads import service_ports

SETTINGS = Settings()


def source(
    obj: dict[str, Any], kind: str = "predictor", *, runtime: dict[str, Any] | None = RUNTIME, **more: Any
) -> PodSource:
    parsed = InferenceService.parse(obj)
    found = ClusterServingRuntime.parse(runtime) if runtime and kind == "predictor" else None
    return PodSource(parsed, kind, parsed.spec.components()[kind], found, **more)


def rendered(
    obj: dict[str, Any], kind: str = "predictor", settings: Settings = SETTINGS, **more: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = pod_template(source(obj, kind, **more), settings)["spec"]
    return spec


def other_runtime(**changes: Any) -> dict[str, Any]:
    """A runtime that does not fetch by itself."""
    container = {**RUNTIME["spec"]["containers"][0], **changes}
    return {**RUNTIME, "metadata": {"name": "other"}, "spec": {**RUNTIME["spec"], "containers": [container]}}


def model(**fields: Any) -> dict[str, Any]:
    obj = isvc("s3://b/m")
    obj["spec"]["predictor"]["model"] |= fields
    return obj


def test_the_users_container_fields_override_the_runtimes_and_args_add_up() -> None:
    spec = rendered(model(args=["--workers=2"], env=[{"name": "A", "value": "1"}], image="mine:2"))
    container = spec["containers"][0]
    assert container["args"] == ["--model_name=iris", "--workers=2"]
    assert container["image"] == "mine:2"
    assert {"name": "A", "value": "1"} in container["env"]


def test_our_model_servers_hold_no_token_of_the_cluster_unless_the_service_asks_for_it() -> None:
    obj = isvc("s3://b/m")
    assert rendered(obj)["automountServiceAccountToken"] is False
    assert "automountServiceAccountToken" not in rendered(obj, runtime=other_runtime())
    obj["spec"]["predictor"]["automountServiceAccountToken"] = True
    assert rendered(obj)["automountServiceAccountToken"] is True


def test_lists_merge_by_what_names_their_items() -> None:
    base = {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        "ports": [{"containerPort": 1, "name": "x"}],
    }
    over = {
        "env": [{"name": "B", "valueFrom": {"x": 1}}, {"name": "C", "value": "3"}],
        "ports": [{"containerPort": 1, "protocol": "TCP"}],
    }
    assert merged(base, over) == {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"x": 1}}, {"name": "C", "value": "3"}],
        "ports": [{"containerPort": 1, "name": "x", "protocol": "TCP"}],
    }


def test_a_users_probe_replaces_the_runtimes_whole() -> None:
    base = {"readinessProbe": {"httpGet": {"path": "/"}}}
    assert merged(base, {"readinessProbe": {"tcpSocket": {"port": 1}}}) == {
        "readinessProbe": {"tcpSocket": {"port": 1}}
    }


def test_resources_that_nobody_gives_are_kserves_defaults() -> None:
    resources = rendered(model())["containers"][0]["resources"]
    assert resources == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "2Gi"},
    }


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("host:5000/a/b:1.0", "host:5000/a/b:2.0"),
        ("b", "b:2.0"),
        ("host:5000/b@sha256:00", "host:5000/b:2.0"),
    ],
)
def test_runtime_version_is_the_images_tag(image: str, expected: str) -> None:
    spec = rendered(model(runtimeVersion="2.0"), runtime=other_runtime(image=image))
    assert spec["containers"][0]["image"] == expected


def test_our_runtimes_fetch_the_model_themselves() -> None:
    spec = rendered(model())
    assert {"name": "STORAGE_URI", "value": "s3://b/m"} in spec["containers"][0]["env"]
    assert "initContainers" not in spec


def test_other_runtimes_get_an_init_container_that_fetches() -> None:
    spec = rendered(model(), runtime=other_runtime())
    init = spec["initContainers"][0]
    assert init["name"] == "storage-initializer"
    assert init["args"] == ["s3://b/m", "/mnt/models"]
    assert init["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True}
    ]
    assert spec["volumes"] == [{"name": "kserve-provision-location", "emptyDir": {}}]


def test_a_claim_is_mounted() -> None:
    spec = rendered(model(storageUri="pvc://models/iris/1"))
    assert spec["volumes"] == [{"name": "kserve-pvc-source", "persistentVolumeClaim": {"claimName": "models"}}]
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount == {"name": "kserve-pvc-source", "mountPath": "/mnt/models", "readOnly": True, "subPath": "iris/1"}


def test_a_claim_without_a_name_is_an_error_that_says_how_to_write_it() -> None:
    with pytest.raises(InvalidPredictorSpec, match="write pvc://CLAIM/PATH"):
        rendered(model(storageUri="pvc:///x"))


def test_an_address_relative_to_a_manifest_is_an_error_that_says_who_understands_it() -> None:
    with pytest.raises(InvalidPredictorSpec, match="apply it with these, or write file:///"):
        rendered(model(storageUri="./models/iris.skops"))


def test_several_sources_each_come_to_their_place() -> None:
    obj = isvc("x", storageUris=[{"uri": "s3://a"}, {"uri": "hf://b", "mountPath": "/mnt/tokens"}])
    del obj["spec"]["predictor"]["model"]["storageUri"]
    spec = rendered(obj)
    assert [c["args"] for c in spec["initContainers"]] == [["s3://a", "/mnt/models", "hf://b", "/mnt/tokens"]]
    mounts = [(mount["mountPath"], mount["readOnly"]) for mount in spec["containers"][0]["volumeMounts"]]
    assert mounts == [("/mnt/models", True), ("/mnt/tokens", True)]


def custom(**container: Any) -> dict[str, Any]:
    obj = isvc()
    obj["spec"]["predictor"] = {"containers": [{"image": "acme/server:1", **container}]}
    return obj


def test_a_custom_container_is_called_kserve_container_and_checked_by_tcp() -> None:
    container = rendered(custom(), runtime=None)["containers"][0]
    assert container["name"] == "kserve-container"
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]
    assert container["readinessProbe"]["tcpSocket"] == {"port": 8080}


def test_a_custom_container_that_asks_for_a_storage_uri_gets_the_files() -> None:
    spec = rendered(custom(env=[{"name": "STORAGE_URI", "value": "gs://m"}]), runtime=None)
    assert spec["initContainers"][0]["args"] == ["gs://m", "/mnt/models"]


def test_our_runtimes_are_checked_by_the_models_readiness() -> None:
    probe = rendered(model())["containers"][0]["readinessProbe"]
    assert probe["httpGet"] == {"path": "/v2/health/ready", "port": 8080}


def test_a_slow_load_is_not_killed_by_a_liveness_probe() -> None:
    container = rendered(model(livenessProbe={"httpGet": {"path": "/live", "port": 8080}}))["containers"][0]
    assert container["startupProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert container["startupProbe"]["failureThreshold"] == 3600


def test_a_pod_ends_after_the_gateway_has_moved_on_and_its_longest_request_is_answered() -> None:
    obj = isvc("v1", timeout=120)
    spec = rendered(obj)
    assert spec["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 2}}
    assert spec["terminationGracePeriodSeconds"] == 137
    assert rendered(isvc("v1", terminationGracePeriodSeconds=5))["terminationGracePeriodSeconds"] == 5


def test_a_transformer_calls_its_predictor_through_the_gateway_if_there_is_one() -> None:
    obj = isvc(transformer={"containers": [{"image": "t", "args": ["--model_name=other"]}]})
    args = rendered(obj, "transformer", Settings(gateway_address="gw.fairlead:8080"))["containers"][0]["args"]
    assert args == [
        "--model_name=other",
        "--predictor_host",
        "gw.fairlead:8080/serving/team/iris.predictor",
        "--http_port",
        "8080",
    ]


def test_an_explainer_gets_kserves_arguments_too() -> None:
    obj = isvc()
    obj["spec"]["explainer"] = {"containers": [{"image": "e"}]}
    args = rendered(obj, "explainer")["containers"][0]["args"]
    assert args == ["--model_name", "iris", "--predictor_host", "iris-predictor.team", "--http_port", "8080"]


@pytest.mark.parametrize(
    ("ports", "host"),
    [
        ([{"containerPort": 8081, "name": "h2c"}], "iris-predictor.team"),
        ([{"containerPort": 8080}], "iris-predictor.team:8081"),
        ([], "iris-predictor.team:8081"),
    ],
)
def test_a_transformer_that_speaks_grpc_calls_the_pods_because_a_grpc_address_has_no_path(
    ports: list[dict[str, Any]], host: str
) -> None:
    args = ["--predictor_protocol", "grpc-v2"]
    obj = custom(ports=ports)
    obj["spec"]["transformer"] = {"containers": [{"image": "t", "args": args}]}
    given = rendered(obj, "transformer", Settings(gateway_address="gw:80"))["containers"][0]["args"]
    assert given[given.index("--predictor_host") + 1] == host


def test_a_transformer_beside_the_model_faces_requests() -> None:
    obj = isvc(containers=[{"name": "transformer-container", "image": "t", "ports": [{"containerPort": 9000}]}])
    assert service_ports(rendered(obj)) == [{"name": "http", "port": 80, "targetPort": 9000, "protocol": "TCP"}]


def test_the_first_port_is_80_and_grpc_is_marked_and_keeps_its_number() -> None:
    assert service_ports(rendered(model())) == [
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "h2c", "port": 8081, "targetPort": 8081, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
    ]


def test_whoever_fetches_the_model_is_told_of_the_mirrors() -> None:
    mirrored = Settings(storage_mirrors="s3://b/ -> file:///mirror/")
    told = {"name": "FAIRLEAD_STORAGE_MIRRORS", "value": "s3://b/ -> file:///mirror/"}
    assert told in rendered(model(), settings=mirrored)["containers"][0]["env"]
    assert told in rendered(model(), settings=mirrored, runtime=other_runtime())["initContainers"][0]["env"]


def test_the_users_labels_and_annotations_are_the_pods_but_not_those_that_steer_the_service() -> None:
    obj = isvc(annotations={"acme.dev/x": "y", "serving.kserve.io/stop": "false", "fairlead.dev/stable-window": "9s"})
    obj["metadata"]["labels"] = {
        "serving.kserve.io/test": "mine",
        "kueue.x-k8s.io/queue-name": "gpus",
        "networking.kserve.io/visibility": "cluster-local",
    }
    obj["spec"]["predictor"] |= {
        "labels": {"a": "b"},
        "annotations": {
            "autoscaling.knative.dev/min-scale": "1",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
            "kubectl.kubernetes.io/restartedAt": "now",
        },
    }
    metadata = pod_template(source(obj), SETTINGS)["metadata"]
    assert metadata["labels"] == {"serving.kserve.io/test": "mine", "kueue.x-k8s.io/queue-name": "gpus", "a": "b"}
    assert metadata["annotations"] == {"acme.dev/x": "y", "kubectl.kubernetes.io/restartedAt": "now"}


def test_pickle_is_allowed_by_an_environment_variable() -> None:
    env = rendered(model(), allow_pickle=True)["containers"][0]["env"]
    assert {"name": "FAIRLEAD_ALLOW_PICKLE", "value": "true"} in env


def test_a_batcher_says_how_much_is_predicted_together_and_a_new_size_is_a_new_revision() -> None:
    def batched(**fields: int) -> dict[str, Any]:
        obj = model()
        obj["spec"]["predictor"]["batcher"] = fields
        return obj

    for fields, size in (({"maxBatchSize": 8, "maxLatency": 500}, "8"), ({}, "32")):
        env = rendered(batched(**fields))["containers"][0]["env"]
        assert {"name": "FAIRLEAD_MAX_BATCH_SIZE", "value": size} in env
    revisions = [
        digest(inputs(source(batched(**fields)), SETTINGS)) for fields in ({"maxBatchSize": 8}, {"maxBatchSize": 9}, {})
    ]
    assert len({*revisions, digest(inputs(source(model()), SETTINGS))}) == 4


LOGGER = {"url": "http://dumper/?a=$(B)", "metadataHeaders": ["X-Tenant"], "metadataAnnotations": ["a", "b", "c"]}


def logged(logger: dict[str, Any], **annotations: str) -> dict[str, Any]:
    obj = isvc(annotations=annotations)
    obj["spec"]["predictor"] |= {"logger": logger, "annotations": {"b": "2"}}
    return obj


def told_of_logger(obj: dict[str, Any], **more: Any) -> Any:
    env = {entry["name"]: entry.get("value") for entry in rendered(obj, **more)["containers"][0].get("env", [])}
    return json.loads(env["FAIRLEAD_LOGGER"].replace("$$", "$")) if "FAIRLEAD_LOGGER" in env else None


def test_a_logger_says_where_payloads_go_and_whose_they_are() -> None:
    assert told_of_logger(logged(LOGGER, a="1")) == {
        "url": "http://dumper/?a=$(B)",
        "mode": "all",
        "inferenceService": "iris",
        "namespace": "team",
        "component": "predictor",
        "metadataHeaders": ["X-Tenant"],
        "annotations": {"a": "1", "b": "2"},
    }
    assert told_of_logger(logged({**LOGGER, "mode": "request"}))["mode"] == "request"


def test_another_logger_is_another_revision_and_none_leaves_it_as_it_was() -> None:
    plain = isvc()
    plain["spec"]["predictor"]["annotations"] = {"b": "2"}
    objects = [logged(LOGGER), logged({**LOGGER, "mode": "response"}), plain]
    assert len({digest(inputs(source(obj), SETTINGS)) for obj in objects}) == 3
    same = [logged({"url": "s3://bucket"}), logged({}), plain]
    assert len({digest(inputs(source(obj), SETTINGS)) for obj in same}) == 1


def test_a_server_that_is_not_fairleads_is_told_of_no_logger_and_the_service_says_so() -> None:
    obj = logged(LOGGER)
    assert told_of_logger(obj, runtime=other_runtime()) is None
    (note,) = notes(InferenceService.parse(obj), [source(obj, runtime=other_runtime())])
    assert note.startswith("spec.predictor.logger: has no effect: Fairlead's model servers log payloads themselves")
    assert notes(InferenceService.parse(obj), [source(obj)]) == []


def test_templates_come_from_the_services_metadata() -> None:
    args = ["{{.Name}}", "{{ .Namespace }}", "{{.Labels.size}}", '{{ index .Annotations "acme.dev/x" }}']
    obj = isvc(annotations={"acme.dev/x": "y"})
    obj["metadata"]["labels"] = {"size": "big"}
    assert rendered(obj, runtime=other_runtime(args=args))["containers"][0]["args"] == ["iris", "team", "big", "y"]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ .Labels.gone }}", "needs label 'gone'"),
        ("{{ if .Name }}", "is not supported"),
        ("{{.Spec.x}}", "is not supported"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_named(template: str, says: str) -> None:
    with pytest.raises(InvalidPredictorSpec, match=says):
        rendered(model(), runtime=other_runtime(args=[template]))


# --- What makes a revision ------------------------------------------------------------------------------------------


def revision_of(obj: dict[str, Any], **more: Any) -> str:
    return digest(inputs(source(obj, **more), SETTINGS))


@pytest.mark.parametrize(
    "change",
    [
        {"minReplicas": 3},
        {"maxReplicas": 9},
        {"canaryTrafficPercent": 20},
        {"timeout": 9},
        {"containerConcurrency": 4},
        {"deploymentStrategy": {"type": "Recreate"}},
        {"scaleMetric": "cpu"},
        {"name": "b"},
        {
            "annotations_of_service": {
                "serving.kserve.io/enable-tag-routing": "true",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
            }
        },
    ],
)
def test_what_does_not_change_the_pods_makes_no_revision(change: dict[str, Any]) -> None:
    annotations = change.pop("annotations_of_service", None)
    assert revision_of(isvc("v1", annotations=annotations, **change)) == revision_of(isvc("v1"))


@pytest.mark.parametrize(
    "changed",
    [
        isvc("v2"),
        isvc("v1", nodeSelector={"gpu": "yes"}),
        isvc("v1", annotations={"acme.dev/x": "y"}),
        isvc("v1", labels={"a": "b"}),
    ],
)
def test_what_changes_the_pods_makes_a_revision(changed: dict[str, Any]) -> None:
    assert revision_of(changed) != revision_of(isvc("v1"))


def test_a_runtime_that_only_offers_more_formats_makes_no_revision() -> None:
    wider = {**RUNTIME, "spec": {**RUNTIME["spec"], "supportedModelFormats": [{"name": "onnx"}]}}
    assert revision_of(isvc("v1"), runtime=wider) == revision_of(isvc("v1"))
