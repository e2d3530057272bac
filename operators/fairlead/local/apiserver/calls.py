"""A request and its answer, without their transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from . import errors
from .admission import Options
from .routes import Target


@dataclass(frozen=True, slots=True)
class Call:
    """A request for a resource."""

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

    def options(self) -> Options:
        """How a write is meant. Raises StatusError 400."""
        dry_run = self.query.get("dryRun", "")
        if dry_run not in ("", "All"):
            raise errors.bad_request(f"dryRun: Unsupported value: {dry_run!r}: supported values: All")
        validation = self.query.get("fieldValidation") or "Warn"
        if validation not in ("Ignore", "Warn", "Strict"):
            raise errors.bad_request(
                f"fieldValidation: Unsupported value: {validation!r}: supported values: Ignore, Warn, Strict"
            )
        manager = self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"
        return Options(manager[:128], validation, dry_run == "All", self.flag("force"))


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
