"""The control plane's figures: how soon `fairlead up` answers, what it costs when idle, how fast 1,000 services are reconciled.

    python benchmarks/control_plane.py                    # all of it, about four minutes
    python benchmarks/control_plane.py --only reconcile --services 200 --json figures.json

Everything is measured from outside, on processes that `fairlead up` starts in a directory of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from _figures import Figures

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.conditions import is_true
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Object, controller_of
from fairlead.kube.resources import CONTROLLER_REVISIONS, DEPLOYMENTS, INFERENCE_SERVICES, SERVICES
from fairlead.local.supervisor.home import Home, Running, free_port

NAMESPACE = "default"
IDLE_SECONDS = 30.0
PATIENCE = 300.0
AT_ONCE = 32
"""Creations under way at a time: what a busy CI system does."""
PARTS = {
    "API server": "fairlead.local.apiserver",
    "operator": "fairlead.controllers",
    "gateway agent": "fairlead.gateway",
    "HAProxy": "haproxy",
}
OTHERS = {"model server": "fairlead.runtime"}


# --- A laptop cluster, seen from outside --------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    pid: int
    running: Running

    def parts(self) -> dict[str, list[int]]:
        """The process ids of each part; whatever has no word of its own is the supervisor's (the node is in it)."""
        words = {**PARTS, **OTHERS}
        found: dict[str, list[int]] = {name: [] for name in [*words, "supervisor"]}
        for pid in [self.pid, *descendants(self.pid)]:
            command = _command(pid)
            name = next((name for name, word in words.items() if any(word in text for text in command)), "supervisor")
            found[name].append(pid)
        return found

    def metric(self, part: str, name: str) -> float:
        """The sum of a metric's series, as the operator or the agent tells it."""
        address = self.running.agent
        if part == "operator":
            command = _command(self.parts()["operator"][0])
            address = command[command.index("--listen") + 1]
        text = _get(f"http://{address}/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))


@contextmanager
def laptop_cluster(*arguments: str) -> Iterator[Callable[[], Cluster]]:
    """`fairlead up` in a fresh directory; gives a function that waits until it is up. Everything ends with the block."""
    with tempfile.TemporaryDirectory(prefix="fairlead-benchmark-") as directory:
        home = Home(Path(directory))
        log = (home.directory / "up.out").open("wb")
        command = [sys.executable, "-m", "fairlead.cli", "up", *arguments]
        command += ["--directory", directory, "--ephemeral", "--port", str(free_port())]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

        def is_up() -> Cluster:
            while (running := home.running()) is None:
                if process.poll() is not None:
                    raise SystemExit(f"fairlead up ended:\n{(home.directory / 'up.out').read_text()}")
                time.sleep(0.005)
            return Cluster(process.pid, running)

        try:
            yield is_up
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


def descendants(pid: int) -> list[int]:
    children: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(text) for text in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def _command(pid: int) -> list[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return []


def memory(pid: int) -> float:
    """MB resident, memory that processes share divided among them (PSS); 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(size) for size in re.findall(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


# --- fairlead up --------------------------------------------------------------------------------------------------


def measure_up(figures: Figures, repetitions: int) -> None:
    with tempfile.TemporaryDirectory(prefix="fairlead-model-") as directory:
        manifest, question, answer = _small_model(Path(directory))
        firsts = [_first_answer(manifest, question, answer) for _ in range(repetitions)]
    seconds, used = zip(*firsts, strict=True)
    figures.add("fairlead up: nothing to the first right answer, median", statistics.median(seconds), "s", goal=4.0)
    figures.add("fairlead up: nothing to the first right answer, worst", max(seconds), "s")
    for part in [*PARTS, *OTHERS, "supervisor"]:
        median = statistics.median(cpu[part] for cpu in used)
        figures.add(f"fairlead up: CPU time of {part} until then", median, "s")


def _small_model(directory: Path) -> tuple[Path, bytes, object]:
    """A logistic regression on the digits: its manifest, a request, and the predictions that are right."""
    import skops.io
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, labels = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(images / 16, labels)
    (directory / "model").mkdir()
    skops.io.dump(model, directory / "model" / "model.skops")
    manifest = directory / "digits.json"
    spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file://{directory}/model"}}}
    manifest.write_text(json.dumps(_service("digits", spec)))
    rows = (images[:3] / 16).tolist()
    return manifest, json.dumps({"instances": rows}).encode(), {"predictions": model.predict(images[:3] / 16).tolist()}


def _service(name: str, spec: object) -> Object:
    api_version, kind = INFERENCE_SERVICES.api_version, INFERENCE_SERVICES.kind
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _first_answer(manifest: Path, question: bytes, right: object) -> tuple[float, dict[str, float]]:
    """Seconds, and the CPU time of each part until then: that says what a machine that does nothing else would need."""
    began = time.monotonic()
    with laptop_cluster(str(manifest)) as is_up:
        cluster = is_up()
        url = cluster.running.url + names.path("digits", NAMESPACE) + "/v1/models/digits:predict"
        request = urllib.request.Request(url, question, {"Content-Type": "application/json"})
        while True:
            with suppress(urllib.error.HTTPError, urllib.error.URLError, ConnectionError):
                with urllib.request.urlopen(request, timeout=30) as answer:
                    found = json.loads(answer.read())
                if found != right:
                    raise SystemExit(f"the answer is wrong: {found}, not {right}")
                seconds = time.monotonic() - began
                return seconds, {part: sum(map(cpu_seconds, pids)) for part, pids in cluster.parts().items()}
            if time.monotonic() - began > 120:
                raise SystemExit("no answer within two minutes")
            time.sleep(0.01)


# --- Idle ---------------------------------------------------------------------------------------------------------


def measure_idle(figures: Figures) -> None:
    with laptop_cluster() as is_up:
        cluster = is_up()
        time.sleep(5)
        _report_idle(figures, cluster, "idle, empty", goals=True)


def _report_idle(figures: Figures, cluster: Cluster, title: str, *, goals: bool) -> None:
    began, before = time.monotonic(), cluster.parts()
    used = {pid: cpu_seconds(pid) for pids in before.values() for pid in pids}
    time.sleep(IDLE_SECONDS)
    seconds, parts = time.monotonic() - began, cluster.parts()
    plane = [pid for name in PARTS for pid in parts[name]]
    for name in PARTS:
        figures.add(f"{title}: memory of {name}", sum(map(memory, parts[name])), "MB")
    figures.add(f"{title}: memory of the control plane", sum(map(memory, plane)), "MB", goal=250 if goals else None)
    figures.add(f"{title}: memory of the supervisor and its node", sum(map(memory, parts["supervisor"])), "MB")

    def share(pids: list[int]) -> float:
        return sum(cpu_seconds(pid) - used.get(pid, 0.0) for pid in pids) / seconds * 100

    for name in PARTS:
        figures.add(f"{title}: CPU of {name}", share(parts[name]), "% of a core")
    figures.add(f"{title}: CPU of the control plane", share(plane), "% of a core", goal=2.0 if goals else None)
    figures.add(f"{title}: CPU of the supervisor and its node", share(parts["supervisor"]), "% of a core")


# --- Reconcile ----------------------------------------------------------------------------------------------------


async def measure_reconcile(figures: Figures, services: int) -> None:
    with laptop_cluster("--fake") as is_up:
        cluster = await asyncio.to_thread(is_up)
        async with await Client.connect(cluster.running.kubeconfig) as client:
            if not await _reconcile(figures, cluster, client, services):
                return
            lists = {
                part: cluster.metric(part, "fairlead_informer_lists_total") for part in ("operator", "gateway agent")
            }
            reconciles = cluster.metric("operator", "controller_runtime_reconcile_total")
            await asyncio.to_thread(_report_idle, figures, cluster, f"idle, {services} services", goals=False)
            again = cluster.metric("operator", "controller_runtime_reconcile_total") - reconciles
            for part, count in lists.items():
                relists = cluster.metric(part, "fairlead_informer_lists_total") - count
                figures.add(f"full lists by the {part} in {IDLE_SECONDS:.0f} idle s", relists, "lists", goal=0)
            figures.add(f"reconciles in {IDLE_SECONDS:.0f} idle s", again, "reconciles")


async def _reconcile(figures: Figures, cluster: Cluster, client: Client, services: int) -> bool:
    """Whether all came to be Ready; the figures until then are there in any case."""
    wanted = [f"service-{number:04}" for number in range(services)]
    slots = asyncio.Semaphore(AT_ONCE)

    async def create(name: str) -> None:
        spec = {"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": f"file:///models/{name}"}}}
        async with slots:
            await client.create(INFERENCE_SERVICES, _service(name, spec))

    kinds = (INFERENCE_SERVICES, DEPLOYMENTS, SERVICES, CONTROLLER_REVISIONS)
    seen = {kind: Informer(client, kind) for kind in kinds}
    owned = _Owned(seen[CONTROLLER_REVISIONS])
    async with _following(list(seen.values())):
        began = time.monotonic()
        await asyncio.gather(*map(create, wanted))
        created = time.monotonic() - began

        def right(name: str) -> bool:
            service = seen[INFERENCE_SERVICES].store.get(NAMESPACE, name)
            workload = f"{name}-predictor"
            children = (seen[kind].store.get(NAMESPACE, workload) for kind in (DEPLOYMENTS, SERVICES))
            return service is not None and _correct(service, *children, revisions=owned.by.get(_uid(service), 0))

        def ready(name: str) -> bool:
            service = seen[INFERENCE_SERVICES].store.get(NAMESPACE, name)
            return is_true((service or {}).get("status", {}).get("conditions") or (), "Ready")

        title = f"{services} services"
        figures.add(f"{title}: created", created, "s")
        without = await _until(wanted, right, began)
        figures.add(f"{title}: without the right children", without, "services", goal=0)
        figures.add(f"{title}: all children right after", time.monotonic() - began, "s", goal=60.0)
        unready = await _until(wanted, ready, began)
        figures.add(f"{title}: not Ready", unready, "services", goal=0)
        figures.add(f"{title}: all Ready after", time.monotonic() - began, "s")
    reconciles = cluster.metric("operator", "controller_runtime_reconcile_total")
    errors = cluster.metric("operator", "controller_runtime_reconcile_errors_total")
    figures.add(f"{title}: reconciles a service", reconciles / services, "reconciles")
    figures.add(f"{title}: failed reconciles", errors, "reconciles")
    for part, pids in cluster.parts().items():
        figures.add(f"{title}: CPU time of {part}", sum(map(cpu_seconds, pids)), "s")
    if without or unready:
        print(f"{without} services without the right children, {unready} not Ready; what the processes said last:")
        for log in sorted((Path(cluster.running.kubeconfig).parent / "processes").glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-2000:]}")
    return not (without or unready)


class _Owned:
    """How many ControllerRevisions each InferenceService has, by uid."""

    def __init__(self, revisions: Informer) -> None:
        self.by: dict[str, int] = {}
        revisions.on_change(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if (old is None) != (new is None):
            owner = controller_of(new or old or {})
            if owner:
                self.by[owner["uid"]] = self.by.get(owner["uid"], 0) + (1 if new else -1)


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _correct(service: Object, deployment: Object | None, child: Object | None, *, revisions: int) -> bool:
    """Whether the children are those that DESIGN's manifest asks for, worked out here without the operator's own code."""
    if deployment is None or child is None or revisions != 1:
        return False
    owners = [controller_of(deployment), controller_of(child)]
    template = deployment["spec"]["template"]["spec"]
    container = next((c for c in template["containers"] if c["name"] == names.PREDICTOR_CONTAINER), {})
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    first_port = (child["spec"].get("ports") or [{}])[0]
    return (
        all(owner is not None and owner["uid"] == _uid(service) for owner in owners)
        and deployment["spec"].get("replicas") == 1
        and uri in json.dumps([container, template.get("initContainers")])
        and child["metadata"]["labels"].get(names.LABEL_WORKLOAD) == deployment["metadata"]["name"]
        and first_port.get("port") == names.SERVICE_PORT
    )


async def _until(wanted: list[str], condition: Callable[[str], bool], began: float) -> int:
    """Waits until the condition holds for all, or patience ends; for how many it does not hold then."""
    missing = list(wanted)
    while missing := [name for name in missing if not condition(name)]:
        if time.monotonic() - began > PATIENCE:
            break
        await asyncio.sleep(0.1)
    return len(missing)


@asynccontextmanager
async def _following(informers: Sequence[Informer]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(informer.run()) for informer in informers]
    try:
        for informer in informers:
            await informer.synced.wait()
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=5, help="of fairlead up")
    parser.add_argument("--only", choices=("up", "idle", "reconcile"), action="append")
    options = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # a pretended pod is a listening socket for each port
    chosen = options.only or ["up", "idle", "reconcile"]
    figures = Figures("The control plane")
    if "up" in chosen:
        measure_up(figures, options.repetitions)
    if "idle" in chosen:
        measure_idle(figures)
    if "reconcile" in chosen:
        asyncio.run(measure_reconcile(figures, options.services))
    figures.finish(options.json)


if __name__ == "__main__":
    main()
