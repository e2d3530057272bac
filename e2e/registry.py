"""A registry of one image, for manifests that name one on a public registry: nodes ask it in that one's place, and nothing leaves the machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class Registry:
    """Answers every pull with `image`, on `address`, which must be one that the nodes can reach."""

    def __init__(self, image: str, directory: Path, address: str) -> None:
        self._blobs: dict[str, Path] = {}
        manifest = self._unpacked(image, directory)
        handler = _handler(manifest, self._blobs)
        self._server = http.server.ThreadingHTTPServer((address, 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def _unpacked(self, image: str, directory: Path) -> bytes:
        """The image's manifest; its blobs as files."""
        archive = directory / "image.tar"
        subprocess.run(["docker", "save", "--output", str(archive), image], check=True, timeout=120)
        subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(directory)], check=True)
        (saved,) = json.loads((directory / "manifest.json").read_text())

        def described(name: str, media: str) -> dict[str, Any]:
            path = directory / name
            content = path.read_bytes()
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self._blobs[digest] = path
            return {"mediaType": media, "size": len(content), "digest": digest}

        layers = [described(name, LAYER) for name in saved["Layers"]]
        config = described(saved["Config"], CONFIG)
        return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def stand_in(self, host: str, nodes: list[str]) -> None:
        """Tell containerd on the nodes (kind's) to ask here for images of `host`."""
        address, port = self._server.server_address[:2]
        told = f'server = "http://{address!s}:{port}"\n'
        place = f"/etc/containerd/certs.d/{host}"
        for node in nodes:
            write = [
                "docker",
                "exec",
                "--interactive",
                node,
                "sh",
                "-c",
                f"mkdir -p {place} && cat > {place}/hosts.toml",
            ]
            subprocess.run(write, input=told, text=True, check=True, timeout=30)


def _handler(manifest: bytes, blobs: dict[str, Path]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            reference = self.path.partition("?")[0].rpartition("/")[2]
            if "/manifests/" in self.path:
                self._answer(manifest, MANIFEST)
            elif reference in blobs:
                self._answer(blobs[reference].read_bytes(), "application/octet-stream")
            else:  # what a client asks first: whether this is a registry
                self._answer(b"{}", "application/json")

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, content: bytes, media: str) -> None:
            self.send_response(200)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(content)))
            self.send_header("docker-content-digest", f"sha256:{hashlib.sha256(content).hexdigest()}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
