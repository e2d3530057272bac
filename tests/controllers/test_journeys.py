"""What a user does, and what follows: applied to the whole controller on a fake API server."""

from __future__ import annotations

import pytest

from tests.controllers.harness import Harness, isvc


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_a_first_service_becomes_ready_with_kserves_names(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.ready == "True", harness.status
    assert harness.workloads == {"iris-predictor": "v1"}
    assert harness.services == {"iris-predictor": "iris-predictor"}
    assert harness.traffic == {"v1": 100}
    assert harness.predictor["latestReadyRevision"] == "iris-predictor-00001"
    assert harness.status["url"] == "http://iris-team.example.com"
    assert harness.status["clusterServingRuntimeName"] == "fairlead-core"
    assert harness.status["observedGeneration"] == 1
