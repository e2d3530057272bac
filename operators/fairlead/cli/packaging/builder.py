"""Builds images with docker or podman, pushes them, and loads them into kind. What these programs print goes to stderr."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fairlead.cli.errors import CliError

PROGRAMS = ("docker", "podman")
CONTROL_PLANE = re.compile(r"-control-plane\d*$|-external-load-balancer$")
STDERR = 2
"""The file: standard output is for the manifest alone."""


def program(wanted: str | None = None) -> str:
    """The one to use. Raises CliError if there is none."""
    for name in (wanted,) if wanted else PROGRAMS:
        if shutil.which(name):
            return name
    missing = wanted or " nor ".join(PROGRAMS)
    raise CliError(
        f"{'' if wanted else 'neither '}{missing} is {'not ' if wanted else ''}on PATH, and an image needs one to be built: install it, "
        "or print the Dockerfile with --dockerfile and build it elsewhere"
    )


def build(engine: str, context: Path, dockerfile: str, ignore: str, tag: str, arguments: Sequence[str] = ()) -> None:
    """Build `tag` from the files in `context`, which stays as it is: Dockerfile and .dockerignore lie elsewhere."""
    with tempfile.TemporaryDirectory(prefix="fairlead-package-") as place:
        file = Path(place) / "Dockerfile"
        file.write_text(dockerfile)
        (Path(place) / "Dockerfile.dockerignore").write_text(ignore)
        flags = [word for argument in arguments for word in ("--build-arg", argument)]
        command = [engine, "build", "--file", str(file), "--tag", tag, *flags]
        if engine == "podman":
            command += ["--ignorefile", f"{file}.dockerignore"]
        _run([*command, str(context)], f"the image {tag} could not be built: what {engine} said is above")


def push(engine: str, tag: str) -> None:
    _run(
        [engine, "push", tag],
        f"{tag} could not be pushed: log in with `{engine} login`, or name another registry with --tag",
    )


def load_into_kind(tag: str, cluster: str) -> None:
    if shutil.which("kind") is None:
        raise CliError("kind is not on PATH: install it, or leave --kind out and push the image with --push")
    listed = subprocess.run(["kind", "get", "nodes", "--name", cluster], capture_output=True, text=True, check=False)
    # Where there are workers nothing runs on the control plane: a copy less to carry.
    workers = [node for node in listed.stdout.split() if not CONTROL_PLANE.search(node)]
    nodes = ["--nodes", ",".join(workers)] if workers else []
    _run(
        ["kind", "load", "docker-image", tag, "--name", cluster, *nodes],
        f"{tag} could not be loaded into the kind cluster {cluster!r}: `kind get clusters` tells which there are",
    )


def size(engine: str, tag: str) -> int:
    """Bytes, of all layers."""
    done = subprocess.run(
        [engine, "image", "inspect", "--format", "{{.Size}}", tag], capture_output=True, text=True, check=False
    )
    return int(done.stdout.strip() or 0)


def _run(command: Sequence[str], otherwise: str) -> None:
    done = subprocess.run(command, stdout=STDERR, check=False)
    if done.returncode != 0:
        raise CliError(otherwise)
