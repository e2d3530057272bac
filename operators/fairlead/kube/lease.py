"""Leader election by a Lease, as client-go does it: 15 s lease, 10 s to renew, a try every 2 s.

What is guaranteed. At most one process believes to be leader at a time, provided that no process's clock *runs* more than
1.5 times as fast as another's; what time the clocks show does not matter, for a holder's renewals are timed by when this
process saw them change, never by the time written in them. The leader counts its own 10 s from before it sent the renewal
that succeeded; when they are over it cancels all reconciles, 5 s before anybody else may take the Lease.

What is not. A process that is stopped as a whole (SIGSTOP, a frozen VM) for longer than those 5 s may, as it wakes, still send
a request that it was about to send. A Lease cannot prevent that: the API server does not check it. It does no lasting harm
because reconciles are level-triggered, write by server-side apply under one field manager, and delete with the object's uid:
the new leader's next reconcile finds what the old one's last write changed and puts it right.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fairlead.kube import metrics
from fairlead.kube.errors import Conflict, KubeError, NotFound
from fairlead.kube.objects import Object, micro_timestamp, utcnow
from fairlead.kube.resources import LEASES, Resource

log = logging.getLogger(__name__)

JITTER = 1.2
"""A candidate waits up to this many times `retry_period`, so that candidates do not try in step."""


class LeaseLost(KubeError):
    """Somebody else leads, or may soon: this process must stop acting at once, and end."""


def new_identity() -> str:
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class Lease:
    name: str
    namespace: str
    identity: str = field(default_factory=new_identity)
    """Unique for each process, not for each pod: a restarted container must not take its predecessor's Lease for its own. (One that execs itself may give
    its own on: there is nobody left who could still act by it.)"""
    duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_deadline > self.retry_period * JITTER:
            raise ValueError(
                f"lease {self.name}: duration ({self.duration} s) must exceed renew_deadline ({self.renew_deadline} s), "
                f"and that the retry period with its jitter ({self.retry_period * JITTER:.1f} s)"
            )


class Leases(Protocol):
    """What an elector needs of a client."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...
    async def create(self, resource: Resource, obj: Object) -> Object: ...
    async def replace(self, resource: Resource, obj: Object) -> Object: ...


def may_take(spec: Object, identity: str, unchanged_for: float) -> bool:
    """Whether `identity` may write itself into a Lease that this process has seen unchanged for so many seconds."""
    holder = spec.get("holderIdentity")
    return not holder or holder == identity or unchanged_for >= float(spec.get("leaseDurationSeconds") or 0)


def taken(spec: Object, lease: Lease, now: datetime) -> Object:
    """The Lease's spec with `lease.identity` as its holder as of `now`."""
    changed = spec.get("holderIdentity") != lease.identity
    return {
        **spec,
        "holderIdentity": lease.identity,
        "leaseDurationSeconds": max(1, round(lease.duration)),
        "acquireTime": micro_timestamp(now) if changed else spec.get("acquireTime") or micro_timestamp(now),
        "renewTime": micro_timestamp(now),
        "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if changed and spec else 0),
    }


class Elector:
    def __init__(self, client: Leases, lease: Lease, *, now: Callable[[], datetime] = utcnow) -> None:
        self.lease = lease
        self.leading = False
        self._client = client
        self._now = now
        self._seen: Object = {}
        self._seen_at = 0.0
        self._current = False
        """Whether `_seen` is, for all we know, the Lease as it is now."""
        self._renewed_at = 0.0
        self._gauge = metrics.LEADER.labels(name=lease.name)
        self._gauge.set(0)

    async def acquire(self) -> None:
        """Returns when this process leads."""
        told = ""
        while not await self._try():
            if self._holder != told:
                told = self._holder
                log.info("waiting for lease %s/%s, held by %s", self.lease.namespace, self.lease.name, told)
            await asyncio.sleep(self.lease.retry_period * random.uniform(1, JITTER))  # noqa: S311
        self.leading = True
        self._gauge.set(1)
        log.info("leading: %s holds lease %s/%s", self.lease.identity, self.lease.namespace, self.lease.name)

    async def hold(self) -> None:
        """Renews for as long as that works, then raises LeaseLost; `leading` is false from that moment."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                deadline = self._renewed_at + self.lease.renew_deadline
                await asyncio.sleep(min(self.lease.retry_period, max(0.0, deadline - clock())))
                if clock() >= deadline:
                    raise LeaseLost(f"lease {self.lease.name} could not be renewed for {self.lease.renew_deadline:g} s")
                if not await self._try(deadline) and not self._is_mine():
                    raise LeaseLost(f"lease {self.lease.name} was taken by {self._holder or 'nobody'}")
        finally:
            self.leading = False
            self._gauge.set(0)

    async def release(self) -> None:
        """Gives the Lease back, so that a successor need not wait for it to run out. Call it when all work has ended."""
        try:
            async with asyncio.timeout(self.lease.retry_period):
                # Read first: a renewal that was under way when we were told to stop may have been written.
                self._observe(await self._client.get(LEASES, self.lease.name, self.lease.namespace))
                if self._is_mine():
                    given_back = {
                        "holderIdentity": "",
                        "leaseDurationSeconds": 1,
                        "renewTime": micro_timestamp(self._now()),
                    }
                    await self._client.replace(LEASES, {**self._seen, "spec": {**self._spec, **given_back}})
        except (KubeError, TimeoutError) as error:
            log.info("lease %s was not given back, it will run out: %s", self.lease.name, error)

    async def _try(self, deadline: float = float("inf")) -> bool:
        """One attempt to take or renew the Lease, given up at `deadline`. False if it is another's or the server fails."""
        began = asyncio.get_running_loop().time()
        # A renewal that hangs leaves time for another one, on a new connection.
        limit = self.lease.renew_deadline / (2 if self.leading else 1)
        try:
            async with asyncio.timeout_at(min(began + limit, deadline)):
                if not await self._take():
                    return False
        except (KubeError, TimeoutError) as error:
            self._current = False  # it may have been written or not: read it first next time
            log.warning("lease %s: %s", self.lease.name, str(error) or "no answer in time")
            return False
        return True

    async def _take(self) -> bool:
        if self._current and self._is_mine():
            # A leader goes by the version that it wrote last: one request for a renewal, and a Conflict tells of any other's.
            try:
                await self._write()
            except Conflict:
                self._current = False
            else:
                return True
        try:
            self._observe(await self._client.get(LEASES, self.lease.name, self.lease.namespace))
        except NotFound:
            await self._write(create=True)
            return True
        unchanged_for = asyncio.get_running_loop().time() - self._seen_at
        if not may_take(self._spec, self.lease.identity, unchanged_for):
            return False
        await self._write()
        return True

    async def _write(self, *, create: bool = False) -> None:
        """Makes this process the holder as of the moment before the request is sent."""
        began = asyncio.get_running_loop().time()
        if create:
            metadata = {"name": self.lease.name, "namespace": self.lease.namespace}
            new = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            written = await self._client.create(LEASES, {**new, "spec": taken({}, self.lease, self._now())})
        else:
            spec = taken(self._spec, self.lease, self._now())
            written = await self._client.replace(LEASES, {**self._seen, "spec": spec})
        self._renewed_at = began
        self._observe(written)

    def _observe(self, lease: Object) -> None:
        """Remembers the Lease, and since when it has been seen in this state."""
        if self._seen.get("spec") != lease.get("spec"):
            self._seen_at = asyncio.get_running_loop().time()
        self._seen = lease
        self._current = True

    @property
    def _spec(self) -> Object:
        return self._seen.get("spec") or {}

    @property
    def _holder(self) -> str:
        return self._spec.get("holderIdentity") or ""

    def _is_mine(self) -> bool:
        return self._holder == self.lease.identity
