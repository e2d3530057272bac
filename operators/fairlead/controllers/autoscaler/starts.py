"""What a pod's start was made of: Kubernetes' part from the pod's status, the model server's own from its metrics.

    schedule  from the pod made (or from the decision to scale, where that is known) to a node found
    image     to the process started: image pulled, sandbox and container made
    download  init containers, and what the model server waited for the model's files
    import    Python, the server's modules and the framework's, as far as they were not imported during the download
    load      the model
    ready     what was left until Kubernetes knew that it is ready

Kubernetes tells whole seconds. Our model servers say to the millisecond when their process started and how long each of their phases took; of others only `schedule`,
`image`, `download` by init containers, and `ready` are known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fairlead.api import names
from fairlead.api.base import Open
from fairlead.controllers.autoscaler.board import Board, Start
from fairlead.controllers.autoscaler.scraping import BUDGET, Fetch, Unanswered, url
from fairlead.controllers.inferenceservice.readiness import is_ready
from fairlead.kube.objects import Key, Object, key_of, parse_timestamp, utcnow

log = logging.getLogger(__name__)

PHASES = ("schedule", "image", "download", "import", "load", "ready")
FRESH = timedelta(seconds=30)
"""A pod that has been ready for longer is not news: an operator that starts looks at no pod that was there before."""
AT_MOST = 1000
"""Pods that wait to be measured; the oldest are let go."""
_STARTUP = 'fairlead_startup_seconds{phase="'
_PROCESS = "fairlead_process_start_time_seconds"


def start(pod: Object, metrics: str, decided: datetime | None = None) -> Start | None:
    """Of a pod that is ready; None if its status does not say when it was scheduled. `metrics` may be empty."""
    status, name = pod["status"], pod["metadata"]["name"]
    conditions: list[Object] = status.get("conditions", [])
    at: dict[str, str] = {c["type"]: c["lastTransitionTime"] for c in conditions if c.get("lastTransitionTime")}
    if "PodScheduled" not in at or "Ready" not in at:
        return None
    scheduled, ready = parse_timestamp(at["PodScheduled"]), parse_timestamp(at["Ready"])
    made = parse_timestamp(pod["metadata"].get("creationTimestamp") or at["PodScheduled"])
    if decided is not None and timedelta(0) <= made + timedelta(seconds=1) - decided <= timedelta(seconds=3):
        made = decided
    fetched = sum(map(_ran, status.get("initContainerStatuses", ())))
    began, phases = _own(metrics)
    running = (began or _started(status) or ready).timestamp()
    seconds: dict[str, float] = {
        "schedule": (scheduled - made).total_seconds(),
        "image": running - scheduled.timestamp() - fetched,
        "download": fetched + phases.get("download", 0.0),
        **{phase: phases[phase] for phase in ("import", "load") if phase in phases},
        "ready": ready.timestamp() - running - sum(phases.get(phase, 0.0) for phase in ("download", "import", "load")),
    }
    return Start(name, at["Ready"], {phase: max(0.0, seconds[phase]) for phase in PHASES if phase in seconds})


class Starts:
    """Measures each pod of a service once, when it becomes ready, and puts it on the board."""

    def __init__(
        self,
        board: Board,
        port: Callable[[Object], int],
        fetch: Fetch,
        changed: Callable[[Key], None],
        *,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        """`port`: where a pod serves its metrics; `changed` is told which InferenceService's status has something new to say."""
        self._board = board
        self._port = port
        self._fetch = fetch
        self._changed = changed
        self._now = now
        self._pods: asyncio.Queue[Object] = asyncio.Queue(AT_MOST)

    def noticed(self, old: Object | None, new: Object | None) -> None:
        """An informer's handler."""
        if new is not None and is_ready(new) and (old is None or not is_ready(old)) and self._is_news(new):
            if self._pods.full():  # a standby measures nothing
                self._pods.get_nowait()
            self._pods.put_nowait(new)

    async def run(self) -> None:
        while True:
            pod = await self._pods.get()
            if self._is_news(pod):
                try:
                    await self.measure(pod)
                except Exception:
                    log.exception("the start of %s is not measured", key_of(pod))

    async def measure(self, pod: Object) -> None:
        labels = pod["metadata"]["labels"]
        service = Key(pod["metadata"]["namespace"], labels[names.LABEL_INFERENCE_SERVICE])
        text = ""
        try:
            async with asyncio.timeout(BUDGET):
                text = await self._fetch(url(pod["status"].get("podIP", ""), self._port(pod), "/metrics"))
        except (Unanswered, TimeoutError):
            log.debug("%s tells nothing of its start", key_of(pod))
        workload = Key(service.namespace, labels.get(names.LABEL_WORKLOAD, ""))
        outcome = self._board.outcome(workload)
        found = start(pod, text, outcome.last_scale if outcome is not None else None)
        if found is not None:
            self._board.started(service, labels.get(names.LABEL_REVISION, ""), found)
            self._changed(service)

    def _is_news(self, pod: Object) -> bool:
        times = [c.get("lastTransitionTime") for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"]
        return any(time is not None and self._now() - parse_timestamp(time) < FRESH for time in times)


def _own(metrics: str) -> tuple[datetime | None, dict[str, float]]:
    """(when the process started, its phases), as far as it says."""
    began, phases = None, {}
    for line in metrics.splitlines():
        name, _, text = line.rpartition(" ")
        if (name == _PROCESS or name.startswith(_STARTUP)) and (value := _seconds(text)) is not None:
            if name == _PROCESS:
                began = datetime.fromtimestamp(value, UTC)
            else:
                phases[name.removeprefix(_STARTUP).rstrip('"}')] = value
    return began, phases


def _seconds(text: str) -> float | None:
    """None for what is no time, or none of this century's: anybody's container may export such a metric."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e10 else None


def _started(status: Open) -> datetime | None:
    """The latest of the containers."""
    times = [
        entry.get("state", {}).get("running", {}).get("startedAt") for entry in status.get("containerStatuses", ())
    ]
    return max((parse_timestamp(time) for time in times if time), default=None)


def _ran(container: Open) -> float:
    state = container.get("state", {}).get("terminated", {})
    if not state.get("startedAt") or not state.get("finishedAt"):  # null where a node has forgotten
        return 0.0
    return (parse_timestamp(state["finishedAt"]) - parse_timestamp(state["startedAt"])).total_seconds()
