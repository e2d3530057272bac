"""Server-side apply: ownership, conflicts, removal. The expected sets were compared with a Kubernetes 1.34 API server's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.local.apiserver.errors import StatusError
from fairlead.local.apiserver.fieldset import field_set, intersect, paths, subtract, union
from fairlead.local.apiserver.schema import Schema, builtin
from fairlead.local.apiserver.serverside_apply import Object, Writer, apply, managers_of, track

DEPLOYMENT = builtin("io.k8s.api.apps.v1.Deployment")
SERVICE = builtin("io.k8s.api.core.v1.Service")


def by(manager: str, operation: str = "Apply", subresource: str = "") -> Writer:
    return Writer(manager, operation, "v1", subresource)


def applied(
    live: Object | None,
    wanted: Object,
    manager: str,
    *,
    force: bool = False,
    schema: Schema = DEPLOYMENT,
    now: str = "t",
) -> Object:
    return apply(live, {"metadata": {"name": "x"}, **wanted}, schema, by(manager), force=force, now=now)


def template(*containers: dict[str, Any], **spec: Any) -> Object:
    return {"spec": {"template": {"spec": {"containers": list(containers), **spec}}}}


def owned(obj: Object, writer: Writer) -> set[str]:
    found = managers_of(obj).get(writer)
    return set(paths(found.fields)) if found else set()


def test_an_applier_owns_what_it_says_and_not_what_identifies_the_object() -> None:
    obj = applied(None, {"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"replicas": 1}}, "me")
    assert owned(obj, by("me")) == {".metadata.labels.a", ".spec.replicas"}


def test_a_field_of_another_manager_is_a_conflict_that_names_both() -> None:
    obj = applied(None, {"spec": {"replicas": 1, "paused": True}}, "first")
    with pytest.raises(StatusError) as caught:
        applied(obj, {"spec": {"replicas": 2, "paused": False}}, "second")
    assert caught.value.code == 409
    assert (
        caught.value.message
        == 'Apply failed with 2 conflicts: conflicts with "first" using v1:\n- .spec.paused\n- .spec.replicas'
    )
    assert [cause["field"] for cause in caught.value.details["causes"]] == [".spec.paused", ".spec.replicas"]


def test_force_takes_the_field_away_from_the_other() -> None:
    obj = applied(applied(None, {"spec": {"replicas": 1}}, "first"), {"spec": {"replicas": 2}}, "second", force=True)
    assert obj["spec"]["replicas"] == 2
    assert owned(obj, by("first")) == set()
    assert owned(obj, by("second")) == {".spec.replicas"}


def test_the_same_value_is_shared_and_stays_when_one_owner_lets_go() -> None:
    obj = applied(applied(None, {"spec": {"replicas": 1}}, "first"), {"spec": {"replicas": 1}}, "second")
    assert owned(obj, by("first")) == owned(obj, by("second")) == {".spec.replicas"}
    assert applied(obj, {}, "first")["spec"]["replicas"] == 1
    assert "replicas" not in applied(applied(obj, {}, "first"), {}, "second").get("spec", {})


def test_what_is_no_longer_applied_is_removed_with_the_defaults_below_it() -> None:
    obj = applied(
        None, template({"name": "c", "readinessProbe": {"httpGet": {"port": 80}}}, nodeSelector={"a": "b"}), "me"
    )
    obj["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] = 10  # filled in by the server
    after = applied(obj, template({"name": "c"}), "me")
    assert after["spec"]["template"]["spec"] == {"containers": [{"name": "c"}]}


def test_an_item_goes_unless_somebody_else_owns_a_part_of_it() -> None:
    obj = applied(None, template({"name": "a", "image": "1"}, {"name": "b", "image": "1"}), "me")
    other = applied(obj, template({"name": "b", "args": ["x"]}), "other")
    after = applied(other, template({"name": "a", "image": "1"}), "me")
    assert after["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "1"},
        {"name": "b", "args": ["x"]},
    ]


def test_ports_are_told_apart_by_number_and_protocol_with_its_default() -> None:
    obj = applied(
        None,
        {"spec": {"ports": [{"port": 53, "targetPort": 1}, {"port": 53, "protocol": "UDP"}]}},
        "me",
        schema=SERVICE,
    )
    assert '.spec.ports[port=53,protocol="TCP"].targetPort' in owned(obj, by("me"))
    after = applied(obj, {"spec": {"ports": [{"port": 53, "protocol": "TCP", "targetPort": 2}]}}, "me", schema=SERVICE)
    assert after["spec"]["ports"] == [{"port": 53, "targetPort": 2, "protocol": "TCP"}]


def test_selectors_are_atomic_and_finalizers_a_set() -> None:
    obj = applied(
        None, {"metadata": {"name": "x", "finalizers": ["a"]}, "spec": {"selector": {"matchLabels": {"a": "b"}}}}, "me"
    )
    assert owned(obj, by("me")) == {'.metadata.finalizers[="a"]', ".spec.selector"}
    both = applied(obj, {"metadata": {"name": "x", "finalizers": ["b"]}}, "other")
    assert sorted(both["metadata"]["finalizers"]) == ["a", "b"]


def test_an_update_takes_over_what_it_changes_and_drops_what_it_removes() -> None:
    old = applied(None, {"spec": {"replicas": 1, "paused": True}}, "me")
    new = {**old, "spec": {"replicas": 5}}
    track(old, new, DEPLOYMENT, by("scaler", "Update"), now="t")
    assert owned(new, by("scaler", "Update")) == {".spec.replicas"}
    assert owned(new, by("me")) == set()


def test_kubectls_server_side_apply_takes_over_its_own_client_side_apply_but_not_others() -> None:
    text = '{"spec":{"replicas":1}}'
    old: Object = {
        "metadata": {"name": "x", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}},
        "spec": {"replicas": 1},
    }
    track({}, old, DEPLOYMENT, by("kubectl-client-side-apply", "Update"), now="t")
    assert applied(old, {"spec": {"replicas": 2}}, "kubectl")["spec"]["replicas"] == 2
    with pytest.raises(StatusError, match="kubectl-client-side-apply"):
        applied(old, {"spec": {"replicas": 2}}, "somebody")


def test_applying_the_same_again_changes_nothing_not_even_the_time() -> None:
    wanted = template({"name": "c", "env": [{"name": "A", "value": "1"}]})
    once = applied(None, wanted, "me", now="then")
    assert applied(once, wanted, "me", now="later") == once


names = st.sampled_from(["a", "b", "c"])
containers = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"image": names, "env": st.lists(st.fixed_dictionaries({"name": names}, optional={"value": names}), max_size=3, unique_by=lambda e: e["name"])}),
    max_size=3, unique_by=lambda c: c["name"],
)  # fmt: skip
configurations = st.builds(
    lambda c, labels, replicas: {"metadata": {"name": "x", "labels": labels}, "spec": {**template(*c)["spec"], **replicas}},
    containers, st.dictionaries(names, names), st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 2)}),
)  # fmt: skip


@given(configurations, configurations, configurations)
def test_a_forced_apply_holds_everything_it_says_and_owns_exactly_that(
    first: Object, second: Object, third: Object
) -> None:
    obj = applied(applied(applied(None, first, "a"), second, "b", force=True), third, "a", force=True)
    assert owned(obj, by("a")) == {path for path in paths(field_set(third, DEPLOYMENT)) if path != ".metadata.name"}
    assert applied(obj, third, "a") == obj
    assert applied(obj, second, "b", force=True)["metadata"]["labels"].items() >= second["metadata"]["labels"].items()


@given(configurations, configurations)
def test_a_manager_that_lets_go_of_everything_leaves_only_what_others_own(first: Object, second: Object) -> None:
    obj = applied(applied(None, first, "a"), second, "b", force=True)
    left = applied(obj, {}, "a")
    alone = set(paths(field_set(second, DEPLOYMENT))) - {".metadata.name"}
    found = set(paths(field_set({k: v for k, v in left.items() if k == "spec"}, DEPLOYMENT)))
    assert {path for path in found if path.startswith(".spec")} >= {path for path in alone if path.startswith(".spec")}
    assert owned(left, by("a")) == set()


@given(configurations, configurations)
def test_field_sets_obey_the_laws_of_sets(left: Object, right: Object) -> None:
    a, b = field_set(left, DEPLOYMENT), field_set(right, DEPLOYMENT)
    pa, pb = set(paths(a)), set(paths(b))
    assert set(paths(union(a, b))) == pa | pb
    assert set(paths(intersect(a, b))) == pa & pb
    assert set(paths(subtract(a, b))) == pa - pb
