"""The InferenceService's status: KServe's fields, filled in so that they tell the truth.

`Ready` is true when what the spec asks for is in effect and a request sent now succeeds. While an update is on its way it is Unknown, and the message
says what still serves; when the update has failed, or nothing serves, it is False and the message says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.inferenceservice import InferenceService
from fairlead.autoscaling import Mode
from fairlead.controllers.inferenceservice.errors import SpecError
from fairlead.controllers.inferenceservice.failures import Copies, last_line
from fairlead.controllers.inferenceservice.modelstatus import invalid_status, model_status
from fairlead.controllers.inferenceservice.plan import Plan
from fairlead.controllers.inferenceservice.revisions import Markers, Readiness
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.traffic import Target
from fairlead.kube.conditions import Status, get_condition, remove_condition, set_condition
from fairlead.kube.objects import Object, parse_timestamp, timestamp

DEPLOYMENT_MODE = "Standard"
NOT_ACTED_ON = "FieldsNotActedOn"


@dataclass(frozen=True)
class ComponentReport:
    """What is to be said of one component."""

    plan: Plan
    readiness: Mapping[str, Readiness]
    copies: Mapping[str, Copies]
    """By revision, of those that are placed."""
    grpc: bool = False
    runtime: tuple[str, str] | None = None
    """(kind, name) of the ServingRuntime of the latest revision."""
    asked_percent: int = 100
    """What the spec wants the latest to get."""
    asleep: frozenset[str] = frozenset()
    """Workloads without an available pod that a request brings back."""
    autoscaling: Sequence[Open] = ()
    """What was decided of each workload that demand scales."""
    starts: Sequence[Open] = ()
    """What the last start of each revision was made of."""
    last_failure: Open | None = None
    """`lastFailureInfo` of the latest revision, as the status has it: its pods are gone when a wake-up is given up."""

    @property
    def paused(self) -> bool:
        """The latest revision's wake-up was given up, and the next one waits."""
        latest = self.plan.latest.name
        return any(item["mode"] == Mode.PAUSED and item["revisionName"] == latest for item in self.autoscaling)

    def of(self, revision: str) -> Readiness:
        return self.readiness.get(revision, Readiness.PENDING)

    @property
    def serving(self) -> list[Target]:
        return [t for t in self.plan.targets if t.percent > 0 and self.of(t.revision) is Readiness.READY]


@dataclass(frozen=True)
class Confirmation:
    """What the gateways say of the service's traffic."""

    status: Status
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Verdict:
    """A condition without its time."""

    status: Status
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Report:
    """What one reconcile found out."""

    isvc: InferenceService
    components: Mapping[str, ComponentReport] = field(default_factory=dict)
    error: SpecError | None = None
    confirmation: Confirmation = field(default_factory=lambda: Confirmation("Unknown", "NotAsked"))
    notes: Sequence[str] = ()


def status(report: Report, old: Open, settings: Settings, now: datetime) -> Open:
    """The new status, given the old one; equal to it if nothing has changed."""
    isvc = report.isvc
    new: Open = {
        "observedGeneration": isvc.metadata.generation or 0,
        "deploymentMode": DEPLOYMENT_MODE,
        **_addresses(report, settings),
    }
    if report.error is not None:
        kept = ("components", "canaryStatuses", "servingRuntimeName", "clusterServingRuntimeName")
        new |= {key: old[key] for key in kept if key in old}
        new["modelStatus"] = invalid_status(report.error, _since(report.error, old, now), serving=_served(old))
    elif isvc.stopped:
        # What has rolled out is remembered for the next start; nothing is to be sent anywhere until then.
        new["components"] = {kind: {**c, "traffic": []} for kind, c in old.get("components", {}).items()}
    else:
        new |= _components(report, settings)
    new["conditions"] = _conditions(report, old.get("conditions", ()), now)
    return new


def markers(component: Mapping[str, str]) -> Markers:
    """As `status.components.<c>` has them."""
    return Markers(
        component.get("latestCreatedRevision", ""),
        component.get("latestReadyRevision", ""),
        component.get("latestRolledoutRevision", ""),
        component.get("previousRolledoutRevision", ""),
    )


def shares(component: Mapping[str, Any]) -> dict[str, int]:
    """Of the traffic, by revision, as `status.components.<c>` has them."""
    return {item["revisionName"]: item["percent"] for item in component.get("traffic", ())}


def last_failure(status: Open, revision: str) -> Open | None:
    """What the status says of the revision's last failure."""
    info: Open = status.get("modelStatus", {}).get("lastFailureInfo", {})
    return info if info.get("modelRevisionName") == revision and info.get("message") else None


# --- Conditions -------------------------------------------------------------------------------------------------


def _conditions(report: Report, old: Iterable[Mapping[str, str]], now: datetime) -> list[Object]:
    verdicts = _verdicts(report)
    conditions = [dict(condition) for condition in old]
    for condition in conditions:
        if condition["type"] not in verdicts:
            conditions = remove_condition(conditions, condition["type"])
    for type, verdict in verdicts.items():
        conditions = set_condition(conditions, type, verdict.status, verdict.reason, verdict.message, now)
    return conditions


def _verdicts(report: Report) -> dict[str, Verdict]:
    """All conditions that the service is to have, in order."""
    if report.isvc.stopped:
        stopped = Verdict("False", "Stopped", f"stopped by the annotation {names.STOP}; remove it to start again")
        return {
            "PredictorReady": stopped,
            **({"CanaryPredictorReady": stopped} if report.isvc.spec.canary else {}),
            "IngressReady": stopped,
            "Ready": stopped,
            "Stopped": Verdict("True", "Stopped"),
        }
    verdicts: dict[str, Verdict] = {}
    if report.error is not None:
        verdicts["PredictorReady"] = Verdict("False", report.error.reason, report.error.message)
    for kind, component in report.components.items():
        verdicts[f"{kind.capitalize()}Ready"] = component_verdict(component)
    confirmation = report.confirmation
    verdicts["IngressReady"] = Verdict(confirmation.status, confirmation.reason, confirmation.message)
    verdicts["Ready"] = _first_that_is_not_true(verdicts)
    predictor = report.components.get("predictor")
    if predictor is not None and predictor.plan.canaries:
        verdicts["CanaryPredictorReady"] = _canaries_verdict(predictor)
    verdicts["Stopped"] = Verdict("False")
    if report.notes:
        verdicts[NOT_ACTED_ON] = Verdict("True", "NotActedOn", "; ".join(report.notes))
    return verdicts


def component_verdict(component: ComponentReport) -> Verdict:
    latest = component.plan.latest.name
    state, copies = component.of(latest), component.copies.get(latest, Copies())
    serving = component.serving
    still = f"; {_listed(serving)} still serves" if serving else ""
    wanted = component.asked_percent > 0 or not component.plan.markers.latest_rolledout
    if state is not Readiness.READY and (wanted or not serving):
        if copies.failure is not None:
            return Verdict("False", copies.failure.reason, f"{latest} failed: {copies.failure.summary}{still}")
        if state is Readiness.LOST:
            return Verdict("False", "NoReadyPods", f"{latest} has no ready pod any more{still}")
        waiting = f": {copies.waiting}" if copies.waiting else ""
        return Verdict("Unknown" if serving else "False", "Progressing", f"{latest} is not ready yet{waiting}{still}")
    if copies.failure is not None and component.plan.latest.workload in component.asleep:
        return Verdict("False", copies.failure.reason, f"{latest} does not come up again: {copies.failure.summary}")
    if component.paused:
        why = f": {last_line(component.last_failure['message'])}" if component.last_failure else ""
        return Verdict("False", "WakeUpFailed", f"{latest} did not become ready when it was asked for{why}")
    rolledout = component.plan.markers.latest_rolledout
    if component.of(rolledout) is not Readiness.READY:
        return Verdict("False", "NoReadyPods", f"{rolledout} has no ready pod any more{still}")
    if component.plan.warming:
        woken = " and ".join(sorted(component.plan.warming))
        return Verdict("Unknown", "WarmingUp", f"{woken} is woken up before it gets traffic{still}")
    if component.plan.pending_rollback is not None:
        return Verdict("Unknown", "Progressing", f"{component.plan.pending_rollback} is not ready yet{still}")
    return Verdict("True")


def _canaries_verdict(component: ComponentReport) -> Verdict:
    waiting = [
        canary.name
        for canary, revision in component.plan.canaries
        if component.of(revision.name) is not Readiness.READY
    ]
    if waiting:
        return Verdict("False", "CanariesNotReady", f"not ready: {', '.join(waiting)}")
    return Verdict("True", "AllCanariesReady")


def _first_that_is_not_true(verdicts: Mapping[str, Verdict]) -> Verdict:
    """False before Unknown: what is wrong matters more than what is on its way."""
    for wanted in ("False", "Unknown"):
        for type, verdict in verdicts.items():
            if verdict.status == wanted:
                return Verdict(wanted, verdict.reason or type, verdict.message)
    return Verdict("True")


def _listed(targets: Sequence[Target]) -> str:
    return " and ".join(target.revision for target in targets)


# --- Components -------------------------------------------------------------------------------------------------


def _components(report: Report, settings: Settings) -> Open:
    found: Open = {
        "components": {kind: _component(report.isvc, kind, c, settings) for kind, c in report.components.items()}
    }
    predictor = report.components.get("predictor")
    if predictor is None:
        return found
    found["modelStatus"] = _model_status(predictor, predictor.plan.latest.name)
    if predictor.paused and predictor.last_failure is not None:
        found["modelStatus"].setdefault("lastFailureInfo", predictor.last_failure)
    if predictor.plan.canaries:
        weights = {target.revision: target.percent for target in predictor.plan.targets}
        found["canaryStatuses"] = [
            {
                "name": canary.name,
                "ready": predictor.of(revision.name) is Readiness.READY,
                "trafficPercent": weights.get(revision.name, 0),
                "modelStatus": _model_status(predictor, revision.name),
            }
            for canary, revision in predictor.plan.canaries
        ]
    if predictor.runtime is not None:
        kind, name = predictor.runtime
        found["servingRuntimeName" if kind == "ServingRuntime" else "clusterServingRuntimeName"] = name
    return found


def _model_status(component: ComponentReport, revision: str) -> Open:
    copies = component.copies.get(revision, Copies())
    return model_status(revision, component.of(revision), copies, serving=bool(component.serving))


def _component(isvc: InferenceService, kind: str, component: ComponentReport, settings: Settings) -> Open:
    marks = component.plan.markers
    found: Open = {
        "latestCreatedRevision": marks.latest_created,
        "latestReadyRevision": marks.latest_ready,
        "latestRolledoutRevision": marks.latest_rolledout,
        "previousRolledoutRevision": marks.previous_rolledout,
        "url": _url(isvc, settings, kind),
        "restUrl": _url(isvc, settings, kind),
        "grpcUrl": _url(isvc, settings, kind, scheme="grpc") if component.grpc else "",
        "address": {"url": f"http://{_cluster_host(isvc, kind)}"},
        "traffic": [_traffic(isvc, kind, target, settings) for target in component.plan.targets],
        "autoscaling": list(component.autoscaling) or "",
        "starts": list(component.starts) or "",
    }
    return {key: value for key, value in found.items() if value not in ("", None)}


def _traffic(isvc: InferenceService, kind: str, target: Target, settings: Settings) -> Open:
    found: Open = {
        "revisionName": target.revision,
        "latestRevision": target.latest,
        "percent": target.percent,
        "serviceName": target.workload,
    }
    if target.tag is not None:
        found["tag"] = target.tag
        if not isvc.cluster_local:
            found["url"] = _url(isvc, settings, kind, target.tag)
    return found


# --- Addresses --------------------------------------------------------------------------------------------------


def _addresses(report: Report, settings: Settings) -> Open:
    isvc = report.isvc
    entry = "transformer" if isvc.spec.transformer is not None else "predictor"
    return {"url": _url(isvc, settings, None), "address": {"url": f"http://{_cluster_host(isvc, entry)}"}}


def _url(
    isvc: InferenceService, settings: Settings, kind: str | None, tag: str | None = None, scheme: str = "http"
) -> str:
    """Outside, or inside where the service is cluster-local."""
    metadata = isvc.metadata
    if isvc.cluster_local:
        entry = "transformer" if isvc.spec.transformer is not None else "predictor"
        return f"{scheme}://{_cluster_host(isvc, kind or entry)}"
    port = f":{settings.ingress_port}" if settings.ingress_port not in (None, 80) else ""
    host = names.host(metadata.name, metadata.namespace or "default", settings.ingress_domain, kind, tag)
    return f"{scheme}://{host}{port}"


def _cluster_host(isvc: InferenceService, kind: str) -> str:
    return names.cluster_host(isvc.metadata.name, isvc.metadata.namespace or "default", kind)


def _since(error: SpecError, old: Open, now: datetime) -> str:
    """The time of the same finding before, so that a status that says the same is the same."""
    info = old.get("modelStatus", {}).get("lastFailureInfo", {})
    if info.get("reason") == error.reason and info.get("message") == error.message and "time" in info:
        return timestamp(parse_timestamp(info["time"]))
    return timestamp(now)


def _served(old: Open) -> bool:
    condition = get_condition(old.get("conditions", ()), "IngressReady")
    return condition is not None and condition["status"] == "True"
