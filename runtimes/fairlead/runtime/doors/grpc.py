"""The gRPC door: V2's service with Triton's additional calls, grpc.health.v1 and server reflection.

All of it is served by grpc.aio. Where pygrpc-native is installed, that server stands behind a front that answers ModelInfer
itself (`native`): grpc.aio is the limit of a small model.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from fairlead.runtime.doors.native import NOT_PARSED, NativeFront, retry_metadata
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
        self._native = choose_front(front) == "native"
        self._shared = shared
        self._health = health.aio.HealthServicer()
        self._server: Any = None
        self._front: NativeFront | None = None
        self._directory: str | None = None
        self.port = 0

    async def start(self) -> None:
        """Raises OSError if the port cannot be bound."""
        server = self._make_server()
        try:
            if self._native:
                self._front = self._make_front()
                self.port = self._front.port
                self._directory = tempfile.mkdtemp(prefix="fairlead-grpc-")
                behind = str(Path(self._directory, "behind.sock"))
                server.add_insecure_port(f"unix:{behind}")
            else:
                self.port = server.add_insecure_port(self._address)
        except (OSError, RuntimeError) as error:
            raise OSError(0, f"cannot listen on {self._address} for gRPC: the port is in use or not ours") from error
        await server.start()
        if self._front is not None:
            self._front.start(behind)
        self._server = server

    def _make_front(self) -> NativeFront:
        method = f"/{pb.SERVICE}/ModelInfer"
        return NativeFront(
            self._address, method, self._service.predict, max_message=self._limits.max_body, shared=self._shared
        )

    def _make_server(self) -> Any:
        options = [
            ("grpc.max_receive_message_length", self._limits.max_body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(self._shared)),
        ]
        server = grpc.aio.server(options=options)
        server.add_registered_method_handlers(pb.SERVICE, self._service.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [pb.SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names, pool=_AllPools()), server)
        return server

    async def serving(self, ready: bool) -> None:
        """What grpc.health.v1 says."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", pb.SERVICE):
            await self._health.set(service, status)

    async def stop(self, grace: float) -> None:
        if self._server is not None:
            both = (
                [self._server.stop(grace)]
                if self._front is None
                else [self._server.stop(grace), self._front.stop(grace)]
            )
            await asyncio.gather(*both)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def choose_front(wanted: str) -> str:
    if wanted == "auto":
        return "native" if importlib.util.find_spec("pygrpc_native") is not None else "grpcio"
    return wanted


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
        handlers["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self.infer)
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self.stream_infer, v2_grpc.parse, pb.ModelStreamInferResponse.SerializeToString
        )
        return handlers

    # --- Predictions --------------------------------------------------------------------------------------------

    async def predict(self, payload: bytes, headers: Mapping[str, str], remaining: float | None) -> bytes:
        """The answer to a ModelInferRequest. Raises ServingError, and protobuf's DecodeError if it is none."""
        started = time.perf_counter()
        incoming = v2_grpc.parse(payload)
        message = incoming.message
        name = message.model_name
        metrics = self._repository.metrics
        label = name if name in self._repository.entries else ""
        try:
            runner = await self._repository.loaded(name, message.model_version)
            request = self._decode(incoming, headers, remaining)
            response = v2_grpc.encode_response(await runner.infer(request), raw=bool(incoming.raw))
        except ServingError as error:
            metrics.requests.add((label, "v2-grpc", _CODES[error.grpc_code].name))
            if error.__cause__ is not None and error.http_status >= 500:
                log.error("ModelInfer %s: %s", name, error, exc_info=error.__cause__)
            raise
        except asyncio.CancelledError:
            metrics.requests.add((label, "v2-grpc", "CANCELLED"))
            raise
        metrics.requests.add((label, "v2-grpc", "OK"))
        metrics.seconds.child((label, "v2-grpc")).observe(time.perf_counter() - started)
        return bytes(response.SerializeToString())

    async def infer(self, payload: bytes, context: Any) -> bytes:
        """`predict` as a handler of grpc.aio's."""
        try:
            return await self.predict(payload, _headers(context), context.time_remaining())
        except ServingError as error:
            return await _abort(context, error)  # type: ignore[no-any-return]
        except DecodeError:
            return await context.abort(grpc.StatusCode.INTERNAL, NOT_PARSED)  # type: ignore[no-any-return]

    async def stream_infer(self, messages: AsyncIterator[v2_grpc.Incoming], context: Any) -> AsyncIterator[Any]:
        """Each request's responses in turn; an error is a response, the stream goes on, as with Triton."""
        async for incoming in messages:
            message = incoming.message
            try:
                runner = await self._repository.loaded(message.model_name, message.model_version)
                request = self._decode(incoming, _headers(context), context.time_remaining())
                raw = bool(incoming.raw)
                async for response in runner.stream(request):
                    yield pb.ModelStreamInferResponse(infer_response=v2_grpc.encode_response(response, raw=raw))
                if request.parameters.get("triton_enable_empty_final_response"):
                    yield _final(message)
            except ServingError as error:
                yield pb.ModelStreamInferResponse(
                    error_message=error.message, infer_response=pb.ModelInferResponse(id=message.id)
                )

    def _decode(self, incoming: v2_grpc.Incoming, headers: Mapping[str, str], remaining: float | None) -> InferRequest:
        request = v2_grpc.decode_request(incoming, max_elements=self._limits.max_elements)
        request.headers = headers
        if remaining is not None:
            request.deadline = time.monotonic() + remaining
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


def _headers(context: Any) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def _abort(context: Any, error: ServingError) -> Any:
    await context.abort(_CODES[error.grpc_code], error.message, retry_metadata(error))
