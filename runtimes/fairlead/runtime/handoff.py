"""The way of storage credentials from a container's environment to the process that fetches the model, past the one that runs it.

    start ── credentials in the environment? ──► into a memory file; the program starts anew without them
                                                   └► the fetching child, which nothing else of its user may look into, reads the file

A model's own code finds them neither in `os.environ` nor in /proc/PID/environ, and no process holds them once the model is fetched.
No other module of Fairlead's is imported here but names: this runs before all others.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping

from fairlead.api.names import FETCH_ENV_PREFIX

FILE_ENV = "FAIRLEAD_CREDENTIALS_FD"
"""The number of the open memory file, for the program after its new start and for the child."""

_PR_SET_DUMPABLE = 4


def hide_credentials(
    environment: Mapping[str, str] = os.environ, replace: Callable[[str, list[str], dict[str, str]], None] = os.execve
) -> None:
    """Called before anything else runs. Returns where there is nothing to hide; else the program starts anew (exec), and this does not return.

    Taking variables out of `os.environ` alone would not do: the kernel shows the environment that a program was started with.
    """
    secret = {name: value for name, value in environment.items() if name.startswith(FETCH_ENV_PREFIX)}
    if not secret:
        return
    kept = {name: value for name, value in environment.items() if name not in secret}
    file = _memory_file()
    with os.fdopen(os.dup(file), "w") as content:
        json.dump(secret, content)
    os.set_inheritable(file, True)
    replace(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**kept, FILE_ENV: str(file)})


def take(environment: MutableMapping[str, str] = os.environ) -> int | None:
    """The memory file's number, for a child alone (`pass_fds`); whoever takes it closes it."""
    number = environment.pop(FILE_ENV, None)
    return None if number is None else int(number)


def received(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """In the child: the credentials, as the variables that they were."""
    file = take(environment)
    if file is None:
        return {}
    with os.fdopen(file) as content:
        content.seek(0)
        found: dict[str, str] = json.load(content)
        return found


def seal() -> None:
    """From now on other processes of this user can read neither this one's memory nor what it was started with."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("credentials")
    import tempfile

    with tempfile.TemporaryFile() as file:  # not on Linux: a file that has no name any more
        return os.dup(file.fileno())
