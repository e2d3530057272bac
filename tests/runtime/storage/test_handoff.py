"""Credentials reach the process that fetches, and the process that runs the model never has them where the model could look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.runtime import handoff
from fairlead.runtime.settings import Settings
from fairlead.runtime.sources import Fetch

SECRET = "s3cr3t-value"

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

SNOOP = """
import os, pathlib
from fairlead.runtime import handoff
handoff.hide_credentials()

def find():
    yield from (name for name, value in os.environ.items() if "{secret}" in value)
    for process in pathlib.Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if b"{secret}" in (process / "environ").read_bytes():
                    yield str(process)
            except OSError:
                pass

print("found before:", list(find()))
from fairlead.runtime.sources import Fetch
fetch = Fetch("{uri}", pathlib.Path("{destination}"))
print("found meanwhile:", list(find()))
opened = [os.readlink(file) for file in pathlib.Path("/proc/self/fd").iterdir() if file.is_symlink() and file.exists()]
print("open:", [name for name in opened if "credentials" in name])
print("path:", fetch.result())
"""


@needs_proc
def test_a_models_code_finds_credentials_in_no_environment_while_the_fetch_has_them(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = b"weights"
    host = site.url.removeprefix("http://")
    program = tmp_path / "snoop.py"
    program.write_text(SNOOP.format(secret=SECRET, uri=f"{site.url}/model.onnx", destination=tmp_path / "to"))
    given = {
        "FAIRLEAD_FETCH_0_https-host": host,
        "FAIRLEAD_FETCH_0_headers": json.dumps({"X-Token": SECRET}),
        "KEPT": "yes",
    }
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == ["found before: []", "found meanwhile: []", "open: []"]
    assert (tmp_path / "to" / "model.onnx").read_bytes() == b"weights"
    assert site.requests[-1][1]["x-token"] == SECRET


@needs_proc
def test_nobody_of_the_same_user_can_look_into_the_process_that_fetches() -> None:
    code = "from fairlead.runtime.handoff import seal; seal(); print('sealed', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "sealed\n"
        # Root may look into everything; for everyone else the kernel makes root the owner.
        assert Path(f"/proc/{child.pid}/environ").stat().st_uid == 0
        assert Path(f"/proc/{child.pid}/mem").stat().st_uid == 0
        if os.getuid() != 0:
            with pytest.raises(PermissionError):
                Path(f"/proc/{child.pid}/environ").read_bytes()
    finally:
        child.communicate("\n")


def test_without_credentials_the_program_goes_on_as_it_is() -> None:
    def replaced(*_: object) -> None:
        raise AssertionError("it started anew")

    handoff.hide_credentials({"PATH": "/bin"}, replaced)


def test_the_new_start_has_the_old_arguments_and_all_but_the_credentials() -> None:
    started: list[Any] = []

    def replaced(program: str, argv: list[str], environment: dict[str, str]) -> None:
        started.append((program, argv, environment))

    handoff.hide_credentials({"PATH": "/bin", "FAIRLEAD_FETCH_0_HF_TOKEN": SECRET}, replaced)
    ((program, argv, environment),) = started
    assert (program, argv[1:]) == (sys.executable, sys.orig_argv[1:])
    number = environment.pop(handoff.FILE_ENV)
    assert environment == {"PATH": "/bin"}
    given = {handoff.FILE_ENV: number}
    assert handoff.received(given) == {"FAIRLEAD_FETCH_0_HF_TOKEN": SECRET}
    assert given == {}
    assert handoff.received(given) == {}


def test_a_model_that_lies_here_needs_no_credentials_and_they_go_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    file = handoff._memory_file()
    monkeypatch.setenv(handoff.FILE_ENV, str(file))
    assert Fetch(str(tmp_path / "model.onnx"), Settings().model_dir).result() == tmp_path / "model.onnx"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
