"""An API server in memory for tests of the shell: resource versions, server-side apply, status, and calls that can be cut off.

The stores that a reconcile reads are fed by hand (`deliver`), so that a test can let them lag behind the writes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fairlead.controllers.cluster import BY_SERVICE, by_service
from fairlead.kube.errors import AlreadyExists, Conflict, Invalid, NotFound
from fairlead.kube.objects import Key, Object, controller_of, key_of
from fairlead.kube.resources import (
    CLUSTER_SERVING_RUNTIMES,
    CLUSTER_STORAGE_CONTAINERS,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INFERENCE_SERVICES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SERVING_RUNTIMES,
    Resource,
)
from fairlead.kube.store import Store

KINDS = (
    INFERENCE_SERVICES,
    SERVING_RUNTIMES,
    CLUSTER_SERVING_RUNTIMES,
    CLUSTER_STORAGE_CONTAINERS,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    NAMESPACES,
    DEPLOYMENTS,
    SERVICES,
    HORIZONTAL_POD_AUTOSCALERS,
    CONTROLLER_REVISIONS,
    PODS,
    SECRETS,
)


class Crash(Exception):
    """The process died just before, or just after, a call."""


class FakeApi:
    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, Key], Object] = {}
        self.stores = {kind: Store({BY_SERVICE: by_service}) for kind in KINDS}
        self.calls: list[str] = []
        self.crash_at: int | None = None
        """The number of the call at which to crash; -1 after the last."""
        self.crash_after_effect = False
        self.log = ""
        self.served: set[str] = set()
        """Paths of API groups beyond Kubernetes' own and ours."""
        self.metadata_read = 0
        self._applied: dict[tuple[Resource, Key], Object] = {}
        self._version = 0
        self._uid = 0

    # --- What a user, or the node, does -----------------------------------------------------------------------

    def put(self, resource: Resource, obj: Object) -> Object:
        """Creates or replaces, as a user would; the status of what is there stays."""
        key = key_of(obj)
        old = self.objects.get((resource, key))
        new = copy.deepcopy({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
        if old is not None and "status" in old:
            new.setdefault("status", old["status"])
        return self._store(resource, key, new, old)

    def set_status(self, resource: Resource, key: Key, status: Object) -> None:
        old = self.objects[resource, key]
        if old.get("status") != status:
            self._store(resource, key, {**old, "status": status}, old)

    def remove(self, resource: Resource, key: Key) -> None:
        self.objects.pop((resource, key), None)
        self._applied.pop((resource, key), None)

    def of(self, resource: Resource) -> dict[str, Object]:
        return {key.name: obj for (kind, key), obj in sorted(self.objects.items(), key=str) if kind == resource}

    def of_deployment(self, name: str) -> Object:
        return self.of(DEPLOYMENTS)[name]

    def of_service(self, name: str) -> Object:
        return self.of(SERVICES)[name]

    def of_hpa(self, name: str) -> Object | None:
        return self.of(HORIZONTAL_POD_AUTOSCALERS).get(name)

    def of_revisions(self) -> dict[str, Object]:
        return self.of(CONTROLLER_REVISIONS)

    def rescale(self, name: str, replicas: int) -> None:
        """`kubectl scale deployment`."""
        obj = copy.deepcopy(self.of_deployment(name))
        obj["spec"]["replicas"] = replicas
        self.put(DEPLOYMENTS, obj)

    def meddle(self, name: str, *, image: str) -> None:
        """`kubectl set image deployment`."""
        obj = copy.deepcopy(self.of_deployment(name))
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.put(DEPLOYMENTS, obj)

    def deliver(self) -> None:
        """Lets the informers catch up."""
        for kind, store in self.stores.items():
            alive = {key: obj for (resource, key), obj in self.objects.items() if resource == kind}
            for key in store.keys() - alive.keys():
                store.remove(key)
            for obj in alive.values():
                store.put(copy.deepcopy(obj))

    def collect_garbage(self) -> None:
        uids = {obj["metadata"]["uid"] for obj in self.objects.values()}
        for (resource, key), obj in list(self.objects.items()):
            owner = controller_of(obj)
            if owner is not None and owner["uid"] not in uids:
                self.remove(resource, key)

    # --- What the controller does ------------------------------------------------------------------------------

    async def apply(self, resource: Resource, obj: Mapping[str, Any], *, field_manager: str) -> Object:
        key = key_of(obj)
        with self._call(f"apply {resource.kind} {key.name}"):
            old = self.objects.get((resource, key))
            before = self._applied.get((resource, key), {})
            wanted = copy.deepcopy({"apiVersion": resource.api_version, "kind": resource.kind, **obj})
            new = copy.deepcopy(_applied(old or {}, before, wanted))
            if resource == CONTROLLER_REVISIONS and old is not None and old["data"] != new["data"]:
                raise Invalid(422, "Invalid", "data: field is immutable")
            if resource == DEPLOYMENTS:
                new["spec"].setdefault("replicas", 1)
            self._applied[resource, key] = wanted
            return copy.deepcopy(old if old == new else self._store(resource, key, new, old))

    async def create(self, resource: Resource, obj: Mapping[str, Any]) -> Object:
        key = key_of(obj)
        with self._call(f"create {resource.kind} {key.name}"):
            if (resource, key) in self.objects:
                raise AlreadyExists(409, "AlreadyExists", key.name)
            return copy.deepcopy(self.put(resource, dict(obj)))

    async def replace(self, resource: Resource, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        key = key_of(obj)
        with self._call(f"status {resource.kind} {key.name}"):
            assert subresource == "status"
            old = self.objects.get((resource, key))
            if old is None:
                raise NotFound(404, "NotFound", key.name)
            if obj["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]:
                raise Conflict(409, "Conflict", key.name)
            return copy.deepcopy(self._store(resource, key, {**old, "status": copy.deepcopy(obj["status"])}, old))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any],
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        with self._call(f"scale {resource.kind} {name}"):
            assert subresource == "scale"
            key = Key(namespace or "", name)
            old = self.objects[resource, key]
            return copy.deepcopy(self._store(resource, key, {**old, "spec": {**old["spec"], **patch["spec"]}}, old))

    async def delete(
        self, resource: Resource, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None:
        with self._call(f"delete {resource.kind} {name}"):
            key = Key(namespace or "", name)
            old = self.objects.get((resource, key))
            if old is None:
                raise NotFound(404, "NotFound", name)
            if uid is not None and old["metadata"]["uid"] != uid:
                raise Conflict(409, "Conflict", name)
            self.remove(resource, key)

    async def logs(
        self,
        name: str,
        namespace: str,
        *,
        container: str | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> str:
        return self.log

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        found = self.objects.get((resource, Key(namespace or "", name)))
        if found is None:
            raise NotFound(404, "NotFound", name)
        return copy.deepcopy(found)

    async def raw(self, path: str) -> Object:
        """Of an API group: whether it is served."""
        if path not in self.served:
            raise NotFound(404, "NotFound", path)
        return {"kind": "APIResourceList"}

    async def metadata(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        self.metadata_read += 1
        found = self.objects.get((resource, Key(namespace or "", name)))
        if found is None:
            raise NotFound(404, "NotFound", name)
        return {"metadata": copy.deepcopy(found["metadata"])}

    # --- Helpers -------------------------------------------------------------------------------------------------

    def _store(self, resource: Resource, key: Key, new: Object, old: Object | None) -> Object:
        self._version += 1
        metadata = {**new["metadata"], "resourceVersion": str(self._version)}
        if old is None:
            self._uid += 1
            metadata |= {"uid": f"uid-{self._uid}", "generation": 1, "creationTimestamp": "2026-11-21T00:00:00Z"}
        else:
            was = old["metadata"]
            changed = old.get("spec") != new.get("spec")
            metadata |= {key: was[key] for key in ("uid", "creationTimestamp")}
            metadata["generation"] = was["generation"] + changed
        self.objects[resource, key] = {**new, "metadata": metadata}
        return self.objects[resource, key]

    def _call(self, what: str) -> _Call:
        return _Call(self, what)


class _Call:
    """Counts a call, and crashes before or after it."""

    def __init__(self, api: FakeApi, what: str) -> None:
        self._api = api
        self._what = what

    def __enter__(self) -> None:
        if self._crashes() and not self._api.crash_after_effect:
            raise Crash(self._what)
        self._api.calls.append(self._what)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._api.crash_at is not None and len(self._api.calls) - 1 == self._api.crash_at:
            raise Crash(self._what)

    def _crashes(self) -> bool:
        return self._api.crash_at is not None and len(self._api.calls) == self._api.crash_at


ATOMIC = ("selector", "matchLabels")


def _applied(current: Any, before: Any, wanted: Any) -> Any:
    """Fields applied before and no longer wanted go; the rest of what is there stays."""
    if not isinstance(wanted, dict) or not isinstance(current, dict):
        return wanted
    before = before if isinstance(before, dict) else {}
    kept = {key: value for key, value in current.items() if key not in before or key in wanted}
    return {
        **kept,
        **{
            key: value if key in ATOMIC else _applied(kept.get(key), before.get(key), value)
            for key, value in wanted.items()
        },
    }
