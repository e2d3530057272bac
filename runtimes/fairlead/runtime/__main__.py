"""`python -m fairlead.runtime`: the model server of a pod."""

from __future__ import annotations

import sys

from fairlead.runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
