"""The storage initializer: `python -m fairlead.runtime.storage URI DESTINATION [URI DESTINATION …]`.

Progress goes to the standard output, at most a line every few seconds. When it fails the last line, and the pod's
termination message, say why in plain words, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fairlead.api.names import MODEL_CACHE_ENV, MODEL_CACHE_LIMIT_ENV
from fairlead.runtime.handoff import received, seal
from fairlead.runtime.storage import FetchOptions, Progress, StorageError, cache, fetch
from fairlead.runtime.storage.errors import disk_error, redact, size_text

TERMINATION_LOG = Path("/dev/termination-log")
PROGRESS_EVERY = 2.0


def main(argv: Sequence[str] | None = None, secrets: Mapping[str, str] | None = None) -> int:
    """`secrets`: credentials that are not in the environment, which others may read."""
    parser = argparse.ArgumentParser(
        prog="python -m fairlead.runtime.storage", description="Fetch models to directories."
    )
    parser.add_argument(
        "pairs", nargs="+", metavar="URI DESTINATION", help="where a model is and the directory to put it"
    )
    parser.add_argument("--cache", help=f"shared cache directory [{MODEL_CACHE_ENV}]")
    parser.add_argument("--cache-limit", help=f"what it may take, e.g. 20Gi [{MODEL_CACHE_LIMIT_ENV}]")
    arguments = parser.parse_args(argv)
    if len(arguments.pairs) % 2:
        parser.error("every URI needs a DESTINATION")
    try:
        given = {MODEL_CACHE_ENV: arguments.cache, MODEL_CACHE_LIMIT_ENV: arguments.cache_limit}
        own = {key: value for key, value in given.items() if value}
        options = FetchOptions.from_environment({**os.environ, **(secrets or {}), **own})
        for uri, destination in zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True):
            initialize(uri, Path(destination), options)
    except (StorageError, ValueError) as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return fail("interrupted")
    return 0


def initialize(uri: str, destination: Path, options: FetchOptions) -> None:
    """Fetch `uri` so that another container finds it at `destination`, even if it lay on this machine already."""
    printer = ProgressPrinter(uri)
    path = fetch(uri, destination, replace(options, progress=printer))
    if path != destination and not path.is_relative_to(destination):
        try:
            cache.symlink(path, destination)
        except OSError as error:
            raise disk_error(uri, error, destination) from error
    print(f"{redact(uri)} is at {destination}", flush=True)  # noqa: T201


class ProgressPrinter:
    """Prints `12.0 MiB of 80.0 MiB (15 %), 6.0 MiB/s`, not more often than every PROGRESS_EVERY seconds."""

    def __init__(self, uri: str) -> None:
        self.uri = redact(uri)
        self.started = self.printed = time.monotonic()
        self.first: int | None = None

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = progress.done
        if now - self.printed < PROGRESS_EVERY:
            return
        self.printed = now
        rate = (progress.done - self.first) / max(now - self.started, 1e-9)
        of = f" of {size_text(progress.total)} ({100 * progress.done // progress.total} %)" if progress.total else ""
        print(f"{self.uri}: {size_text(progress.done)}{of}, {size_text(rate)}/s", flush=True)  # noqa: T201


def fail(message: str) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(message)
    return 1


if __name__ == "__main__":
    seal()
    sys.exit(main(secrets=received()))
