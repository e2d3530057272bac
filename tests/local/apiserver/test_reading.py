"""Selectors, JSONPath, tables, ages, logs, protobuf and discovery: how objects are found and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.local.apiserver import discovery
from fairlead.local.apiserver.bodies import parse, patch_form, wanted_form
from fairlead.local.apiserver.durations import duration
from fairlead.local.apiserver.errors import StatusError
from fairlead.local.apiserver.jsonpath import compile_path
from fairlead.local.apiserver.kinds import BUILTIN as KINDS
from fairlead.local.apiserver.openapi import OpenApi
from fairlead.local.apiserver.podlogs import LogOptions, log_file, tail_offset
from fairlead.local.apiserver.protobuf import decode_object
from fairlead.local.apiserver.selectors import parse_fields, parse_labels
from fairlead.local.apiserver.tables import table


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b,c!=d", {"a": "b"}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("n>5", {"n": "6"}, True),
        ("n<5", {"n": "6"}, False),
        ("x.dev/a-b_c=1", {"x.dev/a-b_c": "1"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_label_selectors_select_as_kubernetes_does(selector: str, labels: dict[str, str], selected: bool) -> None:
    parsed = parse_labels(selector)
    assert parsed is not None
    assert parsed.matches(labels) is selected


@pytest.mark.parametrize("selector", ["a in b", "=b", "a=b,,", "a?b", "a in (b"])
def test_a_selector_that_cannot_be_read_is_quoted_in_the_error(selector: str) -> None:
    with pytest.raises(StatusError, match="unable to parse requirement"):
        parse_labels(selector)


def test_field_selectors_compare_and_empty_ones_select_everything() -> None:
    parsed = parse_fields("metadata.name=x,status.phase!=Failed")
    assert parsed is not None
    assert parsed.matches({"metadata.name": "x", "status.phase": "Running"}.__getitem__)
    assert not parsed.matches({"metadata.name": "x", "status.phase": "Failed"}.__getitem__)
    assert (parse_fields(""), parse_labels("")) == (None, None)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".a.b", [1]),
        (".l[0].n", ["x"]),
        (".l[-1].n", ["y"]),
        (".l[*].n", ["x", "y"]),
        (".l[?(@.n=='y')].p", [2]),
        (".l[?(@.t==true)].n", ["x"]),
        (".l[?(@.p>1)].n", ["y"]),
        (".l[?(@.t)].n", ["x"]),
        (r".d\.e/f", [3]),
        (".d['g h']", []),
        ("{.a.b}", [1]),
        (".nope.b", []),
    ],
)
def test_jsonpaths_find_what_columns_ask_for(path: str, values: list[Any]) -> None:
    obj = {"a": {"b": 1}, "l": [{"n": "x", "p": 1, "t": True}, {"n": "y", "p": 2}], "d.e/f": 3, "d": {}}
    assert compile_path(path)(obj) == values


def test_a_jsonpath_that_is_not_understood_says_where() -> None:
    with pytest.raises(ValueError, match=r"not understood at"):
        compile_path(".a[?bad]")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"), (10_799, "179m"), (10_800, "3h"), (12_000, "3h20m"),
     (86_400, "24h"), (172_800, "2d"), (200_000, "2d7h"), (864_000, "10d"), (63_072_000, "2y"), (-5, "<invalid>")],
)  # fmt: skip
def test_ages_are_printed_as_kubectl_prints_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def cells(cluster: Any, kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    made = table(cluster.kind(kind), [obj], cluster.now, version="1")
    names = [column["name"] for column in made["columnDefinitions"]]
    return dict(zip(names, made["rows"][0]["cells"], strict=True))


def test_every_kind_has_a_row_even_with_nothing_but_a_name(cluster: Any) -> None:
    for kind in KINDS:
        obj = {"metadata": {"name": "x"}, "spec": {}, "status": {}}
        made = table(kind, [obj], cluster.now, version="1")
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"])
        assert "x" in made["rows"][0]["cells"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Running", "containerStatuses": [{"ready": True, "state": {"running": {}}}]}, "Running"),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "ContainerCreating",
        ),
        (
            {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "CrashLoopBackOff",
        ),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}, "ExitCode:3"),
        ({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}, "Init:0/1"),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
            },
            "Init:Error",
        ),
    ],
)
def test_a_pods_status_is_what_hinders_it_most(cluster: Any, status: dict[str, Any], text: str) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{}], "initContainers": [{}]}, "status": status}
    assert cells(cluster, "Pod", pod)["Status"] == text
    assert (
        cells(cluster, "Pod", {**pod, "metadata": {"name": "p", "deletionTimestamp": "x"}})["Status"] == "Terminating"
    )


def test_a_custom_column_filters_a_list_and_a_missing_value_is_empty(cluster: Any) -> None:
    widget = {"metadata": {"name": "w"}, "spec": {"size": 3}, "status": {"traffic": [{"tag": "prev", "percent": 20}]}}
    shown = cells(cluster, "Widget", widget)
    assert (shown["Size"], shown["Prev"], shown["Mode"], shown["Age"]) == (3, 20, None, "<unknown>")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tail")


@given(
    lines=st.lists(st.sampled_from(["", "a", "bb", "c" * 300]), max_size=30),
    count=st.integers(0, 35),
    ended=st.booleans(),
)
def test_a_tail_is_the_last_lines_of_the_file(scratch: Path, lines: list[str], count: int, ended: bool) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    path = scratch / "log"
    path.write_text(text)
    expected = text.splitlines(keepends=True)
    assert path.read_text()[tail_offset(path, count) :] == "".join(
        expected[len(expected) - min(count, len(expected)) :]
    )


def test_a_log_needs_a_container_that_exists_and_a_previous_run_that_was(tmp_path: Path) -> None:
    pod = {"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    for options, why in (
        (LogOptions(), "a container name must be specified for pod p"),
        (LogOptions("c"), "container c is not valid for pod p"),
        (LogOptions("a", previous=True), 'previous terminated container "a" in pod "p" not found'),
        (LogOptions("a"), "waiting to start: ContainerCreating"),
    ):
        with pytest.raises(StatusError, match=why):
            log_file(tmp_path, pod, options)


def test_protobuf_bodies_become_the_json_that_they_stand_for() -> None:
    meta = b"\x0a\x04name"  # ObjectMeta.name
    entry = b"\x0a\x01a\x12\x01b"  # data["a"] = "b"
    config_map = b"\x0a" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(entry)]) + entry
    type_meta = b"\x0a\x02v1\x12\x09ConfigMap"
    body = b"k8s\x00\x0a" + bytes([len(type_meta)]) + type_meta + b"\x12" + bytes([len(config_map)]) + config_map
    assert decode_object(body) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "name"},
        "data": {"a": "b"},
    }
    for broken in (b"", b"{}", body[:-1], b"k8s\x00\xff"):
        with pytest.raises(StatusError, match="cannot be read"):
            decode_object(broken)


def test_bodies_and_forms_that_are_not_spoken_are_named(cluster: Any) -> None:
    assert parse(b"a: {b: 1}", "application/yaml") == {"a": {"b": 1}}
    with pytest.raises(StatusError, match="not JSON"):
        parse(b"{", "application/json")
    with pytest.raises(StatusError, match="application/merge-patch"):
        patch_form("application/strategic-merge-patch+json", custom=True)
    assert wanted_form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json") == "Table"
    assert wanted_form("application/vnd.kubernetes.protobuf,application/json") == "plain"
    with pytest.raises(StatusError, match="media types"):
        wanted_form("application/vnd.kubernetes.protobuf")


def test_discovery_in_both_forms_names_the_same_resources(cluster: Any) -> None:
    new = {
        (group["metadata"].get("name", ""), version["version"], resource["resource"])
        for core in (True, False)
        for group in discovery.aggregated(cluster.kinds, core)["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }
    old = {
        (group, version, resource["name"])
        for group, version in {(g, v) for g, v, _ in new}
        for resource in (discovery.resources(cluster.kinds, group, version) or {})["resources"]
        if "/" not in resource["name"]
    }
    assert new == old
    assert ("example.dev", "v1", "widgets") in new


def test_openapi_documents_are_whole_and_change_their_address_with_the_crd(cluster: Any) -> None:
    openapi = OpenApi(cluster.kinds)
    before = openapi.index()["paths"]["apis/example.dev/v1"]
    document = orjson.loads(openapi.document("apis/example.dev/v1") or b"")
    schemas = document["components"]["schemas"]
    assert schemas["dev.example.v1.Widget"]["x-kubernetes-group-version-kind"][0]["kind"] == "Widget"
    assert set(_references(document)) <= set(schemas)
    crd = cluster.get("CustomResourceDefinition", "widgets.example.dev")
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "changed"
    cluster.kinds.define(crd)
    assert openapi.index()["paths"]["apis/example.dev/v1"] != before


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values())) if node else own
    return set().union(*(_references(item) for item in node)) if isinstance(node, list) and node else set()
