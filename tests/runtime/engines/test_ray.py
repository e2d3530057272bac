"""Engine ray: what it starts, what it leaves behind, and what it asks Ray for. Behaviour that engines share is in test_engines."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray
from tests.runtime.engines.test_engines import START_SECONDS, command_line, descendants, start, wait_ready

from fairlead.runtime.engines.ray import agent, environment, node

CLASSIFIER = "tests.runtime.engines.models:Classifier"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ray_runs_only_what_serving_needs_and_all_of_it_ends_with_any_of_it(tmp_path):
    pod = start(tmp_path, CLASSIFIER, "--engine", "ray")
    try:
        wait_ready(pod)
        children = descendants(pod.process.pid)
        kinds = Counter(kind(pid) for pid in children)
        replica, controller = kinds.pop("ray::ServeReplica:fairlead:digits"), kinds.pop("ray::ServeController")
        assert (replica, controller, kinds) == (1, 1, {"agent": 2, "gcs_server": 1, "raylet": 1})
        # The replica answers a little before Ray says that it runs.
        wait_until(lambda: "1 replicas" in pod.log.read_text())
        os.kill(next(pid for pid in children if kind(pid) == "gcs_server"), signal.SIGKILL)
        assert pod.process.wait(90) == 1
    finally:
        pod.process.kill()
    assert pod.log.read_text().strip().splitlines()[-1] == "fairlead: Ray's gcs_server ended"
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def kind(pid: int) -> str:
    first, *arguments = command_line(pid).split()
    if arguments[2:3] == [str(node.AGENT)]:
        return "agent"
    # While it does something, the controller's title is that: ray::ServeController.listen_for_change.
    return Path(first).name if "/" in first else first.partition(".")[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["gcs_server", "ray::ServeController"])
def test_sigterm_during_the_start_ends_everything_at_once(tmp_path, moment):
    pod = start(tmp_path, CLASSIFIER, "--engine", "ray")
    deadline = time.monotonic() + START_SECONDS
    children: list[int] = []
    while not any(moment in command_line(pid) for pid in children):
        assert time.monotonic() < deadline, pod.log.read_text()[-3000:]
        time.sleep(0.02)
        children = descendants(pod.process.pid)
    pod.process.terminate()
    assert pod.process.wait(90) == 0, pod.log.read_text()[-3000:]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_ray_that_is_made_differently_inside_is_started_its_usual_way(monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(node, "start_node", lambda **_: (_ for _ in ()).throw(TypeError("no such parameter")))
    monkeypatch.setattr(node, "signal_handlers_kept", nullcontext)
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: asked.append("shutdown"))
    with caplog.at_level(logging.WARNING), node.running_node(workers=2):
        assert asked[0]["num_cpus"] == 2
    assert asked[-1] == "shutdown"
    assert "with all its processes: no such parameter" in caplog.text


def test_the_node_that_the_tests_have_is_not_made_differently():
    """The subclass and the patched name exist in the installed Ray: else every start would be the slow one."""
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    assert callable(services._build_python_executable_command_memory_profileable)
    assert callable(Node.start_api_server)
    RayParams(no_monitor=True, include_log_monitor=False, log_to_stderr=True, setup_worker_path="x")


def test_what_is_set_in_the_environment_is_left():
    values = {"RAY_LOG_TO_STDERR": "0", "RAY_AUTH_TOKEN": "given"}
    environment.prepare(values)
    assert values["RAY_LOG_TO_STDERR"] == "0"
    assert values["RAY_AUTH_TOKEN"] == "given"
    assert values["RAY_AUTH_MODE"] == "token"


def test_each_start_has_a_token_of_its_own():
    tokens = set()
    for _ in range(2):
        values: dict[str, str] = {}
        environment.prepare(values)
        tokens.add(values["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


def test_a_token_file_is_not_overruled():
    values = {"RAY_AUTH_TOKEN_PATH": "/token"}
    environment.prepare(values)
    assert "RAY_AUTH_TOKEN" not in values


def test_the_agents_place_holder_names_no_ports_and_ends_with_its_parent(tmp_path):
    command = [sys.executable, "-S", "-E", agent.__file__, "/ray/dashboard/agent.py", f"--session-dir={tmp_path}"]
    script = f"import subprocess; print(subprocess.Popen({[*command, '--node-id=n1']!r}).pid, flush=True); input()"
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    files = {tmp_path / f"{port}_n1" for port in agent.PORTS["agent.py"]}
    wait_until(lambda: all(file.exists() for file in files))
    assert {file.read_text() for file in files} == {"-1"}
    assert set(tmp_path.iterdir()) == files
    parent.communicate(b"\n")
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def wait_until(holds):
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_signal_handlers_are_ours_again_after_ray_has_connected():
    def ours(*_):
        pass

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with node.signal_handlers_kept():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.kill(os.getpid(), signal.SIGTERM)  # waits
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
