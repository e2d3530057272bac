"""The operator as the chart starts it: its own process with the chart's arguments, told only where this machine differs from a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.integration.conftest import free_port

CHART = Path(__file__).parents[2] / "charts" / "fairlead"


def rendered(*settings: str) -> list[dict[str, Any]]:
    """The chart's objects."""
    flags = [word for setting in settings for word in ("--set", setting)]
    command = ["helm", "template", "fairlead", str(CHART), "--namespace", "fairlead-system", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


class OperatorProcess:
    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self._process, self._port, self._log = process, port, log

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def metric(self, name: str) -> float:
        """The sum of the metric's series."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        series = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in series)

    def resident(self) -> float:
        """MiB of its own in memory: what a pod's limit would count of it, but for caches."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        kilobytes = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")]
        return sum(kilobytes) / 1024


@contextlib.contextmanager
def operator_process(
    kubeconfig: str, directory: Path, objects: list[dict[str, Any]], *flags: str
) -> Iterator[OperatorProcess]:
    """Runs for the length of the block, with the arguments that `objects`, the rendered chart, give it, and then `flags`."""
    deployment = next(o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "fairlead-operator")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    port = free_port()
    # There are no gateways here; the last of two equal flags counts.
    here = [f"--kubeconfig={kubeconfig}", f"--listen=127.0.0.1:{port}", "--gateway-agents="]
    log = directory / "operator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:], *container["args"], *here, *flags],
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            yield OperatorProcess(process, port, log)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
