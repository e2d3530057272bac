"""`fairlead`: the command line.

`app` names every command and where it is; a command's module is imported when it is called. `errors` turns what went wrong into one line.
"""

from __future__ import annotations

import os
import sys

DEBUG_VARIABLE = "FAIRLEAD_DEBUG"

__all__ = ["main"]


def main() -> None:
    """Runs the command in sys.argv. Exit codes: 0 done, 1 it failed, 2 it was called wrongly, 130 Ctrl-C."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    from fairlead.cli.errors import explained

    try:
        from fairlead.cli.app import command

        command(prog_name="fairlead")
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {explained(error)}", file=sys.stderr)
        sys.exit(1)
