"""HTTP: who may ask, what is asked, and how an answer goes out."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from . import discovery, errors
from .bodies import accepted, parse
from .calls import Answer, Call, json_answer
from .errors import StatusError
from .kinds import Kinds
from .openapi import EMPTY_V2, EMPTY_V2_PROTOBUF, OpenApi
from .resources import Resources
from .routes import Review, resolve
from .subresources import review

log = logging.getLogger(__name__)

PUBLIC = ("/healthz", "/livez", "/readyz", "/version")
LARGEST_BODY = 3 * 1024 * 1024
"""Kubernetes' limit."""


class Server:
    """The handler of all requests; no router, since the paths are Kubernetes' own grammar."""

    def __init__(self, resources: Resources, kinds: Kinds, token: str) -> None:
        self.resources = resources
        self.kinds = kinds
        self.openapi = OpenApi(kinds)
        self.address = ""
        self._authorization = f"Bearer {token}".encode()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
            if answer.stream is None:
                return _response(answer)
            return await _stream(request, answer)
        except StatusError as fault:
            return _response(json_answer(fault.status(), fault.code))
        except web.HTTPException:
            raise
        except ConnectionError:
            raise
        except Exception as fault:
            log.exception("%s %s", request.method, request.path)
            text = f"the API server failed: {type(fault).__name__}: {fault}; its log has more"
            return _response(json_answer(StatusError(500, "InternalError", text).status(), 500))

    async def _answer(self, request: web.BaseRequest) -> Answer:
        path = request.path
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if path not in PUBLIC and not hmac.compare_digest(given, self._authorization):
            raise errors.unauthorized()
        parts = path.strip("/").split("/")
        if (parts[0] == "api" and len(parts) > 2) or (parts[0] == "apis" and len(parts) > 3):
            return await self._resource(request, parts)
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        return self._about(path.rstrip("/"), parts, request.headers)

    async def _resource(self, request: web.BaseRequest, parts: list[str]) -> Answer:
        target = resolve(self.kinds, parts)
        body = await _body(request) if request.method != "GET" else b""
        headers = request.headers
        if isinstance(target, Review):
            return json_answer(review(target, parse(body, headers.get("Content-Type", ""))), 201)
        call = Call(
            request.method, target, request.query, headers.get("Accept", ""), headers.get("Content-Type", ""),
            headers.get("User-Agent", ""), body,
        )  # fmt: skip
        return self.resources.answer(call)

    def _about(self, path: str, parts: list[str], headers: Mapping[str, str]) -> Answer:
        """Discovery, OpenAPI, version and health."""
        if path in ("/healthz", "/livez", "/readyz"):
            return Answer(b"ok", content_type="text/plain")
        if path == "/version":
            return json_answer(discovery.VERSION)
        if parts[0] == "openapi":
            return self._openapi(path, parts, headers.get("Accept", ""))
        found: Any = None
        if path in ("/api", "/apis"):
            if "apidiscovery.k8s.io" in (accept := headers.get("Accept", "")) and _wants_aggregated(accept):
                made = discovery.aggregated(self.kinds, core=path == "/api")
                return Answer(orjson.dumps(made), content_type=discovery.AGGREGATED)
            found = discovery.versions(self.address) if path == "/api" else discovery.groups(self.kinds)
        elif parts[0] == "api":
            found = discovery.resources(self.kinds, "", parts[1])
        elif parts[0] == "apis":
            found = (
                discovery.group(self.kinds, parts[1])
                if len(parts) == 2
                else discovery.resources(self.kinds, parts[1], parts[2])
            )
        elif not path:
            found = {
                "paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            }
        if found is None:
            raise errors.no_such_path()
        return json_answer(found)

    def _openapi(self, path: str, parts: list[str], accept: str) -> Answer:
        if path == "/openapi/v2":
            if "protobuf" in accept:
                return Answer(
                    EMPTY_V2_PROTOBUF, content_type="application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
                )
            return json_answer(EMPTY_V2)
        if path == "/openapi/v3":
            return json_answer(self.openapi.index())
        document = self.openapi.document("/".join(parts[2:])) if parts[1] == "v3" else None
        if document is None:
            raise errors.no_such_path()
        return Answer(document)


def _wants_aggregated(accept: str) -> bool:
    return any(p.get("as") == "APIGroupDiscoveryList" and p.get("v") == "v2" for _, p in accepted(accept))


async def _body(request: web.BaseRequest) -> bytes:
    if not request.body_exists:
        return b""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        text = f"Request entity too large: limit is {LARGEST_BODY}"
        raise StatusError(413, "RequestEntityTooLarge", text) from None


def _response(answer: Answer) -> web.Response:
    response = web.Response(body=answer.body, status=answer.status, headers={"Content-Type": answer.content_type})
    _warn(response, answer)
    return response


def _warn(response: web.StreamResponse, answer: Answer) -> None:
    for warning in answer.warnings:
        escaped = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')


async def _stream(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send a stream. What fails before its first chunk is still answered with a status of its own."""
    assert answer.stream is not None
    chunks = answer.stream
    try:
        first = await anext(chunks, b"")
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if first:
            await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
        return response
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
