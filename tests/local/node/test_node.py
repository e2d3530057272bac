"""The node with real processes, against an API server in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairlead.kube.objects import Object
from fairlead.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from fairlead.local.node.machine import CLUSTER_MARK
from fairlead.local.node.process import marked
from fairlead.local.node.service import running_node

SERVER = """
import http.server, os, signal, sys, time
print("hello from", os.environ["POD_NAME"], flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get("ANSWER", "ok").encode())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""

PROBE = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}


class Environment:
    def __init__(self, api: Any, directory: Path, mark: str) -> None:
        self.api = api
        self.directory = directory
        self.mark = mark

    def processes(self) -> list[int]:
        return list(marked(f"{CLUSTER_MARK}={self.mark}"))

    def pods(self) -> list[Object]:
        return sorted(self.api.objects(PODS), key=lambda pod: pod["metadata"]["name"])

    def pod(self) -> Object:
        (pod,) = self.pods()
        return dict(pod)

    def container(self) -> Object:
        return dict((self.pod().get("status") or {}).get("containerStatuses", [{}])[0])

    def endpoints(self) -> list[Object]:
        return [dict(e) for s in self.api.objects(ENDPOINT_SLICES) for e in s["endpoints"]]

    def ready_addresses(self) -> list[str]:
        return [e["addresses"][0] for e in self.endpoints() if e["conditions"]["ready"]]


async def until(holds: Callable[[], Any], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not {what} after {seconds} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def node(api: Any, directory: Path, **options: Any) -> AsyncIterator[Environment]:
    mark = directory.name + str(time.monotonic_ns())
    async with running_node(api, directory, mark=mark, environment=dict(os.environ), grace=2, **options):
        yield Environment(api, directory, mark)
    assert list(marked(f"{CLUSTER_MARK}={mark}")) == []


def container(code: str = SERVER, **fields: Any) -> Object:
    return {
        "name": "c",
        "image": "any",
        "command": [sys.executable, "-c", code],
        "ports": [{"containerPort": 8080}],
        **fields,
    }


def pod(*containers: Object, **spec: Any) -> Object:
    return {
        "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "a"}},
        "spec": {"containers": list(containers), **spec},
    }


def deployment(image: str = "v1", replicas: int = 1, **fields: Any) -> Object:
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [container(image=image, **{"readinessProbe": PROBE, **fields})]},
    }
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "a"}}, "template": template, "strategy": strategy}
    return {"metadata": {"name": "d", "namespace": "ns"}, "spec": spec}


SERVICE = {
    "metadata": {"name": "s", "namespace": "ns", "labels": {"x": "y"}},
    "spec": {"selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}:8080/", timeout=30) as answer:
        return str(answer.read().decode())


async def test_a_deployment_becomes_a_process_that_its_services_endpoints_lead_to(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(env=[{"name": "ANSWER", "value": "I am $(POD_NAME)"}]))
        await until(env.ready_addresses, "in the endpoints")
        (address,) = env.ready_addresses()
        assert await asyncio.to_thread(fetch, address) == f"I am {env.pod()['metadata']['name']}"
        await until(lambda: api.objects(DEPLOYMENTS)[0]["status"].get("availableReplicas") == 1, "available")
        log = tmp_path / "logs" / "ns" / env.pod()["metadata"]["name"] / "c" / "0.log"
        assert log.read_text().startswith("hello from d-")
        assert api.objects(NODES)[0]["metadata"]["name"] == "laptop"
        events = {"ScalingReplicaSet", "Started"}
        await until(lambda: events <= {event["reason"] for event in api.objects(EVENTS)}, "told in events")


async def test_a_settled_node_writes_nothing(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment())
        await until(env.ready_addresses, "in the endpoints")
        before = -1
        while before != api.writes:  # what it has still to say of the start
            before = api.writes
            await asyncio.sleep(0.7)
        await asyncio.sleep(1.2)
        assert api.writes == before


async def test_a_killed_server_is_unready_at_once_and_back_without_a_wait(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(readinessProbe=PROBE | {"failureThreshold": 60}))
        await until(env.ready_addresses, "in the endpoints")
        killed = time.monotonic()
        for process in env.processes():
            os.kill(process, signal.SIGKILL)
        await until(lambda: not env.ready_addresses(), "out of the endpoints")
        assert time.monotonic() - killed < 30, "as late as probes would have told"
        await until(env.ready_addresses, "back in the endpoints")
        assert "BackOff" not in {event["reason"] for event in api.objects(EVENTS)}
        status = env.container()
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"] | {"exitCode": 137, "signal": 9} == status["lastState"]["terminated"]


async def test_a_rolling_update_always_has_a_pod_that_answers(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment("v1"))
        await until(env.ready_addresses, "in the endpoints")
        (before,) = env.ready_addresses()
        await api.patch(DEPLOYMENTS, "d", deployment("v2"), "ns")

        def moved() -> bool:
            assert env.ready_addresses()
            return env.ready_addresses() != [before] and len(env.pods()) == 1

        await until(moved, "on the new pod")
        assert env.ready_addresses() != [before]
        assert len(api.objects(REPLICA_SETS)) == 2
        await until(lambda: len(env.processes()) == 1, "one process left")


async def test_init_containers_run_in_order_before_the_main_ones_and_share_volumes(api: Any, tmp_path: Path) -> None:
    write = "import pathlib, sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    mounts = [{"name": "v", "mountPath": "/mnt/v"}]

    def step(name: str, text: str) -> Object:
        return {"name": name, "command": ["python", "-c", write, "/mnt/v/steps", text], "volumeMounts": mounts}

    main = container("import sys; print(open(sys.argv[1]).read())", args=["/mnt/v/steps"], volumeMounts=mounts)
    async with node(api, tmp_path) as env:
        init = [step("one", "1"), step("two", "2")]
        await api.create(
            PODS, pod(main, initContainers=init, volumes=[{"name": "v", "emptyDir": {}}], restartPolicy="Never")
        )
        await until(lambda: (env.pod().get("status") or {}).get("phase") == "Succeeded", "Succeeded")
        assert (tmp_path / "logs/ns/p/c/0.log").read_text() == "12\n"


async def test_a_container_that_crashes_says_why_and_backs_off(api: Any, tmp_path: Path) -> None:
    crash = container("import sys; print('loading'); sys.exit('cannot load model: no such file')")
    async with node(api, tmp_path) as env:
        await api.create(
            PODS, pod(crash | {"terminationMessagePolicy": "FallbackToLogsOnError", "readinessProbe": PROBE})
        )
        await until(
            lambda: (env.container().get("state") or {}).get("waiting", {}).get("reason") == "CrashLoopBackOff",
            "backing off",
        )
        last = env.container()["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (1, "Error")
        assert last["message"] == "loading\ncannot load model: no such file"
        assert env.pod()["status"]["phase"] == "Running"


async def test_an_image_without_a_command_needs_a_cluster_and_says_so(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(PODS, pod({"name": "c", "image": "nvcr.io/triton:1"}))
        await until(
            lambda: (env.container().get("state") or {}).get("waiting", {}).get("reason") == "NeedsCluster", "refused"
        )
        assert env.pod()["status"]["phase"] == "Pending"
        assert "nvcr.io/triton:1" in env.container()["state"]["waiting"]["message"]


async def test_a_program_that_does_not_exist_is_named(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(PODS, pod({"name": "c", "command": ["/no/such/program"]}, restartPolicy="Never"))
        await until(lambda: (env.pod().get("status") or {}).get("phase") == "Failed", "failed")
        assert "/no/such/program" in env.container()["state"]["terminated"]["message"]


async def test_a_missing_config_map_is_waited_for(api: Any, tmp_path: Path) -> None:
    code = "import os; print(os.environ['K'])"
    async with node(api, tmp_path) as env:
        await api.create(PODS, pod(container(code, envFrom=[{"configMapRef": {"name": "m"}}]), restartPolicy="Never"))
        await until(
            lambda: (
                "waiting" in env.container().get("state", {})
                and "m" in env.container()["state"]["waiting"].get("message", "")
            ),
            "waiting",
        )
        assert env.container()["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        await api.create(CONFIG_MAPS, {"metadata": {"name": "m", "namespace": "ns"}, "data": {"K": "value"}})
        await until(lambda: env.pod()["status"]["phase"] == "Succeeded", "run")
        assert (tmp_path / "logs/ns/p/c/0.log").read_text() == "value\n"


async def test_deleting_a_pod_runs_pre_stop_then_sigterm_and_frees_the_object(api: Any, tmp_path: Path) -> None:
    code = """
import signal, sys, time
def term(*_):
    open(sys.argv[1], "a").write(" term"); sys.exit(0)
signal.signal(signal.SIGTERM, term)
print("up", flush=True)
while True: time.sleep(0.05)
"""
    notes = tmp_path / "notes"
    hook = {"preStop": {"exec": {"command": [sys.executable, "-c", f"open({str(notes)!r}, 'a').write('prestop')"]}}}
    async with node(api, tmp_path) as env:
        await api.create(PODS, pod(container(code, args=[str(notes)], lifecycle=hook)))
        await until(
            lambda: (tmp_path / "logs/ns/p/c/0.log").exists() and "up" in (tmp_path / "logs/ns/p/c/0.log").read_text(),
            "up",
        )
        await api.delete(PODS, "p", "ns")
        await until(lambda: not env.pods(), "gone")
        assert notes.read_text() == "prestop term"
        assert env.processes() == []
        assert not (tmp_path / "logs/ns/p").exists()


async def test_what_ignores_sigterm_is_killed_with_all_that_it_started_when_the_grace_is_over(
    api: Any, tmp_path: Path
) -> None:
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
print("up", flush=True)
while True: time.sleep(1)
"""
    async with node(api, tmp_path) as env:
        await api.create(PODS, pod(container(code), terminationGracePeriodSeconds=1))
        await until(lambda: len(env.processes()) == 2, "up with a child that left the session")
        began = time.monotonic()
        await api.delete(PODS, "p", "ns")
        await until(lambda: not env.pods(), "gone")
        assert 0.9 < time.monotonic() - began < 20
        assert env.processes() == []


async def test_a_container_above_its_memory_limit_is_killed_and_called_so(api: Any, tmp_path: Path) -> None:
    code = "import time; hog = bytearray(200 * 2**20); time.sleep(100)"
    async with node(api, tmp_path) as env:
        limits = {"resources": {"limits": {"memory": "100Mi"}}}
        await api.create(PODS, pod(container(code, **limits), restartPolicy="Never"))
        await until(lambda: "terminated" in (env.container().get("state") or {}), "ended")
        assert (
            env.container()["state"]["terminated"] | {"reason": "OOMKilled", "exitCode": 137}
            == env.container()["state"]["terminated"]
        )


async def test_failing_liveness_restarts_the_container(api: Any, tmp_path: Path) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    async with node(api, tmp_path) as env:
        await api.create(
            PODS, pod(container("import time; time.sleep(100)", livenessProbe=probe), terminationGracePeriodSeconds=1)
        )
        await until(lambda: env.container().get("restartCount", 0) >= 1, "restarted")


async def test_pods_of_a_former_life_are_replaced(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path) as env:
        await api.create(DEPLOYMENTS, deployment())
        await until(lambda: env.pods() and env.container().get("ready"), "ready")
        former = env.pod()["metadata"]["uid"]
    assert env.pod()["metadata"]["uid"] == former  # the object outlives its processes
    async with node(api, tmp_path) as env:
        await until(
            lambda: env.pods() and env.container().get("ready") and env.pod()["metadata"]["uid"] != former, "replaced"
        )


async def test_a_node_that_pretends_has_ready_pods_and_no_processes(api: Any, tmp_path: Path) -> None:
    async with node(api, tmp_path, fake=True) as env:
        await api.create(SERVICES, SERVICE)
        await api.create(DEPLOYMENTS, deployment(replicas=5))
        await until(lambda: len(env.ready_addresses()) == 5, "ready")
        assert env.processes() == []
        await api.patch(DEPLOYMENTS, "d", {"spec": {"replicas": 1}}, "ns")
        await until(lambda: len(env.pods()) == 1, "scaled down")


@pytest.fixture(autouse=True)
def no_child_is_left() -> Any:
    before = children()
    yield
    assert children() <= before


def children() -> set[int]:
    """This process's children, those of other tests' fixtures among them."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
