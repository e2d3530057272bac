"""Schemas against objects. The texts are those of a Kubernetes 1.34 API server."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.local.apiserver.admission import Options, admit
from fairlead.local.apiserver.cel_rules import NOT_CHECKED, check_rules
from fairlead.local.apiserver.errors import StatusError
from fairlead.local.apiserver.schema import Schema, builtin
from fairlead.local.apiserver.validation import decode, default, prune, validate, validate_name

POD = builtin("io.k8s.api.core.v1.Pod")


def faults(value: Any, schema: dict[str, Any], path: str = "spec") -> list[str]:
    return [str(fault) for fault in validate(value, Schema(schema, structural=True), path)]


def rule_faults(value: Any, schema: dict[str, Any], old: Any = None) -> list[str]:
    return [str(fault) for fault in check_rules(value, old, Schema(schema, structural=True), "spec")]


@pytest.mark.parametrize(
    ("value", "schema", "fault"),
    [
        ("x", {"type": "integer"}, 'spec: Invalid value: "string": spec in body must be of type integer: "string"'),
        (True, {"type": "integer"}, 'spec: Invalid value: "boolean": spec in body must be of type integer: "boolean"'),
        (1.5, {"x-kubernetes-int-or-string": True}, 'spec: Invalid value: "number": spec in body must be of type integer,string: "number"'),
        (None, {"type": "string"}, 'spec: Invalid value: "null": spec in body must be of type string: "null"'),
        (11, {"type": "integer", "maximum": 10}, "spec: Invalid value: 11: spec in body should be less than or equal to 10"),
        (1, {"type": "number", "minimum": 1, "exclusiveMinimum": True}, "spec: Invalid value: 1: spec in body should be greater than 1"),
        ("c", {"type": "string", "enum": ["a", "b"]}, 'spec: Unsupported value: "c": supported values: "a", "b"'),
        ("ABC", {"type": "string", "pattern": "^[a-z]+$"}, "spec: Invalid value: \"ABC\": spec in body should match '^[a-z]+$'"),
        ("abc", {"type": "string", "maxLength": 2, "pattern": "^x"}, "spec: Too long: may not be more than 2 bytes"),
        ([1, 2], {"type": "array", "maxItems": 1}, "spec: Too many: 2: must have at most 1 items"),
        ({}, {"type": "object", "required": ["a"]}, "spec.a: Required value"),
        (["a", "a"], {"type": "array", "x-kubernetes-list-type": "set"}, 'spec[1]: Duplicate value: "a"'),
        (1, {"oneOf": [{"type": "integer"}, {"minimum": 0}]}, 'spec: Invalid value: "integer": must validate one and only one schema (oneOf)'),
        (1, {"anyOf": [{"type": "string"}, {"minimum": 5}]}, 'spec: Invalid value: "integer": must validate at least one schema (anyOf)'),
        (1, {"not": {"type": "integer"}}, 'spec: Invalid value: "integer": must not validate the schema (not)'),
    ],
)  # fmt: skip
def test_a_fault_is_told_in_kubernetes_words(value: Any, schema: dict[str, Any], fault: str) -> None:
    assert faults(value, schema) == [fault]


def test_what_is_right_has_no_fault() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string", "nullable": True}}}
    assert faults({"a": 1, "b": None}, schema) == []


def test_pruning_drops_what_the_schema_does_not_name_and_says_where_it_was() -> None:
    item = {"type": "object", "properties": {"name": {"type": "string"}}}
    schema = Schema(
        {"type": "object", "properties": {"l": {"type": "array", "items": item}, "m": {"type": "object", "additionalProperties": item},
         "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}, structural=True,
    )  # fmt: skip
    value = {"l": [{"name": "a", "nme": 1}], "m": {"k": {"x": 1}}, "free": {"any": 1}, "z": 1}
    unknown: list[str] = []
    prune(value, schema, "", unknown)
    assert value == {"l": [{"name": "a"}], "m": {"k": {}}, "free": {"any": 1}}
    assert sorted(unknown) == ["l[0].nme", "m.k.x", "z"]


documents = st.recursive(
    st.sampled_from([None, 1, "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "containers", "name", "metadata", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "x"]), documents))
def test_pruning_is_done_once_and_for_all(value: dict[str, Any]) -> None:
    prune(value, POD, "", [])
    again, unknown = copy.deepcopy(value), []
    prune(again, POD, "", unknown)
    assert (again, unknown) == (value, [])


def test_defaults_fill_only_what_is_absent_at_any_depth() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}}
    schema = Schema(
        {"type": "object", "properties": {"a": {**inner, "default": {}}, "l": {"type": "array", "items": inner}}},
        structural=True,
    )
    value: dict[str, Any] = {"l": [{}, {"b": 2}]}
    default(value, schema)
    assert value == {"a": {"b": 1}, "l": [{"b": 1}, {"b": 2}]}
    value["a"]["b"] = 5
    fresh: dict[str, Any] = {}
    default(fresh, schema)
    assert fresh == {"a": {"b": 1}}


def test_a_wrong_type_in_a_built_in_kind_is_worded_like_gos_decoder() -> None:
    with pytest.raises(StatusError) as caught:
        decode({"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}}, POD, "Pod", "v1")
    assert caught.value.message == (
        'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal string into Go struct field '
        "Pod.spec.containers[0].ports[0].containerPort of type int32"
    )


def test_rules_see_self_and_old_self_and_speak_for_themselves() -> None:
    rules = [
        {"rule": "self.min <= self.max", "message": "min must not exceed max", "fieldPath": ".min"},
        {"rule": "!has(self.kind) || self.kind == oldSelf.kind", "message": "kind is immutable"},
        {"rule": "self.weights.sum() <= 100", "messageExpression": "'weights sum to ' + string(self.weights.sum())"},
    ]
    schema = {"type": "object", "x-kubernetes-validations": rules, "properties": {"ratio": {"type": "number"}}}
    right = {"min": 1, "max": 2, "kind": "a", "weights": [50, 50]}
    assert rule_faults(right, schema, old=right) == []
    wrong = {"min": 3, "max": 2, "kind": "b", "weights": [60, 50]}
    assert rule_faults(wrong, schema, old=right) == [
        'spec.min: Invalid value: "object": min must not exceed max',
        'spec: Invalid value: "object": kind is immutable',
        'spec: Invalid value: "object": weights sum to 110',
    ]
    assert len(rule_faults(wrong, schema)) == 2  # without an old object there is nothing to compare with


def test_a_rule_that_cannot_be_evaluated_is_reported_and_not_passed_over() -> None:
    (fault,) = rule_faults({"a": 1}, {"type": "object", "x-kubernetes-validations": [{"rule": "self.nope > 1"}]})
    assert "self.nope > 1" in fault


def test_numbers_are_compared_as_the_schema_types_them() -> None:
    schema = {
        "type": "object",
        "properties": {"ratio": {"type": "number", "x-kubernetes-validations": [{"rule": "self <= 0.5"}]}},
    }
    assert rule_faults({"ratio": 0}, schema) == []
    assert rule_faults({"ratio": 1}, schema) == ["spec.ratio: Invalid value: 1: failed rule: self <= 0.5"]


def test_rules_wait_until_the_object_is_well_formed(cluster: Any) -> None:
    with pytest.raises(StatusError) as caught:
        admit({"metadata": {"name": "x"}, "spec": {}}, None, cluster.kind("Widget"), Options())
    assert [cause["message"] for cause in caught.value.details["causes"]] == ["Required value", NOT_CHECKED.message]


@pytest.mark.parametrize(("name", "rule", "right"), [
    ("a.b-c", "subdomain", True), ("A_b", "subdomain", False), ("a.b", "label", False), ("1a", "service", False),
    ("a" * 64, "label", False), ("system:x", "path", True), ("a/b", "path", False),
])  # fmt: skip
def test_names_follow_the_rule_of_their_kind(name: str, rule: str, right: bool) -> None:
    assert (list(validate_name(name, rule)) == []) is right
