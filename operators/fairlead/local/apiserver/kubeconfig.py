"""The kubeconfig that leads to this server."""

from __future__ import annotations

import base64

import orjson

NAME = "fairlead"


def kubeconfig(url: str, authority: bytes, token: str) -> bytes:
    """As JSON, which is YAML too."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority).decode()}
    return orjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": cluster}],
            "users": [{"name": NAME, "user": {"token": token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
            "current-context": NAME,
        },
        option=orjson.OPT_INDENT_2,
    )
