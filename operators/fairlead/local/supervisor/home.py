"""The directory of a laptop cluster: one cluster at a time, and what `fairlead down`, `fairlead env` and the CLI may know of it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fairlead.local.supervisor.errors import UpError

HOME_VARIABLE = "FAIRLEAD_HOME"
FULL = (errno.ENOSPC, errno.EDQUOT)
MAKE_ROOM = "free some space, or choose another place with --directory"
NEEDED_BYTES = 16 * 2**20
"""For the API server's state and the first logs."""


def default_directory() -> Path:
    """$FAIRLEAD_HOME, else ~/.fairlead."""
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".fairlead")


@dataclass(frozen=True)
class Running:
    """A cluster that is up."""

    pid: int
    url: str
    kubeconfig: str
    agent: str
    operator: str = ""
    """Its own port, as HOST:PORT."""


@dataclass(frozen=True)
class Home:
    directory: Path

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def api_ready(self) -> Path:
        """Written by the API server when it serves."""
        return self.directory / "ready"

    @property
    def gateway(self) -> Path:
        return self.directory / "gateway"

    @property
    def models(self) -> Path:
        """Fetched models, for the pods after the one that fetched them."""
        return self.directory / "models"

    @property
    def log(self) -> Path:
        """What `fairlead up -d` says."""
        return self.directory / "up.log"

    def forget(self) -> None:
        """Removes the API server's state. Not while it runs: what is ephemeral must still survive a crash of that process."""
        for file in self.directory.glob("state.db*"):
            file.unlink(missing_ok=True)

    def process_log(self, name: str) -> Path:
        return self.directory / "processes" / f"{name}.log"

    def make(self) -> None:
        """Raises UpError if the directory cannot be written."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.write_bytes(b"\0" * 4096)
            probe.unlink()
        except OSError as error:
            raise self.unwritable(error) from None
        free = shutil.disk_usage(self.directory).free
        if free < NEEDED_BYTES:
            raise UpError(
                f"{free // 2**20} MiB are free for {self.directory}, {NEEDED_BYTES // 2**20} are needed: {MAKE_ROOM}"
            )

    def unwritable(self, error: OSError) -> UpError:
        """What to tell of a failure to write here."""
        return UpError(f"cannot write to {self.directory} ({error.strerror}): {_remedy(error)}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory; raises UpError naming the process that already does. The kernel lets go when the holder dies."""
        with self._lock_file().open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UpError(
                    f"a cluster already runs in {self.directory} (process {self.holder() or 'unknown'}). "
                    "`fairlead down` ends it; `--directory` makes a second one beside it."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                self.forget_running()
                file.truncate(0)

    def holder(self) -> int | None:
        """The process that holds the directory, if one does."""
        try:
            with self._lock_file().open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    text = file.read().strip()
                    return int(text) if text.isdigit() else 0
        except FileNotFoundError:
            return None
        return None

    def running(self) -> Running | None:
        """What a cluster that is up has said of itself."""
        if self.holder() is None:
            return None
        try:
            return Running(**json.loads(self._state_file().read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def remember_running(self, running: Running) -> None:
        new = self._state_file().with_suffix(".new")
        new.write_text(json.dumps(asdict(running)))
        new.replace(self._state_file())

    def forget_running(self) -> None:
        self._state_file().unlink(missing_ok=True)

    def _lock_file(self) -> Path:
        return self.directory / "lock"

    def _state_file(self) -> Path:
        return self.directory / "up.json"


def _remedy(error: OSError) -> str:
    if error.errno in FULL:
        return f"the disk is full; {MAKE_ROOM}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"choose a directory that is yours with --directory or {HOME_VARIABLE}"
    return f"choose another directory with --directory or {HOME_VARIABLE}"


PORTS = range(10_000, 32_000)
"""Below those that the kernel takes for outgoing connections: a part that ends and starts again finds its port free."""
_given: set[int] = set()


def free_port() -> int:
    """A port on which nobody listens; never the same twice."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def check_port(port: int) -> None:
    """Raises UpError naming who has the port, where the system tells."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UpError(
                    f"cannot listen on 127.0.0.1:{port} ({error.strerror}); choose another port with --port"
                ) from None
            owner = port_owner(port)
            who = f"by process {owner}" if owner else "by another process"
            raise UpError(
                f"port {port} is in use {who}; end it, or choose another port: fairlead up --port {port + 1}"
            ) from None


def port_owner(port: int) -> str | None:
    """`4711 (nginx)`: the process that listens on a TCP port, if /proc shows it to us."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(descriptor.readlink()) in inodes for descriptor in (process / "fd").iterdir()):
                return f"{process.name} ({(process / 'comm').read_text().strip()})"
    return None
