"""Addresses in specs that both the operator and the model server must understand alike. Standard library only: model servers import it at their start."""

from __future__ import annotations

from urllib.parse import urlsplit


def is_http(url: str) -> bool:
    """Whether requests can be sent there: `http://` or `https://`, a host, and a port that is one, in ASCII."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and url.isascii()
