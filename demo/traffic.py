"""Requests without a pause, from the first answer to the last, each one checked against the models' own predictions."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections import Counter, deque
from typing import Self

from demo.models import Digits

CONNECTIONS = 2
REMEMBERED = 100


class Traffic:
    """`counts`: answers that are `v1`'s, `v2`'s, `either`'s (the two agree on the image), `wrong` (neither's), or `failed`."""

    def __init__(self, port: int, digits: Digits) -> None:
        self.counts: Counter[str] = Counter()
        self.complaints: deque[str] = deque(maxlen=5)
        self.recent: deque[str] = deque(maxlen=REMEMBERED)
        self._port = port
        self._digits = digits
        self._telling = set(digits.telling)
        # Every image is asked for; those that tell the models apart more often.
        order = [index for index in range(len(digits.images)) for _ in range(8 if index in self._telling else 1)]
        self._order = itertools.cycle(order)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(CONNECTIONS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(10)

    def _send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._end.is_set():
            with self._lock:
                index = next(self._order)
            try:
                verdict = self._ask(connection, index)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                connection.close()
                self.complaints.append(f"image {index}: {error!r}")
                verdict = "failed"
            with self._lock:
                self.counts[verdict] += 1
                self.recent.append(verdict)

    def _ask(self, connection: http.client.HTTPConnection, index: int) -> str:
        body = json.dumps({"instances": [self._digits.images[index]]})
        path = "/serving/default/digits/v1/models/digits:predict"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            self.complaints.append(f"image {index}: HTTP {answer.status} {text[:300]!r}")
            return "failed"
        (predicted,) = json.loads(text)["predictions"]
        expected = (self._digits.v1.answers[index], self._digits.v2.answers[index])
        if predicted not in expected:
            self.complaints.append(f"image {index}: answered {predicted}, the models say {expected}")
            return "wrong"
        if expected[0] == expected[1]:
            return "either"
        return "v1" if predicted == expected[0] else "v2"
