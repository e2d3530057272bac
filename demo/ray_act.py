"""The last act: a custom runtime on Ray Serve, a preprocessor and a classifier as two deployments, called over REST and gRPC.

One of the two replicas that answer is killed meanwhile. No call may fail: the other replica takes what it had, until Ray
Serve has replaced it.
"""

from __future__ import annotations

import http.client
import itertools
import json
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import skops.io
import tritonclient.grpc
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from demo.models import split
from demo.stage import PATIENCE, DemoFailed, console, is_ready, progress, wait
from fairlead.api import names

NAME = "pipeline"
REPLICAS = 2
ANSWERS = 300
"""Before the replica is killed, and again after it has been replaced."""

Answers = list[int]


def play(run: Callable[..., None], port: int, place: Path) -> None:
    console.rule("7. A pipeline of your own, on Ray Serve")
    images, answers = _train(place / "pipeline")
    run("apply", "-f", str(_manifest(place)))
    wait(NAME, "ready", is_ready)
    with Callers(port, images, answers) as callers:
        callers.check(ANSWERS)
        console.rule("8. One of its replicas is killed")
        victim, *others = _replicas(place)
        victim.kill()
        console.print(f"   replica {victim.pid} killed, {len(others)} left; the calls go on")
        _wait_replaced(place, victim)
        callers.check(ANSWERS)
    counts = callers.counts
    console.print(f"   {counts['REST']} answers over REST and {counts['gRPC']} over gRPC, all right, 0 failed")


def _train(directory: Path) -> tuple[np.ndarray, Answers]:
    """Writes what `demo/pipeline/digits.py` loads, beside a copy of it, and returns what it is to answer."""
    train_images, images, train_labels, _ = split(*load_digits(return_X_y=True))
    scaler, classifier = StandardScaler(), SVC()
    model = make_pipeline(scaler, classifier).fit(train_images, train_labels)
    learned = directory / "learned"
    learned.mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "pipeline" / "digits.py", directory)
    skops.io.dump(scaler, learned / "scaler.skops")
    skops.io.dump(classifier, learned / "classifier.skops")
    return images, [int(answer) for answer in model.predict(images)]


def _manifest(place: Path) -> Path:
    path = place / "pipeline.yaml"
    path.write_text(f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {NAME}
  annotations:
    {names.ALLOW_PICKLE}: "true" # what lies at storageUri is a program
spec:
  predictor:
    model:
      modelFormat: {{name: python}}
      storageUri: {(place / "pipeline").as_uri()}
      args: [--workers={REPLICAS}]
""")
    return path


def _replicas(place: Path) -> list[psutil.Process]:
    """Ray's replicas that open the ports, of the server whose files are in this demo's directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "fairlead.runtime" in words and any(str(place) in word for word in words):
            found += [child for child in process.children(recursive=True) if _is_replica(child)]
    return sorted(found, key=lambda process: process.create_time())


def _is_replica(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return title.startswith(f"ray::ServeReplica:fairlead:{NAME}") and f":{NAME}-" not in title


def _wait_replaced(place: Path, victim: psutil.Process) -> None:
    began = time.monotonic()
    with console.status("waiting: it is replaced"):
        while len([each for each in _replicas(place) if each != victim]) < REPLICAS:
            if time.monotonic() - began > PATIENCE:
                raise DemoFailed(f"the replica was not replaced in {PATIENCE:g} s")
            time.sleep(0.2)
    console.print(f"   replaced after {time.monotonic() - began:.1f} s")


class Callers:
    """Calls without a pause, one client for each protocol, each answer checked against the pipeline's own in Python."""

    def __init__(self, port: int, images: np.ndarray, answers: Answers) -> None:
        self.counts: Counter[str] = Counter()
        self._complaints: deque[str] = deque(maxlen=5)
        self._port = port
        self._images = images
        self._answers = answers
        self._end = threading.Event()
        clients = {"REST": self._rest, "gRPC": self._grpc}
        self._threads = [threading.Thread(target=self._call, args=pair, daemon=True) for pair in clients.items()]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def check(self, number: int) -> None:
        """Lets so many more answers come over each protocol. Raises DemoFailed unless all calls so far were right."""
        before = self.counts.copy()

        def slower() -> int:
            return min(self.counts[protocol] - before[protocol] for protocol in ("REST", "gRPC"))

        progress(number, slower, lambda: list(self._complaints))
        if self.counts["wrong"] or self.counts["failed"]:
            counts = f"{self.counts['wrong']} wrong answers, {self.counts['failed']} failed calls"
            raise DemoFailed(f"{counts}, such as {'; '.join(self._complaints)}")
        console.print(f"   {number} answers over each of REST and gRPC, all the pipeline's own")

    def _call(self, protocol: str, client: Callable[[], Iterator[Callable[[int], int]]]) -> None:
        with contextmanager(client)() as ask:
            for index in itertools.cycle(range(len(self._images))):
                if self._end.is_set():
                    return
                self.counts[self._outcome(protocol, ask, index)] += 1

    def _outcome(self, protocol: str, ask: Callable[[int], int], index: int) -> str:
        try:
            answer = ask(index)
        except Exception as error:  # whatever it is, the call failed
            self._complaints.append(f"{protocol}, image {index}: {error!r}")
            return "failed"
        if answer == self._answers[index]:
            return protocol
        self._complaints.append(f"{protocol}, image {index}: {answer}, the pipeline says {self._answers[index]}")
        return "wrong"

    def _rest(self) -> Iterator[Callable[[int], int]]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)

        def ask(index: int) -> int:
            tensor = {"name": "pixels", "datatype": "FP64", "shape": [1, 64], "data": self._images[index].tolist()}
            path = f"{names.path(NAME, 'default')}/v2/models/{NAME}/infer"
            connection.request("POST", path, json.dumps({"inputs": [tensor]}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status} {text[:300]!r}")
            return int(json.loads(text)["outputs"][0]["data"][0])

        try:
            yield ask
        finally:
            connection.close()

    def _grpc(self) -> Iterator[Callable[[int], int]]:
        authority = names.host(NAME, "default", names.DEFAULT_DOMAIN)
        channel = [("grpc.default_authority", authority)]
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self._port}", channel_args=channel) as client:

            def ask(index: int) -> int:
                tensor = tritonclient.grpc.InferInput("pixels", [1, 64], "FP64")
                tensor.set_data_from_numpy(self._images[index : index + 1])
                return int(client.infer(NAME, [tensor], client_timeout=30).as_numpy("digit")[0])

            yield ask
