"""A Ray node with the processes that serving needs, and no others.

`ray.init()` also starts what people with a cluster need: a dashboard, the autoscaler's monitor, a log monitor, an agent for
metrics and one for runtime environments, each a Python of 50 to 120 MB that computes for a second before it is up. In a pod,
Kubernetes scales, the container's stderr is the log, the image is the environment, and the model server has metrics of its
own. What is left:

    gcs_server, raylet ─┬─ worker: Serve's controller
                        ├─ worker: a replica, …
                        └─ place-holders for its two agents, without which it does not start

Ray has no switches for this, so `Node` is subclassed, as Ray's own `cluster_utils` uses it. With a Ray that is made differently
inside, `running_node` says so in the log and starts all of Ray.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

log = logging.getLogger(__name__)

OBJECT_STORE = 78_643_200
"""75 MiB, Ray's minimum: requests do not go through the object store."""
AGENT = Path(__file__).with_name("agent.py")
SETUP_WORKER = Path(__file__).with_name("setup_worker.py")


@contextlib.contextmanager
def running_node(*, workers: int, **parameters: Any) -> Iterator[Callable[[], str | None]]:
    """This process is connected to a new Ray, whose node here has started so many workers beforehand. `parameters`: RayParams'.

    What it gives tells which of the node's processes has ended, if one has.
    """
    import ray

    try:
        node = start_node(num_cpus=workers, **parameters)
    except (ImportError, AttributeError, TypeError) as error:
        log.warning("Ray %s is started with all its processes: %s", ray.__version__, error)
        with signal_handlers_kept():
            ray.init(
                num_cpus=workers, include_dashboard=False, object_store_memory=OBJECT_STORE, configure_logging=False
            )
        try:
            yield lambda: None
        finally:
            ray.shutdown()
        return
    try:
        with signal_handlers_kept():
            ray.init(address=node.address, log_to_driver=False, configure_logging=False)
        yield lambda: next((name for name, _ in node.dead_processes()), None)
    finally:
        ray.shutdown()
        stop_node(node)


@contextlib.contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """SIGTERM stays ours: Ray takes it when it connects. One that comes meanwhile waits."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.pthread_sigmask(signal.SIG_BLOCK, handlers)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)


def stop_node(node: Any) -> None:
    node.kill_all_processes(check_alive=False, allow_graceful=True)
    shutil.rmtree(node.get_session_dir_path(), ignore_errors=True)


def start_node(**parameters: Any) -> Any:
    """Start a node's processes, which end with this one: a head's, or with `gcs_address` one's that joins it.

    Raises ImportError, AttributeError or TypeError if Ray has changed.
    """
    from ray._private import services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class ServingNode(Node):
        def start_api_server(self, **_: Any) -> None:
            """No dashboard."""

    def agent_command(component: str, session_dir: str, unbuffered: bool = True) -> list[str]:
        return [sys.executable, "-S", "-E", str(AGENT)]

    make: Any = RayParams  # whose annotations are not what it takes
    settings = make(
        object_store_memory=OBJECT_STORE,
        no_monitor=True,
        include_log_monitor=False,
        log_to_stderr=True,
        setup_worker_path=str(SETUP_WORKER),
        **parameters,
    )
    with mock.patch.object(services, "_build_python_executable_command_memory_profileable", agent_command):
        return ServingNode(settings, head=settings.gcs_address is None, shutdown_at_exit=False, spawn_reaper=True)
