"""The end of a failed container's log, for the rare pod whose status does not have it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from fairlead.controllers.cluster import Writer
from fairlead.controllers.inferenceservice.failures import MESSAGE_LIMIT, Copies, Failure
from fairlead.kube.errors import ApiError

LINES = 20
REMEMBERED = 256


class LastWords:
    """Reads each failed run's log once."""

    def __init__(self, client: Writer) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, str, str | None], str] = OrderedDict()

    async def last_words(self, namespace: str, found: Copies) -> Copies:
        failure = found.failure
        if failure is None or failure.message or not failure.container:
            return found
        run = (namespace, failure.pod, failure.time)
        if run not in self._known:
            self._known[run] = await self._read(namespace, failure)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return replace(found, failure=replace(failure, message=self._known[run]))

    async def _read(self, namespace: str, failure: Failure) -> str:
        for previous in (True, False):
            try:
                text = await self._client.logs(
                    failure.pod, namespace, container=failure.container, tail=LINES, previous=previous
                )
            except ApiError:
                continue  # there is no such run any more, or no log: nothing better can be said
            if text.strip():
                return text.strip()[-MESSAGE_LIMIT:]
        return ""
