"""What services may refer to: whose word on pickle holds."""

from __future__ import annotations

import pytest
from tests.controllers.fake_api import FakeApi
from tests.controllers.harness import isvc

from fairlead.api import names
from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.catalogue import Catalogue
from fairlead.kube.resources import NAMESPACES
from fairlead.kube.store import Store


@pytest.mark.parametrize(
    ("service", "namespace", "installation", "allowed"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, "false", True, False),
        (None, "true", False, True),
        ("false", "true", True, False),
        ("true", "false", False, True),
    ],
)
def test_the_service_is_asked_before_its_namespace_and_that_before_the_installation(
    service: str | None, namespace: str | None, installation: bool, allowed: bool
) -> None:
    def annotated(word: str | None) -> dict[str, str]:
        return {} if word is None else {names.ALLOW_PICKLE: word}

    obj = isvc("s3://b/m")
    obj["metadata"]["annotations"] = annotated(service)
    parsed = InferenceService.parse(obj)
    store = Store()
    store.put({"metadata": {"name": parsed.metadata.namespace, "annotations": annotated(namespace)}})
    catalogue = Catalogue(Cluster(FakeApi(), {NAMESPACES: store}), allow_pickle=installation)
    assert catalogue.allows_pickle(parsed) is allowed
