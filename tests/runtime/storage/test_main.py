"""The storage initializer: its output is for people, its last line for the pod's status."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from fairlead.runtime.storage import Progress, __main__
from fairlead.runtime.storage.__main__ import ProgressPrinter, main
from fairlead.runtime.storage.errors import disk_error


@pytest.fixture(autouse=True)
def _termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "termination-log").touch()
    monkeypatch.setattr(__main__, "TERMINATION_LOG", tmp_path / "termination-log")


def test_a_model_is_put_where_it_is_wanted(site: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files["/model.onnx"] = b"weights"
    assert main([f"{site.url}/model.onnx?signature=secret", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "model.onnx").read_bytes() == b"weights"
    out = capsys.readouterr().out
    assert out.endswith(f"model.onnx?… is at {tmp_path}/to\n")
    assert "secret" not in out


def test_a_local_model_is_linked_for_the_other_container(tmp_path: Path) -> None:
    (tmp_path / "from" / "sub").mkdir(parents=True)
    (tmp_path / "from" / "sub" / "model.onnx").write_bytes(b"weights")
    for _ in range(2):
        assert main([f"file://{tmp_path}/from", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "sub" / "model.onnx").read_bytes() == b"weights"
    assert main([f"file://{tmp_path}/from/sub/model.onnx", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "model.onnx").read_bytes() == b"weights"


def test_a_mirror_and_a_cache_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "model.onnx").write_bytes(b"weights")
    monkeypatch.setenv("FAIRLEAD_STORAGE_MIRRORS", f"gs://bucket/models/… -> file://{tmp_path}/mirror/…")
    assert main(["gs://bucket/models/model.onnx", str(tmp_path / "to")]) == 0
    assert (tmp_path / "to" / "model.onnx").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["file:///nowhere"], "cannot fetch file:///nowhere: /nowhere does not exist; / holds "),
        (["oci://ghcr.io/"], "cannot fetch oci://ghcr.io/: it is no image's name; write oci://registry/repository:tag"),
        (["file:///nowhere", "--cache-limit", "lots"], "'lots' is not a size; write it like 20Gi"),
    ],
)
def test_a_failure_ends_with_one_plain_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([arguments[0], str(tmp_path / "to"), *arguments[1:]]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(says)
    assert (tmp_path / "termination-log").read_text() == last


def test_a_destination_that_is_in_the_way_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "to").write_bytes(b"a file")
    assert main([str(tmp_path / "model.onnx"), str(tmp_path / "to")]) == 1
    assert "File exists" in capsys.readouterr().err


def test_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    monkeypatch.setattr(__main__.time, "monotonic", lambda: now[0])
    printer = ProgressPrinter("https://me:secret@host/model")
    for second in range(1, 6):
        now[0] = float(second)
        printer(Progress(second << 20, 10 << 20))
    assert capsys.readouterr().out.splitlines() == [
        "https://host/model: 2.0 MiB of 10.0 MiB (20 %), 512.0 KiB/s",
        "https://host/model: 4.0 MiB of 10.0 MiB (40 %), 768.0 KiB/s",
    ]


def test_a_full_disk_is_said_in_plain_words(tmp_path: Path) -> None:
    error = disk_error("s3://b/k", OSError(errno.ENOSPC, "No space left on device"), tmp_path)
    assert str(error).startswith(f"cannot fetch s3://b/k: no space left on the disk of {tmp_path} (")
    assert str(error).endswith(" free); free some or give the volume more")
