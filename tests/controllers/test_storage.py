"""How models get into pods: who fetches them, with which credentials, and what of it makes a revision."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.controllers.harness import KEY, RUNTIME, Harness, isvc

from fairlead.api.inferenceservice import InferenceService
from fairlead.api.servingruntime import ClusterServingRuntime
from fairlead.api.storagecontainer import ClusterStorageContainer
from fairlead.controllers.inferenceservice.credentials import (
    CredentialConfig,
    Credentials,
    SecretReference,
    s3_environment,
    secret_names,
)
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec
from fairlead.controllers.inferenceservice.pods import digest, inputs, pod_template
from fairlead.controllers.inferenceservice.podsource import PodSource, Surroundings
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.kube.errors import ApiError, BadRequest, Forbidden, Invalid
from fairlead.kube.objects import Key
from fairlead.kube.resources import (
    CLUSTER_STORAGE_CONTAINERS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Resource,
)

MINIO = {"S3_ENDPOINT": "minio:9000", "AWS_ENDPOINT_URL": "http://minio:9000"}
ACCOUNT = Surroundings(accounts={"default": Credentials((SecretReference("minio", MINIO), SecretReference("hub")))})


def service(
    uri: str | None = "s3://b/m", *, annotations: dict[str, str] | None = None, **predictor: Any
) -> dict[str, Any]:
    obj = isvc(uri or "", annotations=annotations, **predictor)
    if uri is None:
        del obj["spec"]["predictor"]["model"]["storageUri"]
    return obj


def source(obj: dict[str, Any], surroundings: Surroundings, *, ours: bool = True) -> PodSource:
    runtime = RUNTIME if ours else {**RUNTIME, "metadata": {"name": "other"}}
    parsed = InferenceService.parse(obj)
    return PodSource(
        parsed, "predictor", parsed.spec.predictor, ClusterServingRuntime.parse(runtime), surroundings=surroundings
    )


def pod(
    obj: dict[str, Any],
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - frozen
    *,
    ours: bool = True,
    **settings: Any,
) -> dict[str, Any]:
    spec: dict[str, Any] = pod_template(source(obj, surroundings, ours=ours), Settings(**settings))["spec"]
    return spec


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def storage_container(name: str = "acme", prefix: str = "s3://", **more: Any) -> ClusterStorageContainer:
    spec = {
        "container": {"name": "storage-initializer", "image": "acme/fetch:1"},
        "supportedUriFormats": [{"prefix": prefix}, {"regex": "https://(.+?).example.com/(.+)"}],
        **more,
    }
    return ClusterStorageContainer.parse(
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterStorageContainer",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


# --- Credentials ------------------------------------------------------------------------------------------------------


def test_our_server_gets_references_to_the_accounts_secrets_under_a_prefix_of_their_own() -> None:
    container = pod(service(), ACCOUNT)["containers"][0]
    assert container["envFrom"] == [
        {"prefix": "FAIRLEAD_FETCH_0_", "secretRef": {"name": "minio", "optional": True}},
        {"prefix": "FAIRLEAD_FETCH_1_", "secretRef": {"name": "hub", "optional": True}},
    ]
    assert env(container)["FAIRLEAD_FETCH_0_AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert "AWS_ENDPOINT_URL" not in env(container)


def test_only_the_init_container_of_another_server_gets_them() -> None:
    spec = pod(service(), ACCOUNT, ours=False)
    assert spec["initContainers"][0]["envFrom"][0]["secretRef"]["name"] == "minio"
    assert "envFrom" not in spec["containers"][0]


@pytest.mark.parametrize("uri", ["pvc://models/iris", "file:///models/iris", "/models/iris"])
def test_what_is_mounted_needs_none(uri: str) -> None:
    assert "envFrom" not in pod(service(uri), ACCOUNT)["containers"][0]
    assert "storage" not in inputs(source(service(uri), ACCOUNT), Settings())


def test_another_accounts_secrets_are_not_given() -> None:
    assert "envFrom" not in pod(service(serviceAccountName="other"), ACCOUNT)["containers"][0]


def test_a_service_may_name_its_secret_itself() -> None:
    account = {"secrets": [{"name": "a"}, {"name": "b"}]}
    assert secret_names(account, {}, CredentialConfig()) == ["a", "b"]
    assert secret_names(account, {"serving.kserve.io/storageSecretName": "mine"}, CredentialConfig()) == ["mine"]
    assert secret_names(None, {}, CredentialConfig()) == []


def test_the_secrets_annotations_say_where_s3_is_and_the_configuration_where_they_do_not() -> None:
    config = CredentialConfig.parse(
        json.dumps({"s3": {"s3Endpoint": "s3.example.com", "s3Region": "eu", "s3CABundle": ""}})
    )
    assert s3_environment({}, config) == {
        "S3_ENDPOINT": "s3.example.com",
        "AWS_ENDPOINT_URL": "https://s3.example.com",
        "AWS_DEFAULT_REGION": "eu",
    }
    annotations = {
        f"serving.kserve.io/{key}": value
        for key, value in {
            "s3-endpoint": "minio:9000",
            "s3-usehttps": "0",
            "s3-region": "us-east-2",
            "s3-verifyssl": "0",
            "s3-useanoncredential": "true",
            "s3-cabundle": "/certs/ca.crt",
        }.items()
    }
    assert s3_environment(annotations, config) == {
        "S3_ENDPOINT": "minio:9000",
        "S3_USE_HTTPS": "0",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "S3_VERIFY_SSL": "0",
        "awsAnonymousCredential": "true",
        "AWS_DEFAULT_REGION": "us-east-2",
        "AWS_CA_BUNDLE": "/certs/ca.crt",
    }


def test_names_of_keys_that_an_installation_chose_are_told_to_the_fetcher() -> None:
    config = CredentialConfig.parse(
        json.dumps({"s3": {"s3SecretAccessKeyName": "secret"}, "gcs": {"gcsCredentialFileName": "g.json"}})
    )
    surroundings = Surroundings(accounts={"default": Credentials((SecretReference("keys"),), config=config)})
    told = json.loads(env(pod(service(), surroundings)["containers"][0])["FAIRLEAD_FETCH_KEY_NAMES"])
    assert told == {"s3SecretAccessKeyName": "secret", "gcsCredentialFileName": "g.json"}


@pytest.mark.parametrize("text", ["{", "[]", '{"s3": 3}'])
def test_a_configuration_that_is_not_one_counts_for_nothing(text: str) -> None:
    assert CredentialConfig.parse(text) == CredentialConfig()


def test_certificates_from_a_config_map_are_mounted_where_the_fetcher_looks() -> None:
    s3 = {"AWS_CA_BUNDLE": "/certs/ca.crt", "AWS_CA_BUNDLE_CONFIGMAP": "our-ca"}
    surroundings = Surroundings(accounts={"default": Credentials((SecretReference("minio", s3),))})
    spec = pod(service(), surroundings)
    assert {"name": "cabundle-cert", "configMap": {"name": "our-ca"}} in spec["volumes"]
    assert {"name": "cabundle-cert", "mountPath": "/certs", "readOnly": True} in spec["containers"][0]["volumeMounts"]


def test_a_cloud_identitys_account_says_where_s3_is() -> None:
    surroundings = Surroundings(accounts={"default": Credentials(s3={"AWS_DEFAULT_REGION": "eu-west-1"})})
    assert env(pod(service(), surroundings)["containers"][0])["FAIRLEAD_FETCH_AWS_DEFAULT_REGION"] == "eu-west-1"


# --- storage.key ------------------------------------------------------------------------------------------------------


def with_storage(**storage: Any) -> dict[str, Any]:
    obj = service(None)
    obj["spec"]["predictor"]["model"]["storage"] = storage
    return obj


def test_storage_key_is_an_entry_of_the_storage_secret_and_comes_instead_of_the_accounts_secrets() -> None:
    container = pod(with_storage(key="minio", path="/iris", parameters={"bucket": "models"}), ACCOUNT)["containers"][0]
    assert env(container) == {
        "STORAGE_URI": "<scheme-placeholder>://iris",
        "FAIRLEAD_FETCH_STORAGE_CONFIG": {
            "secretKeyRef": {"name": "storage-config", "key": "minio", "optional": False}
        },
        "FAIRLEAD_FETCH_STORAGE_OVERRIDE_CONFIG": '{"bucket": "models"}',
    }
    assert "envFrom" not in container


@pytest.mark.parametrize(("parameters", "key"), [(None, "default"), ({"type": "s3"}, "default_s3")])
def test_without_a_key_it_is_the_default_entry_which_need_not_be_there(parameters: Any, key: str) -> None:
    storage = {"path": "iris", **({"parameters": parameters} if parameters else {})}
    reference = env(pod(with_storage(**storage))["containers"][0])["FAIRLEAD_FETCH_STORAGE_CONFIG"]["secretKeyRef"]
    assert reference == {"name": "storage-config", "key": key, "optional": True}


def test_a_bucket_in_the_parameters_makes_the_address_whole() -> None:
    container = pod(with_storage(path="iris", parameters={"type": "s3", "bucket": "models"}))["containers"][0]
    assert env(container)["STORAGE_URI"] == "s3://models/iris"


def test_a_type_of_storage_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidPredictorSpec, match="type 'hdfs' is not supported; s3, gs, azure, hf are"):
        pod(with_storage(path="iris", parameters={"type": "hdfs"}))


# --- Who fetches ------------------------------------------------------------------------------------------------------


def test_what_our_server_has_fetched_outlives_its_container() -> None:
    spec = pod(service())
    assert {"name": "kserve-provision-location", "emptyDir": {}} in spec["volumes"]
    assert spec["containers"][0]["volumeMounts"] == [{"name": "kserve-provision-location", "mountPath": "/mnt/models"}]


def test_a_storage_container_for_the_address_fetches_also_for_our_server() -> None:
    surroundings = Surroundings(ACCOUNT.accounts, containers=[storage_container()])
    spec = pod(service(), surroundings)
    init = spec["initContainers"][0]
    assert (init["name"], init["image"], init["args"]) == (
        "storage-initializer",
        "acme/fetch:1",
        ["s3://b/m", "/mnt/models"],
    )
    assert "command" not in init
    assert init["envFrom"] == [{"secretRef": {"name": name, "optional": True}} for name in ("minio", "hub")]
    assert env(init)["AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert env(init)["GOOGLE_APPLICATION_CREDENTIALS"] == "/var/secrets/gcloud-application-credentials.json"
    assert "STORAGE_URI" not in env(spec["containers"][0])
    assert spec["containers"][0]["volumeMounts"][0]["readOnly"]


@pytest.mark.parametrize(
    "container",
    [
        storage_container(prefix="gs://"),
        storage_container(workloadType="localModelDownloadJob"),
        storage_container().model_copy(update={"disabled": True}),
        storage_container(supportedUriFormats=[{"regex": "("}]),
    ],
    ids=["other addresses", "other work", "disabled", "no regular expression"],
)
def test_a_storage_container_for_something_else_is_passed_over(container: ClusterStorageContainer) -> None:
    assert "initContainers" not in pod(service(), Surroundings(containers=[container]))


def test_a_storage_container_may_be_named() -> None:
    containers = [storage_container("a"), storage_container("b", container={"image": "acme/b:1", "args": ["--all"]})]
    init = pod(service(storageContainerName="b"), Surroundings(containers=containers))["initContainers"][0]
    assert (init["image"], init["args"]) == ("acme/b:1", ["--all"])
    with pytest.raises(
        InvalidPredictorSpec, match="there is no ClusterStorageContainer 'c' for init containers; there: a, b"
    ):
        pod(service(storageContainerName="c"), Surroundings(containers=containers))
    with pytest.raises(InvalidPredictorSpec, match="'a' is not for addresses such as 'gs://b/m'"):
        pod(service("gs://b/m", storageContainerName="a"), Surroundings(containers=containers))


def test_an_image_is_mounted_where_the_cluster_can_and_fetched_where_it_cannot() -> None:
    spec = pod(service("oci://registry/iris:1"), image_volumes=True)
    assert spec["volumes"] == [
        {"name": "kserve-image-source", "image": {"reference": "registry/iris:1", "pullPolicy": "IfNotPresent"}}
    ]
    mount = {"name": "kserve-image-source", "mountPath": "/mnt/models", "subPath": "models", "readOnly": True}
    assert spec["containers"][0]["volumeMounts"] == [mount]
    pulled = pod(service("oci://registry/iris:1"), Surroundings(pull_secrets={"default": ("registry",)}))["containers"][
        0
    ]
    assert env(pulled)["STORAGE_URI"] == "oci://registry/iris:1"
    assert pulled["envFrom"] == [{"prefix": "FAIRLEAD_FETCH_0_", "secretRef": {"name": "registry", "optional": True}}]


def test_a_service_may_ask_for_the_init_container() -> None:
    obj = service(annotations={"fairlead.dev/storage": "init"})
    spec = pod(obj, ACCOUNT)
    assert spec["initContainers"][0]["command"] == ["python", "-m", "fairlead.runtime.storage"]
    assert "envFrom" not in spec["containers"][0]
    assert spec["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert digest(inputs(source(obj, ACCOUNT), Settings())) != digest(inputs(source(service(), ACCOUNT), Settings()))


def test_a_service_may_ask_to_write_where_its_model_lies() -> None:
    obj = service("pvc://models/iris", annotations={"storage.kserve.io/readonly": "false"})
    assert pod(obj)["containers"][0]["volumeMounts"][0]["readOnly"] is False


def test_a_custom_container_that_asked_by_address_is_told_the_directory() -> None:
    obj = isvc()
    obj["spec"]["predictor"] = {"containers": [{"image": "x", "env": [{"name": "STORAGE_URI", "value": "gs://m"}]}]}
    parsed = InferenceService.parse(obj)
    spec = pod_template(PodSource(parsed, "predictor", parsed.spec.predictor), Settings())["spec"]
    assert spec["initContainers"][0]["args"] == ["gs://m", "/mnt/models"]
    assert env(spec["containers"][0])["STORAGE_URI"] == "/mnt/models"


@pytest.mark.parametrize(
    ("setting", "volume", "sub_path"),
    [
        ("hostPath:/var/lib/models", {"hostPath": {"path": "/var/lib/models"}}, "team"),
        ("claim:models", {"persistentVolumeClaim": {"claimName": "models"}}, None),
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_fetched_models_may_stay_on_the_node_for_the_pods_after(
    ours: bool, setting: str, volume: dict[str, Any], sub_path: str | None
) -> None:
    spec = pod(service(), ours=ours, model_cache=setting, model_cache_limit="20Gi")
    fetcher = spec["containers" if ours else "initContainers"][0]
    assert {"name": "fairlead-model-cache", **volume} in spec["volumes"]
    mount = next(mount for mount in fetcher["volumeMounts"] if mount["name"] == "fairlead-model-cache")
    assert mount.get("subPath") == sub_path
    assert env(fetcher)["FAIRLEAD_MODEL_CACHE"] == mount["mountPath"]
    assert env(fetcher)["FAIRLEAD_MODEL_CACHE_LIMIT"] == "20Gi"


# --- The controller ---------------------------------------------------------------------------------------------------


def put_account(harness: Harness, *secrets: str, name: str = "default") -> None:
    entries = [{"name": secret} for secret in secrets]
    harness.api.put(SERVICE_ACCOUNTS, {"metadata": {"name": name, "namespace": KEY.namespace}, "secrets": entries})


def put_secret(harness: Harness, name: str, **annotations: str) -> None:
    told = {f"serving.kserve.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    harness.api.put(SECRETS, {"metadata": {"name": name, "namespace": KEY.namespace, "annotations": told}})


def served(harness: Harness) -> dict[str, Any]:
    deployment = harness.api.objects[DEPLOYMENTS, Key(KEY.namespace, "iris-predictor")]
    container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


async def test_a_secret_that_the_account_names_later_makes_a_revision_and_another_one_does_not() -> None:
    harness = Harness()
    harness.apply(isvc("s3://b/m"))
    await harness.settle()
    first = harness.predictor["latestReadyRevision"]
    put_account(harness, "minio", name="other")
    await harness.settle()
    assert harness.predictor["latestReadyRevision"] == first
    put_secret(harness, "minio", s3_endpoint="minio:9000", s3_usehttps="0")
    put_account(harness, "minio")
    await harness.settle()
    assert harness.predictor["latestReadyRevision"] != first
    assert env(served(harness))["FAIRLEAD_FETCH_0_AWS_ENDPOINT_URL"] == "http://minio:9000"


async def test_a_secrets_annotations_are_read_once_in_a_while_and_only_where_an_account_names_it() -> None:
    harness = Harness()
    harness.apply(isvc("s3://b/m"))
    await harness.settle()
    assert harness.api.metadata_read == 0
    put_secret(harness, "minio")
    put_account(harness, "minio")
    await harness.settle()
    asked = harness.api.metadata_read
    await harness.once()
    assert harness.api.metadata_read == asked == 1
    harness.seconds += 60
    await harness.once()
    assert harness.api.metadata_read == 2


async def test_a_secret_that_is_not_there_keeps_nobody_from_trying() -> None:
    harness = Harness()
    put_account(harness, "gone")
    harness.apply(isvc("s3://b/m"))
    await harness.settle()
    assert served(harness)["envFrom"][0]["secretRef"] == {"name": "gone", "optional": True}


async def test_the_configuration_and_storage_containers_are_taken_as_they_come() -> None:
    harness = Harness()
    put_secret(harness, "minio")
    put_account(harness, "minio")
    credentials = json.dumps({"s3": {"s3Endpoint": "s3.example.com"}})
    metadata = {"name": "inferenceservice-config", "namespace": "kserve"}
    harness.api.put(CONFIG_MAPS, {"metadata": metadata, "data": {"credentials": credentials}})
    harness.apply(isvc("s3://b/m"))
    await harness.settle()
    assert env(served(harness))["FAIRLEAD_FETCH_0_S3_ENDPOINT"] == "s3.example.com"
    harness.api.put(CLUSTER_STORAGE_CONTAINERS, storage_container().to_dict())
    await harness.settle()
    assert "envFrom" not in served(harness)


async def test_a_storage_container_that_is_named_and_not_there_is_an_invalid_spec() -> None:
    harness = Harness()
    harness.apply(isvc("s3://b/m", storageContainerName="acme"))
    await harness.once()
    failure = harness.status["modelStatus"]["lastFailureInfo"]
    assert failure["reason"] == "InvalidPredictorSpec"
    assert "there is no ClusterStorageContainer 'acme'" in failure["message"]


@pytest.mark.parametrize(
    "error",
    [
        Invalid(422, "Invalid", "spec.template.spec.volumes[0]: Required value: must specify a volume type"),
        Forbidden(403, "Forbidden", "admission webhook 'validation.gatekeeper.sh' denied the request: no team label"),
        BadRequest(400, "BadRequest", "admission webhook 'validate.kyverno.svc' denied the request: no team label"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_api_server_refuses_is_told_in_status_with_its_words_and_tried_again(error: ApiError) -> None:
    harness = Harness(Settings(image_volumes=True))
    apply, refuses = harness.api.apply, True

    async def refusing(resource: Resource, obj: Any, **options: Any) -> Any:
        if resource == DEPLOYMENTS and refuses:
            raise error
        return await apply(resource, obj, **options)

    harness.api.apply = refusing  # type: ignore[method-assign]
    harness.apply(isvc("oci://registry/iris:1"))
    for _ in range(2):
        with pytest.raises(type(error)):
            await harness.once()
        failure = harness.status["modelStatus"]["lastFailureInfo"]
        assert failure["reason"] == "InvalidPredictorSpec"
        assert error.message in failure["message"]
    assert ("Warning", "ReconcileFailed") in [event[:2] for event in harness.events.emitted]
    refuses = False
    await harness.settle()
    assert harness.status["modelStatus"]["transitionStatus"] == "UpToDate"


async def test_an_error_that_is_our_own_is_told_in_an_event() -> None:
    harness = Harness()
    harness.apply(isvc())

    async def failing(resource: Resource, obj: Any, **options: Any) -> Any:
        raise KeyError("serviceName")

    harness.api.apply = failing  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        await harness.once()
    assert ("Warning", "ReconcileFailed") in [event[:2] for event in harness.events.emitted]
