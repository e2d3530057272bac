"""Each rule says the same in CEL, as the embedded API server evaluates it, and in Python."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.base import ApiType
from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import Explainer, InferenceService, InferenceServiceSpec, Transformer
from fairlead.api.predictor import FRAMEWORKS, CanaryPredictor, Predictor
from fairlead.local.apiserver.cel_rules import check_rules
from fairlead.local.apiserver.schema import Schema

NAMES = st.sampled_from(["a", "b", "c", "x" * 13, "y" * 40])
CONTAINERS = st.lists(
    st.fixed_dictionaries({}, optional={"name": st.sampled_from(["kserve-container", "transformer-container"])}),
    max_size=2,
)
FRAMEWORK = st.fixed_dictionaries({}, optional={"storageUri": st.just("file:///m")})
COMPONENT = {"minReplicas": st.integers(0, 3), "maxReplicas": st.integers(0, 3)}
PREDICTOR = {
    **COMPONENT,
    **dict.fromkeys(FRAMEWORKS[:3], FRAMEWORK),
    "model": st.fixed_dictionaries(
        {"modelFormat": st.just({"name": "x"})}, optional={"storageUri": st.just("file:///m")}
    ),
    "containers": CONTAINERS,
    "storageUris": st.just([{"uri": "file:///n"}]),
    "name": NAMES,
}
VALID_PREDICTOR = st.fixed_dictionaries({"sklearn": st.just({})}, optional={"name": NAMES})
CANARY = st.fixed_dictionaries(
    {"trafficPercent": st.sampled_from([0, 1, 50, 51, 100]), "predictor": st.fixed_dictionaries({"name": NAMES})}
)
SPEC = st.fixed_dictionaries({"predictor": VALID_PREDICTOR}, optional={"canary": st.lists(CANARY, max_size=3)})
SERVICE_NAMES = st.one_of(
    st.sampled_from(["a", "a-b", "a" * 40, "a" * 41, "1a", "a.b", "A", "-", "a-", ""]),
    st.text("ab1-.A_", min_size=1, max_size=6),
)
SERVICE = st.fixed_dictionaries({"metadata": st.fixed_dictionaries({"name": SERVICE_NAMES}), "spec": SPEC})

CASES: dict[type[ApiType], st.SearchStrategy[dict[str, Any]]] = {
    ComponentFields: st.fixed_dictionaries({}, optional=COMPONENT),
    Predictor: st.fixed_dictionaries({}, optional=PREDICTOR),
    CanaryPredictor: st.fixed_dictionaries({"name": NAMES}, optional={k: v for k, v in PREDICTOR.items() if k != "name"}),
    Transformer: st.fixed_dictionaries({}, optional={"containers": CONTAINERS}),
    Explainer: st.fixed_dictionaries({}, optional={"containers": CONTAINERS, "art": st.just({})}),
    InferenceServiceSpec: SPEC,
    InferenceService: SERVICE,
}  # fmt: skip


def unchecked(kind: type[ApiType], value: Any) -> Any:
    """The typed object without its rules applied, so that they can be asked one by one."""
    fields = {field.alias: name for name, field in kind.model_fields.items()}
    built = {}
    for key, part in value.items():
        part_kind = kind.model_fields[fields[key]].annotation
        types = [t for t in _types(part_kind) if isinstance(t, type) and issubclass(t, ApiType)]
        if types and isinstance(part, dict):
            part = unchecked(types[0], part)
        elif types and isinstance(part, list):
            part = [unchecked(types[0], item) for item in part]
        built[fields[key]] = part
    return kind.model_construct(**built)


def _types(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] if not inner else [found for part in inner for found in _types(part)]


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_cel_and_python_agree_on_every_rule(kind: type[ApiType], data: st.DataObject) -> None:
    value = data.draw(CASES[kind])
    for rule in kind.rules():
        validation = {"rule": rule.cel, "message": rule.message}
        schema = Schema({"type": "object", "x-kubernetes-validations": [validation]}, structural=True)
        told = [error.message for error in check_rules(value, None, schema, "")]
        assert not any("evaluation failed" in message for message in told)
        assert rule.holds(unchecked(kind, value)) == (not told), rule.message
