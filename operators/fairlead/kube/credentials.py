"""How a request proves who sends it: a token that is fixed, re-read from a file, or asked of a plugin.

A pod's service account token is rotated by the kubelet, so the file is read again every minute. A plugin's token is
kept until it expires. Whatever was cached is forgotten when the API server answers 401, and the request is tried once more.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fairlead.kube.errors import ConfigError
from fairlead.kube.objects import parse_timestamp

TOKEN_FILE_TTL = 60.0
EXPIRY_MARGIN = 10.0
"""A token that ends within these seconds is fetched anew: the request still has to travel."""
PLUGIN_TIMEOUT = 60.0


class Credentials(Protocol):
    async def authorization(self) -> str | None:
        """The value of the Authorization header, or None if TLS does it (or nobody asks)."""

    def rejected(self) -> bool:
        """The API server said 401. Forgets what is cached; True if asking again may give something else."""


class Fixed:
    """A header that never changes: a token from the kubeconfig, basic authentication, or nothing."""

    def __init__(self, header: str | None = None) -> None:
        self._header = header

    async def authorization(self) -> str | None:
        return self._header

    def rejected(self) -> bool:
        return False


class TokenFile:
    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._header = ""
        self._read_at = float("-inf")

    async def authorization(self) -> str | None:
        if self._clock() - self._read_at >= TOKEN_FILE_TTL:
            try:
                token = self._path.read_text().strip()
            except OSError as error:
                raise ConfigError(f"the token file {self._path} cannot be read: {error.strerror}") from None
            if not token:
                raise ConfigError(f"the token file {self._path} is empty")
            self._header, self._read_at = f"Bearer {token}", self._clock()
        return self._header

    def rejected(self) -> bool:
        self._read_at = float("-inf")
        return True


class ExecPlugin:
    """A client-go credential plugin (`users[].user.exec`): a token, or a client certificate for the TLS context."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        *,
        context: ssl.SSLContext | None,
        cluster: Mapping[str, Any],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spec = spec
        self._context = context
        self._cluster = cluster
        self._clock = clock
        self._header: str | None = None
        self._valid_until = float("-inf")
        self._lock = asyncio.Lock()

    async def authorization(self) -> str | None:
        async with self._lock:  # requests that arrive together start the plugin once
            if self._clock() + EXPIRY_MARGIN >= self._valid_until:
                self._accept(await self._run())
        return self._header

    def rejected(self) -> bool:
        self._valid_until = float("-inf")
        return True

    def _accept(self, status: Mapping[str, Any]) -> None:
        token, certificate = status.get("token"), status.get("clientCertificateData")
        if not token and not certificate:
            raise ConfigError(f"the credential plugin {self._command} gave neither a token nor a client certificate")
        self._header = f"Bearer {token}" if token else None
        if certificate and self._context:
            load_client_certificate(self._context, certificate.encode(), str(status.get("clientKeyData", "")).encode())
        expires = status.get("expirationTimestamp")
        self._valid_until = parse_timestamp(expires).timestamp() if expires else float("inf")

    @property
    def _command(self) -> str:
        return str(self._spec.get("command"))

    async def _run(self) -> Mapping[str, Any]:
        argv: Sequence[str] = [self._command, *(self._spec.get("args") or ())]
        info: dict[str, Any] = {"interactive": False}
        if self._spec.get("provideClusterInfo"):
            info["cluster"] = dict(self._cluster)
        version = self._spec.get("apiVersion", "client.authentication.k8s.io/v1")
        environment = {
            **os.environ,
            **{item["name"]: item["value"] for item in self._spec.get("env") or ()},
            "KUBERNETES_EXEC_INFO": json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": info}),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
        except OSError as error:
            hint = self._spec.get("installHint")
            raise ConfigError(
                f"the credential plugin {self._command} cannot be started: {error.strerror}"
                + (f". {hint}" if hint else "")
            ) from None
        try:
            async with asyncio.timeout(PLUGIN_TIMEOUT):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ConfigError(
                f"the credential plugin {self._command} gave no answer in {PLUGIN_TIMEOUT:.0f} s"
            ) from None
        if process.returncode:
            said = err.decode(errors="replace").strip() or "nothing"
            raise ConfigError(f"the credential plugin {self._command} failed ({process.returncode}) and said: {said}")
        try:
            return json.loads(out)["status"]  # type: ignore[no-any-return]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"the credential plugin {self._command} did not print an ExecCredential with a status"
            ) from None


class AuthProvider:
    """The old `auth-provider` users (oidc, gcp): read by the official client, which is loaded for these alone."""

    def __init__(self, kubeconfig: str, context: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._header: str | None = None

    async def authorization(self) -> str | None:
        if self._header is None:
            try:
                from kubernetes.aio.client import Configuration
                from kubernetes.aio.config import load_kube_config
            except ImportError:
                raise ConfigError(
                    f"the user of {self._kubeconfig} has an auth-provider, which needs the official client: pip install 'fairlead[auth-provider]'"
                ) from None

            configuration = Configuration()
            load: Callable[..., Awaitable[object]] = load_kube_config  # the package has no types
            await load(self._kubeconfig, self._context, configuration, persist_config=False)
            self._header = configuration.api_key.get("BearerToken")
        return self._header

    def rejected(self) -> bool:
        self._header = None
        return True


def load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """`ssl` takes client certificates from files only: both go through one that is gone when this returns."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # 0600
        file.write(certificate.rstrip() + b"\n" + key)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ConfigError(
                f"the client certificate and its key do not fit together or cannot be read: {error}"
            ) from None
