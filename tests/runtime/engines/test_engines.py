"""The same behaviour from every engine: real servers, in processes of their own, started as a pod starts them."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.runtime.engines.models import expected
from tests.runtime.receiver import Receiver

from fairlead.local.supervisor.home import free_port

START_SECONDS = 180
"""Ray on a machine that others use too."""
PIXELS = np.random.default_rng(1).integers(0, 17, size=(5, 64)).astype(np.float64)
ENGINES = {
    "process": ["--engine", "process"],
    "process, 2 workers": ["--engine", "process", "--workers", "2"],
    "ray, 2 replicas": ["--engine", "ray", "--workers", "2"],
}


@dataclass
class Pod:
    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path

    def post(self, path: str, body: object) -> tuple[int, dict]:
        return call(self.http_port, "POST", path, json.dumps(body).encode())

    def ready(self) -> bool:
        try:
            return call(self.http_port, "GET", "/v2/health/ready")[0] == 200
        except (OSError, http.client.HTTPException, ValueError):
            return False


def call(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def start(directory: Path, model_class: str, *flags: str, **variables: str) -> Pod:
    ports = free_port(), free_port()
    log = directory / "log"
    command = [sys.executable, "-m", "fairlead.runtime", "--model_name", "digits"]
    command += ["--model_class", model_class] if model_class else []
    command += ["--host", "127.0.0.1", "--http_port", str(ports[0]), "--grpc_port", str(ports[1]), *flags]
    command += ["--model_dir", str(directory), "--drain_seconds", "0.1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **variables}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    return Pod(process, *ports, log)


def wait_ready(pod: Pod) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not pod.ready():
        assert pod.process.poll() is None, pod.log.read_text()[-3000:]
        assert time.monotonic() < deadline, pod.log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if "ray" in name else name for name in ENGINES]
)
def pod(request, tmp_path_factory):
    running = start(tmp_path_factory.mktemp("pod"), "tests.runtime.engines.models:Digits", *ENGINES[request.param])
    try:
        wait_ready(running)
        yield running
    finally:
        stop(running)


def stop(pod: Pod) -> None:
    pod.process.terminate()
    try:
        assert pod.process.wait(60) == 0, pod.log.read_text()[-3000:]
    finally:
        pod.process.kill()  # nothing, if it has ended


def v2_body(pixels: np.ndarray) -> dict:
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "FP64", "data": pixels.ravel().tolist()}
    return {"inputs": [tensor]}


@pytest.mark.timeout(300)  # the engine's start is in it
def test_all_protocols_answer_the_same_bit_for_bit(pod):
    want = expected(PIXELS)
    status, answer = pod.post("/v1/models/digits:predict", {"instances": PIXELS.tolist()})
    assert status == 200
    assert [row["scores"] for row in answer["predictions"]] == want.tolist()
    status, answer = pod.post("/v2/models/digits/infer", v2_body(PIXELS))
    assert answer["outputs"][0]["data"] == want.ravel().tolist()
    for module, port in ((tritonclient.http, pod.http_port), (tritonclient.grpc, pod.grpc_port)):
        tensor = module.InferInput("pixels", [5, 64], "FP64")
        tensor.set_data_from_numpy(PIXELS)
        with module.InferenceServerClient(f"127.0.0.1:{port}") as client:
            result = client.infer("digits", [tensor])
        assert result.as_numpy("scores").tobytes() == want.tobytes()
        assert result.as_numpy("digit").tolist() == want.argmax(axis=1).tolist()


def test_requests_that_go_together_get_their_own_answers(pod):
    rows = np.random.default_rng(2).integers(0, 17, size=(60, 64)).astype(np.float64)
    want = expected(rows)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda row: pod.post("/v2/models/digits/infer", v2_body(row[None])), rows))
    assert [answer["outputs"][0]["data"] for _, answer in answers] == want.tolist()


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v2/models/nope/infer", {}, 404, "Model with name nope does not exist."),
        ("/v2/models/digits/infer", v2_body(np.zeros((1, 63))), 400, "the model takes [-1, 64]"),
        ("/v1/models/digits:predict", {"rows": []}, 400, 'expected a JSON object with "instances"'),
        ("/v1/models/digits:explain", {"instances": PIXELS.tolist()}, 501, "has no explain()"),
    ],
)
def test_errors_are_the_same(pod, path, body, status, message):
    got, answer = pod.post(path, body)
    assert got == status
    assert message in answer["error"]


def test_metadata_is_the_same(pod):
    _, answer = call(pod.http_port, "GET", "/v2/models/digits")
    assert answer["inputs"] == [{"name": "pixels", "datatype": "FP64", "shape": [-1, 64]}]


@pytest.mark.timeout(400)
def test_a_lost_replica_is_replaced_without_a_failed_request(pod):
    """Workers share one socket, so what the killed one had accepted dies with it: only a front can send it again."""
    victims = replicas(pod)
    if not victims:
        return
    fronted = is_fronted(victims[0])
    outcomes = killed_under_load(pod, victims[0], lambda: replicas(pod))
    failed = sum(outcomes.values()) - outcomes[200]
    assert failed == 0 if fronted else failed <= 4, outcomes


@pytest.mark.timeout(400)
def test_a_lost_replica_of_a_step_is_replaced_without_a_failed_request(pod):
    victims = replicas(pod, "digits-classifier")
    if not victims:
        return  # only Ray's steps are processes of their own
    outcomes = killed_under_load(pod, victims[0], lambda: replicas(pod, "digits-classifier"))
    assert set(outcomes) == {200}


def killed_under_load(pod: Pod, victim: int, left: Callable[[], list[int]]) -> Counter[object]:
    """What requests without a pause are answered while the victim is killed and replaced, and a hundred after that."""
    before = len(left())
    outcomes: Counter[object] = Counter()
    enough = threading.Event()
    body = json.dumps(v2_body(PIXELS[:1])).encode()

    def load() -> None:
        while not enough.is_set():
            try:
                outcomes[call(pod.http_port, "POST", "/v2/models/digits/infer", body)[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                outcomes[repr(error)] += 1

    def until(what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not holds():
            assert time.monotonic() < deadline, f"not {what}: {outcomes}"
            time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load) for _ in range(4)]
        try:
            until("under load", lambda: outcomes[200] > 20)
            os.kill(victim, signal.SIGKILL)
            until("replaced", lambda: len(left()) == before and victim not in left())
            answered = outcomes[200]
            until("answering", lambda: outcomes[200] > answered + 100)
        finally:
            enough.set()
        for client in clients:
            client.result()
    return outcomes


def replicas(pod: Pod, deployment: str = "digits") -> list[int]:
    """Process ids of Ray's replicas of the deployment, or of the workers, of this pod."""
    tree = descendants(pod.process.pid)
    titles = {pid: command_line(pid) for pid in tree}
    if any("raylet" in title for title in titles.values()):
        mine = re.compile(rf"ray::ServeReplica:fairlead:{deployment}(?![\w-])")
        return [pid for pid, title in titles.items() if mine.match(title)]
    return [pid for pid in tree if "fairlead.runtime" in titles[pid]] if deployment == "digits" else []


def is_fronted(pid: int) -> bool:
    return command_line(pid).startswith("ray::")


def descendants(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found[1:]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


@pytest.mark.parametrize(
    "flags", [pytest.param(ENGINES["process"], id="process"), pytest.param(ENGINES["process, 2 workers"], id="workers")]
)
def test_a_model_that_cannot_load_ends_the_server_with_a_plain_last_line(tmp_path, flags):
    pod = start(tmp_path, "tests.runtime.engines.models:Broken", *flags)
    assert pod.process.wait(60) == 1
    lines = pod.log.read_text().strip().splitlines()
    assert lines[-1] == "fairlead: model digits could not be loaded: ValueError: the weights are not here"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_step_that_cannot_load_ends_ray_with_a_plain_last_line(tmp_path):
    pod = start(tmp_path, "tests.runtime.engines.models:BrokenPipeline", "--engine", "ray")
    assert pod.process.wait(START_SECONDS) == 1
    lines = pod.log.read_text().strip().splitlines()
    assert lines[-1] == "fairlead: model digits could not be loaded: step 2: ValueError: the weights are not here"


@pytest.mark.parametrize("name", ["process", "process, 2 workers"])
def test_liveness_answers_while_the_model_loads_and_readiness_only_after_that(tmp_path, name):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\nfrom fairlead.runtime import Model\n"
        "class Slow(Model):\n"
        "    def load(self):\n"
        f"        while not pathlib.Path({str(tmp_path / 'go')!r}).exists():\n            time.sleep(0.01)\n"
        "    def predict(self, request):\n        return request.array\n"
    )
    pod = start(tmp_path, str(tmp_path / "slow.py"), *ENGINES[name])
    try:
        deadline = time.monotonic() + START_SECONDS
        while alive(pod) is None:
            assert time.monotonic() < deadline, pod.log.read_text()
            time.sleep(0.02)
        assert alive(pod) == 200
        assert call(pod.http_port, "GET", "/v2/health/ready")[0] == 503
        status, answer = pod.post("/v2/models/digits/infer", v2_body(PIXELS))
        assert status == 503
        assert "not ready" in answer["error"]
        (tmp_path / "go").touch()
        wait_ready(pod)
        assert [pod.post("/v2/models/digits/infer", v2_body(PIXELS))[0] for _ in range(20)] == [200] * 20
    finally:
        (tmp_path / "go").touch()
        stop(pod)


def alive(pod: Pod) -> int | None:
    try:
        return call(pod.http_port, "GET", "/v2/health/live")[0]
    except OSError:
        return None


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        pod = start(
            tmp_path, "tests.runtime.engines.models:Classifier", "--engine", "process", "--http_port", str(port)
        )
        assert pod.process.wait(60) == 1
    assert (
        pod.log.read_text().strip().splitlines()[-1]
        == f"fairlead: cannot listen on 127.0.0.1:{port}: Address already in use"
    )


def test_sigterm_finishes_what_is_in_flight(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text(
        "import pathlib, time\nfrom fairlead.runtime import Model\n"
        "class Slow(Model):\n    def predict(self, request):\n"
        f"        pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n        time.sleep(0.7)\n        return request.array\n"
    )
    pod = start(tmp_path, str(file), "--engine", "process")
    wait_ready(pod)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(pod.post, "/v2/models/digits/infer", v2_body(PIXELS))
        while not (tmp_path / "begun").exists():
            assert not answer.done(), answer.result()
            time.sleep(0.01)
        pod.process.terminate()
        assert answer.result()[0] == 200
    assert pod.process.wait(60) == 0


@pytest.mark.timeout(300)
@pytest.mark.timeout(300)  # the engine's start is in it
@pytest.mark.parametrize("name", ["process, 2 workers", pytest.param("ray, 2 replicas", marks=pytest.mark.slow)])
def test_payloads_are_logged_by_each_of_the_servers_processes_up_to_its_end(tmp_path, name):
    with Receiver() as receiver:
        logger = json.dumps({"url": receiver.url, "inferenceService": "digits", "component": "predictor"})
        digits = "tests.runtime.engines.models:Digits"
        pod = start(tmp_path, digits, *ENGINES[name], FAIRLEAD_LOGGER=logger)
        try:
            wait_ready(pod)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                bodies = [v2_body(PIXELS[:1]) for _ in range(40)]
                answers = list(pool.map(lambda body: pod.post("/v2/models/digits/infer", body), bodies))
            assert [status for status, _ in answers] == [200] * 40
        finally:
            stop(pod)
        counted = Counter(event.kind for event in receiver.events)
        assert counted == {"request": 40, "response": 40}


@pytest.mark.parametrize("engine", ["process", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_repository_with_more_models_than_places_answers_for_all(tmp_path, engine):
    for number in range(3):
        (tmp_path / "models" / f"m{number}").mkdir(parents=True)
        (tmp_path / "models" / f"m{number}" / "model.py").write_text(
            f"def predict(request):\n    return request.array + {number}\n"
        )
    flags = ["--model_repository", str(tmp_path / "models"), "--max_loaded_models", "2", "--allow_pickle"]
    pod = start(tmp_path, "", "--engine", engine, *flags)
    try:
        wait_ready(pod)
        for number in (0, 1, 2, 0):
            status, answer = pod.post(f"/v1/models/m{number}:predict", {"instances": [10]})
            assert (status, answer) == (200, {"predictions": [10 + number]})
        states = {entry["name"]: entry["state"] for entry in pod.post("/v2/repository/index", {})[1]}
        assert states == {"m0": "READY", "m1": "UNAVAILABLE", "m2": "READY"}
    finally:
        stop(pod)


def test_a_repository_that_has_to_be_fetched_is_looked_at_when_it_is_there(tmp_path):
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as archive:
        archive.writestr("models/plus/model.py", "def predict(request):\n    return request.array + 1\n")
    flags = ["--storage_uri", (tmp_path / "models.zip").as_uri(), "--model_repository", str(tmp_path / "models")]
    pod = start(tmp_path, "", "--engine", "process", "--allow_pickle", *flags)
    try:
        wait_ready(pod)
        assert pod.post("/v1/models/plus:predict", {"instances": [10]}) == (200, {"predictions": [11]})
    finally:
        stop(pod)
