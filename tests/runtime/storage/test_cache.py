"""The cache that revisions and processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.runtime.storage import FetchOptions, StorageError, fetch
from fairlead.runtime.storage.cache import Cache, key


def fill(content: bytes) -> Any:
    def write(directory: Path) -> Path:
        (directory / "model").write_bytes(content)
        return directory

    return write


def never(_: Path) -> Path:
    raise AssertionError("filled again")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_dir()}


def test_an_entry_is_filled_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert (cache.entry("a", fill(b"1")) / "model").read_bytes() == b"1"
    assert cache.entry("a", never) == tmp_path / "a"


def test_a_fill_that_fails_leaves_its_parts_and_no_entry(tmp_path: Path) -> None:
    def half(directory: Path) -> Path:
        (directory / "part").write_bytes(b"half")
        raise StorageError("u", "cut off")

    cache = Cache(tmp_path)
    with pytest.raises(StorageError):
        cache.entry("a", half)
    assert names(tmp_path) == {"a.partial"}

    def rest(directory: Path) -> Path:
        assert (directory / "part").read_bytes() == b"half"
        return directory

    assert (cache.entry("a", rest) / "part").exists()
    assert names(tmp_path) == {"a"}


def test_the_entries_used_longest_ago_are_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=250)
    for age, name in enumerate(("a", "b")):
        os.utime(cache.entry(name, fill(bytes(100))), (age, age))
    os.utime(cache.entry("a", never))
    cache.entry("c", fill(bytes(100)))
    assert names(tmp_path) == {"a", "c"}


def test_an_entry_larger_than_the_limit_is_still_served(tmp_path: Path) -> None:
    assert (Cache(tmp_path, limit=10).entry("a", fill(bytes(100))) / "model").exists()


def test_an_entry_that_is_being_filled_is_not_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=10)

    def busy(directory: Path) -> Path:
        (directory / "model").write_bytes(bytes(100))
        Cache(tmp_path, limit=10).entry("b", fill(b"1"))
        assert (directory / "model").exists()
        return directory

    cache.entry("a", busy)


def test_a_model_survives_the_eviction_of_its_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit=150)
    cache.link("a", fill(bytes(100)), tmp_path / "to", tmp_path / "to" / ".fairlead")
    cache.entry("b", fill(bytes(100)))
    assert names(tmp_path / "cache") == {"b"}
    assert (tmp_path / "to" / "model").read_bytes() == bytes(100)


def test_the_next_model_replaces_the_files_of_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    cache, to = Cache(tmp_path / "cache"), tmp_path / "to"

    def two(directory: Path) -> Path:
        (directory / "old.onnx").write_bytes(b"1")
        (directory / "both").write_bytes(b"1")
        return directory

    cache.link("a", two, to, to / ".fairlead")
    (to / "mine").write_bytes(b"kept")
    cache.link("b", lambda directory: fill(b"2")(directory), to, to / ".fairlead")
    assert {path.name for path in to.iterdir()} == {".fairlead", "mine", "model"}


def test_keys_are_safe_names_and_tell_identities_apart() -> None:
    assert key("https://host/a?b=../c\n1").isalnum()
    assert key("a") != key("b")


def test_processes_that_want_the_same_model_at_once_download_it_once(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = os.urandom(2_000_000)
    digest = __import__("hashlib").sha256(site.files["/model.onnx"]).hexdigest()
    command = [sys.executable, "-m", "fairlead.runtime.storage", f"{site.url}/model.onnx#sha256={digest}"]
    started = [
        subprocess.Popen(
            [*command, str(tmp_path / str(i)), "--cache", str(tmp_path / "cache")], stdout=subprocess.DEVNULL
        )
        for i in range(3)
    ]
    assert [process.wait(timeout=110) for process in started] == [0, 0, 0]
    assert len(site.requests) == 1
    inodes = {(tmp_path / str(i) / "model.onnx").stat().st_ino for i in range(3)}
    assert len(inodes) == 1, "links, not copies"


def test_a_killed_fetch_holds_nobody_up_and_its_parts_are_used(site: Any, tmp_path: Path) -> None:
    import threading

    content = os.urandom(400_000)
    stalled = threading.Event()

    def stall(handler: Any, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", '"v1"')
        handler.end_headers()
        handler.wfile.write(body[:300_000])
        handler.wfile.flush()
        stalled.wait(30)

    site.files["/model.onnx"] = content
    site.next.extend([lambda handler, body: handler.serve(body), stall])
    command = [sys.executable, "-m", "fairlead.runtime.storage", f"{site.url}/model.onnx", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parts = tmp_path / ".fairlead"
    while not any(path.stat().st_size >= 300_000 for path in parts.glob("*.partial/downloaded/download.part")):
        assert process.poll() is None
    process.kill()
    process.wait()
    stalled.set()
    fetch(f"{site.url}/model.onnx", tmp_path, FetchOptions(environment={}))
    assert (tmp_path / "model.onnx").read_bytes() == content
    assert site.requests[-1][1]["range"] == "bytes=300000-"
