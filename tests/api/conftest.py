"""A real kube-apiserver with etcd, for what only it can say: whether our CRDs are accepted and what a user reads when they refuse."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fairlead.api import crd
from fairlead.local.supervisor.home import free_port

TOKEN = "test-token"
ASSETS = Path(os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"))
START_TIMEOUT_SECONDS = 60


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"kube-apiserver ended: {log.read_text()[-2000:]}")
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"kube-apiserver is not ready after {START_TIMEOUT_SECONDS} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def kube_apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a fresh kube-apiserver on loopback."""
    if not (ASSETS / "kube-apiserver").exists() or not (ASSETS / "etcd").exists():
        pytest.skip("KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver (setup-envtest installs them)")
    home = tmp_path_factory.mktemp("kube-apiserver")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    (home / "sa.key").write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()))
    (home / "tokens").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    commands = {
        "etcd": [
            f"--data-dir={home}/etcd",
            f"--listen-client-urls={etcd_url}",
            f"--advertise-client-urls={etcd_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd_url}",
            f"--cert-dir={home}/certs",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--token-auth-file={home}/tokens",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={home}/sa.key",
            f"--service-account-signing-key-file={home}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--disable-admission-plugins=ServiceAccount",
        ],
    }
    processes = []
    try:
        for program, arguments in commands.items():
            with (home / f"{program}.log").open("wb") as log:
                processes.append(subprocess.Popen([ASSETS / program, *arguments], stdout=log, stderr=log))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", headers=headers, verify=False, timeout=30) as client:
            wait_until_ready(client, processes[-1], home / "kube-apiserver.log")
            yield client
    finally:
        for process in reversed(
            processes
        ):  # killed: kube-apiserver takes a minute to leave in order, and nothing is kept
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def cluster(kube_apiserver: httpx.Client) -> httpx.Client:
    """The kube-apiserver with our CRDs established."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind in crd.KINDS:
        answer = kube_apiserver.post(f"{definitions}?fieldValidation=Strict", json=yaml.safe_load(crd.render(kind)))
        assert answer.status_code == 201, answer.text
    for kind in crd.KINDS:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            name = f"{kind.plural}.serving.kserve.io"
            conditions = kube_apiserver.get(f"{definitions}/{name}").json()["status"].get("conditions") or []
            assert not [c for c in conditions if c["type"] == "NonStructuralSchema"], conditions
            listed = kube_apiserver.get(f"/apis/serving.kserve.io/{kind.version}/{kind.plural}").status_code == 200
            if listed and any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                break
            time.sleep(0.05)
    return kube_apiserver
