"""Where a closed network keeps what public manifests name: a table of prefixes, `gs://bucket/models/… -> file:///mirror/…`.

The table comes as text, one rule a line, from a ConfigMap mounted as a file, an environment variable or a flag. The
longest prefix that fits wins. `…` (or `*`) at the end of both sides is for the reader: a rule is a prefix either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead.api import names

MIRRORS_FILE_ENV = "FAIRLEAD_STORAGE_MIRRORS_FILE"
"""A file that holds the table."""


@dataclass(frozen=True)
class Mirrors:
    """Rules as (prefix, replacement) pairs."""

    rules: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mirrors:
        """Lines `PREFIX -> REPLACEMENT`; empty ones and those that begin with # do not count. ValueError names a bad one."""
        rules = []
        for number, line in enumerate(text.replace(";", "\n").splitlines(), start=1):
            rule = line.strip()
            if not rule or rule.startswith("#"):
                continue
            prefix, arrow, replacement = (part.strip() for part in rule.partition("->"))
            if not arrow or "://" not in prefix or "://" not in replacement:
                raise ValueError(
                    f"mirror table, line {number}: {rule!r} is not of the form gs://bucket/… -> file:///directory/…"
                )
            rules.append((prefix.rstrip("…*"), replacement.rstrip("…*")))
        return cls(tuple(rules))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Mirrors:
        text = environment.get(names.STORAGE_MIRRORS_ENV, "")
        if path := environment.get(MIRRORS_FILE_ENV):
            text = f"{text}\n{Path(path).read_text()}"
        return cls.parse(text)

    def resolve(self, uri: str) -> str:
        """The address to read instead of `uri`, which is `uri` itself when no rule fits."""
        fitting = [rule for rule in self.rules if _covers(rule[0], uri)]
        if not fitting:
            return uri
        prefix, replacement = max(fitting, key=lambda rule: len(rule[0]))
        rest = uri[len(prefix) :]
        if prefix.endswith("/") and not replacement.endswith("/"):
            replacement += "/"
        return replacement + rest


def _covers(prefix: str, uri: str) -> bool:
    """`gs://models` covers gs://models and gs://models/a, not gs://models-of-others/a."""
    return uri.startswith(prefix) and (prefix.endswith("/") or uri[len(prefix) : len(prefix) + 1] in ("", "/", "#"))
