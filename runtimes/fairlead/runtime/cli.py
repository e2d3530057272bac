"""The model server's entry points: `main(argv)` for a pod, `serve(argv)` for `fairlead serve PATH|MODULE:CLASS`.

Whatever ends the server, its last line on stderr says why in plain words, and the exit code is 1.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from fairlead.runtime.engines import select
from fairlead.runtime.errors import LoadError
from fairlead.runtime.operations import startup
from fairlead.runtime.settings import Settings, parse, warn_of_ignored

log = logging.getLogger("fairlead.runtime")


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop. Returns the exit code."""
    return _run(parse(argv))


def serve(argv: Sequence[str]) -> int:
    """`serve PATH|MODULE:CLASS [flags]`: a model file, a directory, or a class, on this machine."""
    if not argv or argv[0].startswith("-"):
        print("usage: fairlead serve PATH|MODULE:CLASS [--http_port N] …; --help shows all flags", file=sys.stderr)  # noqa: T201
        return 0 if "--help" in argv and not parse(argv) else 2
    what, flags = argv[0], list(argv[1:])
    if Path(what).exists():
        path = Path(what).resolve()
        place = "--model_class" if path.suffix == ".py" else "--model_dir"
        flags = [*_named(flags, path.stem), place, str(path)]
    elif ":" in what:
        if "" not in sys.path:
            sys.path.insert(0, "")  # a class in the current directory, as with python -m
        flags = [*_named(flags, what.rpartition(":")[2].lower()), "--model_class", what]
    else:
        print(f"{what}: there is no such file, and it is not MODULE:CLASS", file=sys.stderr)  # noqa: T201
        return 2
    if "--host" not in flags:
        flags += ["--host", "127.0.0.1"]
    if "--engine" not in flags:
        flags += ["--engine", "process"]
    return _run(parse(flags, {}))


def inspect(argv: Sequence[str]) -> int:
    """`inspect PATH`: what a model file is, and what it takes to serve it."""
    from fairlead.runtime.inspect import main as inspect_main

    return inspect_main(argv)


def _named(flags: list[str], name: str) -> list[str]:
    return flags if "--model_name" in flags else [*flags, "--model_name", name]


def _run(settings: Settings) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    warn_of_ignored(settings)
    try:
        engine, why = select(settings)
        log.info("engine %s: %s", engine.name, why)
        if engine.name != "process" or settings.workers > 1:
            startup.hand_down()
        engine.run(settings)
    except KeyboardInterrupt:
        return 130
    except LoadError as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, LoadError):
            traceback.print_exception(cause)
        return _fail(error.message)
    except OSError as error:
        return _fail(error.strerror or str(error))
    return 0


def _fail(message: str) -> int:
    """The last line: the pod's termination message is made of it."""
    line = " ".join(message.split())
    print(f"fairlead: {line}", file=sys.stderr, flush=True)  # noqa: T201
    return 1
