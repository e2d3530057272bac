"""How large images are and what takes the space: `python tools/image_sizes.py IMAGE ...`. Needs docker.

For each image its base, the layers that this project puts on it, and the largest of the installed packages.
"""

from __future__ import annotations

import subprocess
import sys

LARGEST = 12
"""Packages shown of each image."""
OURS = "org.opencontainers.image.title"
"""The first layer of ours: the label that says what the image is."""

_DU = """
import os
for place in ("/ray", "/torch", "/dependencies"):
    for name in os.listdir(place) if os.path.isdir(place) else ():
        top = os.path.join(place, name)
        files = (os.path.join(at, file) for at, _, names in os.walk(top) for file in names) if os.path.isdir(top) else (top,)
        print(sum(os.lstat(file).st_size for file in files), name)
"""


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def layers(image: str) -> list[tuple[int, str]]:
    """(bytes, the command that made it), the base's first."""
    lines = docker(
        "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image
    ).splitlines()
    return [(int(size), made_by) for size, made_by in (line.split("\t", 1) for line in reversed(lines))]


def packages(image: str) -> list[tuple[int, str]]:
    """(bytes, name) of what is installed, the largest first."""
    found = docker("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", _DU).splitlines()
    return sorted(((int(size), name) for size, name in (line.split(" ", 1) for line in found)), reverse=True)


def report(image: str) -> str:
    made = layers(image)
    first = next((n for n, (_, by) in enumerate(made) if OURS in by), len(made))
    total, base = sum(size for size, _ in made), sum(size for size, _ in made[:first])
    lines = [f"{image}  {_mb(total)}: the base image {_mb(base)}, ours {_mb(total - base)}"]
    if any("/dependencies" in made_by for _, made_by in made):
        largest = [f"{name} {_mb(size)}" for size, name in packages(image)[:LARGEST] if size >= 500_000]
        lines.append(f"    the largest: {', '.join(largest)}")
        code = sum(size for size, by in made[first:] if "/app" in by)
        lines.append(f"    a change of Fairlead's code ships {_mb(code)}")
    return "\n".join(lines)


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10e6 else f"{size / 1e6:.0f} MB"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        sys.stdout.write(f"{report(name)}\n")
        sys.stdout.flush()
