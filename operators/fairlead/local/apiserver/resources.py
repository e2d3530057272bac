"""One function per verb on resources: query parameters in, operations, answers out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from . import errors
from .admission import Options
from .bodies import parse, patch_form, wanted_form
from .kinds import PODS, Kind
from .merge_patch import merge_patch
from .operations import Operations
from .podlogs import LogOptions, container_state, log_file, read_log
from .queries import Selection, list_page, selection
from .routes import Review, Target
from .scale import scale_patch, to_scale
from .store import Key, Stored
from .tables import partial, table
from .watching import WatchOptions, watch


@dataclass(frozen=True, slots=True)
class Call:
    """A request, without its transport."""

    method: str
    target: Target
    query: Mapping[str, str]
    accept: str
    content_type: str
    agent: str
    body: bytes

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1")

    def number(self, name: str) -> int | None:
        text = self.query.get(name)
        if not text:
            return None
        if not text.lstrip("-").isdigit():
            raise errors.bad_request(f"{name} has to be a whole number, not {text!r}")
        return int(text)


@dataclass(slots=True)
class Answer:
    """A body, or a stream of them. The stream's first chunk is taken before the status goes out."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    warnings: list[str] = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(value), status)


class Resources:
    def __init__(self, operations: Operations, logs: Path) -> None:
        self.operations = operations
        self.store = operations.store
        self.logs = logs

    def answer(self, call: Call) -> Answer:
        target = call.target
        if target.subresource not in ("", "status"):
            return self._subresource(call)
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

    def _options(self, call: Call) -> Options:
        dry_run = call.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise errors.bad_request(f"dryRun: Unsupported value: {dry_run!r}: supported values: All")
        validation = call.query.get("fieldValidation") or "Warn"
        if validation not in ("Ignore", "Warn", "Strict"):
            raise errors.bad_request(
                f"fieldValidation: Unsupported value: {validation!r}: supported values: Ignore, Warn, Strict"
            )
        manager = call.query.get("fieldManager") or call.agent.partition("/")[0] or "unknown"
        return Options(manager[:128], validation, dry_run == "All", call.flag("force"))

    def _create(self, call: Call) -> Answer:
        target, options = call.target, self._options(call)
        body = parse(call.body, call.content_type)
        namespace = target.home
        if target.kind.namespaced and target.namespace is None:
            raise errors.method_not_allowed()
        return self._shown(call, self.operations.create(target.kind, namespace, body, options), 201, options)

    def _replace(self, call: Call) -> Answer:
        target, options = call.target, self._options(call)
        body = parse(call.body, call.content_type)
        stored = self.operations.replace(target.kind, target.home, target.name, body, options, target.subresource)
        return self._shown(call, stored, 200, options)

    def _patch(self, call: Call) -> Answer:
        target, options = call.target, self._options(call)
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
        options = self._options(call)
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

    # --- Subresources ---

    def _subresource(self, call: Call) -> Answer:
        target = call.target
        match (target.subresource, call.method):
            case ("scale", "GET"):
                return json_answer(to_scale(target.kind, self._object(target)))
            case ("scale", "PUT" | "PATCH"):
                return self._scale(call)
            case ("log", "GET") if target.kind.storage == PODS:
                return self._log(call)
            case ("eviction", "POST") if target.kind.storage == PODS:
                return self._evict(call)
            case ("finalize", "PUT") if target.kind.plural == "namespaces":
                return self._get(call)
            case ("exec" | "attach" | "portforward" as verb, _) if target.kind.storage == PODS:
                raise errors.not_here(verb)
        raise errors.no_such_path()

    def _object(self, target: Target) -> dict[str, Any]:
        return self.operations.find(target.kind, target.home, target.name).load()

    def _scale(self, call: Call) -> Answer:
        target, body, options = call.target, parse(call.body, call.content_type), self._options(call)
        if call.method == "PATCH":
            if patch_form(call.content_type, custom=False) not in ("merge", "strategic"):
                raise errors.unsupported_media_type(call.content_type, "application/merge-patch+json")
            given = to_scale(target.kind, self._object(target))
            del given["metadata"]["resourceVersion"]
            body = merge_patch(given, body)
        patch = scale_patch(target.kind, body)
        stored = self.operations.patch(target.kind, target.home, target.name, patch, "merge", options)
        return json_answer(to_scale(target.kind, stored.load()))

    def _evict(self, call: Call) -> Answer:
        target = call.target
        body = parse(call.body, call.content_type) or {}
        how = body.get("deleteOptions") or {}
        self.operations.delete(
            target.kind, target.home, target.name, self._options(call),
            grace=how.get("gracePeriodSeconds"), preconditions=how.get("preconditions"),
        )  # fmt: skip
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    def _log(self, call: Call) -> Answer:
        target, pod = call.target, self._object(call.target)
        options = LogOptions(
            call.query.get("container", ""), call.flag("follow"), call.flag("previous"),
            call.number("tailLines"), call.number("limitBytes"),
        )  # fmt: skip
        path = log_file(self.logs, pod, options)
        container = options.container or pod["spec"]["containers"][0]["name"]
        restarts = container_state(pod, container).get("restartCount", 0)

        def running() -> bool:
            found = self.store.get(Key(PODS, target.home, target.name))
            if found is None or options.previous:
                return False
            state = container_state(found.load(), container)
            return state.get("restartCount", 0) == restarts and "terminated" not in (state.get("state") or {})

        return Answer(content_type="text/plain", stream=read_log(path, options, running))


def review(target: Review, body: Any) -> dict[str, Any]:
    """`kubectl auth can-i`: whoever has the token may do everything."""
    if target.plural != "selfsubjectaccessreviews" or not isinstance(body, dict):
        raise errors.no_such_path()
    status = {"allowed": True, "reason": "the token's owner may do everything here"}
    return {
        **body,
        "kind": "SelfSubjectAccessReview",
        "apiVersion": f"{target.group}/{target.version}",
        "status": status,
    }
