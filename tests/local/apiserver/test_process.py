"""The process: what survives it, what it refuses, what it costs."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kubectl


def test_a_killed_server_comes_back_with_its_state_its_address_and_a_valid_kubeconfig(
    start: Any, tmp_path: Path
) -> None:
    first = start()
    first.kubectl("create", "configmap", "kept", "--from-literal=a=1")
    version = first.kubectl("get", "cm", "kept", "-o", "jsonpath={.metadata.resourceVersion}")
    shutil.copy(first.kubeconfig, tmp_path / "old-kubeconfig")
    first.kill()
    second = start()
    assert second.address == first.address
    old = {"KUBECONFIG": str(tmp_path / "old-kubeconfig")}
    assert second.kubectl("get", "cm", "kept", "-o", "jsonpath={.data.a}", env=old) == "1"
    second.kubectl("label", "cm", "kept", "a=b")
    assert int(second.kubectl("get", "cm", "kept", "-o", "jsonpath={.metadata.resourceVersion}")) > int(version)


def test_an_ephemeral_server_keeps_nothing_but_its_identity(start: Any) -> None:
    first = start("--ephemeral")
    first.kubectl("create", "configmap", "lost")
    first.stop()
    second = start("--ephemeral")
    assert "not found" in second.kubectl("get", "cm", "lost")
    assert not (second.directory / "state.db").exists()


def test_secrets_are_readable_by_their_owner_only_and_ready_goes_with_the_server(start: Any) -> None:
    server = start()
    for name in ("kubeconfig", "token", "server.key", "state.db"):
        assert stat.S_IMODE((server.directory / name).stat().st_mode) == 0o600, name
    server.stop()
    assert not (server.directory / "ready").exists()


def test_a_taken_port_and_a_public_address_are_refused_with_a_plain_reason(start: Any, tmp_path: Path) -> None:
    taken = start().address
    for listen, reason in ((taken, f"cannot listen on {taken}"), ("0.0.0.0:0", "loopback address")):
        command = [
            sys.executable,
            "-m",
            "fairlead.local.apiserver",
            "--directory",
            str(tmp_path / "other"),
            "--listen",
            listen,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
        assert done.returncode != 0
        assert reason in done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_server_stays_below_60_mb_resident(start: Any) -> None:
    server = start()
    server.kubectl("get", "pods")
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))
    assert resident < 60 * 1024


def test_a_server_with_an_open_watch_ends_within_seconds_of_sigterm(start: Any) -> None:
    server = start()
    command = ["kubectl", "--kubeconfig", str(server.kubeconfig), "get", "namespaces", "-w", "-o", "name"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().startswith("namespace/")
        server.process.terminate()
        assert server.process.wait(5) == 0
        watch.terminate()
