"""The model server against a bare one and its peers: rates, tails, memory, start.

    python benchmarks/runtime.py [--rounds 3] [--seconds 1] [--without ray,kserve] [--limit 460] [--json FILE]

All servers run at once, pinned to one core; all but the one that is measured are stopped (SIGSTOP). The load comes from the
other core. Rounds are interleaved, figures are the medians of the rounds' ratios to `bare` of the same round: only
ratios mean something on a machine that does other things too. CPU time for a request, which other work disturbs least,
stands beside the rates. Peers that cannot live in our environment get one of their own (`_peers`); one that cannot be had
is named. After `--limit` seconds no further round is begun, and every request has a time-out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
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

from benchmarks import _peers, _process
from benchmarks._figures import Figures
from benchmarks._load import Result, grpc_load, http_load, http_request
from benchmarks._process import free_port
from fairlead.runtime.protocols import pb

HERE = Path(__file__).resolve().parent
SERVER_CORE, LOAD_CORE = 0, 1
INFER = "/inference.GRPCInferenceService/ModelInfer"
LIMIT = 460.0
"""Seconds after which no round is begun: with the last one, and the end of all servers, under eight minutes."""

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
    process: _process.Process
    port: int
    grpc_port: int
    first_answer: float


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
    headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return http_request("/v2/models/image/infer", head + image, headers)


def grpc_message(model: str, name: str, array: np.ndarray, datatype: str) -> bytes:
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[array.tobytes()])
    message.inputs.add(name=name, datatype=datatype, shape=array.shape)
    return bytes(message.SerializeToString())


# --- servers ----------------------------------------------------------------------------------------------------

HTTP_ONLY = {"litserve", "ray default"}
OWN_SCRIPT = {"mlserver", "litserve"}


def start(name: str, interpreter: str, directory: Path, *, pinned: bool = True, grpc: bool = True) -> Server:
    """Returns when it has given its first right answer. Raises DidNotStart."""
    port, grpc_port = free_port(), free_port()
    model = str(directory / "iris" / "model.skops")
    if name.startswith("fairlead"):
        command = [interpreter, "-m", "fairlead.runtime", "--engine", name.partition(" ")[2], "--host", "127.0.0.1"]
        command += ["--http_port", str(port), "--grpc_port", str(grpc_port), f"--enable_grpc={str(grpc).lower()}"]
        if pinned:
            command += ["--model_repository", str(directory)]
        else:
            command += ["--model_name", "iris", "--model_dir", model]
    else:
        script = (
            [str(HERE / f"_{name}.py")] if name in OWN_SCRIPT else [str(HERE / "_servers.py"), name.partition(" ")[0]]
        )
        # -P: this directory has a kubernetes.py, which is not what kserve means by that name.
        command = [interpreter, "-P", *script, "--port", str(port), "--model", model]
        command += ["--grpc_port", str(grpc_port)] if grpc and name not in HTTP_ONLY else []
    environment = {**os.environ, "FAIRLEAD_ALLOW_PICKLE": "true", "OMP_NUM_THREADS": "1"}
    if pinned:
        command = ["taskset", "-c", str(SERVER_CORE), *command]
    started = time.perf_counter()
    process = _process.start(command, directory.parent / f"{name.replace(' ', '-')}.log", environment=environment)
    try:
        _process.wait_until(name, process, lambda: answers_rightly(port), pause=0.005)
    except BaseException:
        process.stop(5)
        raise
    return Server(name, process, port, grpc_port, time.perf_counter() - started)


def answers_rightly(port: int) -> bool:
    tensor = {"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": ROW}
    body = json.dumps({"inputs": [tensor]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/iris/infer", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return bool(json.loads(response.read())["outputs"][0]["data"] == [0])
    except (urllib.error.URLError, OSError):
        return False


# --- measurements -----------------------------------------------------------------------------------------------

Load = Callable[[Server, float], Result]


def loads() -> dict[str, tuple[Load, set[str]]]:
    """Name -> the load and the servers that it cannot be put on."""
    iris, nothing, image = json_request("iris"), json_request("nothing"), binary_request()
    row = grpc_message("iris", "input-0", np.array([ROW]), "FP64")
    tensor = grpc_message("image", "image", np.random.default_rng(0).random((1, 3, 224, 224), np.float32), "FP32")
    others = {"kserve", "mlserver", *HTTP_ONLY}
    return {
        "json 1": (lambda server, s: http_load(server.port, iris, 1, s), set()),
        "json 32": (lambda server, s: http_load(server.port, iris, 32, s), set()),
        "nothing 32": (lambda server, s: http_load(server.port, nothing, 32, s), others | {"bare"}),
        "binary 8": (lambda server, s: http_load(server.port, image, 8, s), {"mlserver", *HTTP_ONLY}),
        "grpc 1": (lambda server, s: grpc_load(server.grpc_port, INFER, row, 1, s), HTTP_ONLY),
        "grpc 32": (lambda server, s: grpc_load(server.grpc_port, INFER, row, 32, s, 4), HTTP_ONLY),
        "grpc raw 4": (lambda server, s: grpc_load(server.grpc_port, INFER, tensor, 4, s, 4), HTTP_ONLY),
    }


Results = dict[str, dict[str, list[Result]]]
"""load -> server -> a result for each round."""


def measure(servers: list[Server], rounds: int, seconds: float, until: float) -> Results:
    """Whole rounds only, so that every server has as many: one at least, and none that would not end before `until`."""
    results: Results = {}
    refused: set[tuple[str, str]] = set()
    for number in range(rounds + 1):  # the first warms up
        begun = time.monotonic()
        this: dict[tuple[str, str], Result] = {}
        for load, (run, excluded) in loads().items():
            for server in servers:
                if server.name in excluded or (load, server.name) in refused:
                    continue
                try:
                    this[load, server.name] = one(server, run, seconds if number else 0.3)
                except (RuntimeError, OSError) as error:
                    if server.name not in _peers.PEERS:
                        raise
                    print(f"  {server.name}: {load} not measured: {' '.join(str(error).split())[:200]}", flush=True)
                    refused.add((load, server.name))
                    results.get(load, {}).pop(server.name, None)
        if number:
            for (load, name), result in this.items():
                results.setdefault(load, {}).setdefault(name, []).append(result)
        if 0 < number < rounds and time.monotonic() + (time.monotonic() - begun) > until:
            print(f"  the time is over after {number} of {rounds} rounds", flush=True)
            break
    return results


def one(server: Server, run: Load, seconds: float) -> Result:
    server.process.signal(signal.SIGCONT)
    before = server.process.cpu_seconds()
    try:
        result = run(server, seconds)
        result.server_cpu = server.process.cpu_seconds() - before
    finally:
        server.process.signal(signal.SIGSTOP)
    return result


def ratio(results: dict[str, list[Result]], name: str, of: Callable[[Result], float], base: str = "bare") -> float:
    """nan if `base` answered nothing in a round."""
    return statistics.median(
        of(mine) / (of(bare) or math.nan) for mine, bare in zip(results[name], results[base], strict=True)
    )


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


def report(figures: Figures, results: Results) -> None:
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
    for load, by_name in results.items():
        for name, rounds in by_name.items():
            value = statistics.median(1e6 * result.server_cpu / max(1, len(result.latencies)) for result in rounds)
            figures.add(f"{load} CPU time: {name}", value, "us/request")
    for name, goal in (("fairlead process", 0.75), ("fairlead ray", 0.7)):
        if name in results["nothing 32"]:
            mine = zip(results["json 32"][name], results["nothing 32"][name], strict=True)
            value = statistics.median(model.rate / nothing.rate for model, nothing in mine)
            figures.add(f"json 32 against a model that does nothing: {name}", value, "ratio", goal=goal, at_least=True)


def memory_and_start(figures: Figures, directory: Path, names: dict[str, str], rounds: int, until: float) -> None:
    """One server at a time, with one model, unpinned: what a pod would see. HTTP alone for bare, as one would write it."""
    start_seconds: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for number in range(rounds):
        if number and time.monotonic() > until:
            break
        for name, interpreter in list(names.items()):
            try:
                server = start(name, interpreter, directory, pinned=False, grpc=name != "bare")
            except _process.DidNotStart as reason:
                if name not in _peers.PEERS:
                    raise
                print(f"  {name}: not measured: {reason}", flush=True)
                del names[name]
                continue
            start_seconds.setdefault(name, []).append(server.first_answer)
            memory.setdefault(name, []).append(server.process.proportional_set_size())
            server.process.stop(20)
    for name in names:
        pss, seconds = statistics.median(memory[name]), statistics.median(start_seconds[name])
        figures.add(f"memory (PSS): {name}", pss, "MB", goal=620 if name == "fairlead ray" else None)
        figures.add(f"start to first right answer: {name}", seconds, "s", goal=7.5 if name == "fairlead ray" else None)
        if name not in ("bare", "fairlead ray"):
            ours = name == "fairlead process"
            value = pss / statistics.median(memory["bare"])
            figures.add(f"memory: {name}", value, "of bare", goal=1.15 if ours else None)
            ratios = [mine / bare for mine, bare in zip(start_seconds[name], start_seconds["bare"], strict=True)]
            figures.add(f"start: {name}", statistics.median(ratios), "of bare", goal=1.3 if ours else None)


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


def chosen(without: list[str], cache: Path) -> dict[str, str]:
    """The servers to measure, and the interpreter that runs each; peers that cannot be had are named."""
    names = {"bare": sys.executable, "fairlead process": sys.executable, "fairlead ray": sys.executable}
    for peer in _peers.PEERS:
        if peer in without:
            print(f"  {peer}: left out, as asked")
            continue
        try:
            names[peer] = _peers.python(peer, cache)
        except _peers.Missing as reason:
            print(f"  {peer}: not measured: {reason}")
    return {name: interpreter for name, interpreter in names.items() if name not in without}


def start_all(names: dict[str, str], directory: Path, servers: list[Server]) -> None:
    """All of them, stopped. A peer that does not come up is named and left out; ours must."""
    for name, interpreter in names.items():
        try:
            servers.append(start(name, interpreter, directory))
        except _process.DidNotStart as reason:
            if name not in _peers.PEERS:
                raise
            print(f"  {name}: not measured: {reason}", flush=True)
            continue
        servers[-1].process.signal(signal.SIGSTOP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--without", default="", help=f"of: fairlead ray, {', '.join(_peers.PEERS)}")
    parser.add_argument("--only", choices=("rates", "start"), default=None)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which no further round is begun")
    parser.add_argument("--peers", type=Path, default=_peers.default_cache(), help="where their environments are kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    _process.end_with_us()
    names = chosen([name.strip() for name in options.without.split(",")], options.peers)
    begun = time.monotonic()  # making the peers' environments, once, does not count
    figures = Figures("The model server (iris, one row; server on one core)")
    with tempfile.TemporaryDirectory(prefix="fairlead-bench-") as place:
        directory = Path(place) / "models"
        make_models(directory)
        if options.only != "rates":
            share = options.limit if options.only == "start" else 0.4 * options.limit
            memory_and_start(figures, directory, dict(names), options.rounds, begun + share)
        if options.only != "start":
            os.sched_setaffinity(0, {LOAD_CORE})
            servers: list[Server] = []
            try:
                start_all(names, directory, servers)
                report(figures, measure(servers, options.rounds, options.seconds, begun + options.limit))
            finally:
                for server in servers:
                    server.process.stop(10)
    figures.finish(options.json)


if __name__ == "__main__":
    main()
