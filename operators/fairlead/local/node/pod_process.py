"""What a container is on a machine without containers: a command line, an environment, a directory.

An image that is one of ours runs as `python -m fairlead.runtime` from the node's own Python; any other container runs its `command`.
There is no mount namespace: a volume is a directory of the node, and a mount path at the start of a word of the command line, of a
`--flag=` value, or of a variable's value is rewritten to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.api import names
from fairlead.api.quantity import parse_quantity
from fairlead.local.node.environment import expand

OUR_RUNTIME = re.compile(r"(^|/)fairlead/runtime[^/@]*(@[^/]*)?$")
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NeedsCluster(Exception):
    """The pod asks for something that only a real node has; the message says what, and what would run here."""


@dataclass(frozen=True)
class Command:
    """What to start. `environment` is added to the node's own."""

    argv: list[str]
    environment: dict[str, str]
    directory: Path
    memory_limit: int | None
    """Bytes."""


def is_our_runtime(image: str) -> bool:
    return OUR_RUNTIME.search(image) is not None


def command(
    container: Mapping[str, Any],
    environment: Mapping[str, str],
    mounts: Mapping[str, Path],
    directory: Path,
    python: str,
) -> Command:
    """The process of a container; raises NeedsCluster.

    `mounts` is mount path -> directory, `directory` the working directory where the manifest names none.
    """
    words = [expand(word, environment) for word in container.get("command") or ()]
    arguments = [expand(word, environment) for word in container.get("args") or ()]
    image = str(container.get("image", ""))
    if not words and is_our_runtime(image):
        # The image's own place for the model: without it the server would take the machine's /mnt/models.
        words = [python, "-m", "fairlead.runtime", f"--model_dir={names.MODEL_DIR}"]
    if not words:
        raise NeedsCluster(
            f"image {image or '(none)'} of container {container['name']} needs a container engine, and this node runs plain processes. "
            "Give the container a `command` that runs on this machine, use a Fairlead runtime, or apply this to a real cluster."
        )
    limits = (container.get("resources") or {}).get("limits") or {}
    variables = {name: rewritten(value, mounts) for name, value in environment.items()}
    if "cpu" in limits:
        # Nothing throttles a process here; libraries that would start a thread for every core are told how many were meant.
        threads = str(max(1, math.ceil(parse_quantity(str(limits["cpu"])))))
        variables = {**dict.fromkeys(THREAD_LIMITS, threads), **variables}
    return Command(
        argv=[rewritten(word, mounts) for word in [*words, *arguments]],
        environment=variables,
        directory=Path(rewritten(container["workingDir"], mounts)) if container.get("workingDir") else directory,
        memory_limit=int(parse_quantity(str(limits["memory"]))) if "memory" in limits else None,
    )


def rewritten(word: str, mounts: Mapping[str, Path]) -> str:
    """`/mnt/models/x`, `--dir=/mnt/models/x` and `file:///mnt/models/x` with the mount path replaced; the longest mount path wins."""
    for path in sorted(mounts, key=len, reverse=True):
        pattern = rf"^((?:[^/\s]*=)?(?:file://)?){re.escape(path.rstrip('/'))}(?=/|$)"
        match = re.match(pattern, word)
        if match:
            return match[1] + str(mounts[path]) + word[match.end() :]
    return word


def image_directories(container: Mapping[str, Any]) -> list[str]:
    """Writable directories that come with the image rather than with a volume: our runtimes' place for the model."""
    return [names.MODEL_DIR] if is_our_runtime(str(container.get("image", ""))) else []
