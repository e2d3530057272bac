"""`oci://registry/repository:tag` (or `@sha256:…`): a model in a container registry.

Of an image, what it has in `/models` is the model, as KServe's model images have it. Of an artifact (what ORAS pushes), the files are. Where the
cluster mounts images, the operator lets it; this is for clusters that cannot, and for machines without one.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import platform
import re
import shutil
import urllib.request
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from fairlead.runtime.storage.archives import unpack_layer
from fairlead.runtime.storage.base import FetchOptions, Progress, Provider
from fairlead.runtime.storage.errors import StorageError
from fairlead.runtime.storage.http import HttpProvider
from fairlead.runtime.storage.secrets import DOCKER_CONFIG
from fairlead.runtime.storage.verify import check_sha256

MODELS = "models"
"""The directory of an image that holds the model."""
TITLE = "org.opencontainers.image.title"
"""On a layer of an artifact: the name of the file that it is."""

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_DOCKER_HUB = "registry-1.docker.io"
_DOCKER_HUB_NAMES = ("docker.io", "index.docker.io", "https://index.docker.io/v1/")
"""How credentials for it are filed."""
_BLOBS = ".blobs"
_LARGEST_MANIFEST = 4 << 20


class Reference(NamedTuple):
    registry: str
    repository: str
    version: str
    """A tag or a digest."""

    @property
    def url(self) -> str:
        """Loopback registries speak plain HTTP, as container engines have it."""
        host = self.registry.rpartition(":")[0] or self.registry
        scheme = "http" if host in ("localhost", "127.0.0.1", "[::1]") else "https"
        return f"{scheme}://{self.registry}/v2/{self.repository}"


def parse(uri: str) -> Reference:
    """Raises StorageError."""
    name = uri.removeprefix("oci://")
    name, at, digest = name.partition("@")
    head, slash, rest = name.partition("/")
    if not slash or not ("." in head or ":" in head or head == "localhost"):
        head, rest = _DOCKER_HUB, name if slash else f"library/{name}"
    repository, _, tag = rest.partition(":")
    if not _REPOSITORY.fullmatch(repository) or (at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):
        raise StorageError(
            uri, "it is no image's name", "write oci://registry/repository:tag, or @sha256:… for the tag"
        )
    return Reference(_DOCKER_HUB if head == "docker.io" else head, repository, digest or tag or "latest")


class OciProvider(Provider):
    def __init__(self, uri: str, options: FetchOptions) -> None:
        super().__init__(uri, options)
        self.reference = parse(uri)
        self._authorization: str | None = None
        self._digest = ""
        self._manifest: dict[str, Any] = {}

    def identity(self) -> str:
        """The manifest's digest."""
        if not self._digest:
            self._digest, self._manifest = self._resolve(self.reference.version)
        return self._digest

    def download(self, directory: Path) -> None:
        self.identity()
        layers = self._manifest.get("layers") or []
        blobs = directory / _BLOBS
        blobs.mkdir(exist_ok=True)
        done, total = 0, sum(layer["size"] for layer in layers)
        for layer in layers:
            self._fetch(layer["digest"], blobs, done, total)
            done += layer["size"]
        for entry in directory.iterdir():  # of a try that was cut off between two layers
            if entry.name != _BLOBS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for layer in layers:
            self._apply(layer, blobs / _file_of(layer["digest"]), directory)
        shutil.rmtree(blobs)
        if not any(directory.iterdir()):
            raise StorageError(
                self.uri, f"the image has nothing in /{MODELS}", f"copy the model to /{MODELS} when the image is built"
            )

    def _apply(self, layer: dict[str, Any], blob: Path, directory: Path) -> None:
        title = (layer.get("annotations") or {}).get(TITLE)
        if title is None:
            unpack_layer(blob, directory, MODELS, self.uri, self.options.archive_limits)
            return
        path = PurePosixPath(title)
        if path.is_absolute() or ".." in path.parts:
            raise StorageError(
                self.uri, f"the file {title!r} would be written outside the model's directory", "rename it"
            )
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        blob.rename(directory / path)

    def _fetch(self, digest: str, blobs: Path, done: int, total: int) -> None:
        target = blobs / _file_of(digest)
        if target.exists():
            return
        place = blobs / f"{target.name}.download"
        place.mkdir(exist_ok=True)
        report = self.options.progress
        progress = None if report is None else lambda blob: report(Progress(done + blob.done, total))
        try:
            self._http(f"blobs/{digest}", progress=progress).download(place)
            (fetched,) = (path for path in place.iterdir() if path.is_file())
            check_sha256(self.uri, fetched, digest.removeprefix("sha256:"))
        except StorageError as error:
            if "checksum" in error.reason:
                shutil.rmtree(place)
            raise
        fetched.rename(target)
        shutil.rmtree(place)

    def _resolve(self, version: str) -> tuple[str, dict[str, Any]]:
        """Digest and content of the manifest for this machine, behind an index or not."""
        content = self._get_manifest(version)
        manifest = json.loads(content)
        if manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            return self._resolve(self._for_this_machine(manifest["manifests"]))
        return f"sha256:{hashlib.sha256(content).hexdigest()}", manifest

    def _for_this_machine(self, manifests: list[dict[str, Any]]) -> str:
        machine = _MACHINES.get(platform.machine(), platform.machine())
        known = [entry for entry in manifests if (entry.get("platform") or {}).get("architecture") != "unknown"]
        fitting = [entry for entry in known if (entry.get("platform") or {}).get("architecture") in (None, machine)]
        # Data are the same on every machine: an image for another one does as well.
        for entry in [*fitting, *known]:
            return str(entry["digest"])
        raise StorageError(self.uri, "the index names no image", "push it again")

    def _get_manifest(self, version: str) -> bytes:
        accept = {"Accept": ", ".join((*_INDEXES, *_MANIFESTS))}
        try:
            content = self._http(f"manifests/{version}").read(_LARGEST_MANIFEST, accept)
        except StorageError as error:
            if self._authorization is None and "answers 401" in error.reason:
                self._authorization = self._authorize()
                return self._get_manifest(version)
            if "answers 401" in error.reason or "answers 403" in error.reason:
                raise StorageError(self.uri, "forbidden: the registry does not let us", _CREDENTIALS_HINT) from error
            if "answers 404" in error.reason:
                raise StorageError(self.uri, f"not found: the registry has no {version}", "check the name") from error
            raise
        if version.startswith("sha256:") and hashlib.sha256(content).hexdigest() != version.removeprefix("sha256:"):
            raise StorageError(self.uri, "checksum mismatch: the manifest is not the one that was asked for", "")
        return content

    def _http(self, path: str, progress: Any = None) -> _Registry:
        host = urlsplit(self.reference.url)
        headers = {"Authorization": self._authorization} if self._authorization else {}
        environment = {**self.options.environment, f"{host.netloc}-headers": json.dumps(headers)}
        options = replace(self.options, sha256=None, environment=environment, progress=progress)
        return _Registry(f"{self.reference.url}/{path}", options)

    def _authorize(self) -> str:
        """The `Authorization` that the registry's challenge asks for: a token, or name and password themselves."""
        given = self._credentials()
        challenge = _Registry(f"{self.reference.url}/manifests/{self.reference.version}", self.options).challenge()
        scheme, _, text = challenge.partition(" ")
        if scheme.lower() == "basic":
            if given is None:
                raise StorageError(self.uri, "forbidden: the registry wants credentials", _CREDENTIALS_HINT)
            return f"Basic {given}"
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', text))
        realm = parameters.pop("realm", "")
        if not realm:
            raise StorageError(self.uri, f"forbidden: the registry asks in a way that is not known: {challenge!r}")
        query = urlencode({"scope": f"repository:{self.reference.repository}:pull", **parameters})
        host = urlsplit(realm).netloc
        environment = {f"{host}-headers": json.dumps({"Authorization": f"Basic {given}"} if given else {})}
        try:
            answer = json.loads(
                _Registry(f"{realm}?{query}", replace(self.options, environment=environment)).read(1 << 20)
            )
        except StorageError as error:
            raise StorageError(
                self.uri, f"forbidden: no token from {host}: {error.reason}", _CREDENTIALS_HINT
            ) from error
        return f"Bearer {answer.get('token') or answer.get('access_token')}"

    def _credentials(self) -> str | None:
        """`name:password` in base64, from the Docker configuration in the Secrets."""
        auths = json.loads(self.options.environment.get(DOCKER_CONFIG) or "{}").get("auths", {})
        registry = self.reference.registry
        for known in (registry, f"https://{registry}", *(_DOCKER_HUB_NAMES if registry == _DOCKER_HUB else ())):
            if entry := auths.get(known):
                pair = f"{entry.get('username', '')}:{entry.get('password', '')}"
                return str(entry.get("auth") or base64.b64encode(pair.encode()).decode())
        return None


_CREDENTIALS_HINT = "name a Secret of the type kubernetes.io/dockerconfigjson in the service account's imagePullSecrets"


class _Registry(HttpProvider):
    """One address of a registry: a blob to download, or a document to read."""

    def read(self, limit: int, headers: dict[str, str] | None = None) -> bytes:
        def once() -> bytes:
            with self._request(headers or {}) as response:
                return response.read(limit)

        content: bytes = self._retrying(once)
        return content

    def challenge(self) -> str:
        """What a registry answers to who does not say who it is."""
        request = urllib.request.Request(self.uri, method="HEAD")  # noqa: S310 - http or https, see Reference.url
        try:
            with urllib.request.build_opener(_KeepErrors).open(request, timeout=self.options.timeout) as response:
                return str(response.headers.get("WWW-Authenticate") or "")
        except (OSError, http.client.HTTPException) as error:
            raise StorageError(self.uri, f"the registry does not answer: {error}", "try again later") from error


class _KeepErrors(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def _file_of(digest: str) -> str:
    return digest.replace(":", "-")
