"""The way to an API server: from a kubeconfig as kubectl reads it, or from a pod's service account.

What kubectl's users have is covered: several files in $KUBECONFIG, contexts, CA and client certificates as files or data,
tokens, token files, basic authentication, exec plugins, proxies, `tls-server-name`, `insecure-skip-tls-verify`.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fairlead.kube.credentials import AuthProvider, Credentials, ExecPlugin, Fixed, TokenFile, load_client_certificate
from fairlead.kube.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = "~/.kube/config"


@dataclass(frozen=True, slots=True)
class Connection:
    server: str
    """`https://10.96.0.1:443`, without a trailing slash."""
    tls: ssl.SSLContext | None = None
    credentials: Credentials = field(default_factory=Fixed)
    namespace: str = "default"
    """The namespace that the context, or the pod, is in."""
    proxy: str | None = None
    server_hostname: str | None = None
    """The name to expect in the server's certificate, if not the address's."""


def load(kubeconfig: str | None = None, context: str | None = None) -> Connection:
    """The given kubeconfig, else $KUBECONFIG, else ~/.kube/config, else the pod's service account."""
    paths = kubeconfig or os.environ.get("KUBECONFIG")
    default = Path(DEFAULT_KUBECONFIG).expanduser()
    if paths or default.exists():
        return from_kubeconfig(paths or str(default), context)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return in_cluster()
    raise ConfigError(
        f"no cluster is configured: KUBECONFIG is not set, {default} does not exist, and this is not a pod"
    )


def in_cluster(directory: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ) -> Connection:
    """The pod's own service account; its token is read again as the kubelet rotates it."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("KUBERNETES_SERVICE_HOST is not set: this is not a pod")
    authority = directory / "ca.crt"
    if not authority.exists() or not (directory / "token").exists():
        raise ConfigError(f"{directory} has no token and ca.crt: is automountServiceAccountToken off for this pod?")
    namespace = directory / "namespace"
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=ssl.create_default_context(cafile=str(authority)),
        credentials=TokenFile(directory / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
    )


def from_kubeconfig(paths: str, context: str | None = None) -> Connection:
    """`paths` is one file or, as in $KUBECONFIG, several: the first one that defines a name wins."""
    merged = _merge(paths)
    chosen = context or merged["current-context"]
    if not chosen:
        raise ConfigError(f"{paths}: no current-context is set; choose one with `kubectl config use-context NAME`")
    entry = _named(merged, "contexts", chosen, paths).get("context") or {}
    cluster = _named(merged, "clusters", entry.get("cluster", ""), paths).get("cluster") or {}
    user = _named(merged, "users", entry["user"], paths).get("user") or {} if entry.get("user") else {}
    server = str(cluster.get("server") or "").rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"{paths}: cluster {entry.get('cluster')} has no server address")
    try:
        tls = _tls(cluster, user) if server.startswith("https://") else None
    except (OSError, ssl.SSLError, binascii.Error) as error:
        raise ConfigError(f"{paths}: the certificates of context {chosen} cannot be used: {error}") from None
    return Connection(
        server=server,
        tls=tls,
        credentials=_credentials(user, cluster, tls, paths, context),
        namespace=entry.get("namespace") or "default",
        proxy=cluster.get("proxy-url"),
        server_hostname=cluster.get("tls-server-name"),
    )


def _merge(paths: str) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": None, "clusters": {}, "users": {}, "contexts": {}}
    found = False
    for path in (Path(part).expanduser() for part in paths.split(os.pathsep) if part):
        if not path.exists():
            continue
        found = True
        try:
            content = yaml.safe_load(path.read_text()) or {}
            if not isinstance(content, dict):
                raise TypeError("it holds no mapping")
            merged["current-context"] = merged["current-context"] or content.get("current-context")
            for section in ("clusters", "users", "contexts"):
                for item in content.get(section) or ():
                    merged[section].setdefault(item["name"], _absolute(item, path.resolve().parent))
        except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} is not a kubeconfig that can be read: {' '.join(str(error).split())}") from None
    if not found:
        raise ConfigError(f"there is no kubeconfig at {paths}")
    return merged


_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


def _absolute(item: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """The item with its files' paths, which are relative to the kubeconfig, made absolute."""
    return {
        section: {key: str(directory / text) if key in _FILES and text else text for key, text in value.items()}
        if isinstance(value, dict)
        else value
        for section, value in item.items()
    }


def _named(merged: Mapping[str, Any], section: str, name: str, paths: str) -> Mapping[str, Any]:
    try:
        return merged[section][name]  # type: ignore[no-any-return]
    except KeyError:
        known = ", ".join(sorted(merged[section])) or "none"
        raise ConfigError(f"{paths}: there is no {section[:-1]} {name!r}; it has: {known}") from None


def _bytes(source: Mapping[str, Any], key: str) -> bytes | None:
    """`KEY-data` (base64), else the contents of the file that KEY names."""
    if encoded := source.get(f"{key}-data"):
        return base64.b64decode(encoded)
    return Path(source[key]).read_bytes() if source.get(key) else None


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    authority = _bytes(cluster, "certificate-authority")
    context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _bytes(user, "client-certificate"), _bytes(user, "client-key")
    if certificate:
        load_client_certificate(context, certificate, key or b"")
    return context


def _credentials(
    user: Mapping[str, Any], cluster: Mapping[str, Any], tls: ssl.SSLContext | None, paths: str, context: str | None
) -> Credentials:
    if path := user.get("tokenFile"):  # wins over `token`, as in client-go
        return TokenFile(Path(path))
    if token := user.get("token"):
        return Fixed(f"Bearer {token}")
    if "username" in user and "password" in user:
        pair = f"{user['username']}:{user['password']}".encode()
        return Fixed(f"Basic {base64.b64encode(pair).decode()}")
    if plugin := user.get("exec"):
        return ExecPlugin(plugin, context=tls, cluster=cluster)
    if user.get("auth-provider"):
        return AuthProvider(paths, context)
    return Fixed()
