"""A container's spec as a command line, an environment and directories."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.kube.objects import Object
from fairlead.local.node.environment import ContainerConfigError, Sources, environment, expand
from fairlead.local.node.pod_process import Command, NeedsCluster, command, is_our_runtime, rewritten
from fairlead.local.node.volumes import Volume, mounts, volumes

POD: Object = {
    "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "a"}, "annotations": {"x/y": "z"}},
    "spec": {"serviceAccountName": "robot", "volumes": []},
}
DIRECTORY = Path("/d")
SOURCES = Sources(
    {"m": {"data": {"KEY": "value"}, "binaryData": {"bin": base64.b64encode(b"\x01").decode()}}},
    {"s": {"data": {"TOKEN": base64.b64encode(b"secret").decode()}}},
)


def env_of(*variables: Object, **container: Any) -> dict[str, str]:
    return environment(POD, {"name": "c", "env": list(variables), **container}, SOURCES, "127.64.0.9", "laptop")


def command_of(mounted: dict[str, Path] | None = None, **container: Any) -> Command:
    return command({"name": "c", **container}, {"NAME": "iris"}, mounted or {}, DIRECTORY, "/venv/python")


def test_the_node_tells_a_container_where_to_listen_and_who_it_is() -> None:
    found = env_of(ports=[{"containerPort": 9000}, {"containerPort": 9001}])
    assert found["HOST"] == found["POD_IP"] == "127.64.0.9"
    assert (found["PORT"], found["POD_NAME"], found["POD_NAMESPACE"]) == ("9000", "p", "ns")


def test_a_manifest_may_set_its_own_host() -> None:
    assert env_of({"name": "HOST", "value": "0.0.0.0"})["HOST"] == "0.0.0.0"


def test_variables_may_refer_to_earlier_ones() -> None:
    found = env_of(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2$(LATER)$$(A)"}, {"name": "LATER", "value": "3"}
    )
    assert found["B"] == "12$(LATER)$(A)"


@given(st.text(alphabet="ab$()", max_size=20))
def test_text_without_a_known_reference_changes_only_in_doubled_dollars(text: str) -> None:
    assert expand(text, {}) == text.replace("$$", "$") or "$(" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"), ("metadata.uid", "u"), ("metadata.labels['app']", "a"), ("metadata.annotations['x/y']", "z"),
        ("status.podIP", "127.64.0.9"), ("spec.nodeName", "laptop"), ("spec.serviceAccountName", "robot"),
    ],
)  # fmt: skip
def test_the_downward_api(path: str, value: str) -> None:
    assert env_of({"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}})["V"] == value


def test_resources_are_given_in_units_of_the_divisor_rounded_up() -> None:
    reference = {"resource": "limits.memory", "divisor": "1Mi"}
    assert (
        env_of({"name": "V", "valueFrom": {"resourceFieldRef": reference}}, resources={"limits": {"memory": "1500Ki"}})[
            "V"
        ]
        == "2"
    )


def test_config_maps_and_secrets_by_key_and_as_a_whole() -> None:
    found = env_of(
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "KEY"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "TOKEN"}}},
        {"name": "C", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}},
        envFrom=[{"configMapRef": {"name": "m"}, "prefix": "M_"}, {"secretRef": {"name": "none", "optional": True}}],
    )
    assert (found["A"], found["B"], found["M_KEY"]) == ("value", "secret", "value")
    assert "C" not in found


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ({"valueFrom": {"configMapKeyRef": {"name": "m", "key": "x"}}}, 'ConfigMap "m" has no key "x"'),
        ({"valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}, 'Secret "none" not found'),
        ({"valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}}, "spec.hostname"),
        ({"valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}, "limits.gpu"),
        ({"valueFrom": {}}, "no known source"),
    ],
)
def test_what_is_missing_is_named(variable: Object, words: str) -> None:
    with pytest.raises(ContainerConfigError, match=words):
        env_of({"name": "V", **variable})


@pytest.mark.parametrize(
    ("image", "ours"),
    [
        ("fairlead/runtime-core:0.1.0", True), ("ghcr.io/acme/fairlead/runtime@sha256:00", True), ("fairlead/runtime", True),
        ("localhost:5000/fairlead/runtime-torch:1", True), ("fairlead/console", False), ("notfairlead/runtime", False),
        ("fairlead/runtime/other", False), ("kserve/sklearnserver:v0.20", False),
    ],
)  # fmt: skip
def test_our_runtimes_are_known_by_their_image_whatever_registry_is_before_it(image: str, ours: bool) -> None:
    assert is_our_runtime(image) is ours


def test_our_runtime_is_the_model_server_of_the_nodes_own_python() -> None:
    built = command_of(image="fairlead/runtime-core:1", args=["--model_name=$(NAME)"])
    assert built.argv == ["/venv/python", "-m", "fairlead.runtime", "--model_dir=/mnt/models", "--model_name=iris"]


def test_a_command_wins_over_the_image() -> None:
    assert command_of(image="fairlead/runtime-core:1", command=["serve"], args=["x"]).argv == ["serve", "x"]


def test_an_image_without_a_command_needs_a_cluster() -> None:
    with pytest.raises(NeedsCluster, match="kserve/sklearnserver"):
        command_of(image="kserve/sklearnserver", args=["--x"])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/mnt/models", "/v/m"), ("/mnt/models/x.onnx", "/v/m/x.onnx"), ("--dir=/mnt/models", "--dir=/v/m"),
        ("file:///mnt/models/x", "file:///v/m/x"), ("/mnt/models-2", "/mnt/models-2"), ("/mnt/models/deep/x", "/v/deep/x"),
        ("see /mnt/models", "see /mnt/models"), ("s3://mnt/models", "s3://mnt/models"), ("--x", "--x"),
    ],
)  # fmt: skip
def test_mount_paths_at_the_start_of_a_word_become_directories(word: str, expected: str) -> None:
    assert rewritten(word, {"/mnt/models": Path("/v/m"), "/mnt/models/deep/": Path("/v/deep")}) == expected


def test_environment_and_working_directory_are_rewritten_too() -> None:
    built = command(
        {"name": "c", "command": ["x"], "workingDir": "/w/a"},
        {"CACHE": "/w/c"},
        {"/w": Path("/v")},
        DIRECTORY,
        "python",
    )
    assert (built.directory, built.environment["CACHE"]) == (Path("/v/a"), "/v/c")


def test_a_cpu_limit_bounds_threads_unless_the_manifest_does() -> None:
    limits = {"limits": {"cpu": "1500m", "memory": "1Gi"}}
    built = command(
        {"name": "c", "command": ["x"], "resources": limits}, {"MKL_NUM_THREADS": "7"}, {}, DIRECTORY, "python"
    )
    assert (built.environment["OMP_NUM_THREADS"], built.environment["MKL_NUM_THREADS"]) == ("2", "7")
    assert built.memory_limit == 2**30


def planned(*items: Object) -> dict[str, Any]:
    return dict(volumes({**POD, "spec": {"volumes": list(items)}}, DIRECTORY, Path("/claims"), SOURCES))


def test_volumes_are_directories() -> None:
    found = planned(
        {"name": "e", "emptyDir": {}},
        {"name": "h", "hostPath": {"path": "/data"}},
        {"name": "p", "persistentVolumeClaim": {"claimName": "models"}},
    )
    assert [volume.path for volume in found.values()] == [
        Path("/d/volumes/e"),
        Path("/data"),
        Path("/claims/ns/models"),
    ]


def test_config_maps_and_secrets_become_files() -> None:
    found = planned(
        {"name": "m", "configMap": {"name": "m"}},
        {"name": "s", "secret": {"secretName": "s", "items": [{"key": "TOKEN", "path": "deep/token"}]}},
        {"name": "j", "projected": {"sources": [{"configMap": {"name": "m"}}, {"secret": {"name": "s"}}]}},
    )
    assert found["m"].files == {"KEY": b"value", "bin": b"\x01"}
    assert (found["s"].files, found["s"].mode) == ({"deep/token": b"secret"}, 0o600)
    assert found["j"].files.keys() == {"KEY", "bin", "TOKEN"}


@pytest.mark.parametrize(
    ("volume", "error", "words"),
    [
        ({"csi": {"driver": "x"}}, NeedsCluster, "csi"),
        ({"projected": {"sources": [{"serviceAccountToken": {}}]}}, NeedsCluster, "serviceAccountToken"),
        ({"configMap": {"name": "none"}}, ContainerConfigError, 'ConfigMap "none" not found'),
        ({"secret": {"secretName": "s", "items": [{"key": "x", "path": "x"}]}}, ContainerConfigError, 'no key "x"'),
    ],
)
def test_a_volume_that_cannot_be_made_is_named(volume: Object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        planned({"name": "v", **volume})


def test_mounts_lead_to_their_volumes_and_our_runtimes_have_a_place_for_the_model() -> None:
    made = planned({"name": "e", "emptyDir": {}})
    container = {
        "name": "c",
        "image": "fairlead/runtime-core:1",
        "volumeMounts": [{"name": "e", "mountPath": "/x", "subPath": "y"}],
    }
    assert mounts(container, made, DIRECTORY) == {
        "/mnt/models": Path("/d/image/c/mnt/models"),
        "/x": Path("/d/volumes/e/y"),
    }
    container["volumeMounts"] = [{"name": "e", "mountPath": "/mnt/models"}]
    assert mounts(container, made, DIRECTORY) == {"/mnt/models": Path("/d/volumes/e")}


def test_scratch_directories_are_the_machines() -> None:
    container = {
        "name": "c",
        "volumeMounts": [{"name": "scratch", "mountPath": path} for path in ("/tmp", "/dev/shm", "/mnt/x")],
    }
    assert mounts(container, {"scratch": Volume(Path("/pods/1/volumes/scratch"))}, Path("/pods/1")) == {
        "/mnt/x": Path("/pods/1/volumes/scratch")
    }


def test_a_mount_of_no_volume_is_an_error() -> None:
    with pytest.raises(ContainerConfigError, match="none"):
        mounts({"name": "c", "volumeMounts": [{"name": "none", "mountPath": "/x"}]}, {}, DIRECTORY)
