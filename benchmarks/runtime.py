"""The model server against a bare one and its peers: rates, tails, memory, start.

    python benchmarks/runtime.py [--rounds 3] [--seconds 2] [--without ray,kserve] [--json FILE]

All servers run at once, pinned to one core; all but the one that is measured are stopped (SIGSTOP). The load comes from the
other core. Rounds are interleaved, figures are the medians of the rounds' ratios to `bare` of the same round: only
ratios mean something on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._figures import Figures
from benchmarks._load import Result, grpc_load, http_load, http_request
from fairlead.runtime.protocols import pb

SERVERS = Path(__file__).with_name("_servers.py")
SERVER_CORE, LOAD_CORE = 0, 1
INFER = "/inference.GRPCInferenceService/ModelInfer"

IMAGE_MODEL = """
from fairlead.runtime import Model, TensorSpec

class Image(Model):
    inputs = (TensorSpec("image", "FP32", (-1, 3, 224, 224)),)
    outputs = (TensorSpec("mean", "FP32", (-1, 3)),)
    compute_bound = True

    def predict(self, request):
        return request.array.mean(axis=(2, 3))
"""
NOTHING_MODEL = """
import numpy as np
from fairlead.runtime import Model, TensorSpec

class Nothing(Model):
    inputs = (TensorSpec("input-0", "FP64", (-1, 4)),)
    batchable = True
    compute_bound = True

    def predict(self, request):
        return np.zeros(len(request.array), np.int64)
"""


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    first_answer: float

    def signal(self, number: int) -> None:
        for pid in tree(self.process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def proportional_set_size(self) -> float:
        """MB of all its processes, shared pages divided among those who share them."""
        total = 0
        for pid in tree(self.process.pid):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024


def tree(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# --- requests ---------------------------------------------------------------------------------------------------

ROW = [5.1, 3.5, 1.4, 0.2]


def json_request(model: str) -> bytes:
    tensor = {"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": ROW}
    return http_request(f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode())


def binary_request() -> bytes:
    image = np.random.default_rng(0).random((1, 3, 224, 224), np.float32).tobytes()
    tensor = {
        "name": "image",
        "shape": [1, 3, 224, 224],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(image)},
    }
    head = json.dumps({"inputs": [tensor]}).encode()
    return http_request("/v2/models/image/infer", head + image, {"Inference-Header-Content-Length": str(len(head))})


def grpc_message(model: str, name: str, array: np.ndarray, datatype: str) -> bytes:
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    message.inputs.add(name=name, datatype=datatype, shape=array.shape)
    return bytes(message.SerializeToString())


# --- servers ----------------------------------------------------------------------------------------------------


def start(name: str, directory: Path, *, pinned: bool = True, grpc: bool = True) -> Server:
    port, grpc_port = free_port(), free_port()
    model = str(directory / "iris" / "model.skops")
    if name.startswith("fairlead"):
        command = [sys.executable, "-m", "fairlead.runtime", "--engine", name.partition(" ")[2], "--host", "127.0.0.1"]
        command += ["--http_port", str(port), "--grpc_port", str(grpc_port), f"--enable_grpc={str(grpc).lower()}"]
        if pinned:
            command += ["--model_repository", str(directory)]
        else:
            command += ["--model_name", "iris", "--model_dir", model]
    else:
        command = [sys.executable, str(SERVERS), name.partition(" ")[0], "--port", str(port), "--model", model]
        command += ["--grpc_port", str(grpc_port)] if grpc and name != "ray default" else []
    environment = {**os.environ, "FAIRLEAD_ALLOW_PICKLE": "true", "OMP_NUM_THREADS": "1"}
    if pinned:
        command = ["taskset", "-c", str(SERVER_CORE), *command]
    started = time.perf_counter()
    log = (directory.parent / f"{name.replace(' ', '-')}.log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    server = Server(name, process, port, grpc_port, 0.0)
    try:
        wait_for_answer(process, port)
    except BaseException:
        server.signal(signal.SIGKILL)
        raise
    server.first_answer = time.perf_counter() - started
    return server


def wait_for_answer(process: subprocess.Popen[bytes], port: int) -> None:
    tensor = {"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": ROW}
    body = json.dumps({"inputs": [tensor]}).encode()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/models/iris/infer", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                assert json.loads(response.read())["outputs"][0]["data"] == [0]
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.005)
    raise SystemExit(f"{process.args} did not answer")


def stop(server: Server) -> None:
    server.signal(signal.SIGCONT)
    pids = tree(server.process.pid)
    server.process.terminate()
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


# --- measurements -----------------------------------------------------------------------------------------------

Load = Callable[[Server, float], Result]


def loads() -> dict[str, tuple[Load, set[str]]]:
    """Name -> the load and the servers that it cannot be put on."""
    iris, nothing, image = json_request("iris"), json_request("nothing"), binary_request()
    row = grpc_message("iris", "input-0", np.array([ROW]), "FP64")
    tensor = grpc_message("image", "image", np.random.default_rng(0).random((1, 3, 224, 224), np.float32), "FP32")
    peers = {"kserve", "ray default"}
    return {
        "json 1": (lambda server, s: http_load(server.port, iris, 1, s), set()),
        "json 32": (lambda server, s: http_load(server.port, iris, 32, s), set()),
        "nothing 32": (lambda server, s: http_load(server.port, nothing, 32, s), peers | {"bare"}),
        "binary 8": (lambda server, s: http_load(server.port, image, 8, s), peers),
        "grpc 1": (lambda server, s: grpc_load(server.grpc_port, INFER, row, 1, s), {"ray default"}),
        "grpc 32": (lambda server, s: grpc_load(server.grpc_port, INFER, row, 32, s, 4), {"ray default"}),
        "grpc raw 4": (lambda server, s: grpc_load(server.grpc_port, INFER, tensor, 4, s, 4), peers),
    }


def measure(servers: list[Server], rounds: int, seconds: float) -> dict[str, dict[str, list[Result]]]:
    """load -> server -> a result for each round."""
    results: dict[str, dict[str, list[Result]]] = {}
    for number in range(rounds + 1):  # the first warms up
        for load, (run, excluded) in loads().items():
            for server in servers:
                if server.name in excluded:
                    continue
                server.signal(signal.SIGCONT)
                result = run(server, seconds if number else 0.5)
                server.signal(signal.SIGSTOP)
                if number:
                    results.setdefault(load, {}).setdefault(server.name, []).append(result)
    return results


def ratio(results: dict[str, list[Result]], name: str, of: Callable[[Result], float], base: str = "bare") -> float:
    return statistics.median(of(mine) / of(bare) for mine, bare in zip(results[name], results[base], strict=True))


GOALS = {
    # load, figure: goal for engine process, for engine ray
    ("json 1", "rate"): (1.0, 0.85),
    ("json 32", "rate"): (3.0, 2.5),
    ("json 32", "p99"): (0.5, 0.6),
    ("binary 8", "rate"): (1.0, 0.9),
    ("grpc 1", "rate"): (1.2, 1.1),
    ("grpc 32", "rate"): (4.0, 3.0),
    ("grpc raw 4", "rate"): (2.0, 1.8),
}


def report(figures: Figures, results: dict[str, dict[str, list[Result]]]) -> None:
    for (load, what), goals in GOALS.items():
        of = (lambda result: result.rate) if what == "rate" else (lambda result: result.percentile(99))
        by_name = results[load]
        figures.add(
            f"{load} {what}: bare", statistics.median(map(of, by_name["bare"])), "/s" if what == "rate" else "s"
        )
        for name in by_name:
            if name == "bare":
                continue
            goal = {"fairlead process": goals[0], "fairlead ray": goals[1]}.get(name)
            value = ratio(by_name, name, of)
            figures.add(f"{load} {what}: {name}", value, "of bare", goal=goal, at_least=what == "rate")
    for name, goal in (("fairlead process", 0.75), ("fairlead ray", 0.7)):
        if name in results["nothing 32"]:
            mine = zip(results["json 32"][name], results["nothing 32"][name], strict=True)
            value = statistics.median(model.rate / nothing.rate for model, nothing in mine)
            figures.add(f"json 32 against a model that does nothing: {name}", value, "ratio", goal=goal, at_least=True)


def memory_and_start(figures: Figures, directory: Path, names: list[str], rounds: int) -> None:
    """One server at a time, with one model, unpinned: what a pod would see. HTTP alone for bare, as one would write it."""
    start_seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in names:
            server = start(name, directory, pinned=False, grpc=name != "bare")
            start_seconds.setdefault(name, []).append(server.first_answer)
            memory.setdefault(name, []).append(server.proportional_set_size())
            stop(server)
    goals = {"fairlead process": (1.15, 1.3), "fairlead ray": (None, None)}
    for name in names:
        pss, seconds = statistics.median(memory[name]), statistics.median(start_seconds[name])
        figures.add(f"memory (PSS): {name}", pss, "MB", goal=620 if name == "fairlead ray" else None)
        figures.add(f"start to first right answer: {name}", seconds, "s", goal=7.5 if name == "fairlead ray" else None)
        if name == "fairlead process":
            figures.add(f"memory: {name}", pss / statistics.median(memory["bare"]), "of bare", goal=goals[name][0])
            ratios = (mine / bare for mine, bare in zip(start_seconds[name], start_seconds["bare"], strict=True))
            figures.add(f"start: {name}", statistics.median(ratios), "of bare", goal=goals[name][1])


def make_models(directory: Path) -> None:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    for name in ("iris", "image", "nothing"):
        (directory / name).mkdir(parents=True)
    features, classes = load_iris(return_X_y=True)
    skops.io.dump(LogisticRegression(max_iter=1000).fit(features, classes), directory / "iris" / "model.skops")
    (directory / "image" / "model.py").write_text(IMAGE_MODEL)
    (directory / "nothing" / "model.py").write_text(NOTHING_MODEL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--without", default="", help="of: fairlead ray, kserve, ray default")
    parser.add_argument("--only", choices=("rates", "start"), default=None)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE} if options.only == "rates" else {SERVER_CORE, LOAD_CORE})
    without = options.without.split(",")
    names = [n for n in ("bare", "fairlead process", "fairlead ray", "kserve", "ray default") if n not in without]
    figures = Figures("The model server (iris, one row; server on one core)")
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "models"
        make_models(directory)
        if options.only != "rates":
            memory_and_start(figures, directory, names, options.rounds)
        if options.only != "start":
            os.sched_setaffinity(0, {LOAD_CORE})
            servers: list[Server] = []
            try:
                for name in names:
                    servers.append(start(name, directory))
                    servers[-1].signal(signal.SIGSTOP)
                report(figures, measure(servers, options.rounds, options.seconds))
            finally:
                for server in servers:
                    stop(server)
    figures.finish(options.json)


if __name__ == "__main__":
    main()
