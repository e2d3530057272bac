"""One container's life: start, probes, end, back-off, start again, until the pod is to end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from fairlead.kube.objects import Object, timestamp
from fairlead.local.node import logs, objects, prober
from fairlead.local.node.machine import CONTAINER_MARK, EventType, Machine
from fairlead.local.node.pod_process import Command
from fairlead.local.node.pod_status import ContainerRecord, terminated
from fairlead.local.node.probes import ContainerProbes, Verdict
from fairlead.local.node.process import Process, sweep
from fairlead.local.node.restarts import Backoff, RestartPolicy, Run, restarts

CANNOT_START = 128
"""Exit code of a container whose program could not be started, as container engines have it."""
DEFAULT_GRACE = 30.0


class Ending:
    """The order to end: raised once, with the seconds left for it."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self.grace = DEFAULT_GRACE
        self.hooks = True
        """Whether preStop runs: not where the whole cluster ends, and there is no gateway left that it could wait for."""

    def begin(self, grace: float, *, hooks: bool = True) -> None:
        """A second order can only shorten the time."""
        self.grace = min(self.grace, grace) if self.ordered() else grace
        self.hooks = self.hooks and hooks
        self._begun.set()

    def ordered(self) -> bool:
        return self._begun.is_set()

    async def wait(self) -> None:
        await self._begun.wait()


class ContainerRunner:
    """Runs one container of a pod. `record` is what the pod's status says of it; `changed` is called when it changes."""

    def __init__(
        self,
        machine: Machine,
        pod: Object,
        spec: Object,
        record: ContainerRecord,
        ip: str,
        ending: Ending,
        changed: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._pod = pod
        self._spec = spec
        self._record = record
        self._ip = ip
        self._ending = ending
        self._changed = changed
        self._process: Process | None = None
        self._out_of_memory = False
        self.memory_limit: int | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def log(self) -> Path:
        return logs.log_file(
            self._machine.directory,
            objects.namespace(self._pod),
            objects.name(self._pod),
            self._record.name,
            self._record.restarts,
        )

    def kill_for_memory(self, resident: int) -> None:
        """The node's watch found it above its limit."""
        if self._process is None:
            return
        self._out_of_memory = True
        limit = self.memory_limit or 0
        self._emit(
            "Warning",
            "OOMKilling",
            f"container {self._record.name} holds {resident >> 20} MiB, its limit is {limit >> 20} MiB",
        )
        self._process.kill_group()

    async def run(self, prepare: Callable[[], Coroutine[Any, Any, Command | None]], policy: RestartPolicy) -> None:
        """Until the pod ends, or until the container has ended for good. `prepare` gives the command, or None if the pod was told to end."""
        backoff = Backoff()
        while not self._ending.ordered():
            command = await prepare()
            if command is None:
                return
            run = await self._once(command)
            if self._ending.ordered() or not restarts(policy, run.exit_code):
                return
            backoff, delay = backoff.after(run)
            if delay:
                await self._back_off(delay)
            if self._ending.ordered():
                return
            self._record.restarts += 1

    async def _once(self, command: Command) -> Run:
        """One run of the process, from its start to its last descendant's end."""
        machine, record = self._machine, self._record
        mark = f"{objects.uid(self._pod)}/{record.name}/{record.restarts}"
        environment = {**machine.environment, **command.environment, CONTAINER_MARK: mark}
        began, started_at = machine.monotonic(), machine.now()
        record.container_id = f"process://{mark}"
        self.memory_limit, self._out_of_memory = command.memory_limit, False
        logs.forget_old_runs(self.log)
        try:
            process = self._start(command, environment)
        except OSError as error:
            reason = f"cannot start {command.argv[0]!r} in {command.directory}: {error.strerror or error}"
            self._emit("Warning", "Failed", reason)
            return self._ended(CANNOT_START, began, started_at, reason, was_ready=False)
        self._process = process
        record.state = {"running": {"startedAt": timestamp(started_at)}}
        self._changed()
        self._emit("Normal", "Started", f"Started container {record.name}")

        was_ready = False

        def verdict(now: Verdict) -> None:
            nonlocal was_ready
            record.started = now in (Verdict.NOT_READY, Verdict.READY)
            record.ready = now is Verdict.READY and process.running
            was_ready = was_ready or record.ready
            self._changed()

        try:
            await self._until_it_should_end(process, environment, verdict)
            if process.running:
                await self._stop(process, environment)
            code = await process.wait()
        finally:
            process.kill_group()
            self._process = None
        record.ready = False
        self._changed()  # before the sweep: nothing more may be sent there
        sweep(f"{CONTAINER_MARK}={mark}")
        message = self._message(code)
        return self._ended(code, began, started_at, message, was_ready=was_ready)

    def _start(self, command: Command, environment: dict[str, str]) -> Process:
        program = shutil.which(command.argv[0], path=environment.get("PATH"))
        if program is None:
            raise FileNotFoundError(2, f"there is no program {command.argv[0]} on this machine")
        command.directory.mkdir(parents=True, exist_ok=True)
        argv = [program, *command.argv[1:]]
        return Process.start(argv, environment=environment, directory=command.directory, log=self.log)

    async def _until_it_should_end(
        self, process: Process, environment: dict[str, str], verdict: Callable[[Verdict], None]
    ) -> None:
        """Returns when the process has ended, when the pod is to end, or when the container is unhealthy."""
        tasks = [
            asyncio.ensure_future(process.wait()),
            asyncio.ensure_future(self._ending.wait()),
            asyncio.ensure_future(self._probe(environment, verdict)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2].done():
                tasks[2].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe(self, environment: dict[str, str], verdict: Callable[[Verdict], None]) -> None:
        """Asks as the probes want to be asked; returns when they find the container unhealthy."""
        hook = (self._spec.get("lifecycle") or {}).get("postStart")
        if hook:
            await self._hook(hook, environment, "PostStartHook", DEFAULT_GRACE)
        probes = ContainerProbes.begin(self._spec, self._machine.monotonic())
        last = probes.verdict
        verdict(last)
        while (next_at := probes.next_at()) is not None:
            await asyncio.sleep(max(0.0, next_at - self._machine.monotonic()))
            due = probes.due(self._machine.monotonic())
            answers = await asyncio.gather(*(self._ask(probes, kind.value, environment) for kind in due))
            for kind, why_not in zip(due, answers, strict=True):
                if kind not in probes.running:
                    continue
                before = probes.running[kind].failures
                probes = probes.answered(kind, why_not is None, self._machine.monotonic())
                probe = probes.running.get(kind)
                # Failures while it starts are no news, nor are those between two that count.
                if probe is not None and probe.result is not None and probe.failures > before:
                    what = kind.value.removesuffix("Probe").capitalize()
                    self._emit("Warning", "Unhealthy", f"{what} probe failed: {why_not}")
            if probes.verdict is not last:
                last = probes.verdict
                verdict(last)
            if last is Verdict.UNHEALTHY:
                self._emit(
                    "Normal", "Killing", f"Container {self._record.name} failed its probes, it will be restarted"
                )
                return
        await asyncio.Event().wait()

    async def _ask(self, probes: ContainerProbes, kind: str, environment: dict[str, str]) -> str | None:
        seconds = next(limits.timeout for k, limits in probes.thresholds.items() if k.value == kind)
        try:
            async with asyncio.timeout(seconds):
                return await prober.ask(self._spec[kind], self._spec, self._ip, environment)
        except TimeoutError:
            return f"no answer within {seconds:g} s"

    async def _stop(self, process: Process, environment: dict[str, str]) -> None:
        """preStop, SIGTERM, SIGKILL within the grace period, as Kubernetes counts it: preStop is a part of it."""
        self._record.ready = False
        self._changed()
        configured = float(self._pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE))
        grace = min(self._ending.grace if self._ending.ordered() else configured, self._machine.longest_grace)
        deadline = self._machine.monotonic() + grace
        hook = (self._spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0 and self._ending.hooks:
            await self._hook(hook, environment, "PreStopHook", grace)
        await process.terminate(deadline - self._machine.monotonic())

    async def _hook(self, hook: Object, environment: dict[str, str], name: str, limit: float) -> None:
        """A lifecycle hook; what goes wrong in it is an event and no more."""
        failed: str | None = None
        try:
            async with asyncio.timeout(limit):
                if "sleep" in hook:
                    await asyncio.sleep(float(hook["sleep"]["seconds"]))
                else:
                    failed = await prober.ask(hook, self._spec, self._ip, environment)
        except TimeoutError:
            failed = f"not done within {limit:g} s"
        if failed:
            self._emit("Warning", f"Failed{name}", f"container {self._record.name}: {failed}")

    def _ended(self, code: int, began: float, started_at: datetime, message: str, *, was_ready: bool) -> Run:
        record, machine = self._record, self._machine
        state = terminated(
            code,
            started_at,
            machine.now(),
            container_id=record.container_id,
            message=message,
            out_of_memory=self._out_of_memory,
        )
        record.state, record.last_state = state, state
        record.ready = record.started = False
        self._changed()
        return Run(machine.monotonic() - began, was_ready, int(state["terminated"]["exitCode"]))

    def _message(self, code: int) -> str:
        wanted = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        return logs.tail(self.log) if code != 0 and wanted else ""

    async def _back_off(self, delay: float) -> None:
        pod = f"{objects.name(self._pod)}_{objects.namespace(self._pod)}({objects.uid(self._pod)})"
        message = f"back-off {delay:g}s restarting failed container={self._record.name} pod={pod}"
        self._record.state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        self._changed()
        self._emit("Warning", "BackOff", f"Back-off restarting failed container {self._record.name}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), delay)

    def _emit(self, kind: EventType, reason: str, message: str) -> None:
        self._machine.emit(self._pod, kind, reason, message)
