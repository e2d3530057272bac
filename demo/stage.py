"""What every act of the demo needs: a cluster, commands on it, waiting with a reason, a progress bar, and failing in plain words."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fairlead.kube.client import Client
from fairlead.kube.objects import Object
from fairlead.kube.resources import INFERENCE_SERVICES
from fairlead.local.supervisor.home import free_port

PATIENCE = 120.0

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """Something was not as it should be."""


@contextmanager
def cluster(directory: Path) -> Iterator[tuple[Callable[..., None], int]]:
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


def service(name: str) -> Object:
    async def get() -> Object:
        async with await Client.connect() as client:
            return await client.get(INFERENCE_SERVICES, name, "default")

    return asyncio.run(get())


def is_ready(isvc: Object) -> bool:
    status = isvc.get("status") or {}
    predictor = (status.get("components") or {}).get("predictor") or {}
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ())
    seen = status.get("observedGeneration", 0) >= isvc["metadata"]["generation"]
    return ready and seen and predictor.get("latestReadyRevision") == predictor.get("latestCreatedRevision")


def wait(name: str, what: str, holds: Callable[[Object], bool]) -> None:
    """Until it holds of the InferenceService of that name."""
    began = time.monotonic()
    with console.status(f"waiting: {what}"):
        while not holds(isvc := service(name)):
            if time.monotonic() - began > PATIENCE:
                raise DemoFailed(f"not {what} after {PATIENCE:g} s; status: {isvc.get('status')}")
            time.sleep(0.1)
    console.print(f"   {what} after {time.monotonic() - began:.1f} s")


def progress(number: int, count: Callable[[], int], complaints: Callable[[], object]) -> None:
    """Lets so many more answers come, with a progress bar."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + PATIENCE
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("  checking answers", total=number)
        begin = count()
        while (done := count() - begin) < number:
            bar.update(task, completed=done)
            if time.monotonic() > deadline:
                raise DemoFailed(f"only {done} of {number} answers came in {PATIENCE:g} s: {complaints()}")
            time.sleep(0.05)
