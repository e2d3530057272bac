"""What `fairlead predict` sends."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """Where and what to send."""

    url: str
    host: str | None
    """The Host header, or :authority, if it is not the URL's."""
    body: bytes
