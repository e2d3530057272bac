import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.store import Store

WHOLE = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)
NAMES = st.sampled_from(["a", "b", "c"])
NAMESPACES = st.sampled_from(["", "one", "two"])


def obj(namespace: str, name: str, version: int = 1, **rest: Any) -> Object:
    metadata: Object = {"name": name, "resourceVersion": str(version)}
    return {"metadata": {**metadata, "namespace": namespace} if namespace else metadata, **rest}


def by_color(found: Object) -> list[str]:
    return [found["color"]] if "color" in found else []


@given(spec=JSON)
@settings(deadline=None)
def test_what_was_put_in_is_what_comes_out(spec: Any) -> None:
    put = obj("one", "a", spec=spec)
    store = Store()
    store.put(copy.deepcopy(put))
    assert store.get("one", "a") == put
    assert store.list() == store.list("one") == list(store) == [put]


def test_a_reader_who_changes_its_object_changes_nobody_elses() -> None:
    store = Store({"color": by_color})
    put = obj("one", "a", color="red", spec={"replicas": [1]})
    store.put(put)
    put["spec"]["replicas"].append(2)  # whoever put it in may go on with it, too
    readers = (lambda: store.get("one", "a"), lambda: store.list()[0], lambda: store.by_index("color", "red")[0])
    for read in readers:
        found = read()
        assert found is not None
        assert found["spec"] == {"replicas": [1]}
        found["spec"]["replicas"].append(3)
        found["metadata"]["name"] = "changed"
    assert store.keys() == {Key("one", "a")}


def test_a_summary_is_at_hand_and_follows_its_object() -> None:
    store = Store(summary=lambda found: {"metadata": found["metadata"], "color": found["color"]})
    store.put(obj("one", "a", 1, color="red", spec={}))
    assert store.summary("one", "a") == obj("one", "a", 1, color="red")
    assert store.summary("one", "a") is store.summary("one", "a")
    store.put(obj("one", "a", 2, color="blue", spec={}))
    assert store.summary("one", "a") == obj("one", "a", 2, color="blue")
    store.remove(Key("one", "a"))
    assert store.summary("one", "a") is None


def test_where_nothing_is_kept_at_hand_the_summary_is_the_object() -> None:
    store = Store()
    store.put(obj("one", "a", spec={}))
    assert store.summary("one", "a") == obj("one", "a", spec={})


def test_the_version_is_known_without_the_object() -> None:
    store = Store()
    assert store.version(Key("one", "a")) is None
    store.put(obj("one", "a", 7))
    assert store.version(Key("one", "a")) == "7"


class AnyHistory(RuleBasedStateMachine):
    """Whatever is put in and taken out, in whatever order: the store and its index say what a plain dict says."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store({"color": by_color})
        self.model: dict[Key, Object] = {}

    @rule(namespace=NAMESPACES, name=NAMES, version=st.integers(1, 99), color=st.sampled_from(["red", "blue", None]))
    def put(self, namespace: str, name: str, version: int, color: str | None) -> None:
        new = obj(namespace, name, version, **({"color": color} if color else {}))
        assert self.store.put(copy.deepcopy(new)) == self.model.get(key_of(new))
        self.model[key_of(new)] = new

    @rule(namespace=NAMESPACES, name=NAMES)
    def remove(self, namespace: str, name: str) -> None:
        assert self.store.remove(Key(namespace, name)) == self.model.pop(Key(namespace, name), None)

    @invariant()
    def says_what_the_model_says(self) -> None:
        assert len(self.store) == len(self.model)
        assert self.store.keys() == self.model.keys()
        assert sorted(map(str, self.store.list())) == sorted(map(str, self.model.values()))
        for namespace in ("", "one", "two"):
            assert self.store.keys(namespace) == {key for key in self.model if key.namespace == namespace}
        for color in ("red", "blue"):
            wanted = [self.model[key] for key in sorted(self.model) if self.model[key].get("color") == color]
            assert self.store.by_index("color", color) == wanted


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
