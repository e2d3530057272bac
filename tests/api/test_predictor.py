"""How a predictor is read: implementations, defaults, inheritance."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.component import with_default_resources
from fairlead.api.predictor import FRAMEWORKS, CanaryPredictor, ModelSpec, Predictor
from fairlead.api.quantity import parse_quantity


def predictor(**fields: Any) -> Predictor:
    return Predictor.model_validate(fields)


def implementation(**fields: Any) -> ModelSpec:
    model = predictor(**fields).implementation()
    assert model is not None
    return model


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_field_is_a_model_of_that_format(framework: str) -> None:
    old = implementation(**{framework: {"storageUri": "file:///m", "protocolVersion": "v1", "args": ["--x"]}})
    new = implementation(
        model={"modelFormat": {"name": framework}, "storageUri": "file:///m", "protocolVersion": "v1", "args": ["--x"]}
    )
    assert old == new


def test_containers_alone_are_a_custom_predictor() -> None:
    custom = predictor(containers=[{"name": "a"}, {"name": "kserve-container"}])
    assert custom.implementation() is None
    assert custom.main_container() == (custom.containers or [])[1]


def test_without_a_kserve_container_the_first_answers() -> None:
    custom = predictor(containers=[{"name": "a"}, {"name": "b"}])
    assert custom.main_container() == (custom.containers or [])[0]


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [
        ({"sklearn": {}}, "v1"),
        ({"sklearn": {"protocolVersion": "v2"}}, "v2"),
        ({"onnx": {}}, "v2"),
        ({"triton": {}}, "v2"),
        ({"huggingface": {}}, "v2"),
        ({"model": {"modelFormat": {"name": "triton"}}}, "v2"),
        ({"model": {"modelFormat": {"name": "onnx"}}}, "v1"),
    ],
)
def test_the_protocol_is_v1_but_where_kserve_defaults_to_v2(fields: dict[str, Any], protocol: str) -> None:
    assert implementation(**fields).effective_protocol() == protocol


def test_defaults_are_one_replica_and_a_minute() -> None:
    assert predictor(sklearn={}).effective_min_replicas() == 1
    assert predictor(sklearn={}, minReplicas=0).effective_min_replicas() == 0
    assert predictor(sklearn={}).effective_timeout() == 60
    assert predictor(sklearn={}, timeout=5).effective_timeout() == 5


def test_resources_default_to_one_cpu_and_two_gibibytes() -> None:
    one = {"cpu": "1", "memory": "2Gi"}
    assert with_default_resources(None) == {"requests": one, "limits": one}


def test_given_resources_stay_and_pull_the_missing_side_along() -> None:
    resources = with_default_resources({"requests": {"cpu": "4", "memory": "256Mi"}, "limits": {"nvidia.com/gpu": 1}})
    assert resources["requests"] == {"cpu": "4", "memory": "256Mi"}
    assert resources["limits"] == {"nvidia.com/gpu": 1, "cpu": "4", "memory": "2Gi"}


AMOUNTS = st.dictionaries(st.sampled_from(["cpu", "memory"]), st.sampled_from(["10m", "1", "3", "128Mi", "8Gi", 2]))


@given(given_amounts=st.fixed_dictionaries({}, optional={"requests": AMOUNTS, "limits": AMOUNTS}))
def test_a_default_never_puts_a_request_above_its_limit(given_amounts: dict[str, dict[str, Any]]) -> None:
    resources = with_default_resources(given_amounts)
    requests, limits = given_amounts.get("requests", {}), given_amounts.get("limits", {})
    for what in ("cpu", "memory"):
        both_given = what in requests and what in limits
        assert both_given or parse_quantity(resources["requests"][what]) <= parse_quantity(resources["limits"][what])
        assert resources["requests"][what] == requests.get(what, resources["requests"][what])
        assert resources["limits"][what] == limits.get(what, resources["limits"][what])


STABLE = {
    "name": "v1",
    "minReplicas": 3,
    "canaryTrafficPercent": 20,
    "nodeSelector": {"pool": "a"},
    "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "file:///1", "args": ["--a"], "env": [{"name": "A"}]},
}


def inherited(**canary: Any) -> dict[str, Any]:
    return CanaryPredictor.model_validate({"name": "v2", **canary}).inheriting(predictor(**STABLE)).to_dict()


def test_a_canary_inherits_what_it_does_not_set() -> None:
    whole = inherited(model={"modelFormat": {"name": "sklearn"}, "storageUri": "file:///2"}, nodeSelector={"zone": "b"})
    assert whole["model"] == {**STABLE["model"], "storageUri": "file:///2"}  # type: ignore[dict-item]
    assert whole["nodeSelector"] == {"pool": "a", "zone": "b"}
    assert (whole["name"], whole["minReplicas"]) == ("v2", 3)


def test_a_canarys_lists_replace_the_stable_ones() -> None:
    whole = inherited(model={"modelFormat": {"name": "sklearn"}, "env": [{"name": "B"}]})
    assert whole["model"]["env"] == [{"name": "B"}]


def test_a_canary_of_another_kind_drops_the_stable_implementation() -> None:
    assert "model" not in inherited(containers=[{"name": "kserve-container", "image": "x"}])
    assert "model" not in inherited(onnx={"storageUri": "file:///o"})


def test_a_canary_does_not_inherit_the_traffic_share() -> None:
    assert "canaryTrafficPercent" not in inherited()


@pytest.mark.parametrize(
    ("text", "number"),
    [("100m", "0.1"), ("2Gi", 2 * 1024**3), ("1.5", "1.5"), (2, 2), ("1e3", 1000), ("5E", 5 * 10**18), ("1Ei", 1024**6),
     ("500k", 500_000), (".5", "0.5"), ("-1", -1), ("10n", "0.00000001")],
)  # fmt: skip
def test_quantities_are_exact(text: str | int, number: str | int) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "1 G", "two", "1Kib", "Gi", "1.2.3"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity, such as 500m"):
        parse_quantity(text)
