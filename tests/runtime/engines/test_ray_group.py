"""A Ray of several pods: who joins whom, and what a pod does when it loses the others."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.engines.test_engines import START_SECONDS, command_line, descendants, free_port

from fairlead.runtime.engines.front import ReplicaPorts
from fairlead.runtime.engines.ray import application, environment, group
from fairlead.runtime.engines.ray.group import Group
from fairlead.runtime.errors import LoadError
from fairlead.runtime.settings import Settings, parse

TOKEN = {"RAY_AUTH_TOKEN": "a" * 64}


def test_a_pod_that_is_told_of_no_others_is_on_its_own():
    assert Group.from_environment({}) is None
    assert Group.from_environment({"RAY_NODE_COUNT": "1"}) is None


def test_the_head_opens_the_port_that_workers_join_at():
    head = Group.from_environment({"RAY_NODE_COUNT": "3", "POD_IP": "10.0.0.1", **TOKEN})
    assert head == Group(3, None, "10.0.0.1")
    assert head.node_parameters() == {"gcs_server_port": 6379, "node_ip_address": "10.0.0.1"}


def test_a_worker_has_a_head_to_join():
    worker = Group.from_environment({"RAY_NODE_COUNT": "3", "HEAD_SVC": "digits-head", **TOKEN})
    assert worker == Group(3, "digits-head", None)
    assert worker.node_parameters() == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"RAY_NODE_COUNT": "two", **TOKEN}, "RAY_NODE_COUNT='two' is no number"),
        ({"RAY_NODE_COUNT": "2"}, "the same RAY_AUTH_TOKEN, from a Secret"),
    ],
)
def test_a_group_that_cannot_be_is_refused(values, message):
    with pytest.raises(LoadError, match=message):
        Group.from_environment(values)


def test_workers_outlive_their_head():
    values: dict[str, str] = {}
    environment.prepare(values, in_group=True)
    assert int(values["RAY_gcs_rpc_server_reconnect_timeout_s"]) >= 3600


@pytest.mark.parametrize(
    ("addresses", "current", "gcs", "ready", "joins"),
    [
        pytest.param(["a"], None, {"a"}, set(), "a", id="the first head"),
        pytest.param(["a"], None, set(), set(), None, id="a head that does not listen yet"),
        pytest.param(["a", "b"], "a", {"a", "b"}, {"a", "b"}, "a", id="its own head, beside another"),
        pytest.param([], "a", set(), set(), "a", id="nobody: it goes on alone"),
        pytest.param(["b"], "a", {"b"}, set(), "a", id="its own until the next one serves"),
        pytest.param(["b"], "a", {"b"}, {"b"}, "b", id="the next one, which serves"),
    ],
)
def test_which_head_a_worker_is_with(monkeypatch, addresses, current, gcs, ready, joins):
    monkeypatch.setattr(group, "answers", lambda address, port: address in gcs)
    monkeypatch.setattr(group, "is_ready", lambda address, port: address in ready)
    assert group.head_to_join(addresses, current, 8080) == joins


@given(
    current=st.sampled_from("abc"), addresses=st.sets(st.sampled_from("abc")), serving=st.sets(st.sampled_from("abc"))
)
def test_a_worker_never_leaves_for_a_head_that_does_not_serve(current, addresses, serving):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "answers", lambda address, port: False)
        patch.setattr(group, "is_ready", lambda address, port: address in serving)
        joins = group.head_to_join(sorted(addresses), current, 8080)
    assert joins == current or (joins in serving and joins in addresses)


@pytest.mark.parametrize("how", [group.END, group.LEAVE])
async def test_a_replica_that_is_told_drains_and_whoever_told_it_waits(tmp_path, monkeypatch, how):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = Settings(host="127.0.0.1", http_port=8080, drain_seconds=0.0)
    told, finish = asyncio.Queue(), asyncio.Event()

    class Server:
        def stop(self) -> None:
            told.put_nowait(group.END)

        def leave(self) -> None:
            told.put_nowait(group.LEAVE)

    running = asyncio.create_task(finish.wait())
    listening = await group.drain_when_told(Server(), running, settings)
    leaving = asyncio.create_task(asyncio.to_thread(group.finish_requests, settings, how))
    assert await told.get() == how
    assert not leaving.done()
    finish.set()
    await leaving
    listening.close()


def test_a_pod_without_a_replica_leaves_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    group.finish_requests(Settings())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, when it is imported
def test_a_replica_on_each_pod_with_the_gpus_that_are_asked_for(tmp_path):
    model = "tests.runtime.engines.models:Classifier"
    settings = Settings(model_name="digits", model_dir=tmp_path, model_class=model, num_gpus=0.5)
    deployment = application.application(settings, [ReplicaPorts(8080, None)], pods=3)._bound_deployment
    assert deployment.num_replicas == 3
    assert deployment._replica_config.max_replicas_per_node == 1
    assert deployment.ray_actor_options["num_gpus"] == 0.5


def test_a_pipelines_steps_are_in_each_pod_of_several(tmp_path):
    model = "tests.runtime.engines.models:Digits"
    settings = Settings(model_name="digits", model_dir=tmp_path, model_class=model)
    one, several = (application.application(settings, [ReplicaPorts(8080, None)], pods=pods) for pods in (1, 2))
    assert len(one._bound_deployment.init_args) == 4  # settings, ports and two steps
    assert len(several._bound_deployment.init_args) == 2


def test_a_negative_number_of_gpus_is_refused():
    with pytest.raises(SystemExit):
        parse(["--num_gpus", "-1"], {})


# --- Two pods, each with an address of its own ------------------------------------------------------------------

HEAD, WORKER = "127.0.0.2", "127.0.0.3"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_worker_joins_serves_without_its_head_and_joins_the_next_one(tmp_path):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HEAD, group.RAY_PORT))  # or this machine has a head already, and the test says so
    port = free_port()
    pods = {}

    def start(address: str) -> None:
        command = [sys.executable, "-m", "fairlead.runtime", "--engine", "ray", "--model_name", "digits"]
        command += ["--model_class", "tests.runtime.engines.models:Classifier", "--model_dir", str(tmp_path)]
        command += ["--http_port", str(port), "--enable_grpc=false", "--drain_seconds", "0.1"]
        own = {"HOST": address, "POD_IP": address, "RAY_NODE_COUNT": "2", "PYTHONPATH": str(Path(__file__).parents[3])}
        head = {"HEAD_SVC": HEAD} if address == WORKER else {}
        with (tmp_path / f"{address}.log").open("ab") as log:
            pods[address] = subprocess.Popen(
                command, env={**os.environ, **TOKEN, **own, **head}, stdout=log, stderr=subprocess.STDOUT
            )

    def until(what: str, holds) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not holds():
            logs = "".join((tmp_path / f"{address}.log").read_text()[-1500:] for address in pods)
            assert time.monotonic() < deadline, f"not {what}: {logs}"
            time.sleep(0.1)

    start(HEAD)
    start(WORKER)
    try:
        until("both answer", lambda: answer(HEAD, port) and answer(WORKER, port))
        first = replica(pods[WORKER])

        crash(pods[HEAD])
        assert answer(WORKER, port)
        start(HEAD)
        until("the next head answers", lambda: answer(HEAD, port))
        until("with the next head", lambda: replica(pods[WORKER]) not in (None, first) and answer(WORKER, port))

        for address in (WORKER, HEAD):
            pods[address].send_signal(signal.SIGTERM)
            assert pods[address].wait(60) == 0
    finally:
        for pod in pods.values():
            crash(pod)


def answer(address: str, port: int) -> bool:
    tensor = {"name": "scaled", "shape": [1, 64], "datatype": "FP64", "data": [0.0] * 64}
    connection = http.client.HTTPConnection(address, port, timeout=60)
    try:
        connection.request("POST", "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}))
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def replica(pod: subprocess.Popen[bytes]) -> int | None:
    return next((pid for pid in descendants(pod.pid) if "ServeReplica:fairlead:digits" in command_line(pid)), None)


def crash(pod: subprocess.Popen[bytes]) -> None:
    """As a pod ends whose node is lost: everything in it at once."""
    for pid in (*descendants(pod.pid), pod.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    pod.wait()
