"""The verbs: what creating, updating, patching, applying and deleting mean for the stored objects.

Everything happens within one call, without awaiting, so no two writes interleave. Reading many objects and watching is in
`queries`; what follows a deletion is in `garbage`.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from . import errors
from .addresses import Addresses
from .admission import Object, Options, admit, decode_strictly
from .json_patch import json_patch
from .kinds import CRD, NAMESPACES, PODS, Kind, Kinds
from .lifecycle import (
    CRD_CLEANUP,
    FOREGROUND,
    ORPHAN,
    content,
    drop_nulls,
    established,
    only,
    pod_grace,
    waits_for_node,
)
from .merge_patch import merge_patch
from .serverside_apply import Writer, apply, track
from .store import Key, Store, Stored, stored
from .strategic_merge import strategic_merge

SYSTEM_FIELDS = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)
"""Metadata that a client's write does not change."""
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


class Operations:
    def __init__(self, store: Store, kinds: Kinds, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.kinds = kinds
        self.clock = clock
        self.addresses = Addresses(store)

    def timestamp(self, after: float = 0) -> str:
        return datetime.fromtimestamp(self.clock() + after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- Reading one ---

    def find(self, kind: Kind, namespace: str, name: str) -> Stored:
        found = self.store.get(Key(kind.storage, namespace, name))
        if found is None:
            raise errors.not_found(kind.plural, kind.group, name)
        return found

    # --- Creating ---

    def create(self, kind: Kind, namespace: str, obj: Object, options: Options) -> Stored:
        metadata = self._received(kind, namespace, obj)
        metadata.pop("resourceVersion", None)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(secrets.choice(_SUFFIX) for _ in range(5))
        self._check_namespace(kind, namespace, metadata.get("name", ""))
        if self.store.get(Key(kind.storage, namespace, metadata.get("name", ""))) is not None:
            raise errors.already_exists(kind.plural, kind.group, metadata["name"])
        metadata.pop("managedFields", None)
        self._prepare(kind, namespace, obj, options)
        track({}, obj, kind.schema, Writer(options.manager, "Update", kind.api_version), now=self.timestamp())
        return self._store(kind, obj, options)

    def _prepare(self, kind: Kind, namespace: str, obj: Object, options: Options) -> None:
        metadata = obj["metadata"]
        if kind.status and kind.plural != "nodes":
            obj.pop("status", None)
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            metadata.pop(name, None)
        admit(obj, None, kind, options)
        if kind.storage == ("", "services"):
            self.addresses.assign(obj)
        if kind.storage == CRD:
            metadata["finalizers"] = list(dict.fromkeys([*metadata.get("finalizers", ()), CRD_CLEANUP]))
            obj["status"] = established(obj, self.timestamp())
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = self.timestamp()
        if kind.namespaced:
            metadata["namespace"] = namespace
        if kind.generation:
            metadata["generation"] = 1

    def _received(self, kind: Kind, namespace: str, obj: Any, name: str | None = None) -> Object:
        """The metadata of a body, after checking that the body is of this kind, namespace and name."""
        if not isinstance(obj, dict):
            raise errors.bad_request(f"the body has to be a {kind.kind} object")
        given, kind_given = obj.setdefault("apiVersion", kind.api_version), obj.setdefault("kind", kind.kind)
        if (given, kind_given) != (kind.api_version, kind.kind):
            raise errors.bad_request(
                f"the object in the body ({given}, Kind={kind_given}) does not match the resource in the path "
                f"({kind.api_version}, Kind={kind.kind})"
            )
        metadata = obj.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise errors.bad_request(f"{kind.kind}: metadata is not an object")
        if kind.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if not kind.namespaced:
            metadata.pop("namespace", None)
        if name is not None and metadata.setdefault("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        return metadata

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        if not kind.namespaced:
            return
        found = self.store.get(Key(NAMESPACES, "", namespace))
        if found is None:
            raise errors.not_found("namespaces", "", namespace)
        if found.deleting:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise errors.forbidden(kind.plural, kind.group, name, why)

    def _store(self, kind: Kind, obj: Object, options: Options) -> Stored:
        metadata = obj["metadata"]
        key = Key(kind.storage, metadata.get("namespace", ""), metadata["name"])
        if options.dry_run:
            return preview(key, obj)
        return self.store.put(key, obj)

    # --- Changing ---

    def replace(
        self, kind: Kind, namespace: str, name: str, obj: Object, options: Options, subresource: str = ""
    ) -> Stored:
        metadata = self._received(kind, namespace, obj, name)
        old = self.find(kind, namespace, name)
        if kind.custom is not None and not metadata.get("resourceVersion"):
            fault = errors.invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(kind.kind, kind.group, name, [fault])
        metadata.setdefault("resourceVersion", str(old.version))
        return self._change(kind, old, old.load(), obj, options, subresource)

    def patch(
        self, kind: Kind, namespace: str, name: str, patch: Any, form: str, options: Options, subresource: str = ""
    ) -> Stored:
        """`form` is merge, json or strategic."""
        old = self.find(kind, namespace, name)
        before = old.load()
        match form:
            case "json":
                new = json_patch(before, patch)
            case "merge":
                new = merge_patch(before, patch)
            case _:
                new = strategic_merge(before, patch, kind.schema)
        if new is before or not isinstance(new, dict):
            raise errors.bad_request(f"the patch does not leave a {kind.kind} object")
        self._received(kind, namespace, new, name)
        return self._change(kind, old, old.load(), new, options, subresource)

    def apply(
        self, kind: Kind, namespace: str, name: str, wanted: Object, options: Options, subresource: str = ""
    ) -> tuple[Stored, bool]:
        """Server-side apply; the object, and whether it was created."""
        metadata = self._received(kind, namespace, wanted, name)
        if metadata.pop("managedFields", None):
            raise errors.bad_request("metadata.managedFields must be nil")
        drop_nulls(wanted)
        decode_strictly(wanted, kind, options)
        if kind.status and not subresource:
            wanted.pop("status", None)
        if subresource:
            kept = {
                key: value for key, value in metadata.items() if key in ("name", "namespace", "resourceVersion", "uid")
            }
            wanted = {
                "apiVersion": wanted["apiVersion"],
                "kind": wanted["kind"],
                "metadata": kept,
                **only(wanted, subresource),
            }
        writer = Writer(options.manager, "Apply", kind.api_version, subresource)
        old = self.store.get(Key(kind.storage, namespace, name))
        if old is None:
            return self._apply_new(kind, namespace, name, wanted, options, writer), True
        new = apply(old.load(), wanted, kind.schema, writer, force=options.force, now=self.timestamp())
        return self._change(kind, old, old.load(), new, options, subresource, tracked=True), False

    def _apply_new(
        self, kind: Kind, namespace: str, name: str, wanted: Object, options: Options, writer: Writer
    ) -> Stored:
        metadata = wanted["metadata"]
        if writer.subresource or metadata.pop("uid", None):
            raise errors.not_found(kind.plural, kind.group, name)
        if metadata.pop("resourceVersion", None):
            raise errors.conflict(
                kind.plural, kind.group, name, "the object does not exist, but a resourceVersion was given"
            )
        self._check_namespace(kind, namespace, name)
        new = apply(None, wanted, kind.schema, writer, force=True, now=self.timestamp())
        self._prepare(kind, namespace, new, options)
        return self._store(kind, new, options)

    def _change(
        self,
        kind: Kind,
        old: Stored,
        before: Object,
        new: Object,
        options: Options,
        subresource: str,
        tracked: bool = False,
    ) -> Stored:
        """Store `new` instead of `before`, with everything set right that is not the client's to say."""
        self._check_preconditions(kind, old, new["metadata"])
        if subresource:
            new = {
                **before,
                **only(new, subresource),
                "metadata": {**before["metadata"], **only(new["metadata"], "managedFields")},
            }
            if not tracked:
                new["metadata"]["managedFields"] = before["metadata"].get("managedFields", [])
        elif kind.status:
            new.pop("status", None)
            new.update(only(before, "status"))
        metadata = new["metadata"] = dict(new["metadata"])
        for name in SYSTEM_FIELDS:
            metadata.pop(name, None)
            metadata.update(only(before["metadata"], name))
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
        if kind.storage == ("", "services"):
            self.addresses.keep(before, new)
        admit(new, before, kind, options, subresource=subresource)
        if not tracked:
            writer = Writer(options.manager, "Update", kind.api_version, subresource)
            track(before, new, kind.schema, writer, now=self.timestamp())
        if new == before:
            return old
        if kind.generation and not subresource and content(new, kind) != content(before, kind):
            metadata["generation"] = before["metadata"].get("generation", 0) + 1
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and not waits_for_node(kind, new):
            return self._remove(kind, old, new, options)
        return self._store(kind, new, options)

    def _check_preconditions(self, kind: Kind, old: Stored, metadata: Object) -> None:
        uid, version = metadata.get("uid"), metadata.get("resourceVersion")
        if uid and uid != old.uid:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
            raise errors.conflict(kind.plural, kind.group, old.key.name, why)
        if version and version != str(old.version):
            raise errors.conflict(kind.plural, kind.group, old.key.name)

    # --- Deleting ---

    def delete(
        self, kind: Kind, namespace: str, name: str, options: Options, *,
        grace: int | None = None, propagation: str = "Background", preconditions: Object | None = None,
    ) -> tuple[Stored, bool]:  # fmt: skip
        """The object's last state, and whether it is gone: finalizers, or a pod's grace period, may keep it for a while."""
        old = self.find(kind, namespace, name)
        self._check_preconditions(kind, old, preconditions or {})
        obj = old.load()
        metadata = obj["metadata"]
        finalizers = list(metadata.get("finalizers", ()))
        added = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
        if added and added not in finalizers:
            finalizers.append(added)
        grace = pod_grace(obj, grace) if kind.storage == PODS else 0
        if not finalizers and not grace and kind.storage != NAMESPACES:
            return self._remove(kind, old, obj, options), True
        if (
            old.deleting
            and grace >= metadata.get("deletionGracePeriodSeconds", 0)
            and finalizers == metadata.get("finalizers", [])
        ):
            return old, False
        if "deletionTimestamp" not in metadata or grace < metadata.get("deletionGracePeriodSeconds", 0):
            metadata["deletionTimestamp"] = self.timestamp(grace)
            metadata["deletionGracePeriodSeconds"] = grace
            if kind.generation:
                metadata["generation"] = metadata.get("generation", 0) + 1
        if finalizers:
            metadata["finalizers"] = finalizers
        if kind.storage == NAMESPACES:
            obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}
        return self._store(kind, obj, options), False

    def _remove(self, kind: Kind, old: Stored, obj: Object, options: Options) -> Stored:
        if options.dry_run:
            return preview(old.key, obj)
        return self.store.delete(old)

    def finalize(self, key: Key, finalizer: str) -> None:
        """Take a finalizer off an object that is being deleted; with the last one the object goes. The collector's."""
        old = self.store.get(key)
        if old is None:
            return
        kind, obj = self.kinds.stored(key.storage), old.load()
        rest = [name for name in obj["metadata"].get("finalizers", ()) if name != finalizer]
        obj["metadata"]["finalizers"] = rest
        if rest or waits_for_node(kind, obj):
            self.store.put(key, obj)
        else:
            self.store.delete(old)


def preview(key: Key, obj: Object) -> Stored:
    """What a dry run answers: the object as it would be stored."""
    return stored(key, obj, orjson.dumps(obj))
