"""A controller: keys in, reconciles out.

The contract, which is controller-runtime's:

- `reconcile(key)` gets a namespace and a name, never an event. It reads what is, works out what should be, and makes it so;
  it may be called at any time, any number of times, for an object that is no longer there.
- It returns None when there is nothing more to do until something changes, or the seconds after which to be called again.
- If it raises, it is called again after a back-off that doubles from 5 ms to two minutes; a TerminalError is not retried.
- One key is never reconciled twice at the same time; different keys are, up to `workers`.
- It is cancelled, in the middle of an await, when the process loses its Lease or is told to stop and takes too long. Whatever
  it had done by then must be a state from which the next reconcile goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from fairlead.kube import metrics
from fairlead.kube.errors import Conflict, KubeError, TerminalError
from fairlead.kube.informer import Informer
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.queue import QueueClosed, WorkQueue

log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
Keys = Callable[[Object], Iterable[Key]]


def own_key(obj: Object) -> Iterable[Key]:
    """For the kind that the controller is about."""
    return (key_of(obj),)


class Controller:
    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 4) -> None:
        self.name = name
        self.informers: list[Informer] = []
        self._reconcile = reconcile
        self._workers = workers
        self._queue: WorkQueue[Key] = WorkQueue(waited=metrics.QUEUE_SECONDS.labels(name=name).observe)
        metrics.QUEUE_DEPTH.labels(name=name).set_function(self._queue.__len__)

    def watch(self, informer: Informer, keys: Keys = own_key) -> None:
        """Reconciles `keys(obj)` whenever an object of the informer appears, changes or goes.

        Of a change both states are asked, so that an object that moves from one owner to another wakes both.
        """

        def changed(old: Object | None, new: Object | None) -> None:
            for obj in (old, new):
                if obj is not None:
                    for key in keys(obj):
                        self._queue.add(key)

        if informer not in self.informers:
            self.informers.append(informer)
        informer.on_change(changed)

    def enqueue(self, key: Key, after: float = 0.0) -> None:
        """Reconciles the key in `after` seconds, for reasons that no informer knows."""
        self._queue.add_after(key, after)

    async def run(self) -> None:
        """Works until `close`, and then to the end of what it has begun. Keys gather before, too: a standby is warm."""
        for informer in self.informers:
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"{self.name}-worker-{number}")

    def close(self) -> None:
        self._queue.close()

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except QueueClosed:
                return
            try:
                await self._once(key)
            finally:
                self._queue.done(key)

    async def _once(self, key: Key) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        with metrics.ACTIVE_WORKERS.labels(controller=self.name).track_inprogress():
            try:
                after = await self._reconcile(key)
            except Exception as error:
                result = self._failed(key, error)
            else:
                self._queue.forget(key)
                result = "success"
                if after is not None:
                    self._queue.add_after(key, after)
                    result = "requeue_after"
        metrics.RECONCILES.labels(controller=self.name, result=result).inc()
        metrics.RECONCILE_SECONDS.labels(controller=self.name).observe(clock() - began)

    def _failed(self, key: Key, error: Exception) -> str:
        metrics.RECONCILE_ERRORS.labels(controller=self.name).inc()
        if isinstance(error, TerminalError):
            self._queue.forget(key)
            log.error("%s: %s will not be retried until it changes: %s", self.name, key, error)
            return "terminal_error"
        delay = self._queue.retry(key)
        if isinstance(error, Conflict):
            log.info("%s: %s again in %.3f s: %s", self.name, key, delay, error)
        elif isinstance(error, KubeError):
            log.warning("%s: %s again in %.3f s: %s", self.name, key, delay, error)
        else:
            log.error("%s: %s again in %.3f s", self.name, key, delay, exc_info=error)
        return "error"
