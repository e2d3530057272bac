"""Starts a Ray worker in the environment that is there: Ray's own script imports all of Ray (0.6 s) to set up others.

Called by the raylet: `python setup_worker.py WORKERS_SCRIPT ARGUMENTS… --language=PYTHON`.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--language=")]
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
