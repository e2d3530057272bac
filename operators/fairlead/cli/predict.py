"""`fairlead predict`: one request through the gateway, by path, in V1, V2 or gRPC."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from fairlead.cli import options
from fairlead.cli.errors import CliError
from fairlead.cli.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fairlead.kube.objects import Object


class Protocol(StrEnum):
    V1 = "v1"
    V2 = "v2"
    GRPC = "grpc"


def predict(
    name: options.Service,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, @FILE, or @- for standard input.")],
    protocol: Annotated[
        Protocol | None, typer.Option(help="Told by the data if not given: `instances` is v1, tensors are v2.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model's name, if it is not the service's.")] = None,
    component: Annotated[str | None, typer.Option(help="Straight to predictor, transformer or explainer.")] = None,
    url: Annotated[
        str | None, typer.Option(help="The gateway, such as http://localhost:8080; FAIRLEAD_URL if not given.")
    ] = None,
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="NAME: VALUE; may be repeated.")] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 60.0,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    from fairlead.cli.cluster import Target, connected, get_service, run

    payload = read_payload(data)
    chosen = protocol or guess_protocol(payload)
    target = Target(kubeconfig, context)

    async def find() -> Object:
        async with connected(target) as client:
            return await get_service(client, name, namespace or client.namespace)

    isvc = run(find())
    request = build(isvc, payload, chosen, gateway=target.gateway_url(url), model=model or name, component=component)
    headers = parse_headers(header or [])
    if chosen is Protocol.GRPC:
        from fairlead.cli.grpc_client import infer

        answer: object = infer(request, payload, model or name, headers, timeout)
    else:
        from fairlead.cli.http_client import post

        answer = post(request, headers, timeout)
    print(
        answer
        if isinstance(answer, str)
        else json.dumps(answer, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False)
    )


def read_payload(data: str) -> dict[str, Any]:
    """The JSON object in `data`, which is text, @FILE or @-; raises CliError saying where it is wrong."""
    source = "-d"
    if data.startswith("@"):
        source = data[1:]
        try:
            data = sys.stdin.read() if source == "-" else Path(source).read_text()
        except OSError as error:
            raise CliError(f"cannot read {source}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise CliError(f"{source} is not text; -d takes JSON") from None
    try:
        payload = json.loads(data)
    except json.JSONDecodeError as error:
        hint = "" if source != "-d" or not Path(data).is_file() else f". To send the file, write -d @{data}"
        raise CliError(
            f"{source} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{hint}"
        ) from None
    if not isinstance(payload, dict):
        raise CliError(f'{source} must be a JSON object, such as {{"instances": [[1, 2, 3]]}}')
    return payload


def guess_protocol(payload: Mapping[str, Any]) -> Protocol:
    """V2 if `inputs` are tensors with a datatype, else V1."""
    inputs = payload.get("inputs")
    tensors = isinstance(inputs, list) and inputs and all(isinstance(t, dict) and "datatype" in t for t in inputs)
    return Protocol.V2 if tensors else Protocol.V1


def build(
    isvc: Mapping[str, Any],
    payload: Mapping[str, Any],
    protocol: Protocol,
    *,
    gateway: str | None,
    model: str,
    component: str | None = None,
) -> Request:
    """The request: by path at a known gateway, else at the service's own address. gRPC finds its service by :authority alone.

    Raises CliError if neither address is known.
    """
    from fairlead.api import names

    metadata = isvc["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    base = f"{gateway}{names.path(name, namespace, component)}" if gateway else _own_address(isvc, component)
    if protocol is Protocol.GRPC:
        cluster_host = names.cluster_host(name, namespace, component) if component else f"{name}.{namespace}"
        host = cluster_host if gateway else None
        return Request(base, host, b"")
    verb = f"/v1/models/{model}:predict" if protocol is Protocol.V1 else f"/v2/models/{model}/infer"
    return Request(f"{base}{verb}", None, json.dumps(payload).encode())


def _own_address(isvc: Mapping[str, Any], component: str | None) -> str:
    status = isvc.get("status") or {}
    place = ((status.get("components") or {}).get(component) or {}) if component else status
    if not place.get("url"):
        from fairlead.cli.render import why_not_ready

        raise CliError(f"{isvc['metadata']['name']} has no address yet: {why_not_ready(isvc) or 'it is not ready'}")
    url: str = place["url"]
    if not urlsplit(url).hostname:
        raise CliError(f"{url} in the status is no address; give the gateway's with --url or FAIRLEAD_URL")
    return url.rstrip("/")


def parse_headers(lines: list[str]) -> dict[str, str]:
    """`Name: value` lines, as curl takes them."""
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise CliError(f"{line!r} is not a header; write 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    return headers
