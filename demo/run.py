"""The demo: v1 is served, v2 becomes a 20 % canary, is promoted, and is rolled back, under traffic all the time.

    python -m demo.run

Exit code 0 only if no request failed, every answer was the model's own, and the split was what the manifest says.
"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.models import Digits, Trained, train
from demo.traffic import Traffic
from fairlead.kube.client import Client
from fairlead.kube.objects import Object
from fairlead.kube.resources import INFERENCE_SERVICES
from fairlead.local.supervisor.home import free_port

CANARY_PERCENT = 20
ANSWERS_PER_STEP = 500
ANSWERS_FOR_SPLIT = 1500
"""Telling answers (on images that the models see differently) that the split is measured by."""
PATIENCE = 120.0

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """Something was not as it should be."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="fairlead-demo-") as place:
        try:
            _demo(Path(place))
        except (DemoFailed, subprocess.CalledProcessError) as error:
            console.print(f"[bold red]The demo failed:[/] {error}")
            return 1
    return 0


def _demo(place: Path) -> None:
    console.rule("1. Two models of handwritten digits")
    with console.status("training"):
        digits = train(place / "models")
    for name, model in (("v1", digits.v1), ("v2", digits.v2)):
        console.print(f"   {name}: {model.title}, {model.accuracy:.1%} of {len(digits.images)} unseen images right")
    first = _manifest(place / "v1.yaml", digits.v1)
    second = _manifest(place / "v2.yaml", digits.v2, canary=CANARY_PERCENT)

    console.rule("2. A cluster on this machine")
    with _cluster(place / "cluster") as (run, port):
        _rollout(digits, run, port, first, second)
    console.rule("[bold green]All answers were the models' own, no request failed")


def _rollout(digits: Digits, run: Callable[..., None], port: int, first: Path, second: Path) -> None:
    console.rule("3. Version 1 is served")
    run("apply", "-f", str(first))
    _wait("ready", _is_ready)
    with Traffic(port, digits) as traffic:
        _all_from(traffic, "v1")

        console.rule(f"4. Version 2 gets {CANARY_PERCENT} % of the traffic")
        run("apply", "-f", str(second))
        _wait(
            "the split is in effect",
            lambda isvc: _is_ready(isvc) and _percents(isvc) == [CANARY_PERCENT, 100 - CANARY_PERCENT],
        )
        run("traffic", "digits")
        _check_split(traffic)

        console.rule("5. Version 2 is promoted")
        run("traffic", "digits", "--promote")
        _wait("promoted", lambda isvc: _is_ready(isvc) and _percents(isvc) == [100])
        _all_from(traffic, "v2")

        console.rule("6. Version 1 is rolled back to")
        run("apply", "-f", str(first))
        _wait("rolled back", lambda isvc: _is_ready(isvc) and _percents(isvc) == [100])
        _all_from(traffic, "v1")
    _check_none_failed(traffic)
    total = sum(traffic.counts.values())
    console.print(f"   {total} requests in all: {total} right, 0 failed")


@contextmanager
def _cluster(directory: Path) -> Iterator[tuple[Callable[..., None], int]]:
    """`fairlead up -d`, and a function that runs a `fairlead` command on it, showing it first."""
    port = free_port()
    os.environ["KUBECONFIG"] = str(directory / "kubeconfig")

    def run(*arguments: str) -> None:
        console.print(f"   [dim]$[/] [bold]fairlead {' '.join(arguments)}[/]")
        done = subprocess.run(
            [sys.executable, "-m", "fairlead.cli", *arguments], capture_output=True, text=True, check=False
        )
        for line in done.stdout.splitlines():
            console.print(f"     {line}", markup=False)
        if done.returncode != 0:
            raise DemoFailed(f"fairlead {arguments[0]}: {done.stderr.strip()}")

    run("up", "-d", "--ephemeral", "--directory", str(directory), "--port", str(port))
    try:
        yield run, port
    finally:
        run("down", "--directory", str(directory))


def _manifest(path: Path, model: Trained, canary: int | None = None) -> Path:
    percent = f"\n    canaryTrafficPercent: {canary}" if canary is not None else ""
    path.write_text(f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: digits
spec:
  predictor:{percent}
    model:
      modelFormat: {{name: sklearn}}
      storageUri: {model.directory.as_uri()}
""")
    return path


def _service() -> Object:
    async def get() -> Object:
        async with await Client.connect() as client:
            return await client.get(INFERENCE_SERVICES, "digits", "default")

    return asyncio.run(get())


def _is_ready(isvc: Object) -> bool:
    status = isvc.get("status") or {}
    predictor = (status.get("components") or {}).get("predictor") or {}
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ())
    seen = status.get("observedGeneration", 0) >= isvc["metadata"]["generation"]
    return ready and seen and predictor.get("latestReadyRevision") == predictor.get("latestCreatedRevision")


def _percents(isvc: Object) -> list[int]:
    return sorted(item["percent"] for item in isvc["status"]["components"]["predictor"]["traffic"] if item["percent"])


def _wait(what: str, holds: Callable[[Object], bool]) -> None:
    began = time.monotonic()
    with console.status(f"waiting: {what}"):
        while not holds(isvc := _service()):
            if time.monotonic() - began > PATIENCE:
                raise DemoFailed(f"not {what} after {PATIENCE:g} s; status: {isvc.get('status')}")
            time.sleep(0.1)
    console.print(f"   {what} after {time.monotonic() - began:.1f} s")


def _all_from(traffic: Traffic, version: str) -> None:
    """From now on, every telling answer is this version's."""
    deadline = time.monotonic() + PATIENCE
    other = "v2" if version == "v1" else "v1"
    while other in traffic.recent or version not in traffic.recent:
        if time.monotonic() > deadline:
            raise DemoFailed(f"{other} still answers {PATIENCE:g} s after the traffic moved to {version}")
        time.sleep(0.05)
    before = traffic.counts[other]
    _send(traffic, ANSWERS_PER_STEP, lambda: sum(traffic.counts.values()))
    _check_none_failed(traffic)
    if traffic.counts[other] != before:
        raise DemoFailed(f"{traffic.counts[other] - before} answers are {other}'s, all should be {version}'s")
    console.print(f"   {ANSWERS_PER_STEP} answers, all {version}'s own")


def _check_split(traffic: Traffic) -> None:
    """The canary's share of the telling answers lies within the binomial 99.9 % band of its weight."""
    before = traffic.counts.copy()
    _send(traffic, ANSWERS_FOR_SPLIT, lambda: traffic.counts["v1"] + traffic.counts["v2"])
    found = {version: traffic.counts[version] - before[version] for version in ("v1", "v2")}
    _check_none_failed(traffic)
    total = sum(found.values())
    share, weight = found["v2"] / total, CANARY_PERCENT / 100
    band = 3.29 * math.sqrt(weight * (1 - weight) / total)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("   ANSWERED BY", "ANSWERS", "SHARE", ""):
        table.add_column(column, justify="left" if column in ("   ANSWERED BY", "") else "right")
    for version, answers in found.items():
        table.add_row(f"   {version}", str(answers), f"{answers / total:.1%}", "█" * round(40 * answers / total))
    console.print(table)
    if abs(share - weight) > band:
        raise DemoFailed(f"the canary answered {share:.1%}, which is not {weight:.0%} +- {band:.1%}")
    console.print(f"   {share:.1%} is {weight:.0%} within the {band:.1%} that chance explains")


def _send(traffic: Traffic, number: int, count: Callable[[], int]) -> None:
    """Lets so many more answers come, with a progress bar."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + PATIENCE
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("  checking answers", total=number)
        begin = count()
        while (done := count() - begin) < number:
            progress.update(task, completed=done)
            if time.monotonic() > deadline:
                raise DemoFailed(f"only {done} of {number} answers came in {PATIENCE:g} s: {list(traffic.complaints)}")
            time.sleep(0.05)


def _check_none_failed(traffic: Traffic) -> None:
    if traffic.counts["wrong"] or traffic.counts["failed"]:
        counts = f"{traffic.counts['wrong']} wrong answers, {traffic.counts['failed']} failed requests"
        raise DemoFailed(f"{counts}, such as {'; '.join(traffic.complaints)}")


if __name__ == "__main__":
    sys.exit(main())
