"""One function per verb on resources: query parameters in, operations, answers out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from . import errors
from .admission import Options
from .bodies import parse, patch_form, wanted_form
from .calls import Answer, Call, json_answer
from .kinds import PODS, Kind
from .operations import Operations
from .queries import Selection, list_page, selection
from .store import Stored
from .subresources import Subresources
from .tables import partial, table
from .watching import WatchOptions, watch


class Resources:
    def __init__(self, operations: Operations, logs: Path) -> None:
        self.operations = operations
        self.store = operations.store
        self.subresources = Subresources(operations, logs)

    def answer(self, call: Call) -> Answer:
        target = call.target
        if target.subresource not in ("", "status"):
            return self.subresources.answer(call)
        if target.subresource == "status" and not target.kind.status:
            raise errors.no_such_path()
        if not target.name:
            verbs = {"GET": self._list, "POST": self._create, "DELETE": self._delete_many}
        else:
            verbs = {"GET": self._get, "PUT": self._replace, "PATCH": self._patch, "DELETE": self._delete}
        verb = verbs.get(call.method)
        if verb is None:
            raise errors.method_not_allowed()
        return verb(call)

    # --- Reading ---

    def _get(self, call: Call) -> Answer:
        target = call.target
        return self._shown(call, self.operations.find(target.kind, target.home, target.name))

    def _list(self, call: Call) -> Answer:
        kind, query = call.target.kind, call.query
        wanted = selection(
            kind, call.target.namespace or None, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        form = wanted_form(call.accept)
        if call.flag("watch"):
            return self._watch(call, wanted, form)
        page = list_page(self.store, kind, wanted, call.number("limit") or 0, query.get("continue", ""))
        metadata: dict[str, Any] = {"resourceVersion": str(page.version)}
        if page.next:
            metadata.update({"continue": page.next, "remainingItemCount": page.remaining})
        if form == "Table":
            objects = (found.load() for found in page.items)
            made = table(
                kind,
                objects,
                self.operations.clock(),
                version=str(page.version),
                include=query.get("includeObject", "Metadata"),
            )
            made["metadata"] = metadata
            return json_answer(made)
        name, version = kind.list_kind, kind.api_version
        if form == "PartialObject":
            name, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        shape = self._shape(call, form)
        head = orjson.dumps({"kind": name, "apiVersion": version, "metadata": metadata})[:-1]
        return Answer(head + b',"items":[' + b",".join(shape(found) for found in page.items) + b"]}")

    def _watch(self, call: Call, wanted: Selection, form: str) -> Answer:
        since = call.query.get("resourceVersion", "")
        if since and not since.isdigit():
            raise errors.bad_request(f"resourceVersion: Invalid value: {since!r}: it has to be a number")
        initial = call.flag("sendInitialEvents") if "sendInitialEvents" in call.query else None
        timeout = call.number("timeoutSeconds")
        options = WatchOptions(since, call.flag("allowWatchBookmarks"), initial, timeout)
        stream = watch(self.store, call.target.kind, wanted, options, self._shape(call, form, headers_once=True))
        return Answer(stream=stream)

    def _shape(self, call: Call, form: str, headers_once: bool = False) -> Callable[[Stored], bytes]:
        """How one object is written."""
        kind = call.target.kind
        if form == "PartialObject":
            return lambda found: orjson.dumps(partial(found.load()))
        if form != "Table":
            return self._plain(kind)
        include, headers = call.query.get("includeObject", "Metadata"), [True]

        def row(found: Stored) -> bytes:
            made = table(
                kind,
                [found.load()],
                self.operations.clock(),
                version=str(found.version),
                include=include,
                headers=headers[0],
            )
            headers[0] = not headers_once
            return orjson.dumps(made)

        return row

    def _plain(self, kind: Kind) -> Callable[[Stored], bytes]:
        """As stored; objects of a CRD with several versions get the version that was asked for."""
        if self.operations.kinds.stored(kind.storage) is kind:
            return lambda found: found.raw
        return lambda found: orjson.dumps({**found.load(), "apiVersion": kind.api_version})

    def _shown(self, call: Call, found: Stored, status: int = 200, options: Options | None = None) -> Answer:
        body = self._shape(call, wanted_form(call.accept))(found)
        return Answer(body, status, warnings=options.warnings if options else [])

    # --- Writing ---

    def _create(self, call: Call) -> Answer:
        target, options = call.target, call.options()
        body = parse(call.body, call.content_type)
        namespace = target.home
        if target.kind.namespaced and target.namespace is None:
            raise errors.method_not_allowed()
        return self._shown(call, self.operations.create(target.kind, namespace, body, options), 201, options)

    def _replace(self, call: Call) -> Answer:
        target, options = call.target, call.options()
        body = parse(call.body, call.content_type)
        stored = self.operations.replace(target.kind, target.home, target.name, body, options, target.subresource)
        return self._shown(call, stored, 200, options)

    def _patch(self, call: Call) -> Answer:
        target, options = call.target, call.options()
        form = patch_form(call.content_type, custom=target.kind.custom is not None)
        body = parse(call.body, call.content_type)
        where = (target.kind, target.home, target.name)
        if form != "apply":
            return self._shown(
                call, self.operations.patch(*where, body, form, options, target.subresource), 200, options
            )
        if "fieldManager" not in call.query:
            fault = errors.required_value("fieldManager", "is required for apply patch")
            raise errors.invalid("PatchOptions", "meta.k8s.io", "", [fault])
        stored, created = self.operations.apply(*where, body, options, target.subresource)
        return self._shown(call, stored, 201 if created else 200, options)

    def _delete_options(self, call: Call) -> tuple[Options, dict[str, Any]]:
        body = parse(call.body, call.content_type) or {}
        if not isinstance(body, dict):
            raise errors.bad_request("the body of a DELETE has to be DeleteOptions")
        grace = (
            call.number("gracePeriodSeconds") if "gracePeriodSeconds" in call.query else body.get("gracePeriodSeconds")
        )
        orphan = body.get("orphanDependents")
        propagation = call.query.get("propagationPolicy") or body.get("propagationPolicy")
        if propagation not in (None, "", "Background", "Foreground", "Orphan"):
            raise errors.bad_request(f"propagationPolicy: {propagation!r} is not Background, Foreground or Orphan")
        options = call.options()
        options.dry_run = options.dry_run or body.get("dryRun") == ["All"]
        chosen = propagation or ("Orphan" if orphan else "Background")
        return options, {"grace": grace, "propagation": chosen, "preconditions": body.get("preconditions")}

    def _delete(self, call: Call) -> Answer:
        target = call.target
        options, how = self._delete_options(call)
        stored, gone = self.operations.delete(target.kind, target.home, target.name, options, **how)
        if not gone or target.kind.storage == PODS:
            return self._shown(call, stored)
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural, "uid": stored.uid}
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    def _delete_many(self, call: Call) -> Answer:
        kind, query = call.target.kind, call.query
        wanted = selection(
            kind, call.target.namespace or None, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        options, how = self._delete_options(call)
        page = list_page(self.store, kind, wanted)
        for found in page.items:
            self.operations.delete(kind, found.key.namespace, found.key.name, options, **how)
        head = {
            "kind": kind.list_kind,
            "apiVersion": kind.api_version,
            "metadata": {"resourceVersion": str(self.store.version)},
        }
        return Answer(orjson.dumps(head)[:-1] + b',"items":[' + b",".join(o.raw for o in page.items) + b"]}")
