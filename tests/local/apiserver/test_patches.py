"""Merge patch, JSON patch and strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.local.apiserver.errors import StatusError
from fairlead.local.apiserver.json_patch import json_patch
from fairlead.local.apiserver.merge_patch import merge_patch
from fairlead.local.apiserver.ordering import interleave
from fairlead.local.apiserver.schema import builtin
from fairlead.local.apiserver.strategic_merge import strategic_merge

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "b"])
keys = st.sampled_from(["a", "b", "c/d", "e~f"])
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=10
)
POD = builtin("io.k8s.api.core.v1.Pod")


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_rfc_7386_shows(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@given(documents, documents)
def test_merge_patch_applied_twice_is_applied_once_and_changes_no_argument(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert (target, patch) == before


@given(documents, documents)
def test_json_patch_takes_any_document_to_any_other(old: Any, new: Any) -> None:
    difference = jsonpatch.make_patch({"root": old}, {"root": new}).patch
    assert json_patch({"root": old}, difference) == {"root": new}


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ({"op": "remove", "path": "/nope"}, "there is no value at 'nope'"),
        ({"op": "test", "path": "/a", "value": 2}, "testing value /a failed"),
        ({"op": "test", "path": "/a", "value": True}, "testing value /a failed"),
        ({"op": "add", "path": "/l/5", "value": 1}, "outside of the list"),
        ({"op": "add", "path": "/l/-"}, "has no value"),
        ({"op": "frob", "path": "/a"}, "unknown op 'frob'"),
        ({"op": "add", "path": "a", "value": 1}, "not a JSON pointer"),
    ],
)
def test_a_json_patch_that_cannot_be_done_says_which_operation_and_why(operation: Any, why: str) -> None:
    document = {"a": 1, "l": [1]}
    with pytest.raises(StatusError, match=why):
        json_patch(document, [operation])
    assert document == {"a": 1, "l": [1]}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers), **spec}}


def test_strategic_merge_merges_containers_by_name_and_their_environment_by_name() -> None:
    live = pod({"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"})
    patch = pod({"name": "a", "env": [{"name": "Y", "value": "2"}]})
    assert strategic_merge(live, patch, POD) == pod(
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}, {"name": "b"}
    )


def test_strategic_merge_deletes_one_item_by_its_key_and_replaces_atomic_lists() -> None:
    live = pod({"name": "a", "args": ["x", "y"]}, {"name": "b"})
    patch = pod({"name": "b", "$patch": "delete"}, {"name": "a", "args": ["z"]})
    assert strategic_merge(live, patch, POD) == pod({"name": "a", "args": ["z"]})


def test_retain_keys_drops_the_old_volume_source() -> None:
    live = pod(volumes=[{"name": "v", "emptyDir": {}}])
    patch = {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}
    assert strategic_merge(live, patch, POD)["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]


def test_set_element_order_orders_and_keeps_what_only_the_server_has_in_its_place() -> None:
    live = pod({"name": "a"}, {"name": "injected"}, {"name": "b"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [{"name": "c"}],
        }
    }
    names = [c["name"] for c in strategic_merge(live, patch, POD)["spec"]["containers"]]
    assert names == ["b", "a", "injected", "c"]


def test_delete_from_primitive_list_takes_out_single_finalizers() -> None:
    live = {"metadata": {"finalizers": ["a", "b"]}}
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}
    assert strategic_merge(live, patch, POD)["metadata"]["finalizers"] == ["b", "c"]


def test_patch_replace_and_delete_directives_replace_and_empty_a_map() -> None:
    live = {"metadata": {"labels": {"a": "1"}, "annotations": {"b": "2"}}}
    patch = {"metadata": {"labels": {"$patch": "replace", "c": "3"}, "annotations": {"$patch": "delete"}}}
    assert strategic_merge(live, patch, POD) == {"metadata": {"labels": {"c": "3"}, "annotations": {}}}


def test_an_item_without_its_merge_key_and_an_unknown_directive_are_refused() -> None:
    with pytest.raises(StatusError, match="does not contain declared merge key: name"):
        strategic_merge(pod(), pod({"image": "x"}), POD)
    with pytest.raises(StatusError, match="unknown directive"):
        strategic_merge({}, {"$patch": "frob"}, POD)


@given(st.lists(st.integers(0, 9), unique=True), st.lists(st.integers(0, 9), unique=True))
def test_interleave_keeps_every_key_once_and_the_wanted_order(live: list[int], wanted: list[int]) -> None:
    result = interleave(live, wanted)
    assert sorted(result) == sorted({*live, *wanted})
    assert [key for key in result if key in wanted] == wanted
    only_live = [key for key in live if key not in wanted]
    if not wanted:
        assert result == only_live
