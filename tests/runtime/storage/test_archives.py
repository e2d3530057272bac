"""Archives that strangers made."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.runtime.storage.archives import ArchiveLimits, unpack
from fairlead.runtime.storage.errors import StorageError

LIMITS = ArchiveLimits(total=1 << 20, ratio=50, ratio_from=100_000, count=100)


def tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as pack:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            pack.addfile(info, io.BytesIO(content))
    return path


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members:
            pack.writestr(name, content)
    return path


def out(directory: Path) -> Path:
    made = directory / "inside" / "out"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.gz"])
def test_files_come_out_where_they_were(name: str, tmp_path: Path) -> None:
    members = (("model.onnx", b"weights"), ("sub/deep/labels.txt", b"a"))
    packed = (archive if name.endswith("zip") else tar)(tmp_path / name, *members)
    unpack(packed, to := out(tmp_path), "u", LIMITS)
    assert {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()} == dict(members)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "sub/../../escaped", "..\\escaped"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_outside(name: str, kind: str, tmp_path: Path) -> None:
    packed = (archive if kind == "zip" else tar)(tmp_path / f"a.{kind}", ("first", b"1"), (name, b"2"))
    with pytest.raises(StorageError, match=r"would write outside its directory: .*; do not trust it"):
        unpack(packed, out(tmp_path), "u", LIMITS)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_tar_archives_are_refused(kind: bytes, tmp_path: Path) -> None:
    packed = tar(tmp_path / "a.tar", (link("sub", "/etc", kind), b""), ("sub/passwd", b"x"))
    with pytest.raises(StorageError, match="holds a link: 'sub'; pack it with links followed"):
        unpack(packed, out(tmp_path), "u", LIMITS)


def test_links_in_zip_archives_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("sub")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr(info, "/etc")
    with pytest.raises(StorageError, match="holds a link: 'sub'"):
        unpack(tmp_path / "a.zip", out(tmp_path), "u", LIMITS)


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds a device or pipe: 'pipe'"):
        unpack(tar(tmp_path / "a.tar", (link("pipe", "", tarfile.FIFOTYPE), b"")), out(tmp_path), "u", LIMITS)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_stopped_while_it_goes_off(kind: str, tmp_path: Path) -> None:
    packed = (archive if kind == "zip" else tar)(tmp_path / f"a.{kind}", ("zeros", bytes(50 << 20)))
    with pytest.raises(StorageError, match="unpacks to more than 50 times its size: it looks like an archive bomb"):
        unpack(packed, to := out(tmp_path), "u", ArchiveLimits(total=1 << 30, ratio=50, ratio_from=100_000))
    assert sum(path.stat().st_size for path in to.rglob("*") if path.is_file()) < 10 << 20


def test_what_is_too_large_or_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"unpacks to more than 1\.0 MiB"):
        unpack(tar(tmp_path / "a.tar", ("big", bytes(2 << 20))), out(tmp_path / "1"), "u", LIMITS)
    with pytest.raises(StorageError, match="holds more than 100 files"):
        unpack(tar(tmp_path / "b.tar", *((str(i), b"") for i in range(101))), out(tmp_path / "2"), "u", LIMITS)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"holds '\./a' twice"):
        unpack(tar(tmp_path / "a.tar", ("a", b"1"), ("./a", b"2")), out(tmp_path), "u", LIMITS)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_what_is_no_archive_says_so(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(StorageError, match=f"the archive {name} is damaged"):
        unpack(tmp_path / name, out(tmp_path), "u", LIMITS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["zip", "tar", "tar.gz"]),
    names=st.lists(st.text(st.sampled_from("a./\\x"), min_size=1, max_size=8), min_size=1, max_size=4),
    cut=st.integers(0, 200),
)
def test_whatever_an_archive_holds_it_stays_in_its_directory_and_raises_only_our_error(
    kind: str, names: list[str], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("fuzz")
    make = archive if kind == "zip" else tar
    try:
        packed = make(tmp_path / f"p.{kind}", *((name, b"x") for name in dict.fromkeys(names)))
    except (ValueError, OSError):
        return
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size - cut])
    to = out(tmp_path)
    with contextlib.suppress(StorageError):
        unpack(packed, to, "u", LIMITS)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(to)}
    assert outside == {packed, to.parent}
