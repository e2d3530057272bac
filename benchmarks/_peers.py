"""Other model servers, each in an environment of its own where it cannot live in ours: made when first needed, then kept.

`~/.cache/fairlead-bench/NAME-VERSION` is a virtual environment with the peer and what it depends on. scikit-learn and skops,
which load the model, it borrows from the environment that runs the benchmark: the same code predicts everywhere.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS = 240


class Missing(Exception):
    """The peer cannot be measured here, and why."""


@dataclass(frozen=True)
class Peer:
    package: str
    version: str | None
    """None: whatever our own environment has."""


PEERS = {
    "kserve": Peer("kserve", None),
    "ray default": Peer("ray", None),
    "mlserver": Peer("mlserver", "1.7.1"),
    "litserve": Peer("litserve", "0.2.19"),
}


def python(name: str, cache: Path) -> str:
    """The interpreter that runs the peer's server. Raises Missing."""
    peer = PEERS[name]
    if peer.version is None:
        if importlib.util.find_spec(peer.package) is None:
            raise Missing(f"{peer.package} is not installed in this environment")
        return sys.executable
    place = cache / f"{peer.package}-{peer.version}"
    interpreter = place / "bin" / "python"
    if not (place / "complete").exists():
        _make(place, f"{peer.package}=={peer.version}")
    return str(interpreter)


def _make(place: Path, requirement: str) -> None:
    print(f"  making {place} for {requirement}", flush=True)
    venv.create(place, clear=True, with_pip=True)
    command = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"pip did not install {requirement} within {INSTALL_SECONDS} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Missing(f"pip cannot install {requirement}: {last[0]}")
    # Behind its own packages come ours. Not before the installation: pip would take ours for installed.
    site = next((place / "lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (place / "complete").touch()


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead-bench"
