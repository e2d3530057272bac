"""The gRPC door: V2's service with Triton's additional calls, grpc.health.v1 and server reflection.

Two implementations take the same handlers. pygrpc-native does HTTP/2 and gRPC in Rust and is several times as fast as
grpc.aio, which stays as the one for platforms without it, and serves bidirectional streams behind it in any case.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from fairlead.runtime.doors.request import Limits
from fairlead.runtime.errors import InvalidRequest, LoadError, ServingError
from fairlead.runtime.protocols import documents, pb, v2_grpc
from fairlead.runtime.repository import Repository
from fairlead.runtime.tensors import InferRequest

log = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcDoor:
    """The gRPC server of one model server."""

    def __init__(
        self,
        repository: Repository,
        address: str,
        *,
        limits: Limits | None = None,
        front: str = "auto",
        shared: bool = False,
    ) -> None:
        self._limits = limits or Limits()
        self._address = address
        self._service = Service(repository, self._limits)
        self._front = choose_front(front)
        self._shared = shared
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self.port = 0

    async def start(self) -> None:
        """Raises OSError if the port cannot be bound."""
        options = [
            ("grpc.max_receive_message_length", self._limits.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(self._shared)),
        ]
        server = _native_server(options) if self._front == "native" else grpc.aio.server(options=options)
        server.add_registered_method_handlers(pb.SERVICE, self._service.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [pb.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names, pool=_AllPools()), server)
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(0, f"cannot listen on {self._address} for gRPC: the port is in use or not ours") from error
        await server.start()
        self._server = server

    async def serving(self, ready: bool) -> None:
        """What grpc.health.v1 says."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", pb.SERVICE):
            await self._health.set(service, status)

    async def stop(self, grace: float) -> None:
        if self._server is not None:
            await self._server.stop(grace)


def choose_front(wanted: str) -> str:
    if wanted == "auto":
        return "native" if importlib.util.find_spec("pygrpc_native") is not None else "grpcio"
    return wanted


def _native_server(options: list[tuple[str, Any]]) -> Any:
    import pygrpc_native.aio

    return pygrpc_native.aio.server(options=[option for option in options if option[1] != -1])


class _AllPools:
    """For reflection: our messages are in a pool of their own, the health service's in the default one."""

    def __getattr__(self, name: str) -> Any:
        from google.protobuf import descriptor_pool

        def find(*arguments: Any) -> Any:
            try:
                return getattr(pb.POOL, name)(*arguments)
            except KeyError:
                return getattr(descriptor_pool.Default(), name)(*arguments)

        return find


Method = Callable[[Any, Any], Awaitable[Any]]


class Service:
    """The methods of inference.GRPCInferenceService."""

    def __init__(self, repository: Repository, limits: Limits) -> None:
        self._repository = repository
        self._limits = limits

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """A handler for each method of the service: errors become gRPC statuses in one place."""
        methods: dict[str, Method] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _with_status(method),
                pb.message(f"{name}Request").FromString,
                pb.message(f"{name}Response").SerializeToString,
            )
            for name, method in methods.items()
        }
        serialize = pb.ModelInferResponse.SerializeToString
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer, v2_grpc.parse, serialize)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self.stream_infer, v2_grpc.parse, pb.ModelStreamInferResponse.SerializeToString
        )
        return handlers

    # --- Predictions --------------------------------------------------------------------------------------------

    async def infer(self, incoming: v2_grpc.Incoming, context: Any) -> Any:
        started = time.perf_counter()
        message = incoming.message
        name = message.model_name
        metrics = self._repository.metrics
        label = name if name in self._repository.entries else ""
        try:
            runner = await self._repository.loaded(name, message.model_version)
            request = self._decode(incoming, context)
            response = v2_grpc.encode_response(await runner.infer(request), raw=bool(incoming.raw))
        except ServingError as error:
            metrics.requests.add((label, "v2-grpc", _CODES[error.grpc_code].name))
            if error.__cause__ is not None and error.http_status >= 500:
                log.error("ModelInfer %s: %s", name, error, exc_info=error.__cause__)
            await _abort(context, error)
        metrics.requests.add((label, "v2-grpc", "OK"))
        metrics.seconds.child((label, "v2-grpc")).observe(time.perf_counter() - started)
        return response

    async def stream_infer(self, messages: AsyncIterator[v2_grpc.Incoming], context: Any) -> AsyncIterator[Any]:
        """Each request's responses in turn; an error is a response, the stream goes on, as with Triton."""
        async for incoming in messages:
            message = incoming.message
            try:
                runner = await self._repository.loaded(message.model_name, message.model_version)
                request = self._decode(incoming, context)
                raw = bool(incoming.raw)
                async for response in runner.stream(request):
                    yield pb.ModelStreamInferResponse(infer_response=v2_grpc.encode_response(response, raw=raw))
                if request.parameters.get("triton_enable_empty_final_response"):
                    yield _final(message)
            except ServingError as error:
                yield pb.ModelStreamInferResponse(
                    error_message=error.message, infer_response=pb.ModelInferResponse(id=message.id)
                )

    def _decode(self, incoming: v2_grpc.Incoming, context: Any) -> InferRequest:
        request = v2_grpc.decode_request(incoming, max_elements=self._limits.max_elements)
        remaining = context.time_remaining()
        if remaining is not None and remaining < 1e8:  # both implementations have a way of saying "none"
            request.deadline = time.monotonic() + remaining
        metadata = context.invocation_metadata()
        if metadata:
            request.headers = {key: value for key, value in metadata if isinstance(value, str)}
        return request

    # --- Health and metadata ------------------------------------------------------------------------------------

    async def server_live(self, message: Any, context: Any) -> Any:
        return pb.message("ServerLiveResponse")(live=True)

    async def server_ready(self, message: Any, context: Any) -> Any:
        return pb.message("ServerReadyResponse")(ready=await self._repository.all_ready())

    async def model_ready(self, message: Any, context: Any) -> Any:
        ready = await self._repository.ready(message.name, message.version)
        return pb.message("ModelReadyResponse")(ready=ready)

    async def server_metadata(self, message: Any, context: Any) -> Any:
        return pb.message("ServerMetadataResponse")(**documents.server())

    async def model_metadata(self, message: Any, context: Any) -> Any:
        document = documents.model(await self._repository.loaded(message.name, message.version))
        document.pop("parameters", None)
        for kind in ("inputs", "outputs"):
            document[kind] = [{k: tensor[k] for k in ("name", "datatype", "shape")} for tensor in document[kind]]
        return pb.message("ModelMetadataResponse")(**document)

    async def model_config(self, message: Any, context: Any) -> Any:
        runner = await self._repository.loaded(message.name, message.version)
        return pb.message("ModelConfigResponse")(config=documents.config(runner))

    async def model_statistics(self, message: Any, context: Any) -> Any:
        runners = (
            [self._repository.runner(message.name, message.version)]
            if message.name
            else self._repository.runners.values()
        )
        return pb.message("ModelStatisticsResponse")(model_stats=[documents.statistics(runner) for runner in runners])

    async def repository_index(self, message: Any, context: Any) -> Any:
        entries = [entry for entry in self._repository if entry.runner is not None or not message.ready]
        return pb.message("RepositoryIndexResponse")(models=[documents.index(entry) for entry in entries])

    async def load(self, message: Any, context: Any) -> Any:
        name = message.triton_model_name or message.model_name
        try:
            await self._repository.load(name)
        except LoadError as error:
            raise InvalidRequest(error.message) from error
        return pb.message("RepositoryModelLoadResponse")(model_name=name, isLoaded=True)

    async def unload(self, message: Any, context: Any) -> Any:
        name = message.triton_model_name or message.model_name
        await self._repository.unload(name)
        return pb.message("RepositoryModelUnloadResponse")(model_name=name, isUnloaded=True)


def _final(message: Any) -> Any:
    response = pb.ModelInferResponse(model_name=message.model_name, id=message.id)
    response.parameters["triton_final_response"].bool_param = True
    return pb.ModelStreamInferResponse(infer_response=response)


def _with_status(method: Method) -> Method:
    async def call(message: Any, context: Any) -> Any:
        try:
            return await method(message, context)
        except ServingError as error:
            return await _abort(context, error)

    return call


async def _abort(context: Any, error: ServingError) -> Any:
    trailing = () if error.retry_after is None else (("grpc-retry-pushback-ms", str(error.retry_after * 1000)),)
    await context.abort(_CODES[error.grpc_code], error.message, trailing)
