"""From an InferenceService to what it should be made of, component by component.

`wanted` reads the spec: runtimes chosen, canaries merged, digests taken. `plan.plan` then decides; `carry_out` turns the decision into workloads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import Explainer, InferenceService
from fairlead.api.predictor import Predictor
from fairlead.api.servingruntime import ClusterServingRuntime, ServingRuntime
from fairlead.controllers.inferenceservice.multinode import group
from fairlead.controllers.inferenceservice.plan import Plan
from fairlead.controllers.inferenceservice.pods import digest, inputs, pod_template
from fairlead.controllers.inferenceservice.podsource import PodSource, Surroundings
from fairlead.controllers.inferenceservice.revisions import Canary, Intent
from fairlead.controllers.inferenceservice.runtimes import Runtime, select
from fairlead.controllers.inferenceservice.scaling import canary_least_replicas, least_replicas
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.workload import Workload
from fairlead.kube.objects import Object


@dataclass(frozen=True)
class Runtimes:
    namespaced: Sequence[ServingRuntime] = ()
    cluster: Sequence[ClusterServingRuntime] = ()


@dataclass(frozen=True)
class Wanted:
    """One component as the spec has it."""

    kind: str
    intent: Intent
    source: PodSource
    canaries: Mapping[str, PodSource]
    """By canary name."""
    least: Mapping[str, int]
    """Fewest pods of each canary."""

    @property
    def asked_percent(self) -> int:
        percent = self.intent.percent
        return percent if self.intent.splits and percent is not None else 100


def wanted(
    isvc: InferenceService,
    runtimes: Runtimes,
    settings: Settings,
    *,
    allow_pickle: bool,
    surroundings: Surroundings | None = None,
) -> list[Wanted]:
    """All components that Fairlead runs. Raises SpecError."""
    return [
        _wanted(isvc, kind, fields, runtimes, settings, allow_pickle, surroundings or Surroundings())
        for kind, fields in isvc.spec.components().items()
        if not (isinstance(fields, Explainer) and fields.art is not None)
    ]


def carry_out(
    isvc: InferenceService,
    owner: Object,
    want: Wanted,
    plan: Plan,
    stored: Mapping[str, Open],
    settings: Settings,
) -> tuple[dict[str, Open], list[Workload]]:
    """The contents of the revisions that are new, and the workloads. `stored`: the contents of those that there are, by name."""
    sources = {plan.latest.name: want.source}
    names_of_canaries = {revision.name: canary.name for canary, revision in plan.canaries}
    sources |= {revision: want.canaries[canary] for revision, canary in names_of_canaries.items()}
    new = {
        revision.name: _content(sources[revision.name], settings)
        for revision in plan.revisions
        if revision.name not in stored
    }
    contents = {**stored, **new}
    workloads = []
    for revision in plan.placed.values():
        canary = names_of_canaries.get(revision.name)
        fields = want.source.fields if canary is None else want.canaries[canary].fields
        least = least_replicas(isvc, fields) if canary is None else want.least[canary]
        content = contents[revision.name]
        of = Workload(isvc, owner, want.kind, fields, revision, content["template"], least, group=content.get("group"))
        workloads.append(of)
    return new, workloads


def _wanted(
    isvc: InferenceService,
    kind: str,
    fields: ComponentFields,
    runtimes: Runtimes,
    settings: Settings,
    allow_pickle: bool,
    surroundings: Surroundings,
) -> Wanted:
    def source(of: ComponentFields) -> PodSource:
        return PodSource(isvc, kind, of, _runtime(of, runtimes), allow_pickle, surroundings)

    base = f"{isvc.metadata.name}-{kind}"
    stable = source(fields)
    canaries: dict[str, PodSource] = {}
    entries, least = [], {}
    if isinstance(fields, Predictor):
        for entry in isvc.spec.canary or ():
            name = entry.predictor.name
            canaries[name] = source(entry.predictor.inheriting(fields))
            workload = f"{isvc.metadata.name}-{name}-{kind}"
            entries.append(Canary(name, digest(inputs(canaries[name], settings)), entry.traffic_percent, workload))
            share = canary_least_replicas(least_replicas(isvc, fields), entry.traffic_percent)
            inherits = entry.predictor.min_replicas is None
            least[name] = share if inherits else least_replicas(isvc, canaries[name].fields)
    named = fields.name if isinstance(fields, Predictor) else None
    intent = Intent(
        base=base,
        digest=digest(inputs(stable, settings)),
        named_workload=f"{isvc.metadata.name}-{named}-{kind}" if named else None,
        percent=fields.canary_traffic_percent,
        canaries=tuple(entries),
        tag_latest=isvc.metadata.annotations.get(names.ENABLE_TAG_ROUTING) == "true",
    )
    return Wanted(kind, intent, stable, canaries, least)


def _runtime(fields: ComponentFields, runtimes: Runtimes) -> Runtime | None:
    model = fields.implementation() if isinstance(fields, Predictor) else None
    return None if model is None else select(model, runtimes.namespaced, runtimes.cluster)


def _content(source: PodSource, settings: Settings) -> Open:
    content: Open = {"template": pod_template(source, settings)}
    if workers := group(source, content["template"]):
        content["group"] = workers
    if source.runtime is not None:
        content["runtime"] = {"kind": source.runtime.kind, "name": source.runtime.metadata.name}
    return content
