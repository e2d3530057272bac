"""One InferenceService under a real reconciler, a fake API, a fake node and a fake gateway, in virtual time."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.controllers.fake_api import FakeApi

from fairlead.controllers.autoscaler.board import Board
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.catalogue import Catalogue
from fairlead.controllers.inferenceservice.controller import Reconciler
from fairlead.controllers.inferenceservice.gateways import Answer
from fairlead.controllers.inferenceservice.keda import Keda
from fairlead.controllers.inferenceservice.lastwords import LastWords
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.surroundings import SurroundingsReader
from fairlead.kube.errors import Conflict
from fairlead.kube.objects import Key, Object
from fairlead.kube.resources import (
    CLUSTER_SERVING_RUNTIMES,
    DEPLOYMENTS,
    INFERENCE_SERVICES,
    PODS,
    SERVICES,
)

KEY = Key("team", "iris")

RUNTIME: Object = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ClusterServingRuntime",
    "metadata": {"name": "fairlead-core", "annotations": {"fairlead.dev/storage": "runtime"}},
    "spec": {
        "supportedModelFormats": [{"name": "sklearn", "version": "1", "autoSelect": True}],
        "protocolVersions": ["v1", "v2"],
        "containers": [
            {
                "name": "kserve-container",
                "image": "fairlead/runtime-core:0.1.0",
                "args": ["--model_name={{.Name}}"],
                "ports": [{"containerPort": 8080}, {"containerPort": 8081, "name": "h2c"}],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
            }
        ],
    },
}


def isvc(uri: str = "v1", *, annotations: Mapping[str, str] | None = None, **predictor: Any) -> Object:
    """`canary` and `transformer` go to the spec, everything else to the predictor."""
    spec: dict[str, Any] = {key: predictor.pop(key) for key in ("canary", "transformer") if key in predictor}
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": uri}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": KEY.name, "namespace": KEY.namespace, "annotations": dict(annotations or {})},
        "spec": {"predictor": {"model": model, **predictor}, **spec},
    }


class FakeGateway:
    """Follows the status, one step behind if told so."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        self.stuck = False
        self.absent = False
        self.asked = 0
        self.routes: Mapping[str, Any] | None = None

    def follow(self) -> None:
        """Does what the status says now."""
        if self.stuck:
            return
        found = self._api.objects.get((INFERENCE_SERVICES, KEY), {}).get("status", {}).get("components", {})
        self.routes = {
            "conflict": None,
            "components": {
                kind: {
                    "targets": [self._target(item) for item in component.get("traffic", ()) if "serviceName" in item]
                }
                for kind, component in found.items()
            },
        }

    async def ask(self, key: Key) -> Sequence[Answer]:
        self.asked += 1
        if self.absent:
            return [Answer("gw:1", error="connection refused")]
        return [Answer("gw:1", copy.deepcopy(self.routes))]

    def _target(self, item: Mapping[str, Any]) -> dict[str, Any]:
        deployment = self._api.of(DEPLOYMENTS).get(item["serviceName"], {})
        ready = deployment.get("status", {}).get("availableReplicas", 0)
        return {"serviceName": item["serviceName"], "percent": item["percent"], "readyEndpoints": ready}


class RecordedEvents:
    def __init__(self) -> None:
        self.emitted: list[tuple[str, str, str]] = []

    def emit(self, obj: Mapping[str, Any], type: str, reason: str, message: str) -> None:
        self.emitted.append((type, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.emitted]


class Harness:
    def __init__(self, settings: Settings | None = None) -> None:
        self.api = FakeApi()
        self.gateway = FakeGateway(self.api)
        self.events = RecordedEvents()
        self.settings = settings or Settings(prune_grace=1.0)
        self.seconds = 0.0
        self.loads: Callable[[str], bool] = lambda uri: True
        """Whether pods with this STORAGE_URI become ready."""
        self.restart_operator()
        self.api.put(CLUSTER_SERVING_RUNTIMES, RUNTIME)

    def restart_operator(self) -> None:
        self.board = Board()
        self.cluster = Cluster(self.api, self.api.stores, clock=lambda: self.seconds)
        catalogue = Catalogue(self.cluster)
        clock = lambda: self.seconds  # noqa: E731
        self.reconciler = Reconciler(
            self.cluster,
            catalogue,
            SurroundingsReader(self.cluster, catalogue, self.api, config_namespace="kserve", clock=clock),
            self.gateway,
            self.events,
            LastWords(self.api),
            self.settings,
            Keda(self.api, clock=clock),
            board=self.board,
            now=lambda: datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=self.seconds),
            clock=lambda: self.seconds,
        )

    def apply(self, obj: Object) -> None:
        self.api.put(INFERENCE_SERVICES, obj)

    async def once(self) -> float | None:
        """One reconcile with informers up to date."""
        self.api.deliver()
        try:
            return await self.reconciler(KEY)
        except Conflict:
            return 0.01

    async def once_stale(self) -> None:
        """One reconcile with informers as they were."""
        with contextlib.suppress(Conflict):
            await self.reconciler(KEY)

    async def settle(self, *, rounds: int = 40) -> None:
        """Node, gateway and controller take turns until nothing happens any more."""
        quiet = 0
        for _ in range(rounds):
            before = len(self.api.calls), self.api._version
            self.run_node()
            self.gateway.follow()
            again = await self.once()
            self.seconds += max(again or 0.0, 0.1)
            quiet = quiet + 1 if (len(self.api.calls), self.api._version) == before else 0
            if quiet and again is None:
                return
            if quiet > 3:
                return
        raise AssertionError(f"still busy after {rounds} rounds: {self.api.calls[-10:]}")

    def run_node(self) -> None:
        """Rolls every Deployment: a new template's pods become ready at once or never, and old pods stay until then."""
        for name, deployment in self.api.of(DEPLOYMENTS).items():
            replicas = deployment["spec"].get("replicas", 1)
            had = deployment.get("status", {}).get("availableReplicas", 0)
            ready = self.loads(storage_uri(deployment))
            fresh = deployment.get("status", {}).get("observedGeneration") != deployment["metadata"]["generation"]
            if not ready and not fresh:
                continue
            conditions = [
                {
                    "type": "Progressing",
                    "status": "True",
                    "reason": "NewReplicaSetAvailable" if ready else "ReplicaSetUpdated",
                }
            ]
            status = {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": replicas if ready else had + 1,
                "updatedReplicas": replicas if ready else 1,
                "availableReplicas": replicas if ready else had,
                "conditions": conditions,
            }
            self.api.set_status(DEPLOYMENTS, Key(KEY.namespace, name), status)

    def lose_pods(self, workload: str) -> None:
        """All pods of the workload are gone for now; the rollout stays complete."""
        key = Key(KEY.namespace, workload)
        status = self.api.objects[DEPLOYMENTS, key].get("status")
        if status is not None:
            self.api.set_status(DEPLOYMENTS, key, {**status, "availableReplicas": 0})

    def crash_pod(self, workload: str, message: str, exit_code: int = 1) -> None:
        """A pod of the workload's revision has ended with this as its last words."""
        deployment = self.api.of(DEPLOYMENTS)[workload]
        terminated = {
            "exitCode": exit_code,
            "message": message,
            "finishedAt": "2026-11-21T00:00:05Z",
            "reason": "Error",
        }
        self.api.put(
            PODS,
            {
                "metadata": {
                    "name": f"{workload}-pod",
                    "namespace": KEY.namespace,
                    "labels": deployment["spec"]["template"]["metadata"]["labels"],
                },
                "status": {
                    "containerStatuses": [
                        {
                            "name": "kserve-container",
                            "ready": False,
                            "restartCount": 2,
                            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                            "lastState": {"terminated": terminated},
                        }
                    ]
                },
            },
        )

    # --- What a user sees ----------------------------------------------------------------------------------------

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.api.objects[INFERENCE_SERVICES, KEY].get("status", {})
        return status

    @property
    def predictor(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status["components"]["predictor"]
        return found

    def condition(self, type: str) -> Mapping[str, Any]:
        return next((c for c in self.status.get("conditions", ()) if c["type"] == type), {})

    @property
    def ready(self) -> str:
        return str(self.condition("Ready").get("status", ""))

    @property
    def traffic(self) -> dict[str, int]:
        """Storage URI -> percentage, so that a test speaks of models and not of revisions."""
        deployments = self.api.of(DEPLOYMENTS)
        return {storage_uri(deployments[item["serviceName"]]): item["percent"] for item in self.predictor["traffic"]}

    @property
    def workloads(self) -> dict[str, str]:
        """Deployment -> storage URI."""
        return {name: storage_uri(obj) for name, obj in self.api.of(DEPLOYMENTS).items()}

    @property
    def services(self) -> dict[str, str]:
        """Service -> the Deployment whose pods it selects."""
        return {
            name: obj["spec"]["selector"]["app"].removeprefix("isvc.") for name, obj in self.api.of(SERVICES).items()
        }


def storage_uri(deployment: Object) -> str:
    env = deployment["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return next((entry["value"] for entry in env if entry["name"] == "STORAGE_URI"), "")
