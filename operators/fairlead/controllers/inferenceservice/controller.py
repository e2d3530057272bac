"""The shell of the InferenceService controller: observe, decide, apply, report, prune.

The order matters. A revision is stored before a workload carries it, and its workload exists before traffic may go there. The status tells the gateways
where to send requests, so it is written before anything is removed; and what traffic has left is removed only when every gateway says so.
A crash between any two steps leaves a state from which the next reconcile goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from fairlead.api.base import Metadata, Open
from fairlead.api.errors import InvalidObject
from fairlead.api.inferenceservice import InferenceService, InferenceServiceSpec
from fairlead.api.knative import in_our_words
from fairlead.controllers.autoscaler.board import Board
from fairlead.controllers.cluster import Cluster
from fairlead.controllers.inferenceservice.applying import (
    Component,
    apply_component,
    remove_all,
    remove_undesired,
    remove_workload,
)
from fairlead.controllers.inferenceservice.autoscaled import asleep, autoscaling, scaled, starts, with_proof
from fairlead.controllers.inferenceservice.catalogue import Catalogue
from fairlead.controllers.inferenceservice.desired import Wanted, carry_out, wanted
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec, Leftover, SpecError
from fairlead.controllers.inferenceservice.failures import Copies
from fairlead.controllers.inferenceservice.gateways import Answer, Gateways, confirm, has_left
from fairlead.controllers.inferenceservice.keda import Keda
from fairlead.controllers.inferenceservice.notes import notes
from fairlead.controllers.inferenceservice.observation import (
    Children,
    children,
    contents,
    copies_by_revision,
    observed,
)
from fairlead.controllers.inferenceservice.plan import plan
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.status import (
    ComponentReport,
    Confirmation,
    Report,
    last_failure,
    markers,
    shares,
    status,
)
from fairlead.controllers.inferenceservice.surroundings import SurroundingsReader
from fairlead.controllers.inferenceservice.traffic import Target
from fairlead.controllers.inferenceservice.transitions import transitions
from fairlead.controllers.inferenceservice.workloads import serves_grpc
from fairlead.kube.backoff import Backoff
from fairlead.kube.conditions import get_condition, is_true
from fairlead.kube.errors import BadRequest, Conflict, Forbidden, Invalid, Unavailable
from fairlead.kube.objects import Key, Object, key_of, utcnow
from fairlead.kube.resources import DEPLOYMENTS, INFERENCE_SERVICES

ASK_AGAIN = Backoff(base=0.02, cap=5.0)
"""While the gateways do not yet do what the status says. They take 0.03 s on an idle cluster: for so long, `EAGER` times, nobody waits longer."""
EAGER = 4


class EventSink(Protocol):
    def emit(self, obj: Mapping[str, Any], type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


class LogReader(Protocol):
    async def last_words(self, namespace: str, found: Copies) -> Copies: ...


@dataclass
class _Memory:
    """What is remembered of a service between reconciles. It may be lost: what follows from it then happens a little later."""

    asked: int = 0
    """How often in a row the gateways were not there yet."""
    left: dict[str, float] = field(default_factory=dict)
    """Workloads that all gateways have left, and since when."""


class Reconciler:
    def __init__(
        self,
        cluster: Cluster,
        catalogue: Catalogue,
        surroundings: SurroundingsReader,
        gateways: Gateways,
        events: EventSink,
        logs: LogReader,
        settings: Settings,
        keda: Keda,
        *,
        board: Board | None = None,
        now: Callable[[], datetime] = utcnow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._catalogue = catalogue
        self._surroundings = surroundings
        self._gateways = gateways
        self._events = events
        self._logs = logs
        self._settings = settings
        self._keda = keda
        self._board = board or Board()
        self._now = now
        self._clock = clock
        self._memory: dict[Key, _Memory] = {}

    async def __call__(self, key: Key) -> float | None:
        owner = self._cluster.get(INFERENCE_SERVICES, key)
        if owner is None or "deletionTimestamp" in owner["metadata"]:
            self._memory.pop(key, None)  # the garbage collector sees to the children
            self._board.forget(key)
            return None
        try:
            return await self._reconcile(owner)
        except (Conflict, Leftover, Unavailable):  # of the moment
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            self._events.emit(owner, "Warning", "ReconcileFailed", f"tried again until it succeeds: {told:.900}")
            raise

    async def _reconcile(self, owner: Object) -> float | None:
        try:
            isvc = in_our_words(InferenceService.parse(owner))
        except InvalidObject as error:
            await self._refuse(_unreadable(owner), owner, InvalidPredictorSpec("; ".join(map(str, error.problems))))
            return None
        if isvc.stopped:
            await self._stop(isvc, owner)
            return None
        try:
            there = children(self._cluster, owner)
            components = await self._decide(isvc, owner, there)
            return await self._bring_about(isvc, owner, there, components)
        except SpecError as error:
            await self._refuse(isvc, owner, error)
            return None
        except (BadRequest, Forbidden, Invalid) as error:
            # A field that is passed on as it is given, and is wrong; or somebody's policy or quota, which may be another soon, unseen from here.
            refused = f"the API server refuses to {error.where}: {error.message}"
            await self._refuse(isvc, owner, InvalidPredictorSpec(refused))
            raise

    # --- Deciding -------------------------------------------------------------------------------------------

    async def _decide(self, isvc: InferenceService, owner: Object, there: Children) -> list[Component]:
        wants = wanted(
            isvc,
            self._catalogue.runtimes(owner["metadata"]["namespace"]),
            self._settings,
            allow_pickle=self._catalogue.allows_pickle(isvc),
            surroundings=await self._surroundings.read(isvc),
        )
        return [await self._decide_one(isvc, owner, want, there.of(want.kind)) for want in wants]

    async def _decide_one(self, isvc: InferenceService, owner: Object, want: Wanted, there: Children) -> Component:
        before = (owner.get("status") or {}).get("components", {}).get(want.kind, {})
        seen = observed(there, markers(before), shares(before))
        decided = plan(want.intent, seen)
        stored = contents(there)
        new, workloads = carry_out(isvc, owner, want, decided, stored, self._settings)
        workloads = [with_proof(workload, there, seen.readiness) for workload in workloads]
        found = copies_by_revision(there, decided, seen.readiness)
        namespace = owner["metadata"]["namespace"]
        found = {name: await self._logs.last_words(namespace, copies) for name, copies in found.items()}
        content = new.get(decided.latest.name) or stored[decided.latest.name]
        runtime = content.get("runtime")
        report = ComponentReport(
            decided,
            seen.readiness,
            found,
            serves_grpc(content["template"]["spec"]),
            (runtime["kind"], runtime["name"]) if runtime else None,
            want.asked_percent,
            asleep(there),
            autoscaling(self._board, namespace, workloads, there, before),
            starts(self._board, key_of(owner), workloads, before),
            last_failure(owner.get("status") or {}, decided.latest.name),
        )
        return Component(want, decided, new, workloads, report)

    # --- Bringing it about ----------------------------------------------------------------------------------

    async def _bring_about(
        self, isvc: InferenceService, owner: Object, there: Children, components: Sequence[Component]
    ) -> float | None:
        carried = [workload for component in components for workload in component.workloads]
        await self._keda.remove(owner, there.deployments, carried)
        for component in components:
            await apply_component(self._cluster, owner, component, there.of(component.want.kind))
        await self._keda.apply(carried)

        warming = frozenset[str]().union(*(component.plan.warming for component in components))
        self._board.plan(key_of(owner), scaled(isvc, owner, carried, warming))
        placed = {workload.name for workload in carried}
        leaving = [obj for obj in there.deployments if obj["metadata"]["name"] not in placed]
        targets = {component.want.kind: component.plan.targets for component in components}
        wake = frozenset[str]().union(*(component.report.asleep for component in components))
        answers, confirmation = await self._ask(owner, targets, wake, leaving=bool(leaving))
        reports = {component.want.kind: component.report for component in components}
        told = [*notes(isvc, (component.want.source for component in components)), *await self._keda.notes(isvc)]
        await self._report(owner, Report(isvc, reports, confirmation=confirmation, notes=told))

        again = await self._prune(owner, there, leaving, answers)
        await remove_undesired(self._cluster, components, there)
        return self._ask_again(key_of(owner), again, confirmation)

    async def _ask(
        self, owner: Object, targets: Mapping[str, Sequence[Target]], wake: frozenset[str], *, leaving: bool
    ) -> tuple[Sequence[Answer], Confirmation]:
        """Asks the gateways, unless nothing depends on it: the service is ready, its split stays, and nothing is to be removed."""
        old = owner.get("status") or {}
        was_ready = is_true(old.get("conditions", ()), "IngressReady")
        if is_true(old.get("conditions", ()), "Ready") and not leaving and _split(old) == _targets(targets):
            return (), _confirmed_before(old)
        answers = await self._gateways.ask(key_of(owner))
        return answers, confirm(answers, targets, was_ready=was_ready, asleep=wake)

    async def _prune(
        self, owner: Object, there: Children, leaving: Sequence[Object], answers: Sequence[Answer]
    ) -> list[float]:
        """Removes the workloads that all gateways have left for long enough. Returns when to look again, if any are still there."""
        left = self._memory.setdefault(key_of(owner), _Memory()).left
        again = []
        for workload in leaving:
            name = workload["metadata"]["name"]
            if not has_left(answers, name):
                left.pop(name, None)
                again.append(0.0)
                continue
            rest = left.setdefault(name, self._clock()) + self._settings.prune_grace - self._clock()
            if rest > 0:
                again.append(rest)
                continue
            await remove_workload(self._cluster, workload, there)
            left.pop(name)
            self._events.emit(owner, "Normal", "Pruned", f"{name} is removed: it gets no traffic any more")
        return again

    def _ask_again(self, key: Key, again: Sequence[float], confirmation: Confirmation) -> float | None:
        """When to reconcile next although nothing changes: sooner at first, then ever more patiently."""
        memory = self._memory[key]
        waits = [rest for rest in again if rest > 0]
        # Without a target the next change of a Deployment comes first, and no gateway can say anything new.
        if 0.0 in again or (confirmation.status != "True" and confirmation.reason != "NoTraffic"):
            memory.asked += 1
            waits.append(ASK_AGAIN.delay(memory.asked - EAGER))
        else:
            memory.asked = 0
        return min(waits, default=None)

    # --- Reporting ------------------------------------------------------------------------------------------

    async def _report(self, owner: Object, report: Report) -> None:
        old: Open = owner.get("status") or {}
        new = status(report, old, self._settings, self._now())
        if new == old:
            return
        await self._cluster.replace_status(INFERENCE_SERVICES, owner, new)
        for transition in transitions(old, new):
            self._events.emit(owner, *transition)

    async def _refuse(self, isvc: InferenceService, owner: Object, error: SpecError) -> None:
        """Says what is wrong with the spec. What runs, runs on."""
        await self._report(owner, Report(isvc, error=error, confirmation=_confirmed_before(owner.get("status") or {})))

    async def _stop(self, isvc: InferenceService, owner: Object) -> None:
        """The status first, so that the gateways have nothing left to send anywhere; revisions stay for the next start."""
        self._board.plan(key_of(owner), {})
        await self._report(owner, Report(isvc))
        await self._keda.remove(owner, self._cluster.children(DEPLOYMENTS, owner), ())
        await remove_all(self._cluster, owner)


def _confirmed_before(old: Open) -> Confirmation:
    condition = get_condition(old.get("conditions", ()), "IngressReady")
    if condition is None:
        return Confirmation("Unknown", "NotAsked")
    return Confirmation(condition["status"], condition.get("reason", ""), condition.get("message", ""))


def _split(old: Open) -> dict[str, list[tuple[str, int]]]:
    return {
        kind: [(item.get("serviceName", ""), item["percent"]) for item in component.get("traffic", ())]
        for kind, component in old.get("components", {}).items()
    }


def _targets(targets: Mapping[str, Sequence[Target]]) -> dict[str, list[tuple[str, int]]]:
    return {kind: [(target.workload, target.percent) for target in found] for kind, found in targets.items()}


def _unreadable(owner: Object) -> InferenceService:
    """What can be told of an InferenceService whose spec is not valid: its metadata."""
    return InferenceService.model_construct(
        metadata=Metadata.model_validate(owner["metadata"]), spec=InferenceServiceSpec.model_construct()
    )
