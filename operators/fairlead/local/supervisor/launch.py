"""`python -m fairlead.local.supervisor.launch MODULE READY-FILE [ARGUMENTS]`: imports MODULE while the API server starts, then runs it.

Importing is most of a Python process's start. Here it is done by the time there is anything to connect to.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

LOOK_EVERY = 0.005


def main() -> None:
    module, ready, *arguments = sys.argv[1:]
    program = importlib.import_module(f"{module}.__main__")
    while not Path(ready).exists():
        time.sleep(LOOK_EVERY)
    sys.argv = [module, *arguments]
    sys.exit(program.main())


if __name__ == "__main__":
    main()
