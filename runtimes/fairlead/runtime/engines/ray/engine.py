"""The engine: starts Ray, puts the application on it, and stays until a signal comes."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairlead.runtime.engines.base import Engine
from fairlead.runtime.engines.front import Front, ReplicaPorts, allocate
from fairlead.runtime.engines.ray import application, environment, node
from fairlead.runtime.engines.ray.group import LOOK_SECONDS, Group, finish_requests, run_worker
from fairlead.runtime.errors import LoadError
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Source

log = logging.getLogger(__name__)


class RayEngine(Engine):
    name = "ray"

    def run(self, settings: Settings) -> None:
        group = Group.from_environment(os.environ)
        environment.prepare(os.environ, in_group=group is not None)
        leave_on_signals()
        source = Source(settings)
        if group is not None:
            run_group(replace(settings, model_dir=source.fetched(), storage_uri=None), group)
            return
        own = application.users_application(settings)
        if own is not None:
            run_users_application(own, settings)
            return
        threading.Thread(target=importlib.import_module, args=("ray.serve",), daemon=True).start()
        with node.running_node(workers=settings.workers + 1) as lost:
            run_replicas(replace(settings, model_dir=source.fetched(), storage_uri=None), lost)


def leave_on_signals() -> None:
    """While it starts nothing is in flight: SIGTERM ends it at once, and Ray's processes end with it.

    An exception would have to find its way through Ray's C++.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


def wait_for_signal(lost: Callable[[], str | None] = lambda: None) -> None:
    """From now on SIGTERM lets what is in flight be finished.

    A process of Ray's that is lost ends this one: nobody else would replace it, and an orderly end would ask it for minutes.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(LOOK_SECONDS):
        if (name := lost()) is not None:
            print(f"fairlead: Ray's {name} ended", file=sys.stderr, flush=True)  # noqa: T201 - the pod's last words
            os._exit(1)


def run_group(settings: Settings, group: Group) -> None:
    """One pod's part in a Ray of several: the head's, which says what is served, or a worker's."""
    if group.head is not None:
        run_worker(settings, group)
        return
    if application.users_application(settings) is not None:
        raise LoadError(
            f"{settings.model_class} is an Application: one of your own runs in one pod, without workerSpec"
        )
    with node.running_node(workers=2, **group.node_parameters()) as lost:
        run_head(settings, group, lost)


def run_head(settings: Settings, group: Group, lost: Callable[[], str | None]) -> None:
    """Our application on all pods of the group. The head serves when its own replica is ready, the others when they have joined.

    When it stops, only its own replica does: the other pods go on until they are told, or find another head.
    """
    from ray import serve

    serve.start(proxy_location="Disabled")
    ports = [ReplicaPorts(settings.http_port, settings.grpc_port)]
    target = serve.RunTarget(application.application(settings, ports, pods=group.size), application.NAME, None)
    (handle,) = serve.run_many([target], wait_for_applications_running=False)
    reason = handle.load_error.remote().result()
    if reason is not None:
        raise LoadError(reason)
    log.info("serving: %s, a replica on each of %d pods", settings.model_name, group.size)
    wait_for_signal(lost)
    finish_requests(settings)


@contextlib.contextmanager
def serving(**options: Any) -> Any:
    """Serve, until its replicas have finished what is in flight."""
    from ray import serve

    serve.start(**options)
    try:
        yield serve
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()  # type: ignore[no-untyped-call]


def run_users_application(application_: Any, settings: Settings) -> None:
    """Taken as it is, on all of Ray (it may use any of it), behind Serve's own proxy on our port."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=node.OBJECT_STORE, configure_logging=False)
    try:
        http = {"host": settings.host, "port": settings.http_port}
        with serving(proxy_location="HeadOnly", http_options=http) as serve:
            serve.run(application_, name=application.NAME, route_prefix="/")
            log.info("ready: the application %s", settings.model_class)
            wait_for_signal()
    finally:
        ray.shutdown()


def run_replicas(settings: Settings, lost: Callable[[], str | None]) -> None:
    """Our own application until a signal comes. Raises LoadError with the replica's reason."""
    ports = _replica_ports(settings)
    with serving(proxy_location="Disabled") as serve, tempfile.TemporaryDirectory(prefix="fairlead-") as directory:
        handle = serve.run(application.application(settings, ports), name=application.NAME, route_prefix=None)
        reason = handle.load_error.remote().result()
        if reason is not None:
            raise LoadError(reason)
        front = None
        try:
            if len(ports) > 1:
                front = Front(Path(directory), settings.host, settings.http_port, settings.grpc_port, ports)
            log.info("ready: %s, %d replicas", settings.model_name, len(ports))
            wait_for_signal(lost)
        finally:
            if front is not None:
                front.stop()


def _replica_ports(settings: Settings) -> list[ReplicaPorts]:
    if settings.workers == 1:
        return [ReplicaPorts(settings.http_port, settings.grpc_port)]
    return allocate(settings.workers, grpc=settings.grpc_port is not None)
