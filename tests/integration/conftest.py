"""A real API server for tests: etcd and kube-apiserver, started once a session on free loopback ports.

The programs are those that `setup-envtest` of controller-runtime installs; KUBEBUILDER_ASSETS names their directory.
There is no kubelet, no scheduler and no controller manager: objects stay as they are written.
"""

from __future__ import annotations

import os
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import aiohttp
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fairlead.kube.client import Client
from fairlead.kube.resources import NAMESPACES, Resource
from fairlead.local.supervisor.home import free_port

ASSETS = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
START_TIMEOUT = 100.0


UNCACHED = Resource("", "v1", "podtemplates", "PodTemplate")
"""A kind that the API server is told to keep no watch cache of: its watches come from etcd, and know what was compacted."""


SERVICE_ACCOUNTS = {
    account: f"system:serviceaccount:fairlead-system:{account}" for account in ("fairlead-operator", "fairlead-gateway")
}
"""Users beside the administrator, with no right but what the tests give them. All that they ask for is in the audit log."""
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": list(SERVICE_ACCOUNTS.values())}, {"level": "None"}],
}


class ApiServer(NamedTuple):
    kubeconfig: str
    url: str
    token: str
    """Of a user in system:masters."""
    etcd_url: str
    accounts: dict[str, str]
    """Kubeconfigs of the service accounts, by name."""
    audit_log: Path

    async def compact(self, resource_version: str) -> None:
        """Makes etcd forget all history before that version."""
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{self.etcd_url}/v3/kv/compaction", json={"revision": resource_version, "physical": True}
            ) as answer,
        ):
            answer.raise_for_status()


@pytest.fixture(scope="session")
def kube_apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    missing = [name for name in ("etcd", "kube-apiserver") if not (ASSETS / name).exists()]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not in {ASSETS}; set KUBEBUILDER_ASSETS to where setup-envtest put them")
    with run_api_server(tmp_path_factory.mktemp("apiserver")) as server:
        yield server


@pytest.fixture
async def client(kube_apiserver: ApiServer) -> AsyncIterator[Client]:
    async with await Client.connect(kube_apiserver.kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(client: Client) -> str:
    """A namespace of the test's own. Without a controller manager it cannot be deleted; it goes with the server."""
    name = f"test-{secrets.token_hex(4)}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name


@contextmanager
def run_api_server(directory: Path, *extra: str) -> Iterator[ApiServer]:
    """kube-apiserver with `extra` flags, over an etcd of its own; both end with the block."""
    client_port, peer_port, port = (free_port() for _ in range(3))
    etcd_url, peer_url = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    token = secrets.token_urlsafe(24)
    tokens = {account: secrets.token_urlsafe(24) for account in SERVICE_ACCOUNTS}
    users = [f'{token},admin,admin,"system:masters"']
    users += [f'{tokens[a]},{user},{a},"system:serviceaccounts"' for a, user in SERVICE_ACCOUNTS.items()]
    (directory / "tokens.csv").write_text("\n".join(users) + "\n")
    (directory / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    audit_log = directory / "audit.log"
    _service_account_key(directory)
    with ExitStack() as stack:
        etcd = _start(
            stack, directory, "etcd", f"--data-dir={directory / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={etcd_url}", f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}", f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=default={peer_url}",
        )  # fmt: skip
        api = _start(
            stack, directory, "kube-apiserver", f"--etcd-servers={etcd_url}", f"--secure-port={port}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--service-cluster-ip-range=10.0.0.0/16",
            f"--cert-dir={directory / 'certificates'}", f"--token-auth-file={directory / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={directory / 'sa.key'}", f"--service-account-signing-key-file={directory / 'sa.key'}",
            "--disable-admission-plugins=ServiceAccount", "--allow-privileged=true",
            f"--audit-policy-file={directory / 'audit.yaml'}", f"--audit-log-path={audit_log}",
            f"--watch-cache-sizes={UNCACHED}#0", *extra,
        )  # fmt: skip
        url = f"https://127.0.0.1:{port}"
        _wait_ready(url, token, directory, etcd, api)
        accounts = {account: _kubeconfig(directory, url, tokens[account], account) for account in tokens}
        yield ApiServer(_kubeconfig(directory, url, token, "admin"), url, token, etcd_url, accounts, audit_log)


def _start(stack: ExitStack, directory: Path, program: str, *flags: str) -> subprocess.Popen[bytes]:
    log: IO[bytes] = stack.enter_context((directory / f"{program}.log").open("wb"))
    process = subprocess.Popen([str(ASSETS / program), *flags], stdout=log, stderr=log)

    def stop() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(stop)
    return process


def _wait_ready(url: str, token: str, directory: Path, *processes: subprocess.Popen[bytes]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as response:
                if response.status == 200:
                    return
        except OSError:
            pass
        ended = any(process.poll() is not None for process in processes)
        if ended or time.monotonic() > deadline:
            tails = "\n".join(log.read_text(errors="replace")[-2000:] for log in directory.glob("*.log"))
            raise RuntimeError(f"the API server {'ended' if ended else 'was not ready in time'}:\n{tails}")
        time.sleep(0.1)


def _kubeconfig(directory: Path, url: str, token: str, user: str) -> str:
    path = directory / f"{user}.kubeconfig"
    authority = str(directory / "certificates" / "apiserver.crt")  # self-signed: it is its own authority
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": authority}}],
                "users": [{"name": user, "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            }
        )
    )
    return str(path)


def _service_account_key(directory: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (directory / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
