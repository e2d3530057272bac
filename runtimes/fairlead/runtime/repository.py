"""The models of one server: each loads, serves and unloads on its own, and none waits for another."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.runtime.errors import LoadError, ModelNotFound, NotReady
from fairlead.runtime.model import Model
from fairlead.runtime.multiplexing import Multiplexer
from fairlead.runtime.operations.metrics import Metrics
from fairlead.runtime.runner import DEFAULT_MAX_BATCH_SIZE, DEFAULT_MAX_QUEUE, Runner

log = logging.getLogger(__name__)

ModelFactory = Callable[[], Model]
"""Makes the model and calls nothing else: `load()` follows. Runs in a worker thread; may block."""

DEFAULT_VERSION = "1"
STANDBY = "loaded when it is asked for"


class State(enum.StrEnum):
    """As V2's repository index names them."""

    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"


@dataclass(slots=True)
class Entry:
    name: str
    factory: ModelFactory
    state: State = State.UNAVAILABLE
    reason: str = "not loaded yet"
    runner: Runner | None = None
    load_seconds: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the model loads or unloads: one after the other for one model, side by side for several."""


class Repository:
    def __init__(
        self,
        metrics: Metrics | None = None,
        *,
        max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
        max_queue: int = DEFAULT_MAX_QUEUE,
        max_loaded: int | None = None,
        find: Callable[[str], ModelFactory | None] = lambda name: None,
    ) -> None:
        """`find` gives the factory of a model that nobody added: a directory of models.

        With `max_loaded`, at most so many are loaded at a time, each when it is asked for.
        """
        self.metrics = metrics or Metrics()
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._find = find
        self._multiplexer = None if max_loaded is None else Multiplexer(max_loaded, self._load_now, self._unload_now)
        self.entries: dict[str, Entry] = {}
        self.runners: dict[str, Runner] = {}
        """The loaded models by name: the doors' shortest way to one."""
        self.leaving = False
        """The server still answers, and tells who asks whether it is ready to go elsewhere."""
        self._export()

    def add(self, name: str, factory: ModelFactory) -> None:
        self.entries[name] = Entry(name, factory)
        if self._multiplexer is not None:
            self.entries[name].reason = STANDBY

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def names(self) -> list[str]:
        return list(self.entries)

    def entry(self, name: str, version: str | None = None) -> Entry:
        """Raises ModelNotFound."""
        entry = self.entries.get(name)
        if entry is None:
            raise ModelNotFound(name)
        if version:
            versions = (DEFAULT_VERSION,) if entry.runner is None else self.versions(entry.runner)
            if version not in versions:
                raise ModelNotFound(name, version)
        return entry

    def runner(self, name: str, version: str | None = None) -> Runner:
        """The loaded model. Raises ModelNotFound, NotReady."""
        runner = self.runners.get(name)
        if runner is not None and not version:
            return runner
        entry = self.entry(name, version)
        if entry.runner is None:
            raise NotReady(f"Model {name} is not ready: {entry.reason}")
        return entry.runner

    async def loaded(self, name: str, version: str | None = None) -> Runner:
        """`runner`, but a model that only waits to be asked for is loaded. Raises ModelNotFound, NotReady.

        Call it before the first await of a prediction: the model does not leave between the two.
        """
        runner = self.runners.get(name)
        multiplexer = self._multiplexer
        if runner is not None and not version:
            if multiplexer is not None:
                multiplexer.used(name)
            return runner
        if multiplexer is not None:
            self._look_up(name)
            try:
                await multiplexer.want(name)
            except LoadError as error:
                raise NotReady(error.message) from error
        return self.runner(name, version)

    def _look_up(self, name: str) -> None:
        if name not in self.entries:
            factory = self._find(name)
            if factory is None:
                raise ModelNotFound(name)
            self.add(name, factory)

    @staticmethod
    def versions(runner: Runner) -> tuple[str, ...]:
        return runner.contract.metadata.versions or (DEFAULT_VERSION,)

    async def load(self, name: str) -> None:
        """Load, or load anew: the old one answers until the new one is ready. Raises LoadError."""
        self._look_up(name)
        await (self._load_now if self._multiplexer is None else self._multiplexer.load)(name)

    async def _load_now(self, name: str) -> None:
        entry = self.entries[name]
        async with entry.lock:
            await self._load(entry)

    async def _load(self, entry: Entry) -> None:
        old = entry.runner
        if old is None:
            entry.state, entry.reason = State.LOADING, "loading"
        started = time.perf_counter()
        try:
            model = await _make(entry)
            runner = Runner(model, metrics=self.metrics, max_batch_size=self._max_batch_size, max_queue=self._max_queue)
            runner.version = self.versions(runner)[0]
        except Exception as error:
            reason = str(error) if isinstance(error, LoadError) else f"{type(error).__name__}: {error}"
            if old is None:
                entry.state, entry.reason = State.UNAVAILABLE, reason
            raise LoadError(f"model {entry.name} could not be loaded: {reason}") from error
        entry.load_seconds = time.perf_counter() - started
        entry.runner, entry.state, entry.reason = runner, State.READY, ""
        self.runners[entry.name] = runner
        log.info("model %s loaded in %.2f s", entry.name, entry.load_seconds)
        if old is not None:
            await old.close()

    async def unload(self, name: str) -> None:
        """Stop answering, finish what was accepted, let the model go."""
        self.entry(name)
        await (self._unload_now if self._multiplexer is None else self._multiplexer.unload)(name)

    async def _unload_now(self, name: str) -> None:
        entry = self.entry(name)
        async with entry.lock:
            runner = self.runners.pop(name, None)
            entry.runner, entry.state, entry.reason = None, State.UNLOADING, "unloading"
            if runner is not None:
                await runner.close()
            entry.state, entry.reason = State.UNAVAILABLE, "unloaded" if self._multiplexer is None else STANDBY

    async def ready(self, name: str, version: str | None = None) -> bool:
        """Should a request be sent now? Raises ModelNotFound."""
        entry = self.entry(name, version)
        if self.leaving:
            return False
        if entry.runner is None:
            on_its_way = entry.reason == STANDBY or entry.state is not State.UNAVAILABLE
            return self._multiplexer is not None and on_its_way
        return await entry.runner.healthy()

    async def all_ready(self) -> bool:
        return bool(self.entries) and all([await self.ready(name) for name in self.entries])

    @property
    def received(self) -> float:
        """Predictions asked for until now: those that have been answered, with whatever code, and those that are being answered."""
        return sum(self.metrics.requests.values.values()) + self.in_flight

    @property
    def in_flight(self) -> int:
        return sum(runner.in_flight for runner in self.runners.values())

    async def close(self) -> None:
        await asyncio.gather(*(self.unload(name) for name in list(self.runners)))

    def _export(self) -> None:
        def by_model(value: Callable[[Runner], float]) -> Callable[[], Mapping[tuple[str, ...], float]]:
            return lambda: {(name,): value(runner) for name, runner in self.runners.items()}

        self.metrics.queue_length.read = by_model(lambda runner: runner.waiting)
        self.metrics.in_flight.read = by_model(lambda runner: runner.in_flight)
        self.metrics.ready.read = lambda: {(e.name,): float(e.runner is not None) for e in self}
        self.metrics.load_seconds.read = lambda: {(e.name,): e.load_seconds for e in self if e.runner is not None}


async def _make(entry: Entry) -> Model:
    """Construct and load, off the event loop; a `load` that is a coroutine runs on it."""

    def construct() -> tuple[Model, Any]:
        model = entry.factory()
        model.name = entry.name
        return model, model.load()

    model, loading = await asyncio.to_thread(construct)
    if asyncio.iscoroutine(loading):
        await loading
    return model
