"""KServe's `logger`: what a model server of ours is told, and for which component it has no effect, there being no sidecar for others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead.api.base import Open
from fairlead.api.unsupported import FieldNote
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.podstorage import is_ours


def payload_logging(source: PodSource) -> Open | None:
    """What `names.LOGGER_ENV` says; None if nothing is logged."""
    logger = source.fields.logger
    if logger is None or not logger.reachable() or not is_ours(source):
        return None
    metadata = source.isvc.metadata
    annotations = {**metadata.annotations, **(source.fields.annotations or {})}
    wanted = [key for key in logger.metadata_annotations or () if key in annotations]
    return {
        "url": logger.url,
        "mode": logger.mode or "all",
        "inferenceService": metadata.name,
        "namespace": metadata.namespace or "default",
        "component": source.kind,
        "metadataHeaders": logger.metadata_headers or [],
        "annotations": {key: annotations[key] for key in wanted},
    }


def without_logging(sources: Iterable[PodSource]) -> Iterator[FieldNote]:
    """A note for each component that asks for it and is no model server of ours."""
    for source in sources:
        logger = source.fields.logger
        if logger is not None and logger.reachable() and not is_ours(source):
            yield FieldNote(
                f"spec.{source.kind}.logger",
                "has no effect: Fairlead's model servers log payloads themselves, and no other server's are logged. "
                "A container made from one says so by the annotation fairlead.dev/storage: runtime",
            )
