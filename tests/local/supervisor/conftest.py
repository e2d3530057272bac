"""`fairlead up` as a user runs it, with a mark by which every process that it leads to can be found."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from fairlead.local.node.process import marked, sweep
from fairlead.local.supervisor.home import free_port

MANIFEST = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: echo}
spec:
  predictor:
    containers:
    - name: kserve-container
      image: python
      command: [python, -S, -c, "%s"]
      ports: [{containerPort: 8080}]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"""
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = 'HTTP/1.1', True
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '2'); self.end_headers(); self.wfile.write(b'ok')
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
Server((os.environ['HOST'], 8080), Handler).serve_forever()
"""


PATIENCE = 90.0
"""Seconds until what is waited for counts as never coming: three processes start in one on a quiet machine."""


class Up:
    """One `fairlead up` in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str, port: int | None = None) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.mark = f"FAIRLEAD_TEST={uuid4().hex}"
        name, _, value = self.mark.partition("=")
        self.environment = {**os.environ, name: value}
        self.output = directory.parent / f"{directory.name}.out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "fairlead.cli",
                    "up",
                    *arguments,
                    "--directory",
                    str(directory),
                    "--port",
                    str(self.port),
                ],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def processes(self) -> dict[int, str]:
        """All that runs of it, by their command lines."""
        found = {}
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def pid_of(self, words: str) -> int:
        until(lambda: any(words in line for line in self.processes().values()), f"process {words}")
        return next(pid for pid, line in sorted(self.processes().items()) if words in line)

    def answers(self, name: str = "echo", timeout: float = 5) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/serving/default/{name}/", timeout=timeout
            ) as answer:
                return bool(answer.read() == b"ok")
        except OSError:
            return False

    def await_answer(self, seconds: float = PATIENCE) -> None:
        until(self.answers, f"an answer; output:\n{self.text}", seconds)

    def interrupt(self, seconds: float = PATIENCE) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def clean_up(self) -> None:
        self.process.kill()
        self.process.wait()
        sweep(self.mark)


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest whose service answers `ok`."""
    path = tmp_path_factory.mktemp("manifests") / "echo.yaml"
    path.write_text(MANIFEST % SERVER.replace("\n", "\\n"))
    return path


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Up]]:
    """Starts clusters; whatever a test leaves of them is cleared away."""
    started: list[Up] = []
    with tempfile.TemporaryDirectory(prefix="fl-") as short:  # a Unix socket's path may have 107 characters

        def begin(*arguments: str, directory: str | None = None, port: int | None = None) -> Up:
            up = Up(Path(short) / (directory or f"d{len(started)}"), *arguments, port=port)
            started.append(up)
            return up

        yield begin
        for up in started:
            up.clean_up()


@pytest.fixture(scope="module")
def cluster(start: Callable[..., Up], echo: Path) -> Up:
    """A cluster with one service that answers."""
    up = start(str(echo))
    up.await_answer()
    return up
