"""The Kubernetes API in a dozen verbs, over dicts.

Every verb raises the errors of `fairlead.kube.errors`; their messages begin with the request in words:
`get deployments.apps team-a/iris-predictor: …`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from fairlead.kube import config, requests, watch
from fairlead.kube.errors import Gone, Unavailable
from fairlead.kube.objects import Object
from fairlead.kube.resources import PODS, Resource
from fairlead.kube.transport import Transport
from fairlead.kube.watch import Event

__all__ = ["Client", "Event", "ObjectList"]

PAGE = 500
"""Objects a list request asks for at once, as client-go's pager does."""
LIST_TIMEOUT = 60.0
PATCH_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}
APPLY = "application/apply-patch+yaml"  # JSON is YAML
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True, slots=True)
class ObjectList:
    items: list[Object]
    resource_version: str
    """Where a watch may begin."""


class Client:
    def __init__(self, connection: config.Connection) -> None:
        self._transport = Transport(connection)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None) -> Client:
        """By the given kubeconfig, else $KUBECONFIG or ~/.kube/config, else as a pod; raises ConfigError.

        Nothing is sent yet: the first request tells whether the API server is there.
        """
        return cls(config.load(kubeconfig, context))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context, or of the pod."""
        return self._transport.connection.namespace

    @property
    def server(self) -> str:
        return self._transport.connection.server

    # --- Reading --------------------------------------------------------------------------------------------

    async def get(
        self, resource: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> Object:
        path = requests.object_path(resource, namespace, name, subresource)
        return await self._call("GET", path, requests.where("get", resource, namespace, name, subresource))

    async def metadata(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """Only the object's metadata: the rest never leaves the server."""
        path, where = requests.object_path(resource, namespace, name), requests.where("get", resource, namespace, name)
        return _decoded(await self._transport.request("GET", path, where=where, accept=METADATA_ONLY), where)

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> ObjectList:
        """All of them, as of one moment, in pages. Without a namespace: of all namespaces."""
        try:
            return await self._list(resource, namespace, requests.selection(labels, fields), PAGE)
        except Gone:
            # The snapshot that the pages came from was compacted meanwhile: take the whole in one answer.
            return await self._list(resource, namespace, requests.selection(labels, fields), None)

    async def raw(self, path: str) -> Object:
        """GET any path: `/version`, `/apis`, `/openapi/v2`."""
        return await self._call("GET", path, f"get {path}")

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
        silence: float = watch.SILENCE,
    ) -> AsyncGenerator[Event, None]:
        """What happens after `resource_version`, bookmarks included, until the server ends it (minutes): then watch again
        from the last version seen. Raises Gone when that is no longer kept, WatchStalled after `silence` seconds without a byte.
        Close it (contextlib.aclosing) to give its connection back.
        """
        query = {**requests.selection(labels, fields), **watch.query(resource_version)}
        where = requests.where("watch", resource, namespace)
        return watch.events(self._transport, resource.path(namespace), query, where=where, silence=silence)

    async def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> str:
        """What the container has printed so far."""
        query = requests.log_query(container, tail, previous, follow=False)
        where = requests.where("read the log of", PODS, namespace, name)
        body = await self._transport.request("GET", PODS.path(namespace, name, "log"), where=where, query=query)
        return body.decode(errors="replace")

    async def follow_logs(
        self, name: str, namespace: str, *, container: str | None = None, tail: int | None = None
    ) -> AsyncGenerator[str, None]:
        """The container's lines, without their ends, as they are printed; ends with the container."""
        query = requests.log_query(container, tail, False, follow=True)
        where = requests.where("follow the log of", PODS, namespace, name)
        path = PODS.path(namespace, name, "log")
        async with (
            self._transport.stream(path, where=where, query=query, silence=None) as body,
            aclosing(watch.lines(body.iter_any())) as lines,
        ):
            async for line in lines:
                yield line.decode(errors="replace")

    # --- Writing --------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        namespace, name = requests.place(resource, obj)
        path = resource.path(namespace)
        return await self._call("POST", path, requests.where("create", resource, namespace, name), body=obj)

    async def replace(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        """Raises Conflict if `obj` has a resourceVersion and the object has changed since."""
        namespace, name = requests.place(resource, obj)
        path = requests.object_path(resource, namespace, name, subresource)
        return await self._call(
            "PUT", path, requests.where("replace", resource, namespace, name, subresource), body=obj
        )

    async def apply(
        self,
        resource: Resource,
        obj: Mapping[str, Any],
        *,
        field_manager: str,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
        strict: bool = False,
    ) -> Object:
        """Server-side apply: makes the object, or makes the given fields so and those we no longer give disappear.

        `strict` refuses fields that the kind does not have, as kubectl does, instead of dropping them.
        """
        namespace, name = requests.place(resource, obj)
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        return await self._call(
            "PATCH",
            requests.object_path(resource, namespace, name, subresource),
            requests.where("apply", resource, namespace, name, subresource),
            query={
                "fieldManager": field_manager,
                "force": "true" if force else "false",
                **({"dryRun": "All"} if dry_run else {}),
                **({"fieldValidation": "Strict"} if strict else {}),
            },
            body=body,
            content_type=APPLY,
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str | None = None,
        *,
        kind: Literal["merge", "json", "strategic"] = "merge",
        subresource: str | None = None,
    ) -> Object:
        path = requests.object_path(resource, namespace, name, subresource)
        where = requests.where("patch", resource, namespace, name, subresource)
        return await self._call("PATCH", path, where, body=patch, content_type=PATCH_TYPES[kind])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
        grace_seconds: int | None = None,
    ) -> None:
        """With `uid` or `resource_version`, only that very object (that very state of it): else Conflict.

        `grace_seconds` 0 deletes a pod at once; only its node, or someone who knows that the node is gone, should.
        """
        given = {"uid": uid, "resourceVersion": resource_version}
        preconditions = {key: value for key, value in given.items() if value is not None}
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if preconditions:
            body["preconditions"] = preconditions
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        path = requests.object_path(resource, namespace, name)
        await self._call("DELETE", path, requests.where("delete", resource, namespace, name), body=body)

    # --- Helpers --------------------------------------------------------------------------------------------

    async def _call(
        self,
        method: str,
        path: str,
        where: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        answer = await self._transport.request(
            method, path, where=where, query=query, body=body, content_type=content_type
        )
        return _decoded(answer, where)

    async def _list(
        self, resource: Resource, namespace: str | None, selection: Mapping[str, str], page: int | None
    ) -> ObjectList:
        items: list[Object] = []
        query = dict(selection) if page is None else {**selection, "limit": str(page)}
        path, where = resource.path(namespace), requests.where("list", resource, namespace)
        while True:
            body = await self._transport.request("GET", path, where=where, query=query, timeout=LIST_TIMEOUT)
            answer = _decoded(body, where)
            for item in answer.get("items") or ():
                # Lists of built-in kinds leave these out of their items; watches do not.
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                items.append(item)
            metadata = answer["metadata"]
            if not metadata.get("continue"):
                return ObjectList(items, metadata["resourceVersion"])
            query["continue"] = metadata["continue"]


def _decoded(body: bytes, where: str) -> Object:
    try:
        return orjson.loads(body)  # type: ignore[no-any-return]
    except ValueError:
        # A login page, or a proxy's: no API server.
        raise Unavailable(0, "NotKubernetes", f"the answer is not JSON: {body[:200]!r}", where=where) from None
