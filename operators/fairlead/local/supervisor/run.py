"""`fairlead up` from its first line to its last: lock, watchdog, start, show, stop; Ctrl-C at any moment in between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any
from uuid import uuid4

from fairlead.local.node.machine import CLUSTER_MARK
from fairlead.local.supervisor.errors import UpError
from fairlead.local.supervisor.home import FULL, check_port
from fairlead.local.supervisor.options import Options
from fairlead.local.supervisor.watchdog import guarded

INTERRUPTED = 130


def up(options: Options) -> int:
    """Runs a cluster until it is told to stop; the exit code. Raises UpError."""
    began = time.monotonic()
    options.home.make()
    try:
        with options.home.locked():
            check_port(options.port)
            mark = uuid4().hex
            _log_to(options)
            with guarded(f"{CLUSTER_MARK}={mark}"):
                return asyncio.run(_run(options, mark, began))
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise options.home.unwritable(error) from None


async def _run(options: Options, mark: str, began: float) -> int:
    from fairlead.kube.errors import KubeError
    from fairlead.local.node.addresses import NoAddress
    from fairlead.local.supervisor.cluster import LaptopCluster

    cluster = LaptopCluster(options, mark)
    told_to_stop = asyncio.Event()
    with _signals(told_to_stop, cluster):
        stop = asyncio.create_task(told_to_stop.wait())
        try:
            if not await _before(stop, cluster.start()):
                return INTERRUPTED
            from fairlead.local.supervisor.screen import Screen

            screen = Screen(cluster, sys.stdout, time.monotonic() - began)
            await _before(stop, _first_of(cluster.failed(), screen.run()))
            return 0
        except (NoAddress, KubeError) as error:
            raise UpError(str(error)) from None
        finally:
            if told_to_stop.is_set():  # not before: the live view draws over what others write
                sys.stderr.write("\nstopping; again to end at once\n")
            stop.cancel()
            await cluster.stop()


async def _before(stop: asyncio.Task[Any], work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before the order to stop came. Raises what the work raises."""
    task = asyncio.create_task(work)
    await asyncio.wait({stop, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return False


async def _first_of(*work: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _signals(told_to_stop: asyncio.Event, cluster: object) -> Iterator[None]:
    """The first signal asks for an orderly end, the second ends at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def told() -> None:
        if told_to_stop.is_set():
            cluster.kill()  # type: ignore[attr-defined]
            os._exit(INTERRUPTED)
        told_to_stop.set()

    for number in numbers:
        loop.add_signal_handler(number, told)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _log_to(options: Options) -> None:
    """What the node and the supervisor have to say beside the view."""
    path = options.home.process_log("supervisor")
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False  # a full disk costs log lines, and no tracebacks over the view
    logging.basicConfig(
        filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
