"""Part of autoscaling.py: what happens between a request's sending and its answer when it wakes a service, told by everyone who takes part.

The API server's watches, the container engine's events, the agents' and the operator's own words, and the server's; all by one machine's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from _wakes import Subject, Wake

from fairlead.api import names
from fairlead.kube.client import Client
from fairlead.kube.errors import KubeError
from fairlead.kube.resources import DEPLOYMENTS, ENDPOINT_SLICES, PODS, REPLICA_SETS, Resource

WATCHED_AT_MOST = 150.0
"""Seconds; a wake-up and the time to zero before it take less."""

Object = dict[str, Any]
Events = list[tuple[float, str]]
"""Seconds, and what was seen then for the first time."""
Note = Callable[[str, float], None]
"""Takes down when something was first so."""


async def timeline(client: Client, subject: Subject, node: str, system: str) -> tuple[Wake, Events]:
    """One wake-up, and its events in order: seconds since the request was sent."""
    await subject.asleep()
    async with recording(client, subject, node, system) as seen:
        wake = await subject.wake(0.0)
    told = {
        "process: its first line": wake.began,
        "server: the readiness path can answer": wake.ready,
        "server: request received": wake.received,
        "client: answer received": wake.answered,
    }
    if wake.probed:
        told["server: was first asked whether it is ready (gateway or kubelet)"] = wake.probed
    return wake, in_order({**seen, **told}, wake.sent)


def in_order(seen: dict[str, float], since: float) -> Events:
    return sorted((at - since, what) for what, at in seen.items())


@asynccontextmanager
async def recording(client: Client, subject: Subject, node: str, system: str) -> AsyncIterator[dict[str, float]]:
    """When each step was first seen, by the machine's clock, of what happens within; the subject is at zero before."""
    seen: dict[str, float] = {}

    def note(what: str, at: float) -> None:
        seen.setdefault(what, at)

    async with _watching(client, subject, node, system, note):
        await asyncio.sleep(1.0)  # the watches are open
        seen.clear()
        yield seen
        await asyncio.sleep(1.5)  # what comes after the answer belongs to the story


@asynccontextmanager
async def _watching(client: Client, subject: Subject, node: str, system: str, note: Note) -> AsyncIterator[None]:
    mine = f"{names.LABEL_WORKLOAD}={subject.deployment}"
    sources = [
        _watch(client, subject.namespace, DEPLOYMENTS, mine, _deployment, note),
        _watch(client, subject.namespace, REPLICA_SETS, mine, _replica_set, note),
        _watch(client, subject.namespace, PODS, mine, _pod, note),
        _watch(client, subject.namespace, ENDPOINT_SLICES, mine, _slice, note),
        _containers(node, note),
    ]
    for pod in (await client.list(PODS, system)).items:
        name = pod["metadata"]["name"]
        if name.startswith("fairlead-operator"):
            sources.append(_operator(client, system, name, subject, note))
        elif name.startswith("fairlead-gateway"):
            sources.append(_agent(client, system, name, subject, note))
    tasks = [asyncio.create_task(source) for source in sources]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- Kubernetes -------------------------------------------------------------------------------------------------


async def _watch(
    client: Client, namespace: str, resource: Resource, labels: str, read: Callable[[Object], Iterator[str]], note: Note
) -> None:
    version = (await client.list(resource, namespace, labels=labels)).resource_version
    async for event in client.watch(resource, namespace, resource_version=version, labels=labels):
        at = time.time()
        if event.type in ("ADDED", "MODIFIED"):
            for what in read(event.object):
                note(what, at)


def _deployment(item: Object) -> Iterator[str]:
    if item["spec"].get("replicas", 1):
        yield "api: Deployment scaled up"


def _replica_set(item: Object) -> Iterator[str]:
    if item["spec"].get("replicas", 1):
        yield "api: ReplicaSet scaled up"


def _pod(item: Object) -> Iterator[str]:
    yield "api: Pod created"
    status = item.get("status", {})
    if item["spec"].get("nodeName"):
        yield "api: Pod bound to a node"
    if status.get("podIP"):
        yield "api: Pod's address in its status"
    if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ())):
        yield "api: Pod Ready"


def _slice(item: Object) -> Iterator[str]:
    endpoints = item.get("endpoints") or []
    if endpoints:
        yield "api: address in the EndpointSlice"
    if any((endpoint.get("conditions") or {}).get("ready") for endpoint in endpoints):
        yield "api: ready in the EndpointSlice"


# --- The node ---------------------------------------------------------------------------------------------------

_CONTAINERD = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) \S+ UTC \S+ (/\S+)")
_STEPS = {
    "/containers/create": "container",
    "/tasks/create": "process created",
    "/tasks/start": "process started",
}


async def _containers(node: str, note: Note) -> None:
    """containerd's events; a pod's sandbox comes before its container. What is run in the node does not end with who ran it."""
    command = ("docker", "exec", node, "timeout", f"{WATCHED_AT_MOST:.0f}", "ctr", "--namespace", "k8s.io", "events")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    seen: dict[str, int] = {}
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            match = _CONTAINERD.match(line.decode())
            if match and (step := _STEPS.get(match[2])):
                seen[step] = seen.get(step, 0) + 1
                part = "sandbox" if seen[step] == 1 else "container"
                note(f"node: {part}'s {step}", _utc(match[1]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _utc(text: str) -> float:
    """Nanoseconds are cut: Python knows microseconds."""
    return datetime.fromisoformat(f"{text[:26]}+00:00").timestamp()


# --- Fairlead ---------------------------------------------------------------------------------------------------


async def _operator(client: Client, system: str, pod: str, subject: Subject, note: Note) -> None:
    """Its log has the moment after the scaling was written."""
    async for line in client.follow_logs(pod, system, tail=0):
        with contextlib.suppress(ValueError, KeyError):
            entry = json.loads(line)
            if f"{subject.deployment}: 0 -> " in entry["message"]:
                note("operator: has scaled", datetime.fromisoformat(entry["time"]).timestamp())


async def _agent(client: Client, system: str, pod: str, subject: Subject, note: Note) -> None:
    version = 0
    while True:
        path = f"/api/v1/namespaces/{system}/pods/{pod}:{names.GATEWAY_AGENT_PORT}/proxy/v1/demand?after={version}"
        try:
            answer = await client.raw(path)
        except KubeError:
            await asyncio.sleep(0.5)
            continue
        version = int(answer["version"])
        if any(entry["name"] == subject.deployment for entry in answer["workloads"]):
            note("gateway agent: a request is held", time.time())
