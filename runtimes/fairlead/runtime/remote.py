"""The predict of a transformer: what its model does not predict itself goes to the predictor that the flags name.

Synchronous, over connections that are kept, in the model's threads: each waits for one answer.
"""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any

import orjson

from fairlead.runtime.errors import DeadlineExceeded, InvalidRequest, LoadError, NotReady, ServingError
from fairlead.runtime.model import Model
from fairlead.runtime.protocols import v1, v2_rest
from fairlead.runtime.settings import Settings
from fairlead.runtime.tensors import InferRequest, InferResponse

FORWARDED = ("authorization", "x-request-id", "traceparent", "tracestate")
"""Headers of the client's that the predictor gets too."""
CONNECTIONS = 32


def connect(model: Model, settings: Settings) -> Model:
    """The model, whose predict calls the predictor if it has none of its own and a predictor is named."""
    if settings.predictor_host is None:
        return model
    target = getattr(model, "target", None)
    if target is not None and hasattr(type(target), "predictor_config"):
        _tell_kserve(type(target), settings)
    elif type(model).predict is Model.predict:
        predictor = RemotePredictor(model.name, settings)
        model.predict = predictor.predict  # type: ignore[method-assign]
        model.unload = predictor.close  # type: ignore[method-assign]
        model.threads = CONNECTIONS
    return model


def _tell_kserve(kind: Any, settings: Settings) -> None:
    """kserve.Model's own predict asks its property `predictor_config`, which reads a context variable of kserve's server."""
    from kserve.predictor_config import PredictorConfig

    kind.predictor_config = PredictorConfig(
        predictor_host=settings.predictor_host,
        predictor_protocol=settings.predictor_protocol,
        predictor_use_ssl=settings.predictor_use_ssl,
        predictor_request_timeout_seconds=int(settings.predictor_timeout),
    )


class RemotePredictor:
    """A model of the same name, served elsewhere over V1 or V2 REST."""

    def __init__(self, name: str, settings: Settings) -> None:
        if settings.predictor_protocol not in ("v1", "v2"):
            raise LoadError(f"--predictor_protocol {settings.predictor_protocol!r}: a transformer calls v1 or v2")
        self._name = name
        # Behind a gateway the predictor's address has a path.
        self._host, slash, path = (settings.predictor_host or "").rstrip("/").partition("/")
        self._prefix = slash + path
        self._v2 = settings.predictor_protocol == "v2"
        self._tls = settings.predictor_use_ssl
        self._timeout = settings.predictor_timeout
        self._idle: list[Any] = []

    def predict(self, request: InferRequest) -> InferResponse:
        if not self._v2:
            answer, _ = self._post(f"/v1/models/{self._name}:predict", v1.encode_request(request), request, {})
            return v1.decode_response(answer)
        body, length = v2_rest.encode_request(request)
        headers = {} if length is None else {"Inference-Header-Content-Length": str(length)}
        return v2_rest.decode_response(*self._post(f"/v2/models/{self._name}/infer", body, request, headers))

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _post(self, path: str, body: bytes, request: InferRequest, headers: dict[str, str]) -> tuple[bytes, str | None]:
        """The answer's body, and the length of its JSON part if it says so."""
        headers |= {name: request.headers[name] for name in FORWARDED if name in request.headers}
        headers["Content-Type"] = "application/octet-stream" if self._v2 else "application/json"
        connection = self._idle.pop() if self._idle else self._new_connection()
        connection.timeout = self._remaining(request)
        try:
            response = _send(connection, self._prefix + path, body, headers)
            answer = response.read()
        except TimeoutError:
            connection.close()
            raise DeadlineExceeded(f"the predictor {self._host} did not answer in time") from None
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NotReady(f"the predictor {self._host} cannot be reached: {error}") from error
        self._idle.append(connection)
        if response.status != 200:
            raise _error(response.status, answer)
        return answer, response.getheader("Inference-Header-Content-Length")

    def _new_connection(self) -> Any:
        if self._tls:
            return http.client.HTTPSConnection(self._host, context=ssl.create_default_context())
        return http.client.HTTPConnection(self._host)

    def _remaining(self, request: InferRequest) -> float:
        if request.deadline is None:
            return self._timeout
        return max(0.001, min(self._timeout, request.deadline - time.monotonic()))


def _send(connection: Any, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
    kept = connection.sock is not None
    if kept:
        connection.sock.settimeout(connection.timeout)
    try:
        connection.request("POST", path, body, headers)
        response: http.client.HTTPResponse = connection.getresponse()
    except (ConnectionError, http.client.BadStatusLine):
        if not kept:
            raise
        connection.close()  # the other end had closed it while it was idle
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
    return response


def _error(status: int, answer: bytes) -> ServingError:
    """The predictor's error, as ours."""
    try:
        message = str(orjson.loads(answer)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = f"the predictor answered {status}"
    if status == 503:
        return NotReady(message)
    if 400 <= status < 500:
        return InvalidRequest(message)
    return ServingError(message)
