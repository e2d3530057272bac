"""`fairlead up` as a user has it: starting, mistakes, kill -9, and the end at any moment."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.haproxy]

OPERATOR, AGENT, API_SERVER, HAPROXY, MODEL = (
    "fairlead.controllers",
    "fairlead.gateway ",
    "fairlead.local.apiserver",
    "bin/haproxy",
    "http.server",
)


def fairlead(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fairlead.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment}, check=False
    )


def until(holds: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.05)


class Load(threading.Thread):
    """One request after the other on a connection that is kept; what failed is remembered."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.answered = 0
        self.failures: list[str] = []
        self._end = threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self._end.is_set():
            try:
                connection.request("GET", "/serving/default/echo/")
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    self.answered += 1
                else:
                    self.failures.append(f"{answer.status} {body[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(0.005)
        connection.close()

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join(90)

    def go_on(self, answers: int) -> None:
        """Returns after so many more answers."""
        enough = self.answered + answers
        until(lambda: self.answered >= enough, f"{answers} more answers")


def test_it_says_where_everything_is_and_how_to_try_it(cluster: Any) -> None:
    until(lambda: "try: curl" in cluster.text, "command to paste")
    assert f"http://127.0.0.1:{cluster.port}" in cluster.text
    assert f"export KUBECONFIG={cluster.directory}/kubeconfig" in cluster.text
    assert "default/echo: traffic: 100 % echo-predictor-00001" in cluster.text


def test_env_sets_kubeconfig_and_url(cluster: Any) -> None:
    lines = fairlead("env", "--directory", str(cluster.directory)).stdout.splitlines()
    assert lines == [
        f"export KUBECONFIG={cluster.directory}/kubeconfig",
        f"export FAIRLEAD_URL=http://127.0.0.1:{cluster.port}",
    ]


def test_a_second_up_in_the_same_directory_names_the_first(cluster: Any) -> None:
    second = fairlead("up", "--directory", str(cluster.directory))
    assert second.returncode == 1
    assert f"(process {cluster.process.pid})" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert cluster.answers()


def test_a_port_in_use_names_its_owner_and_another_port(cluster: Any, tmp_path: Path) -> None:
    second = fairlead("up", "--directory", str(tmp_path), "--port", str(cluster.port))
    assert second.returncode == 1
    assert "(haproxy)" in second.stderr
    assert f"--port {cluster.port + 1}" in second.stderr


@pytest.mark.parametrize("victim", [OPERATOR, AGENT, API_SERVER])
def test_a_control_process_that_is_killed_comes_back_and_no_request_notices(cluster: Any, victim: str) -> None:
    with Load(cluster.port) as load:
        load.go_on(20)
        killed = cluster.pid_of(victim)
        os.kill(killed, signal.SIGKILL)
        until(
            lambda: any(victim in line and pid != killed for pid, line in cluster.processes().items()), f"new {victim}"
        )
        time.sleep(1.5)
        load.go_on(50)
    assert load.failures == []
    assert "ended (signal 9), starting it again" in cluster.text
    until(lambda: len([line for line in cluster.processes().values() if victim in line]) == 1, f"one {victim}")


def test_a_model_server_that_is_killed_comes_back_and_requests_wait_for_it(cluster: Any) -> None:
    with Load(cluster.port) as load:
        load.go_on(20)
        killed = cluster.pid_of(MODEL)
        os.kill(killed, signal.SIGKILL)
        until(lambda: any(MODEL in line and pid != killed for pid, line in cluster.processes().items()), "new server")
        load.go_on(50)
    # The request that the model server was answering is lost with it; those after it wait.
    assert len(load.failures) <= 1, load.failures


def test_a_gateway_that_is_killed_comes_back_within_seconds(cluster: Any) -> None:
    os.kill(cluster.pid_of(HAPROXY), signal.SIGKILL)
    time.sleep(0.1)
    cluster.await_answer(60)
    until(lambda: len([line for line in cluster.processes().values() if HAPROXY in line]) == 2, "master and worker")


def test_all_of_it_at_once_comes_back(cluster: Any) -> None:
    for victim in (API_SERVER, OPERATOR, AGENT, MODEL, HAPROXY):
        os.kill(cluster.pid_of(victim), signal.SIGKILL)
    cluster.await_answer()


def test_state_survives_the_end_and_a_new_beginning(cluster: Any, start: Callable[..., Any]) -> None:
    assert cluster.interrupt() == 0
    until(lambda: not cluster.processes(), "end of all processes")
    again = start(directory=cluster.directory.name, port=cluster.port)
    again.await_answer()
    assert again.interrupt() == 0
    until(lambda: not again.processes(), "end of all processes")


def test_when_the_supervisor_is_killed_nothing_is_left(start: Callable[..., Any], echo: Path) -> None:
    up = start(str(echo), "--ephemeral")
    up.await_answer()
    assert len(up.processes()) >= 8
    up.process.kill()
    up.process.wait()
    until(lambda: not up.processes(), f"end of {up.processes()}")


def computed(pid: int) -> float:
    """Seconds of a processor that a process has had."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize("moment", [0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5])
def test_ctrl_c_at_any_moment_ends_it_and_leaves_nothing(start: Callable[..., Any], echo: Path, moment: float) -> None:
    up = start(str(echo), "--ephemeral")
    time.sleep(moment)
    until(lambda: computed(up.process.pid) > 0.15, "end of Python's own start")  # whose traceback is nobody's fault
    assert up.interrupt() in (0, 130, -signal.SIGINT)  # -SIGINT: Python itself had not started yet
    until(lambda: not up.processes(), f"end of {up.processes()}")
    assert "Traceback" not in up.text


def test_a_second_ctrl_c_ends_it_at_once(start: Callable[..., Any], echo: Path) -> None:
    up = start(str(echo), "--ephemeral")
    up.await_answer()
    up.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in up.text, "first answer to Ctrl-C")
    began = time.monotonic()
    up.interrupt()
    assert time.monotonic() - began < 10
    until(lambda: not up.processes(), f"end of {up.processes()}")


def test_in_the_background_until_down(
    tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Any], echo: Path
) -> None:
    directory = start("--help").directory.parent / "bg"
    port = str(start("--help").port)
    up = fairlead("up", "-d", str(echo), "--ephemeral", "--directory", str(directory), "--port", port)
    assert (up.returncode, up.stderr) == (0, "")
    assert f"http://127.0.0.1:{port}" in up.stdout
    assert fairlead("env", FAIRLEAD_HOME=str(directory)).returncode == 0
    down = fairlead("down", "--directory", str(directory))
    assert down.stdout == f"stopped the cluster in {directory}\n"
    assert "no cluster runs" in fairlead("env", "--directory", str(directory)).stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: b: c", "is not YAML"),
        ("just: this", "no apiVersion and kind"),
        ("apiVersion: v1\nkind: Unknown\nmetadata: {name: x}", "Unknown"),
        (
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: x}\nspec: {predictor: {modle: {}}}",
            "modle",
        ),
    ],
)
def test_a_manifest_that_is_wrong_is_one_line(tmp_path: Path, start: Callable[..., Any], text: str, words: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    up = start(str(path), "--ephemeral")
    assert up.process.wait(90) == 1
    assert words in up.text
    assert len(up.text.strip().splitlines()) == 1, up.text
    until(lambda: not up.processes(), f"end of {up.processes()}")


def test_a_second_life_replaces_a_haproxy_that_is_missing_by_a_clear_word(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLEAD_HAPROXY", "/no/such/haproxy")
    up = start("--ephemeral")
    assert up.process.wait(90) == 1
    assert "/no/such/haproxy" in up.text
    assert len(up.text.strip().splitlines()) == 1, up.text
