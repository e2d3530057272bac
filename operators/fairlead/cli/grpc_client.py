"""One Open Inference Protocol call over gRPC, with the V2 JSON of the command line as its message."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
from google.protobuf import json_format

from fairlead.cli.errors import CliError
from fairlead.runtime.protocols import pb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.cli.request import Request

METHOD = f"/{pb.SERVICE}/ModelInfer"
MAX_MESSAGE_BYTES = 1 << 30
_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def infer(
    request: Request, payload: Mapping[str, Any], model: str, headers: Mapping[str, str], timeout: float
) -> dict[str, Any]:
    """The answer as V2 JSON; raises CliError with the server's own words."""
    message = to_message(payload, model)
    with _channel(request) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            return to_json(call(message, timeout=timeout, metadata=metadata))
        except grpc.RpcError as error:
            where = urlsplit(request.url).netloc
            words = " ".join((error.details() or "").split())
            raise CliError(f"{where} answered {error.code().name}: {words or 'nothing more'}") from None


def _channel(request: Request) -> grpc.Channel:
    url = urlsplit(request.url)
    settings: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0 if url.hostname in ("localhost", "127.0.0.1", "::1") else 1),
    ]
    if request.host:
        settings.append(("grpc.default_authority", request.host))
    if url.scheme == "https":
        return grpc.secure_channel(f"{url.hostname}:{url.port or 443}", grpc.ssl_channel_credentials(), settings)
    return grpc.insecure_channel(f"{url.hostname}:{url.port or 80}", settings)


def to_message(payload: Mapping[str, Any], model: str) -> Any:
    """A ModelInferRequest of a V2 JSON request; raises CliError naming the input that does not fit."""
    inputs = payload.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        raise CliError(
            'gRPC takes V2 requests: {"inputs": [{"name": …, "shape": […], "datatype": "FP32", "data": […]}]}'
        )
    message = pb.ModelInferRequest(model_name=model, id=str(payload.get("id", "")))
    for item in inputs:
        name, datatype = item.get("name", ""), item.get("datatype", "")
        if datatype not in _FIELDS:
            raise CliError(
                f"input {name!r}: datatype {datatype!r} has no JSON form in gRPC; it takes {', '.join(_FIELDS)}"
            )
        document = {
            "name": name,
            "datatype": datatype,
            "shape": item.get("shape", []),
            "parameters": {key: _parameter(value) for key, value in (item.get("parameters") or {}).items()},
            "contents": {_FIELDS[datatype]: _flat(item.get("data", []), datatype)},
        }
        try:
            json_format.ParseDict(document, message.inputs.add())
        except json_format.ParseError as error:
            raise CliError(f"input {name!r}: {error}") from None
    return message


def to_json(message: Any) -> dict[str, Any]:
    """A ModelInferResponse as V2 JSON; raw contents are decoded too."""
    outputs = []
    for index, output in enumerate(message.outputs):
        if index < len(message.raw_output_contents):
            data = _decode(output.datatype, list(output.shape), message.raw_output_contents[index])
        else:
            data = [_text(value) for value in getattr(output.contents, _FIELDS[output.datatype])]
        outputs.append({"name": output.name, "datatype": output.datatype, "shape": list(output.shape), "data": data})
    named = {"model_name": message.model_name, "model_version": message.model_version, "id": message.id}
    return {**{key: value for key, value in named.items() if value}, "outputs": outputs}


def _parameter(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_param": value}
    return {"int64_param": value} if isinstance(value, int) else {"string_param": str(value)}


def _flat(data: Any, datatype: str) -> list[Any]:
    if isinstance(data, list):
        return [value for part in data for value in _flat(part, datatype)]
    return [base64.b64encode(str(data).encode()).decode() if datatype == "BYTES" else data]


def _decode(datatype: str, shape: list[int], raw: bytes) -> list[Any]:
    import math

    from fairlead.runtime.protocols import wire

    array = wire.decode("output", datatype, shape, math.prod(shape), raw)
    return [_text(value) for value in array.reshape(-1).tolist()]


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
