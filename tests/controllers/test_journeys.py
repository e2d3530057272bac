"""What a user does, and what follows: applied to the whole controller on a fake API server."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.controllers.harness import KEY, Harness, isvc

from fairlead.autoscaling import Mode
from fairlead.controllers.autoscaler.board import Outcome
from fairlead.controllers.inferenceservice.errors import Leftover
from fairlead.kube.objects import Key
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES, PODS


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


async def test_a_service_that_kserve_served_with_knative_is_taken_over(harness: Harness) -> None:
    """Its status speaks of Knative's revisions, which have no workload here."""
    harness.apply(isvc("v1"))
    name = "iris-predictor-00003"
    traffic = [
        {"latestRevision": True, "percent": 100, "revisionName": name},
        {"latestRevision": False, "percent": 0, "tag": "prev", "revisionName": "iris-predictor-00002"},
    ]
    revisions = {"latestCreatedRevision": name, "latestReadyRevision": name, "latestRolledoutRevision": name}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [ready, {**ready, "type": "PredictorReady"}, {**ready, "type": "IngressReady"}]
    old = {"components": {"predictor": {**revisions, "traffic": traffic}}, "conditions": conditions}
    harness.api.set_status(INFERENCE_SERVICES, KEY, old)
    await harness.settle()
    assert harness.ready == "True", harness.status
    assert harness.workloads == {"iris-predictor": "v1"}
    assert [t.get("serviceName") for t in harness.predictor["traffic"]] == ["iris-predictor"]
    assert harness.traffic == {"v1": 100}


async def test_a_percentage_on_the_first_revision_is_ignored(harness: Harness) -> None:
    harness.apply(isvc("v1", canaryTrafficPercent=20))
    await harness.settle()
    assert harness.traffic == {"v1": 100}
    assert harness.ready == "True"


async def test_an_update_without_a_canary_rolls_the_deployment_in_place(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.loads = lambda uri: uri == "v1"
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v2"}
    assert harness.predictor["latestReadyRevision"] == "iris-predictor-00001"
    assert harness.predictor["latestCreatedRevision"] == "iris-predictor-00002"
    assert [t["revisionName"] for t in harness.predictor["traffic"]] == ["iris-predictor-00001"]
    assert harness.ready == "Unknown"
    assert "iris-predictor-00001 still serves" in harness.condition("Ready")["message"]

    harness.loads = lambda uri: True
    await harness.settle()
    assert harness.predictor["latestReadyRevision"] == "iris-predictor-00002"
    assert harness.predictor["previousRolledoutRevision"] == "iris-predictor-00001"
    assert harness.ready == "True"


async def with_canary(harness: Harness, percent: int = 20) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v2", canaryTrafficPercent=percent))
    await harness.settle()


async def test_a_canary_has_a_workload_of_its_own_and_its_share(harness: Harness) -> None:
    await with_canary(harness)
    assert harness.workloads == {"iris-predictor": "v1", "iris-predictor-00002": "v2"}
    assert harness.traffic == {"v2": 20, "v1": 80}
    latest, previous = harness.predictor["traffic"]
    assert latest["latestRevision"] is True
    assert "tag" not in latest
    assert previous["latestRevision"] is False
    assert previous["tag"] == "prev"
    assert previous["url"] == "http://prev-iris-predictor-team.example.com"
    assert harness.predictor["latestRolledoutRevision"] == "iris-predictor-00001"


async def test_the_latest_is_tagged_only_if_tag_routing_is_enabled(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2", canaryTrafficPercent=20, annotations={"serving.kserve.io/enable-tag-routing": "true"}))
    await harness.settle()
    assert harness.predictor["traffic"][0]["tag"] == "latest"
    assert harness.workloads["iris-predictor-00002"] == "v2", "an annotation that steers makes no revision"


async def test_a_canary_that_is_not_ready_gets_nothing(harness: Harness) -> None:
    harness.loads = lambda uri: uri == "v1"
    await with_canary(harness)
    assert harness.traffic == {"v2": 0, "v1": 100}
    assert harness.ready == "Unknown"


async def test_promotion_restarts_no_pod_and_removes_the_old_workload(harness: Harness) -> None:
    await with_canary(harness)
    template = harness.api.of_deployment("iris-predictor-00002")["spec"]["template"]
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.workloads == {"iris-predictor-00002": "v2"}
    assert harness.api.of_deployment("iris-predictor-00002")["spec"]["template"] == template
    assert harness.traffic == {"v2": 100}
    assert harness.predictor["latestRolledoutRevision"] == "iris-predictor-00002"
    assert harness.predictor["previousRolledoutRevision"] == "iris-predictor-00001"
    assert harness.ready == "True"


async def test_a_canary_that_is_promoted_before_it_is_ready_stays_where_it_is_and_waits(harness: Harness) -> None:
    harness.loads = lambda uri: uri == "v1"
    await with_canary(harness)
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v1", "iris-predictor-00002": "v2"}
    assert harness.traffic == {"v2": 0, "v1": 100}
    harness.loads = lambda uri: True
    await harness.settle()
    assert harness.workloads == {"iris-predictor-00002": "v2"}


async def test_the_in_cluster_address_follows_the_rolled_out_workload(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.services == {
        "iris-predictor": "iris-predictor-00002",
        "iris-predictor-00002": "iris-predictor-00002",
    }
    address = harness.api.of_service("iris-predictor")
    assert "fairlead.dev/workload" not in address["metadata"]["labels"], "it is nothing to the gateway"


async def test_zero_percent_pins_the_old_revision(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2", canaryTrafficPercent=0))
    await harness.settle()
    assert harness.traffic == {"v2": 0, "v1": 100}
    assert harness.ready == "True"


async def test_a_broken_canary_that_was_rolled_back_does_not_make_the_service_unready(harness: Harness) -> None:
    harness.loads = lambda uri: uri == "v1"
    await with_canary(harness)
    harness.apply(isvc("v2", canaryTrafficPercent=0))
    await harness.settle()
    assert harness.ready == "True"


async def test_a_third_revision_takes_the_canarys_share_only_when_it_is_ready(harness: Harness) -> None:
    await with_canary(harness)
    harness.loads = lambda uri: uri != "v3"
    harness.apply(isvc("v3", canaryTrafficPercent=20))
    await harness.settle()
    assert harness.traffic == {"v3": 0, "v2": 20, "v1": 80}

    harness.loads = lambda uri: True
    await harness.settle()
    assert harness.traffic == {"v3": 20, "v1": 80}
    assert harness.workloads == {"iris-predictor": "v1", "iris-predictor-00003": "v3"}


async def test_a_percentage_on_a_promoted_revision_brings_the_previous_one_back(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2"))
    await harness.settle()
    harness.apply(isvc("v2", canaryTrafficPercent=0))
    await harness.settle()
    assert harness.traffic == {"v2": 0, "v1": 100}
    assert harness.predictor["latestRolledoutRevision"] == "iris-predictor-00001"
    assert "RolledBack" in harness.events.reasons


async def test_traffic_stays_until_the_revision_that_is_brought_back_is_ready(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2"))
    await harness.settle()
    harness.loads = lambda uri: uri != "v1"
    harness.apply(isvc("v2", canaryTrafficPercent=0))
    await harness.settle()
    assert harness.traffic == {"v2": 100}
    assert "v1" in harness.workloads.values()
    assert harness.ready == "Unknown"


async def test_after_an_update_in_place_the_previous_revision_can_be_brought_back(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v2"))
    await harness.settle()
    harness.apply(isvc("v2", canaryTrafficPercent=0))
    await harness.settle()
    assert harness.traffic == {"v2": 0, "v1": 100}
    rolled_out = harness.predictor["traffic"][1]["serviceName"]
    assert harness.services["iris-predictor"] == rolled_out


async def test_going_back_to_the_rolled_out_spec_takes_it_up_again_without_a_restart(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.traffic == {"v1": 100}
    assert harness.workloads == {"iris-predictor": "v1"}
    assert len(harness.api.of_revisions()) == 2


async def test_going_back_to_an_older_spec_is_a_new_revision(harness: Harness) -> None:
    for uri in ("v1", "v2", "v1"):
        harness.apply(isvc(uri))
        await harness.settle()
    assert harness.predictor["latestReadyRevision"] == "iris-predictor-00003"
    assert harness.workloads == {"iris-predictor": "v1"}


async def test_going_back_by_the_spec_with_the_percentage_still_set_goes_back_no_further(harness: Harness) -> None:
    for uri in ("v0", "v1"):
        harness.apply(isvc(uri))
        await harness.settle()
    harness.apply(isvc("v2", canaryTrafficPercent=20))
    await harness.settle()
    harness.apply(isvc("v1", canaryTrafficPercent=20))
    await harness.settle()
    assert harness.traffic == {"v1": 100}


async def test_a_failed_update_in_place_is_undone_by_a_canary_beside_the_old_revision(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.loads = lambda uri: uri != "v2"
    harness.apply(isvc("v2"))
    await harness.settle()
    harness.apply(isvc("v3", canaryTrafficPercent=10))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v1", "iris-predictor-00003": "v3"}
    assert harness.traffic == {"v3": 10, "v1": 90}


async def test_scaling_and_traffic_fields_make_no_revision(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v1", minReplicas=3, timeout=10, containerConcurrency=4))
    await harness.settle()
    assert list(harness.api.of_revisions()) == ["iris-predictor-00001"]
    assert harness.api.of_deployment("iris-predictor")["spec"]["replicas"] == 3
    annotations = harness.api.of_service("iris-predictor")["metadata"]["annotations"]
    assert annotations["fairlead.dev/timeout"] == "10"
    assert annotations["fairlead.dev/container-concurrency"] == "4"


# --- spec.canary[] ------------------------------------------------------------------------------------------------


def canary(name: str, percent: int, uri: str) -> dict[str, object]:
    return {
        "trafficPercent": percent,
        "predictor": {"name": name, "model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri}},
    }


async def test_named_canaries_get_their_shares_and_the_stable_one_the_rest(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2"), canary("c", 20, "v3")]))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v1", "iris-b-predictor": "v2", "iris-c-predictor": "v3"}
    assert harness.traffic == {"v1": 70, "v2": 10, "v3": 20}
    assert harness.condition("CanaryPredictorReady")["reason"] == "AllCanariesReady"
    assert [c["name"] for c in harness.status["canaryStatuses"]] == ["b", "c"]


async def test_a_named_canary_that_is_not_ready_leaves_its_share_to_the_stable_one(harness: Harness) -> None:
    harness.loads = lambda uri: uri == "v1"
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")]))
    await harness.settle()
    assert harness.traffic == {"v1": 100, "v2": 0}
    assert harness.condition("CanaryPredictorReady")["reason"] == "CanariesNotReady"
    assert harness.ready == "True"


async def test_a_named_canary_is_promoted_by_its_name_without_a_restart(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")]))
    await harness.settle()
    template = harness.api.of_deployment("iris-b-predictor")["spec"]["template"]
    harness.apply(isvc("v2", name="b"))
    await harness.settle()
    assert harness.workloads == {"iris-b-predictor": "v2"}
    assert harness.api.of_deployment("iris-b-predictor")["spec"]["template"] == template
    assert harness.services["iris-predictor"] == "iris-b-predictor"
    assert harness.condition("CanaryPredictorReady") == {}


async def test_dropping_a_canary_rolls_it_back(harness: Harness) -> None:
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")]))
    await harness.settle()
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v1"}
    assert harness.traffic == {"v1": 100}


async def test_a_canary_may_have_the_name_that_the_stable_workload_has_kept(harness: Harness) -> None:
    harness.apply(isvc("v1", name="b"))
    await harness.settle()
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")]))
    await harness.settle()
    assert harness.traffic == {"v1": 90, "v2": 10}
    assert len(harness.api.of_revisions()) == 2


# --- What fails -----------------------------------------------------------------------------------------------------


async def test_a_model_that_cannot_load_says_why(harness: Harness) -> None:
    harness.loads = lambda uri: False
    harness.apply(isvc("v1"))
    await harness.once()
    harness.run_node()
    harness.crash_pod("iris-predictor", "Traceback\nno file model.joblib in v1")
    await harness.settle()
    model = harness.status["modelStatus"]
    assert model["transitionStatus"] == "BlockedByFailedLoad"
    assert model["states"] == {"activeModelState": "FailedToLoad", "targetModelState": "FailedToLoad"}
    assert model["lastFailureInfo"] == {
        "location": "iris-predictor-pod",
        "reason": "ModelLoadFailed",
        "message": "Traceback\nno file model.joblib in v1",
        "modelRevisionName": "iris-predictor-00001",
        "time": "2026-11-21T00:00:05Z",
        "exitCode": 1,
    }
    assert model["copies"] == {"failedCopies": 1, "totalCopies": 1}
    assert harness.ready == "False"
    assert (
        harness.condition("Ready")["message"] == "iris-predictor-00001 failed: no file model.joblib in v1 (exit code 1)"
    )
    assert harness.predictor["traffic"] == []


async def test_a_failure_is_one_event_however_often_the_pod_restarts(harness: Harness) -> None:
    harness.loads = lambda uri: False
    harness.apply(isvc("v1"))
    await harness.once()
    for attempt in range(3):
        harness.crash_pod("iris-predictor", f"12:00:0{attempt} starting\nno such bucket")
        await harness.settle()
    warnings = [message for type, _, message in harness.events.emitted if type == "Warning"]
    assert warnings == ["iris-predictor-00001: no such bucket"]


async def test_the_log_is_read_when_the_pod_has_no_last_words(harness: Harness) -> None:
    harness.loads = lambda uri: False
    harness.api.log = "disk full\n"
    harness.apply(isvc("v1"))
    await harness.once()
    harness.crash_pod("iris-predictor", "")
    await harness.settle()
    assert harness.status["modelStatus"]["lastFailureInfo"]["message"] == "disk full"


async def test_the_good_revision_serves_while_the_new_one_fails(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.loads = lambda uri: uri == "v1"
    harness.apply(isvc("v2"))
    await harness.once()
    harness.run_node()
    harness.crash_pod("iris-predictor", "no such bucket")
    await harness.settle()
    model = harness.status["modelStatus"]
    assert model["states"] == {"activeModelState": "Loaded", "targetModelState": "FailedToLoad"}
    assert sum(t["percent"] for t in harness.predictor["traffic"]) == 100
    assert harness.ready == "False"
    assert harness.condition("Ready")["message"].endswith("iris-predictor-00001 still serves")


async def test_a_model_that_no_runtime_supports_says_what_there_is(harness: Harness) -> None:
    obj = isvc("v1")
    obj["spec"]["predictor"]["model"]["modelFormat"] = {"name": "prophet"}
    harness.apply(obj)
    await harness.settle()
    model = harness.status["modelStatus"]
    assert model["transitionStatus"] == "InvalidSpec"
    assert model["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
    assert "fairlead-core (sklearn:1; v1, v2)" in model["lastFailureInfo"]["message"]
    assert harness.workloads == {}
    assert "NoSupportingRuntime" in harness.events.reasons


async def test_an_invalid_change_leaves_what_runs_alone(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.apply(isvc("v1", modle="typo"))
    await harness.settle()
    assert harness.status["modelStatus"]["transitionStatus"] == "InvalidSpec"
    assert "spec.predictor.modle: unknown field" in harness.condition("Ready")["message"]
    assert harness.traffic == {"v1": 100}
    assert harness.ready == "False"


async def test_a_service_whose_only_pod_is_lost_is_not_ready_and_keeps_its_traffic_for_the_gateway_to_hold(
    harness: Harness,
) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.lose_pods("iris-predictor")
    harness.loads = lambda uri: False
    await harness.settle()
    assert harness.ready == "False"
    assert harness.condition("PredictorReady")["reason"] == "NoReadyPods"
    assert harness.traffic == {"v1": 100}


async def test_a_canary_that_is_lost_gives_its_share_back(harness: Harness) -> None:
    await with_canary(harness)
    harness.lose_pods("iris-predictor-00002")
    harness.loads = lambda uri: uri == "v1"
    await harness.settle()
    assert harness.traffic == {"v2": 0, "v1": 100}


# --- Gateways ---------------------------------------------------------------------------------------------------------


async def test_it_is_not_ready_before_the_gateway_carries_it(harness: Harness) -> None:
    harness.gateway.stuck = True
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.ready == "Unknown"
    assert harness.condition("IngressReady")["reason"] == "Programming"
    harness.gateway.stuck = False
    await harness.settle()
    assert harness.ready == "True"


async def test_a_workload_is_removed_only_after_the_gateway_has_left_it(harness: Harness) -> None:
    await with_canary(harness)
    harness.gateway.stuck = True
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.traffic == {"v2": 100}
    assert "iris-predictor" in harness.workloads
    harness.gateway.absent = True
    await harness.settle()
    assert "iris-predictor" in harness.workloads, "a gateway that does not answer has confirmed nothing"
    harness.gateway.stuck = harness.gateway.absent = False
    await harness.settle()
    assert harness.workloads == {"iris-predictor-00002": "v2"}
    assert "Pruned" in harness.events.reasons


# --- Steering -----------------------------------------------------------------------------------------------------------


async def test_stop_removes_the_workloads_and_start_brings_the_same_revisions_back(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2", canaryTrafficPercent=20, annotations={"serving.kserve.io/stop": "true"}))
    await harness.settle()
    assert harness.workloads == {}
    assert harness.services == {}
    assert harness.condition("Stopped")["status"] == "True"
    assert harness.predictor["traffic"] == []
    harness.apply(isvc("v2", canaryTrafficPercent=20))
    await harness.settle()
    assert harness.traffic == {"v2": 20, "v1": 80}
    assert harness.condition("Stopped")["status"] == "False"
    assert harness.ready == "True"


async def test_a_service_that_is_stopped_says_so_of_its_canaries_too(harness: Harness) -> None:
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")]))
    await harness.settle()
    harness.apply(isvc("v1", canary=[canary("b", 10, "v2")], annotations={"serving.kserve.io/stop": "true"}))
    await harness.settle()
    assert harness.condition("CanaryPredictorReady")["reason"] == "Stopped"


async def test_kubectl_scale_stays_until_the_minimum_changes(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=1))
    await harness.settle()
    harness.api.rescale("iris-predictor", 3)
    await harness.settle()
    assert harness.api.of_deployment("iris-predictor")["spec"]["replicas"] == 3
    harness.apply(isvc("v1", minReplicas=2))
    await harness.settle()
    assert harness.api.of_deployment("iris-predictor")["spec"]["replicas"] == 2


async def test_what_demand_scales_is_left_to_the_autoscaler(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=1, maxReplicas=5))
    await harness.settle()
    harness.api.rescale("iris-predictor", 4)
    harness.apply(isvc("v1", minReplicas=2, maxReplicas=3))
    await harness.settle()
    assert harness.api.of_deployment("iris-predictor")["spec"]["replicas"] == 4
    scaled = harness.board.scaled()[Key("team", "iris-predictor")]
    assert (scaled.policy.min_replicas, scaled.policy.max_replicas) == (2, 3)


async def test_a_first_revision_keeps_a_pod_until_it_has_been_ready_and_may_then_go_to_zero(harness: Harness) -> None:
    harness.loads = lambda uri: False
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    workload = Key("team", "iris-predictor")
    assert harness.api.of_deployment("iris-predictor")["spec"].get("replicas", 1) == 1
    assert harness.board.scaled()[workload].policy.min_replicas == 1
    harness.loads = lambda uri: True
    await harness.settle()
    assert harness.ready == "True"
    assert harness.board.scaled()[workload].policy.min_replicas == 0


async def test_a_service_at_zero_is_ready_and_keeps_its_traffic_while_it_wakes_up(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.api.rescale("iris-predictor", 0)
    await harness.settle()
    assert (harness.ready, harness.traffic) == ("True", {"v1": 100})
    harness.loads = lambda uri: False
    harness.api.rescale("iris-predictor", 1)
    await harness.settle()
    assert (harness.ready, harness.traffic) == ("True", {"v1": 100})


async def test_an_operator_that_restarts_takes_a_service_at_zero_for_ready(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.api.rescale("iris-predictor", 0)
    await harness.settle()
    harness.restart_operator()
    await harness.settle()
    assert harness.ready == "True"
    assert harness.board.scaled()[Key("team", "iris-predictor")].policy.min_replicas == 0


async def test_a_new_revision_of_a_service_at_zero_has_to_be_ready_once(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.api.rescale("iris-predictor", 0)
    await harness.settle()
    harness.apply(isvc("v2", minReplicas=0))
    await harness.settle()
    assert harness.ready != "True"
    assert harness.board.scaled()[Key("team", "iris-predictor")].policy.min_replicas == 1


@pytest.mark.parametrize(("percent", "moved"), [(20, {"v1": 80, "v2": 20}), (None, {"v2": 100})], ids=["20 %", "all"])
async def test_a_canary_at_zero_is_woken_before_it_gets_traffic(
    harness: Harness, percent: int | None, moved: dict[str, int]
) -> None:
    more = {} if percent is None else {"canaryTrafficPercent": percent}
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.apply(isvc("v2", minReplicas=0, canaryTrafficPercent=0))
    await harness.settle()
    canary = Key("team", "iris-predictor-00002")
    harness.api.rescale(canary.name, 0)
    await harness.settle()
    assert (harness.ready, harness.board.scaled()[canary].policy.min_replicas) == ("True", 0)

    harness.apply(isvc("v2", minReplicas=0, **more))
    await harness.settle()
    assert {model: share for model, share in harness.traffic.items() if share} == {"v1": 100}
    assert harness.board.scaled()[canary].policy.min_replicas == 1
    assert "iris-predictor-00002 is woken up before it gets traffic" in harness.condition("Ready")["message"]

    harness.api.rescale(canary.name, 1)  # as the autoscaler does at its next tick
    await harness.settle()
    assert harness.traffic == moved
    assert (harness.ready, harness.board.scaled()[canary].policy.min_replicas) == ("True", 0)


async def test_a_canary_that_has_its_share_may_go_to_zero_and_keeps_it(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.apply(isvc("v2", minReplicas=0, canaryTrafficPercent=20))
    await harness.settle()
    harness.api.rescale("iris-predictor-00002", 0)
    await harness.settle()
    assert (harness.ready, harness.traffic) == ("True", {"v1": 80, "v2": 20})
    harness.apply(isvc("v2", minReplicas=0, canaryTrafficPercent=50))
    await harness.settle()
    assert harness.traffic == {"v1": 50, "v2": 50}


async def test_a_wake_up_that_was_given_up_still_says_what_the_pods_had_said(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.api.rescale("iris-predictor", 0)
    await harness.settle()
    harness.crash_pod("iris-predictor", "no such file: model.skops")
    await harness.settle()
    harness.api.remove(PODS, Key("team", "iris-predictor-pod"))
    paused = Outcome(0, Mode.PAUSED, "concurrency", 1.0, 70.0, "no replica was ready 120 s after the wake-up")
    harness.board.decided(Key("team", "iris-predictor"), paused)
    for _ in range(2):  # the second time, the status is all that there is to know it from
        await harness.settle()
        assert harness.condition("Ready")["reason"] == "WakeUpFailed"
        assert harness.condition("Ready")["message"].endswith("when it was asked for: no such file: model.skops")
    harness.board.decided(Key("team", "iris-predictor"), replace(paused, mode=Mode.IDLE))
    await harness.settle()
    assert harness.ready == "True"


async def test_a_model_that_crashes_while_it_wakes_up_is_not_ready(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0))
    await harness.settle()
    harness.api.rescale("iris-predictor", 0)
    await harness.settle()
    harness.crash_pod("iris-predictor", "no such file: model.skops")
    await harness.settle()
    assert harness.ready == "False"
    assert "no such file" in harness.condition("Ready")["message"]


async def test_cpu_scaling_is_an_hpa_that_owns_the_replicas(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=2, maxReplicas=4, scaleMetric="cpu", scaleTarget=60))
    await harness.settle()
    hpa = harness.api.of_hpa("iris-predictor")
    assert hpa["spec"]["minReplicas"] == 2
    assert hpa["spec"]["maxReplicas"] == 4
    assert hpa["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert sum(call.startswith("scale") for call in harness.api.calls) == 1, "it begins with two"
    harness.apply(isvc("v1", minReplicas=2))
    await harness.settle()
    assert harness.api.of_hpa("iris-predictor") is None


async def test_what_somebody_changed_is_put_right(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.api.meddle("iris-predictor", image="evil:latest")
    await harness.settle()
    container = harness.api.of_deployment("iris-predictor")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "fairlead/runtime-core:0.1.0"


async def test_idle_costs_no_call(harness: Harness) -> None:
    await with_canary(harness)
    calls, asked = len(harness.api.calls), harness.gateway.asked
    for _ in range(3):
        assert await harness.once() is None
    assert len(harness.api.calls) == calls
    assert harness.gateway.asked == asked


async def test_a_service_costs_few_calls(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.api.calls == [
        "apply ControllerRevision iris-predictor-00001",
        "apply Deployment iris-predictor",
        "apply Service iris-predictor",
        "status InferenceService iris",
        "status InferenceService iris",
        "status InferenceService iris",
    ]


async def test_a_new_runtime_version_is_a_new_revision(harness: Harness) -> None:
    from tests.controllers.harness import RUNTIME

    from fairlead.kube.resources import CLUSTER_SERVING_RUNTIMES

    harness.apply(isvc("v1"))
    await harness.settle()
    container = {**RUNTIME["spec"]["containers"][0], "image": "fairlead/runtime-core:0.2.0"}
    harness.api.put(CLUSTER_SERVING_RUNTIMES, {**RUNTIME, "spec": {**RUNTIME["spec"], "containers": [container]}})
    await harness.settle()
    assert harness.predictor["latestReadyRevision"] == "iris-predictor-00002"


async def test_a_transformer_stands_before_the_predictor_and_gates_ready(harness: Harness) -> None:
    harness.apply(
        isvc(
            "v1",
            transformer={"containers": [{"image": "acme/tokens:1", "env": [{"name": "STORAGE_URI", "value": "t1"}]}]},
        )
    )
    harness.loads = lambda uri: uri == "v1"
    await harness.settle()
    assert harness.ready == "False"
    assert harness.condition("PredictorReady")["status"] == "True"
    harness.loads = lambda uri: True
    await harness.settle()
    assert harness.ready == "True"
    assert harness.condition("TransformerReady")["status"] == "True"
    container = harness.api.of_deployment("iris-transformer")["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == [
        "--model_name",
        "iris",
        "--predictor_host",
        "iris-predictor.team",
        "--http_port",
        "8080",
    ]
    assert harness.status["address"]["url"] == "http://iris-transformer.team.svc.cluster.local"
    harness.apply(isvc("v1"))
    await harness.settle()
    assert harness.workloads == {"iris-predictor": "v1"}
    assert "TransformerReady" not in [c["type"] for c in harness.status["conditions"]]


async def test_a_service_that_knatives_annotations_scale_is_scaled_by_demand(harness: Harness) -> None:
    annotations = {"autoscaling.knative.dev/target": "5", "autoscaling.knative.dev/maxScale": "3"}
    harness.apply(isvc("v1", annotations=annotations))
    await harness.settle()
    policy = harness.reconciler._board.scaled()[Key(KEY.namespace, "iris-predictor")].policy
    assert (policy.target, policy.min_replicas, policy.max_replicas) == (3.5, 1, 3)
    assert "FieldsNotActedOn" not in [condition["type"] for condition in harness.status["conditions"]]


async def test_what_is_not_acted_on_is_named(harness: Harness) -> None:
    harness.apply(isvc("v1", minReplicas=0, scaleMetric="cpu"))
    await harness.settle()
    assert "spec.predictor.minReplicas" in harness.condition("FieldsNotActedOn")["message"]
    assert "NotActedOn" in harness.events.reasons


async def test_every_transition_of_a_canarys_life_is_one_event(harness: Harness) -> None:
    await with_canary(harness)
    harness.apply(isvc("v2"))
    await harness.settle()
    assert harness.events.reasons == [
        "RevisionCreated",
        "RevisionReady",
        "RolledOut",
        "TrafficMoved",
        "Ready",
        "RevisionCreated",
        "RevisionReady",
        "TrafficMoved",
        "Ready",
        "RolledOut",
        "TrafficMoved",
        "Pruned",
    ]


async def test_what_an_earlier_service_of_the_name_left_is_waited_for(harness: Harness) -> None:
    harness.apply(isvc("v1"))
    await harness.settle()
    harness.api.remove(INFERENCE_SERVICES, KEY)
    harness.apply(isvc("v2"))
    with pytest.raises(Leftover, match="still an earlier InferenceService's"):
        await harness.once()
    harness.api.collect_garbage()
    await harness.settle()
    assert harness.traffic == {"v2": 100}


async def test_somebody_elses_object_is_not_taken_over(harness: Harness) -> None:
    labels = {"serving.kserve.io/inferenceservice": "iris"}
    selector = {"matchLabels": {"app": "mine"}}
    theirs = {
        "metadata": {"name": "iris-predictor", "namespace": "team", "labels": labels},
        "spec": {"selector": selector},
    }
    harness.api.put(DEPLOYMENTS, theirs)
    harness.apply(isvc("v1"))
    await harness.once()
    assert "Deployment iris-predictor exists already" in harness.condition("Ready")["message"]
    assert harness.api.of_deployment("iris-predictor")["spec"]["selector"] == selector
