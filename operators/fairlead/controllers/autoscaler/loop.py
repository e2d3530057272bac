"""The loop: each second, what the gateways count is decided on; requests that begin to wait at zero are decided on at once.

While an agent does not answer, nothing is known of its share of the traffic: replicas may grow, but not shrink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.autoscaling import Decision, Mode, Observation, Policy, State, decide, initial_state, with_sign_of_life
from fairlead.autoscaling.history import History
from fairlead.controllers.autoscaler.agents import Agents, AgentSilent
from fairlead.controllers.autoscaler.board import Board, Outcome, Scaled
from fairlead.controllers.autoscaler.metrics import SCALINGS, SILENT_AGENTS, TICK_SECONDS
from fairlead.controllers.autoscaler.readings import Reading, Traffic, observation, traffic
from fairlead.controllers.autoscaler.scraping import PodMetrics, Scrape
from fairlead.controllers.cluster import Cluster
from fairlead.kube.errors import KubeError
from fairlead.kube.objects import Key, Object, key_of, resource_version, timestamp, utcnow
from fairlead.kube.resources import DEPLOYMENTS, PODS

log = logging.getLogger(__name__)

TICK = 1.0
_RETRY = 1.0
"""Seconds until an agent that does not answer is asked for demand again."""


class EventSink(Protocol):
    def emit(self, obj: Mapping[str, Any], type: Literal["Normal", "Warning"], reason: str, message: str) -> None: ...


class Remembered(NamedTuple):
    """What is remembered of one workload between ticks."""

    uid: str
    state: State
    policy: Policy
    history: History
    written: int = 0
    """The Deployment's resourceVersion that the last scaling made: what an informer says of it before that is old."""
    seen: Observation | None = None
    decision: Decision | None = None


class Autoscaler:
    def __init__(
        self,
        cluster: Cluster,
        board: Board,
        agents: Agents,
        events: EventSink,
        changed: Callable[[Key], None],
        pod_metrics: PodMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        """`changed` is told which InferenceService's status has something new to say."""
        self._cluster = cluster
        self.board = board
        self._agents = agents
        self._events = events
        self._changed = changed
        self._pod_metrics = pod_metrics
        self._clock = clock
        self._now = now
        self._before: Mapping[str, Reading] = {}
        self._silent: set[str] = set()
        self.known: dict[Key, Remembered] = {}
        """By workload, of the last tick; to be read only."""
        self.running = False
        """Whether this operator decides; another may lead."""
        self._turn = asyncio.Lock()
        """One decision at a time: a tick and a wake-up may meet at a workload."""

    async def run(self) -> None:
        """Until cancelled. Asks each agent for demand in a task of its own."""
        watched: dict[str, asyncio.Task[None]] = {}
        self.running = True
        async with asyncio.TaskGroup() as group:
            while True:
                began = self._clock()
                listed = await self._agents.addresses()
                # One that is being drained is listed no more, and may still hold requests: it is asked for as long as it answers.
                agents = [*listed, *(agent for agent in watched if agent in self._before and agent not in listed)]
                for agent in watched.keys() - set(agents):
                    watched.pop(agent).cancel()
                    self._silent.discard(agent)
                for agent in set(agents) - watched.keys():
                    watched[agent] = group.create_task(self._watch_demand(agent), name=f"demand-{agent}")
                with TICK_SECONDS.time():
                    await self.tick(agents)
                await asyncio.sleep(max(0.0, began + TICK - self._clock()))

    async def tick(self, agents: Sequence[str]) -> None:
        """Decides on each workload once. Without agents there is nothing to decide by, and without workloads nobody is asked."""
        if not self.board.scaled():
            self._before, self.known = {}, {}
            return
        answers, _ = await asyncio.gather(
            asyncio.gather(*map(self._read, agents)), self._pod_metrics.refresh(self._scrapes())
        )
        now = {agent: answer for agent, answer in zip(agents, answers, strict=True) if answer is not None}
        if now:
            scaled = self.board.scaled()
            self.known = {key: known for key, known in self.known.items() if key in scaled}
            complete = len(now) == len(agents) and now.keys() <= self._before.keys()
            for key, target in scaled.items():
                async with self._turn:
                    await self._decide_or_say(key, target, traffic(self._before, now, key), complete=complete)
        self._before = now

    async def wake(self, held: Mapping[Key, int]) -> None:
        """Requests have begun to wait for these workloads."""
        scaled = self.board.scaled()
        for key in held.keys() & scaled.keys():
            # A tick may be sending its last pod away at this moment: what is known counts when that is written.
            async with self._turn:
                known = self.known.get(key)
                if known is None or known.state.desired == 0:
                    await self._decide_or_say(key, scaled[key], Traffic(waiting=held[key]), complete=False)

    def explanation(self, service: Key) -> Open:
        """What `explain` answers: the service's decisions, to be replayed."""
        workloads = [
            {"workload": name, "revision": scaled.revision, "history": known.history.document()}
            for name, scaled in self.board.of(service).items()
            if (known := self.known.get(Key(service.namespace, name))) is not None
        ]
        return {"clock": self._clock(), "time": timestamp(self._now()), "workloads": workloads}

    # --- One workload -----------------------------------------------------------------------------------------

    async def _decide_or_say(self, key: Key, target: Scaled, traffic: Traffic, *, complete: bool) -> None:
        """In a turn. What is wrong with one workload keeps no other from being decided on."""
        try:
            await self._decide(key, target, traffic, complete=complete)
        except Exception:
            log.exception("%s is not decided on", key)

    async def _decide(self, key: Key, target: Scaled, traffic: Traffic, *, complete: bool) -> None:
        deployment = self._cluster.summary(DEPLOYMENTS, key)
        if deployment is None:
            return
        known = self._recall(key, deployment, target)
        before, clock = known.state.desired, self._clock()
        seen = observation(traffic, deployment, before, lambda: self._pods(key, target), complete=complete)
        if target.scrape is not None:
            own = self._pod_metrics.total(key, self._pods(key, target))
            seen = seen._replace(custom=own.value, complete=complete and own.complete)
        decision, state = decide(clock, seen, target.policy, known.state)
        if decision.desired != before:
            try:
                version = await self._cluster.scale(DEPLOYMENTS, key, decision.desired)
            except KubeError as error:
                log.warning("%s is not scaled from %d to %d: %s", key, before, decision.desired, error)
                return
            known = known._replace(written=version)
            log.info("%s: %d -> %d replicas: %s", key, before, decision.desired, decision.reason)
            event = _event(key.name, before, decision)
            self._events.emit(target.owner, *event)
            SCALINGS.labels(key.namespace, event[1]).inc()
        known.history.record(clock, seen, target.policy, known.state, decision, state)
        # Not by `_replace`, which makes its tuple of an iterator: CPython then keeps up to 2,000 of that length for another use, and each is a new one.
        self.known[key] = Remembered(known.uid, state, known.policy, known.history, known.written, seen, decision)
        self._tell(key, target, decision, scaled=decision.desired != before)

    def _recall(self, key: Key, deployment: Object, target: Scaled) -> Remembered:
        """What is known of the workload, or a beginning, if it is new here or somebody else has scaled it."""
        known, uid = self.known.get(key), deployment["metadata"].get("uid", "")
        replicas = deployment["spec"].get("replicas", 1)
        if known is None or known.uid != uid:
            return Remembered(uid, initial_state(self._clock(), replicas), target.policy, History())
        if replicas != known.state.desired and _version(deployment) >= known.written:
            return known._replace(state=initial_state(self._clock(), replicas), policy=target.policy)
        if known.policy != target.policy:
            # Its owner has just cared for it, or it has just come up for the first time: a sign of life.
            return known._replace(state=with_sign_of_life(known.state), policy=target.policy)
        return known

    def _tell(self, key: Key, target: Scaled, decision: Decision, *, scaled: bool) -> None:
        last = self.board.outcome(key)
        if last is not None and (last.desired, last.mode) == (decision.desired, decision.mode) and not scaled:
            return
        when = self._now() if scaled else last.last_scale if last is not None else None
        metric = target.policy.unit
        outcome = Outcome(
            decision.desired, decision.mode, metric, decision.value, decision.target, decision.reason, when
        )
        self.board.decided(key, outcome)
        self._changed(key_of(target.owner))

    def _scrapes(self) -> dict[Key, tuple[Scrape, list[Object]]]:
        """The workloads that scale by a metric of their own, with their pods."""
        return {
            key: (target.scrape, self._pods(key, target))
            for key, target in self.board.scaled().items()
            if target.scrape is not None
        }

    def _pods(self, key: Key, target: Scaled) -> list[Object]:
        pods = self._cluster.labelled(PODS, key_of(target.owner))
        return [pod for pod in pods if pod["metadata"]["labels"].get(names.LABEL_WORKLOAD) == key.name]

    # --- Agents -----------------------------------------------------------------------------------------------

    async def _read(self, agent: str) -> Reading | None:
        try:
            reading = await self._agents.stats(agent)
        except AgentSilent as error:
            if agent not in self._silent:
                log.warning("nothing is scaled down until it answers: %s", error)
            self._silent.add(agent)
            SILENT_AGENTS.inc()
            return None
        self._silent.discard(agent)
        return reading

    async def _watch_demand(self, agent: str) -> None:
        version = 0
        while True:
            try:
                version, held = await self._agents.demand(agent, version)
            except AgentSilent:  # the tick tells of it
                await asyncio.sleep(_RETRY)
                continue
            await self.wake(held)


def _event(workload: str, before: int, decision: Decision) -> tuple[Literal["Normal", "Warning"], str, str]:
    message = f"{workload}: {before} -> {decision.desired} replicas: {decision.reason}"
    if decision.mode is Mode.PAUSED:
        return "Warning", "WakeUpFailed", message
    if before == 0:
        return "Normal", "Activated", message
    if decision.desired == 0:
        return "Normal", "ScaledToZero", message
    return "Normal", "ScaledUp" if decision.desired > before else "ScaledDown", message


def _version(obj: Object) -> int:
    version = resource_version(obj)
    return int(version) if version.isdecimal() else 0
