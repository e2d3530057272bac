"""`python -m fairlead.local.apiserver --directory D`: see the package."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from .server import Settings, run


def settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(
        "python -m fairlead.local.apiserver", description="A small Kubernetes API server on loopback."
    )
    parser.add_argument("--directory", type=Path, required=True, help="state, certificates, token, kubeconfig and logs")
    parser.add_argument("--ephemeral", action="store_true", help="keep no objects on disk")
    parser.add_argument(
        "--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="loopback only; port 0: last time's, else any"
    )
    parser.add_argument("--crds", type=Path, metavar="DIR", help="CustomResourceDefinitions to apply at start")
    given = parser.parse_args(arguments)
    host, _, port = given.listen.rpartition(":")
    if not port.isdigit() or not (host == "localhost" or host.startswith("127.")):
        parser.error(f"--listen {given.listen}: HOST:PORT with a loopback address (127.0.0.1) is needed")
    if given.crds is not None and not given.crds.is_dir():
        parser.error(f"--crds {given.crds}: there is no such folder")
    return Settings(given.directory, given.ephemeral, host, int(port), given.crds)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    chosen = settings(sys.argv[1:])
    try:
        asyncio.run(run(chosen))
    except OSError as fault:
        logging.getLogger(__name__).error("%s", fault)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
