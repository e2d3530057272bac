"""Subresources other than status: scale, a pod's log and eviction; and questions that are answered and not stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import errors
from .bodies import parse, patch_form
from .calls import Answer, Call, json_answer
from .kinds import PODS
from .merge_patch import merge_patch
from .operations import Operations
from .podlogs import LogOptions, container_state, log_file, read_log
from .routes import Review, Target
from .scale import scale_patch, to_scale
from .store import Key


class Subresources:
    def __init__(self, operations: Operations, logs: Path) -> None:
        self.operations = operations
        self.store = operations.store
        self.logs = logs

    def answer(self, call: Call) -> Answer:
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
                return json_answer(self._object(target))
            case ("exec" | "attach" | "portforward" as verb, _) if target.kind.storage == PODS:
                raise errors.not_here(verb)
        raise errors.no_such_path()

    def _object(self, target: Target) -> dict[str, Any]:
        return self.operations.find(target.kind, target.home, target.name).load()

    def _scale(self, call: Call) -> Answer:
        target, body, options = call.target, parse(call.body, call.content_type), call.options()
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
            target.kind, target.home, target.name, call.options(),
            grace=how.get("gracePeriodSeconds"), preconditions=how.get("preconditions"),
        )  # fmt: skip
        return json_answer(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    def _log(self, call: Call) -> Answer:
        target, pod = call.target, self._object(call.target)
        dated = [
            name for name in ("sinceSeconds", "sinceTime", "timestamps") if call.query.get(name, "false") != "false"
        ]
        if dated:
            raise errors.bad_request(
                f"{dated[0]}: log lines carry no time here, they are what the process wrote; use --tail"
            )
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
