"""Which handler answers which path, and the handlers of V1, V2 and the model repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson

from fairlead.runtime.doors import pages
from fairlead.runtime.doors.reply import JSON_HEADERS, Reply, json_reply
from fairlead.runtime.doors.request import Exchange, Limits
from fairlead.runtime.errors import InvalidRequest, LoadError, MethodNotAllowed, NotFound, NotReady, ServingError
from fairlead.runtime.operations.metrics import Metrics
from fairlead.runtime.protocols import cloudevents, documents, generate, v1, v2_rest
from fairlead.runtime.repository import Repository
from fairlead.runtime.tensors import InferRequest

Handler = Callable[..., Awaitable[Reply]]
Route = tuple[Handler, tuple[Any, ...]]


class Routes:
    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        siblings: Callable[[], Awaitable[list[Any]]] | None = None,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._siblings = siblings
        self._hot: dict[str, Route] = {}
        self._fixed: dict[str, tuple[str, Handler]] = {
            "/": ("GET", self._alive),
            "/v1/models": ("GET", self._v1_models),
            "/v2": ("GET", self._server),
            "/v2/": ("GET", self._server),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
            "/v2/models": ("GET", self._v2_models),
            "/v2/repository/index": ("POST", self._index),
            "/v2/models/stats": ("GET", self._all_stats),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
            "/docs": ("GET", self._docs),
        }

    def find(self, exchange: Exchange) -> Route:
        """The handler and its arguments. Raises NotFound, MethodNotAllowed."""
        path = exchange.path
        if exchange.method == "POST":
            hot = self._hot.get(path)
            if hot is not None:
                return hot
        fixed = self._fixed.get(path)
        if fixed is not None:
            _allow(exchange, fixed[0])
            return fixed[1], ()
        method, route = self._match(path)
        _allow(exchange, method)
        if method == "POST" and route[1][0] in self._repository.runners and route[0] in (self._infer, self._v1_predict):
            self._hot[path] = route  # only loaded models' paths: clients cannot make it grow
        return route

    def _match(self, path: str) -> tuple[str, Route]:
        parts = path.split("/")
        if len(parts) >= 4 and parts[1] == "v2" and parts[2] == "models":
            return self._match_v2(parts[3], parts[4:])
        if len(parts) == 4 and parts[1:3] == ["v1", "models"]:
            name, _, verb = parts[3].partition(":")
            handlers = {
                "": ("GET", self._v1_model),
                "predict": ("POST", self._v1_predict),
                "explain": ("POST", self._v1_explain),
            }
            if verb in handlers:
                method, handler = handlers[verb]
                return method, (handler, (name,))
        if len(parts) == 6 and parts[1:4] == ["v2", "repository", "models"] and parts[5] in ("load", "unload"):
            return "POST", (self._load if parts[5] == "load" else self._unload, (parts[4],))
        raise NotFound(f"there is nothing at {path}; see /openapi.json")

    def _match_v2(self, name: str, rest: list[str]) -> tuple[str, Route]:
        version = None
        if len(rest) >= 2 and rest[0] == "versions":
            version, rest = rest[1], rest[2:]
        handlers: dict[str, tuple[str, Handler]] = {
            "": ("GET", self._v2_model),
            "ready": ("GET", self._model_ready),
            "infer": ("POST", self._infer),
            "config": ("GET", self._config),
            "stats": ("GET", self._stats),
            "generate": ("POST", self._generate),
            "generate_stream": ("POST", self._generate_stream),
        }
        known = handlers.get("/".join(rest))
        if known is None:
            raise NotFound(f"a model has no {'/'.join(rest)!r}; see /openapi.json")
        return known[0], (known[1], (name, version))

    # --- Predictions --------------------------------------------------------------------------------------------

    async def _infer(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        exchange.model, exchange.protocol = self._known(name), "v2-http"
        body = await exchange.buffer()
        runner = await self._repository.loaded(name, version)
        request = v2_rest.decode_request(
            body, exchange.header(b"inference-header-content-length"), max_elements=self._limits.max_elements
        )
        self._complete(request, exchange, name)
        encoded, header_length = v2_rest.encode_response(await runner.infer(request), request)
        if header_length is None:
            return Reply(200, encoded, JSON_HEADERS)
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", str(header_length).encode()),
        ]
        return Reply(200, encoded, headers)

    async def _v1_predict(self, exchange: Exchange, name: str) -> Reply:
        return await self._v1_call(exchange, name, explain=False)

    async def _v1_explain(self, exchange: Exchange, name: str) -> Reply:
        return await self._v1_call(exchange, name, explain=True)

    async def _v1_call(self, exchange: Exchange, name: str, *, explain: bool) -> Reply:
        exchange.model, exchange.protocol = self._known(name), "v1"
        body = await exchange.body()
        runner = await self._repository.loaded(name)
        event = cloudevents.decode(exchange.headers, body)
        request = v1.decode_request(
            body if event is None else event.body, runner.contract.metadata.inputs, json_input=runner.json_input
        )
        self._complete(request, exchange, name)
        response = await (runner.explain(request) if explain else runner.infer(request))
        encoded = v1.encode_response(response)
        if event is None:
            return Reply(200, encoded, JSON_HEADERS)
        encoded, headers = cloudevents.encode(event, encoded, name)
        return Reply(200, encoded, headers)

    async def _generate(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        exchange.model, exchange.protocol = self._known(name), "generate"
        request = await self._generate_request(exchange, name, version)
        runner = await self._repository.loaded(name, version)
        return json_reply(generate.encode_response(await runner.infer(request)))

    async def _generate_stream(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        exchange.model, exchange.protocol = self._known(name), "generate"
        request = await self._generate_request(exchange, name, version)
        responses = (await self._repository.loaded(name, version)).stream(request)
        # The first response is awaited here, so that an error before it has its own status.
        first = await anext(responses, None)

        async def events() -> AsyncIterator[bytes]:
            try:
                if first is not None:
                    yield generate.event(generate.encode_response(first))
                async for response in responses:
                    yield generate.event(generate.encode_response(response))
            except ServingError as error:
                yield generate.event({"error": error.message})

        return Reply(200, b"", [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")], events())

    async def _generate_request(self, exchange: Exchange, name: str, version: str | None) -> InferRequest:
        body = await exchange.body()
        inputs = (await self._repository.loaded(name, version)).contract.metadata.inputs
        request = generate.decode_request(body, inputs)
        self._complete(request, exchange, name)
        return request

    def _known(self, name: str) -> str:
        """The model's name for metrics; unknown ones share a label, so that clients cannot make labels."""
        return name if name in self._repository.entries else ""

    def _complete(self, request: InferRequest, exchange: Exchange, name: str) -> None:
        request.model_name = name
        request.deadline = exchange.deadline(request.parameters)
        request.headers = exchange.text_headers()

    # --- Health and metadata ------------------------------------------------------------------------------------

    async def _alive(self, exchange: Exchange) -> Reply:
        return json_reply({"status": "alive"})

    async def _live(self, exchange: Exchange) -> Reply:
        return json_reply({"live": True})

    async def _ready(self, exchange: Exchange) -> Reply:
        ready = await self._repository.all_ready()
        return json_reply({"ready": ready}, 200 if ready else 503)

    async def _model_ready(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        if not await self._repository.ready(name, version):
            raise NotReady(
                f"Model {name} is not ready: {self._repository.entry(name).reason or 'its health() says no'}"
            )
        return json_reply({"name": name, "ready": True})

    async def _server(self, exchange: Exchange) -> Reply:
        return json_reply(documents.server())

    async def _v1_models(self, exchange: Exchange) -> Reply:
        return json_reply({"models": self._repository.names()})

    async def _v1_model(self, exchange: Exchange, name: str) -> Reply:
        ready = await self._repository.ready(name)
        return json_reply({"name": name, "ready": ready}, 200 if ready else 503)

    async def _v2_models(self, exchange: Exchange) -> Reply:
        return json_reply({"models": self._repository.names()})

    async def _v2_model(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        return json_reply(documents.model(await self._repository.loaded(name, version)))

    async def _config(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        return json_reply(documents.config(await self._repository.loaded(name, version)))

    async def _stats(self, exchange: Exchange, name: str, version: str | None) -> Reply:
        return json_reply({"model_stats": [documents.statistics(self._repository.runner(name, version))]})

    async def _all_stats(self, exchange: Exchange) -> Reply:
        runners = self._repository.runners.values()
        return json_reply({"model_stats": [documents.statistics(runner) for runner in runners]})

    async def _metrics(self, exchange: Exchange) -> Reply:
        snapshots = [self._repository.metrics.snapshot()]
        if self._siblings is not None:
            snapshots += await self._siblings()
        return Reply(
            200, Metrics.render(snapshots).encode(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        )

    async def _openapi(self, exchange: Exchange) -> Reply:
        return json_reply(pages.openapi(list(self._repository.runners.values())))

    async def _docs(self, exchange: Exchange) -> Reply:
        return Reply(200, pages.try_it(), [(b"content-type", b"text/html; charset=utf-8")])

    # --- The model repository -----------------------------------------------------------------------------------

    async def _index(self, exchange: Exchange) -> Reply:
        body = await exchange.body()
        try:
            only_ready = bool(orjson.loads(body).get("ready", False)) if body else False
        except (orjson.JSONDecodeError, AttributeError):
            raise InvalidRequest('the body must be a JSON object, such as {"ready": true}') from None
        entries = [entry for entry in self._repository if not only_ready or entry.runner is not None]
        return json_reply([documents.index(entry) for entry in entries])

    async def _load(self, exchange: Exchange, name: str) -> Reply:
        await exchange.body()
        try:
            await self._repository.load(name)
        except LoadError as error:
            raise InvalidRequest(error.message) from error
        return json_reply({"name": name, "load": True})

    async def _unload(self, exchange: Exchange, name: str) -> Reply:
        await exchange.body()
        await self._repository.unload(name)
        return json_reply({"name": name, "unload": True})


def _allow(exchange: Exchange, method: str) -> None:
    if exchange.method != method and not (method == "GET" and exchange.method == "HEAD"):
        raise MethodNotAllowed(f"{exchange.path} takes {method}, not {exchange.method}")
