"""What of storage concerns one component's pods: its addresses, the credentials for them, and who fetches."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.component import StorageSpec
from fairlead.api.inferenceservice import Explainer, Transformer
from fairlead.api.predictor import Predictor
from fairlead.controllers.inferenceservice import credentials
from fairlead.controllers.inferenceservice.credentials import Credentials, Given
from fairlead.controllers.inferenceservice.podsource import PodSource
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.storage import (
    OCI,
    Fetching,
    ModelCache,
    Provision,
    Source,
    provision,
    storage_container,
)

RUNTIME, INIT = "runtime", "init"
"""Who fetches, in the annotation `fairlead.dev/storage`."""


def is_ours(source: PodSource) -> bool:
    """Whether the main container is a model server of ours, by its runtime's word or, for custom containers, the service's own."""
    told = source.runtime.metadata if source.runtime is not None else source.isvc.metadata
    return told.annotations.get(names.STORAGE_MODE) == RUNTIME


def fetches_by_itself(source: PodSource) -> bool:
    return is_ours(source) and source.isvc.metadata.annotations.get(names.STORAGE_MODE) != INIT


def stored(source: PodSource, main: Open, settings: Settings) -> Provision:
    """What the component's models need of its pods. Raises SpecError."""
    sources = _sources(source, main)
    found = _credentials(source, sources)
    mirrors: list[Open] = []
    if settings.storage_mirrors:
        mirrors.append({"name": names.STORAGE_MIRRORS_ENV, "value": settings.storage_mirrors})
    spec = _storage_spec(source)
    if spec is not None:
        secret = _storage_secret(source)
        ours = credentials.for_storage_spec(spec, secret, prefix=names.FETCH_ENV_PREFIX)
        others = credentials.for_storage_spec(spec, secret, prefix="")
    else:
        ours, others = credentials.for_our_fetcher(found), credentials.for_any_fetcher(found)
    provided = provision(
        sources,
        Fetching(
            settings.storage_initializer_image,
            main.get("securityContext"),
            by_runtime=fetches_by_itself(source),
            ours=ours + Given(env=tuple(mirrors)),
            others=others,
            containers=source.surroundings.containers,
            container_name=_container_name(source),
            image_volumes=settings.image_volumes,
            cache=_cache(settings, source.isvc.metadata.namespace or "default"),
            read_only=source.isvc.metadata.annotations.get(names.STORAGE_READ_ONLY) != "false",
        ),
    )
    if _asked(main) and not any(entry["name"] == names.STORAGE_URI_ENV for entry in provided.env):
        # A custom container that asked for its model by address is told where it lies now.
        provided += Provision(env=({"name": names.STORAGE_URI_ENV, "value": names.MODEL_DIR},))
    return provided


def storage_inputs(source: PodSource) -> Open:
    """What makes a revision, beside the spec: where credentials come from and who fetches. Empty for most services."""
    sources = _sources(source, _main(source))
    annotations = source.isvc.metadata.annotations
    found: Open = {}
    if (reference := _credentials(source, sources)) and _storage_spec(source) is None:
        found["credentials"] = reference.identity()
    for entry in sources:
        container = storage_container(entry.uri, source.surroundings.containers, _container_name(source))
        if container is not None:
            found.setdefault("containers", []).append(container.spec.container)
    if annotations.get(names.STORAGE_MODE) == INIT:
        found["mode"] = INIT
    if annotations.get(names.STORAGE_READ_ONLY) == "false":
        found["writable"] = True
    return found


def _sources(source: PodSource, main: Open) -> list[Source]:
    """Where the files come from: storageUri, storageUris, storage.path, or the STORAGE_URI that a custom container asks for."""
    fields = source.fields
    if isinstance(fields, Predictor | Transformer | Explainer) and fields.storage_uris:
        return [Source(entry.uri, entry.mount_path) for entry in fields.storage_uris]
    if source.model is not None:
        uri = source.model.storage_uri
        if uri is None and source.model.storage is not None:
            uri = credentials.storage_spec_uri(source.model.storage)
        return [Source(uri)] if uri else []
    asked = _asked(main)
    return [Source(asked)] if asked else []


def _main(source: PodSource) -> Open:
    """The fields of a custom container, as the spec has them."""
    container = source.fields.main_container()
    return container.container_fields() if container is not None and source.model is None else {}


def _asked(main: Open) -> str | None:
    return next((e.get("value") for e in main.get("env", []) if e.get("name") == names.STORAGE_URI_ENV), None)


def _credentials(source: PodSource, sources: Sequence[Source]) -> Credentials:
    """Those for the component's addresses; mounted claims and local files need none."""
    remote = [entry.uri for entry in sources if not entry.uri.startswith(("pvc://", "file://", "/"))]
    if not remote:
        return Credentials()
    account = credentials.account_name(source.fields.pod_fields())
    found = source.surroundings.accounts.get(account, Credentials(config=source.surroundings.config))
    if any(uri.startswith(OCI) for uri in remote):
        own = [entry["name"] for entry in source.fields.image_pull_secrets or () if entry.get("name")]
        found = found.with_secrets([*source.surroundings.pull_secrets.get(account, ()), *own])
    return found


def _storage_spec(source: PodSource) -> StorageSpec | None:
    return source.model.storage if source.model is not None else None


def _storage_secret(source: PodSource) -> str:
    config = source.surroundings.config
    return source.isvc.metadata.annotations.get(config.named_by) or config.spec_source


def _container_name(source: PodSource) -> str | None:
    return source.fields.storage_container_name if isinstance(source.fields, Predictor) else None


def _cache(settings: Settings, namespace: str) -> ModelCache | None:
    """A directory of the node is shared by all namespaces, and so divided between them."""
    kind, _, place = settings.model_cache.partition(":")
    match kind:
        case "hostPath":
            return ModelCache({"hostPath": {"path": place}}, namespace, settings.model_cache_limit)
        case "claim":
            return ModelCache({"persistentVolumeClaim": {"claimName": place}}, "", settings.model_cache_limit)
        case _:
            return None
