"""`python -m fairlead.runtime`: the model server of a pod."""

from __future__ import annotations

import sys

from fairlead.runtime.handoff import hide_credentials

if __name__ == "__main__":
    hide_credentials()
    from fairlead.runtime.cli import main

    sys.exit(main(sys.argv[1:]))
