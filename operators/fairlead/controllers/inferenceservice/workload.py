"""A workload: one Deployment and its Service, which have one name and carry one revision. What they are made of is in `workloads`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import ComponentFields
from fairlead.api.inferenceservice import InferenceService
from fairlead.controllers.inferenceservice.revisions import Revision
from fairlead.controllers.inferenceservice.scaling import has_class
from fairlead.kube.objects import Object, controller_reference


@dataclass(frozen=True)
class Workload:
    """What its objects are made from."""

    isvc: InferenceService
    owner: Object
    """The InferenceService as the API server sent it."""
    kind: str
    fields: ComponentFields
    revision: Revision
    """Its `workload` is the name."""
    template: Open
    """As stored with the revision: see `pods.pod_template`."""
    least: int = 1
    """Fewest pods."""
    proven: str = ""
    """The revision that is known to be able to become ready, where there may be no pod."""
    group: Open | None = None
    """The workers and what goes with them, as stored with the revision: see `multinode.group`."""

    @property
    def name(self) -> str:
        return self.revision.workload

    @property
    def labels(self) -> dict[str, str]:
        return {**child_labels(self.isvc.metadata.name, self.kind), names.LABEL_WORKLOAD: self.name}

    @property
    def selector(self) -> dict[str, str]:
        return {names.LABEL_APP: f"isvc.{self.name}"}

    @property
    def scaled_by_keda(self) -> bool:
        return has_class(self.isvc, "keda") and self.group is None

    def metadata(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Open:
        return child_metadata(self.owner, self.name, labels, annotations)


def child_labels(isvc: str, kind: str) -> dict[str, str]:
    """What all children of a component have."""
    return {names.LABEL_INFERENCE_SERVICE: isvc, names.LABEL_COMPONENT: kind}


def child_metadata(owner: Object, name: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> Open:
    return {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(labels),
        "annotations": dict(annotations),
        "ownerReferences": [controller_reference(owner)],
    }
