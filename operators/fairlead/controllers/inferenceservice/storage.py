"""How a model's files come into its pods.

What is first here and fits an address:

    pvc://CLAIM/PATH                     the claim is mounted
    oci://IMAGE, with image volumes      the image is mounted
    a ClusterStorageContainer for it     that container, as an init container
    our model server, one address        the server fetches it itself, while its frameworks import
    anything else                        our storage initializer, one init container for all such addresses

`podstorage` says what of this a component asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.api.storagecontainer import ClusterStorageContainer
from fairlead.controllers.inferenceservice.credentials import Given
from fairlead.controllers.inferenceservice.errors import InvalidPredictorSpec
from fairlead.controllers.inferenceservice.merging import merged

VOLUME = "kserve-provision-location"
CLAIM_VOLUME = "kserve-pvc-source"
IMAGE_VOLUME = "kserve-image-source"
CACHE_VOLUME = "fairlead-model-cache"
CACHE_DIRECTORY = "/var/cache/fairlead/models"
MODELS_IN_IMAGE = "models"
"""Where KServe's model images have the model."""
_PVC = "pvc://"
OCI = "oci://"


@dataclass(frozen=True)
class Source:
    uri: str
    path: str = names.MODEL_DIR


@dataclass(frozen=True)
class ModelCache:
    """A directory of the node, or a claim of each namespace, in which fetched models stay for the pods after this one."""

    volume: Open
    """The volume's source, as in a PodSpec."""
    sub_path: str = ""
    limit: str = ""
    """What it may take, such as 20Gi; without one nothing ever goes."""

    def given(self) -> Given:
        env: list[Open] = [{"name": names.MODEL_CACHE_ENV, "value": CACHE_DIRECTORY}]
        if self.limit:
            env.append({"name": names.MODEL_CACHE_LIMIT_ENV, "value": self.limit})
        mount: Open = {"name": CACHE_VOLUME, "mountPath": CACHE_DIRECTORY}
        if self.sub_path:
            mount["subPath"] = self.sub_path
        return Given(env=tuple(env), mounts=(mount,), volumes=({"name": CACHE_VOLUME, **self.volume},))


@dataclass(frozen=True)
class Fetching:
    """With what, and by whom, models are fetched."""

    initializer_image: str
    security: Open | None = None
    by_runtime: bool = False
    """The container fetches STORAGE_URI itself; it can do so for one source at the usual place."""
    ours: Given = field(default_factory=Given)
    """What our own fetcher gets: credentials, mirrors."""
    others: Given = field(default_factory=Given)
    """What another's gets."""
    containers: Sequence[ClusterStorageContainer] = ()
    container_name: str | None = None
    """The one of them that the spec names."""
    image_volumes: bool = False
    cache: ModelCache | None = None
    read_only: bool = True


@dataclass(frozen=True)
class Provision:
    """What to add to a pod and its serving containers."""

    env: tuple[Open, ...] = ()
    env_from: tuple[Open, ...] = ()
    mounts: tuple[Open, ...] = ()
    own_mounts: tuple[Open, ...] = ()
    """Only for the container that fetches by itself."""
    volumes: tuple[Open, ...] = ()
    init_containers: tuple[Open, ...] = ()

    def __add__(self, other: Provision) -> Provision:
        return Provision(
            self.env + other.env,
            self.env_from + other.env_from,
            self.mounts + other.mounts,
            self.own_mounts + other.own_mounts,
            _unique(self.volumes + other.volumes),
            self.init_containers + other.init_containers,
        )


def provision(sources: Sequence[Source], fetching: Fetching) -> Provision:
    """Raises InvalidPredictorSpec."""
    result = Provision()
    ours: list[tuple[Source, str]] = []
    for number, source in enumerate(sources, 1):
        suffix = "" if number == 1 else f"-{number}"
        if source.uri.startswith(names.RELATIVE_URIS):
            raise InvalidPredictorSpec(
                f"storageUri {source.uri!r} is relative to a manifest, which only `fairlead up` and `fairlead apply` know: "
                "apply it with these, or write file:///…"
            )
        if source.uri.startswith(_PVC):
            result += _claim(source, CLAIM_VOLUME + suffix, read_only=fetching.read_only)
        elif source.uri.startswith(OCI) and fetching.image_volumes and fetching.container_name is None:
            result += _image(source, IMAGE_VOLUME + suffix)
        elif (container := storage_container(source.uri, fetching.containers, fetching.container_name)) is not None:
            result += _by_container(source, suffix, container, fetching)
        else:
            ours.append((source, suffix))
    if not ours:
        return result
    if fetching.by_runtime and len(sources) == 1 and sources[0].path == names.MODEL_DIR:
        return result + _by_runtime(sources[0], fetching)
    return result + _by_initializer(ours, fetching)


def storage_container(
    uri: str, containers: Sequence[ClusterStorageContainer], name: str | None = None
) -> ClusterStorageContainer | None:
    """The one that the spec names, else the first by name that is for such addresses. Raises InvalidPredictorSpec."""
    usable = sorted((c for c in containers if c.usable), key=lambda container: container.metadata.name)
    if name is None:
        return next((container for container in usable if container.covers(uri)), None)
    named = next((container for container in usable if container.metadata.name == name), None)
    if named is None:
        there = ", ".join(container.metadata.name for container in usable) or "none"
        raise InvalidPredictorSpec(f"there is no ClusterStorageContainer {name!r} for init containers; there: {there}")
    if not named.covers(uri):
        raise InvalidPredictorSpec(f"the ClusterStorageContainer {name!r} is not for addresses such as {uri!r}")
    return named


def _claim(source: Source, name: str, *, read_only: bool) -> Provision:
    claim, _, path = source.uri.removeprefix(_PVC).partition("/")
    if not claim:
        raise InvalidPredictorSpec(f"storageUri {source.uri!r} names no claim: write pvc://CLAIM/PATH")
    mount: Open = {"name": name, "mountPath": source.path, "readOnly": read_only}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    return Provision(mounts=(mount,), volumes=({"name": name, "persistentVolumeClaim": {"claimName": claim}},))


def _image(source: Source, name: str) -> Provision:
    reference = source.uri.removeprefix(OCI)
    mount: Open = {"name": name, "mountPath": source.path, "subPath": MODELS_IN_IMAGE, "readOnly": True}
    return Provision(
        mounts=(mount,), volumes=({"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}},)
    )


def _by_runtime(source: Source, fetching: Fetching) -> Provision:
    """The volume outlives the container: one that is restarted goes on where the fetch broke off, or finds the model whole."""
    given = fetching.ours + (fetching.cache.given() if fetching.cache is not None else Given())
    return Provision(
        env=({"name": names.STORAGE_URI_ENV, "value": source.uri}, *given.env),
        env_from=given.env_from,
        mounts=({"name": VOLUME, "mountPath": source.path},),
        own_mounts=given.mounts,
        volumes=({"name": VOLUME, "emptyDir": {}}, *given.volumes),
    )


def _by_initializer(sources: Sequence[tuple[Source, str]], fetching: Fetching) -> Provision:
    given = fetching.ours + (fetching.cache.given() if fetching.cache is not None else Given())
    first_suffix = sources[0][1]
    init = _initializer(names.STORAGE_INITIALIZER_CONTAINER + first_suffix, sources, fetching, given)
    init["command"] = ["python", "-m", "fairlead.runtime.storage"]
    return _shared(sources, fetching) + Provision(volumes=given.volumes, init_containers=(init,))


def _by_container(source: Source, suffix: str, container: ClusterStorageContainer, fetching: Fetching) -> Provision:
    """KServe's way: its storage initializer, in which everything that the ClusterStorageContainer says wins, but for the name."""
    sources = [(source, suffix)]
    usual = _initializer(names.STORAGE_INITIALIZER_CONTAINER + suffix, sources, fetching, fetching.others)
    own = container.spec.container
    init = {**merged(usual, own), "name": usual["name"], "args": own.get("args", usual["args"])}
    return _shared(sources, fetching) + Provision(volumes=fetching.others.volumes, init_containers=(init,))


def _shared(sources: Sequence[tuple[Source, str]], fetching: Fetching) -> Provision:
    """The volumes through which models get from init containers to those that serve."""
    return Provision(
        mounts=tuple(
            {"name": VOLUME + suffix, "mountPath": source.path, "readOnly": fetching.read_only}
            for source, suffix in sources
        ),
        volumes=tuple({"name": VOLUME + suffix, "emptyDir": {}} for _, suffix in sources),
    )


def _initializer(name: str, sources: Sequence[tuple[Source, str]], fetching: Fetching, given: Given) -> Open:
    container: Open = {
        "name": name,
        "image": fetching.initializer_image,
        "args": [word for source, _ in sources for word in (source.uri, source.path)],
        "volumeMounts": [
            *({"name": VOLUME + suffix, "mountPath": source.path} for source, suffix in sources),
            *given.mounts,
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    optional = {"env": list(given.env), "envFrom": list(given.env_from), "securityContext": fetching.security}
    return container | {key: value for key, value in optional.items() if value}


def _unique(volumes: tuple[Open, ...]) -> tuple[Open, ...]:
    """Two init containers may want the same one."""
    return tuple({volume["name"]: volume for volume in volumes}.values())
