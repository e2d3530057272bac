"""Downloads over HTTP: what arrives is right, or the error says why not."""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.runtime.storage import FetchOptions, Progress, StorageError, TransientError, fetch

CONTENT = os.urandom(700_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def options(**given: Any) -> FetchOptions:
    return FetchOptions(**{"environment": {}, "backoff": 0.0, "timeout": 5.0, **given})


def test_a_file_is_fetched_under_its_name(site: Any, tmp_path: Path) -> None:
    site.files["/a/model.onnx"] = CONTENT
    assert fetch(f"{site.url}/a/model.onnx", tmp_path, options()) == tmp_path
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_connection_that_drops_is_resumed_where_it_dropped(site: Any, tmp_path: Path) -> None:
    from_server = [lambda handler, content, cut=cut: handler.serve(content, cut=cut) for cut in (0, 300_000, 200_000)]
    site.files["/model.onnx"] = CONTENT
    # The first request is the one that asks for the identity.
    site.next.extend(from_server)
    fetch(f"{site.url}/model.onnx", tmp_path, options(attempts=2))
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT
    assert [headers.get("range") for _, headers in site.requests] == [None, None, "bytes=300000-", "bytes=500000-"]
    assert site.sent == len(CONTENT)


def test_tries_that_bring_bytes_do_not_count(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    site.next.extend(lambda handler, content: handler.serve(content, cut=50_000) for _ in range(12))
    fetch(f"{site.url}/model.onnx", tmp_path, options(attempts=2))
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_fetch_that_was_given_up_is_resumed_by_the_next_one(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    site.next.extend(
        [lambda h, c: h.serve(c), lambda h, c: h.serve(c, cut=400_000), *[lambda h, c: h.answer(503, b"")] * 3]
    )
    with pytest.raises(TransientError, match="the server answers 503"):
        fetch(f"{site.url}/model.onnx", tmp_path, options(attempts=2))
    assert not (tmp_path / "model.onnx").exists()
    site.next.clear()
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT
    assert site.requests[-1][1]["range"] == "bytes=400000-"


def test_a_file_that_changed_in_between_is_fetched_from_its_start(site: Any, tmp_path: Path) -> None:
    def change(handler: Any, content: bytes) -> None:
        handler.serve(content, cut=100_000)
        site.headers["ETag"] = '"v2"'
        site.files["/model.onnx"] = CONTENT[::-1]

    site.files["/model.onnx"] = CONTENT
    site.next.extend([lambda h, c: h.serve(c), change])
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT[::-1]


def test_without_a_validator_nothing_is_resumed(site: Any, tmp_path: Path) -> None:
    site.headers.clear()
    site.files["/model.onnx"] = CONTENT
    site.next.extend([lambda h, c: h.serve(c), lambda h, c: h.serve(c, cut=100_000)])
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT
    assert "range" not in site.requests[-1][1]


def test_a_server_without_ranges_is_read_again(site: Any, tmp_path: Path) -> None:
    site.ranges = False
    site.files["/model.onnx"] = CONTENT
    site.next.extend([lambda h, c: h.serve(c), lambda h, c: h.serve(c, cut=100_000)])
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_the_same_content_is_not_fetched_twice(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    for _ in range(2):
        fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert len(site.requests) == 3, "identity and body, then identity alone"


def test_a_new_version_replaces_the_old_one(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    site.files["/model.onnx"], site.headers["ETag"] = b"new", '"v2"'
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == b"new"


def test_a_digest_in_the_address_is_checked(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    fetch(f"{site.url}/model.onnx#sha256={DIGEST}", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT
    with pytest.raises(StorageError, match=f"checksum mismatch: sha256 is {DIGEST}, {'0' * 64} was expected"):
        fetch(f"{site.url}/model.onnx#sha256={'0' * 64}", tmp_path / "other", options())
    assert not (tmp_path / "other" / "model.onnx").exists()


def test_what_has_a_digest_and_is_there_needs_no_server(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    for _ in range(2):
        fetch(f"{site.url}/model.onnx", tmp_path, options(sha256=DIGEST))
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (404, "not found: the server answers 404"),
        (410, "not found"),
        (403, "forbidden.*-headers in a Secret"),
        (400, "the server answers 400 Bad"),
    ],
)
def test_an_answer_that_will_not_change_is_not_asked_for_again(site: Any, tmp_path: Path, code: int, says: str) -> None:
    site.files["/model.onnx"] = CONTENT
    site.next.append(lambda handler, _: handler.answer(code, b""))
    with pytest.raises(StorageError, match=says):
        fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert len(site.requests) == 1


def test_a_server_that_is_overloaded_is_asked_again(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    site.next.extend([lambda h, c: h.answer(503, b""), lambda h, c: h.answer(429, b"", headers={"Retry-After": "0"})])
    fetch(f"{site.url}/model.onnx", tmp_path, options())
    assert (tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StorageError, match=r"127\.0\.0\.1 refuses the connection"):
        fetch(f"http://127.0.0.1:{port}/model.onnx", tmp_path, options(attempts=2))


def test_a_server_that_sends_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/model.onnx"
        with pytest.raises(StorageError, match=r"127\.0\.0\.1 sent nothing for 0\.1 s"):
            fetch(address, tmp_path, options(attempts=1, timeout=0.1))


def test_secrets_go_to_their_host_and_into_no_message(site: Any, tmp_path: Path) -> None:
    site.files["/other/model.onnx"] = CONTENT
    site.files["/model.onnx"] = b""
    to = f"{site.url.replace('127.0.0.1', 'localhost')}/other/model.onnx"
    redirect = [lambda h, _: h.answer(302, b"", headers={"Location": to})] * 2
    site.next.extend([redirect[0], lambda h, c: h.serve(c), redirect[1]])
    address = f"{site.url.replace('//', '//me:secret@')}/model.onnx?signature=abc"
    fetch(address, tmp_path, options(environment={"127.0.0.1-headers": '{"X-Token": "t"}'}))
    for path, headers in site.requests:
        first_host = not path.startswith("/other")
        assert ("authorization" in headers, headers.get("x-token") == "t") == (first_host, first_host)
    with pytest.raises(StorageError) as raised:
        fetch(address.replace("model", "missing"), tmp_path, options())
    assert "secret" not in str(raised.value)
    assert "abc" not in str(raised.value)


def test_a_redirect_to_a_file_is_not_followed(site: Any, tmp_path: Path) -> None:
    site.files["/model.onnx"] = CONTENT
    site.next.append(lambda h, _: h.answer(302, b"", headers={"Location": "file:///etc/passwd"}))
    with pytest.raises(StorageError, match="302"):
        fetch(f"{site.url}/model.onnx", tmp_path, options())


def test_a_name_from_the_server_cannot_leave_the_directory(site: Any, tmp_path: Path) -> None:
    site.files["/download"] = CONTENT
    site.headers["Content-Disposition"] = 'attachment; filename="../../escaped.onnx"'
    fetch(f"{site.url}/download?id=3", tmp_path / "a" / "b", options())
    assert (tmp_path / "a" / "b" / "escaped.onnx").exists()


def test_an_archive_is_told_by_its_content_type_too(site: Any, tmp_path: Path) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("sub/model.onnx")
        entry.size = len(CONTENT)
        tar.addfile(entry, io.BytesIO(CONTENT))
    site.files["/download"] = buffer.getvalue()
    site.headers["Content-Type"] = "application/gzip"
    fetch(f"{site.url}/download", tmp_path, options())
    assert (tmp_path / "sub" / "model.onnx").read_bytes() == CONTENT
    assert not list(tmp_path.glob("*.tar.gz"))


def test_progress_tells_how_much_of_what_is_there(site: Any, tmp_path: Path) -> None:
    seen: list[Progress] = []
    site.files["/model.onnx"] = CONTENT
    fetch(f"{site.url}/model.onnx", tmp_path, options(progress=seen.append))
    assert seen[0] == Progress(0, len(CONTENT))
    assert seen[-1] == Progress(len(CONTENT), len(CONTENT))
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_a_disk_that_fills_up_is_said_so(site: Any, tmp_path: Path) -> None:
    """The limit on file sizes stands in for a small disk: it fails the same write, with EFBIG."""
    site.files["/model.onnx"] = CONTENT
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
    program += "from fairlead.runtime.storage.__main__ import main; sys.exit(main(sys.argv[1:]))"
    run = subprocess.run(
        [sys.executable, "-c", program, f"{site.url}/model.onnx", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 1
    assert "would be larger than this process may write" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr


def test_a_file_that_does_not_fit_is_refused_before_it_is_fetched(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    site.files["/model.onnx"] = CONTENT
    with pytest.raises(StorageError, match=r"no space left on the disk of .*\(1000 B free, 683.6 KiB needed\)"):
        fetch(f"{site.url}/model.onnx", tmp_path, options())


def test_gzip_that_was_not_asked_for_is_kept_as_it_came(site: Any, tmp_path: Path) -> None:
    packed = gzip.compress(CONTENT)
    site.files["/model.txt.gz"] = packed
    fetch(f"{site.url}/model.txt.gz", tmp_path, options())
    assert (tmp_path / "model.txt.gz").read_bytes() == packed
