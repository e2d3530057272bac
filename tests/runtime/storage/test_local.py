"""Models that are on this machine already."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from fairlead.runtime.storage import FetchOptions, Mirrors, StorageError, fetch, local


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "models" / "iris v1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(b"weights")
    return directory


def test_a_directory_is_not_copied(model: Path, tmp_path: Path) -> None:
    for address in (f"file://{model}", model.as_uri(), str(model)):
        assert fetch(address, tmp_path / "to") == model
    assert not (tmp_path / "to").exists()


def test_a_single_file_is_a_model_too(model: Path, tmp_path: Path) -> None:
    file = model / "model.onnx"
    assert fetch(file.as_uri(), tmp_path / "to") == file
    digest = hashlib.sha256(b"weights").hexdigest()
    assert fetch(f"{file.as_uri()}#sha256={digest}", tmp_path / "to") == file


def test_a_file_with_another_digest_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="checksum mismatch"):
        fetch(f"{(model / 'model.onnx').as_uri()}#sha256={'0' * 64}", tmp_path)


def test_a_path_that_is_not_there_shows_what_is(model: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as raised:
        fetch(f"file://{tmp_path}/models/digits", tmp_path)
    assert str(raised.value) == (
        f"cannot fetch file://{tmp_path}/models/digits: {tmp_path}/models/digits does not exist; {tmp_path}/models holds iris v1"
    )


def test_two_slashes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'models' is taken for a host; write three slashes: file:///models/iris"):
        fetch("file://models/iris", tmp_path)


def test_an_empty_directory_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="empty is empty"):
        fetch(str(tmp_path / "empty"), tmp_path)


def test_an_archive_is_unpacked_into_the_destination_once(model: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(model, "iris")
    for _ in range(2):
        assert fetch(f"file://{tmp_path}/model.tar.gz", tmp_path / "to") == tmp_path / "to"
    assert (tmp_path / "to" / "iris" / "model.onnx").read_bytes() == b"weights"
    assert (tmp_path / "model.tar.gz").exists()


def test_a_claim_is_found_where_it_is_mounted(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "PVC_MOUNT", model.parent)
    assert fetch("pvc://claim/iris v1", tmp_path / "to") == model, "KServe's place, all of the claim"
    monkeypatch.setattr(local, "PVC_MOUNT", tmp_path / "nowhere")
    assert fetch("pvc://claim/iris v1", model.parent) == model, "the destination, all of the claim"
    assert fetch("pvc://claim/iris/v1", model) == model, "the destination, only the part that is meant"
    with pytest.raises(StorageError, match=r"the claim 'claim' is mounted neither at .* nor at .*to"):
        fetch("pvc://claim/iris", tmp_path / "to")


def test_an_unknown_scheme_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"the scheme ftp:// is not known; known are file://, pvc://, http://"):
        fetch("ftp://host/model", tmp_path)


def test_a_mirror_stands_in_for_the_address(model: Path, tmp_path: Path) -> None:
    mirrors = Mirrors.parse(f"# a comment\n\ngs://kfserving-examples/… -> file://{model.parent}/…")
    assert fetch("gs://kfserving-examples/iris v1", tmp_path, FetchOptions(mirrors=mirrors)) == model


def test_the_longest_mirror_that_fits_wins() -> None:
    mirrors = Mirrors.parse("gs://a -> file:///one\ngs://a/b/ -> s3://two/; hf://x -> file:///three")
    assert mirrors.resolve("gs://a/c") == "file:///one/c"
    assert mirrors.resolve("gs://a/b/c") == "s3://two/c"
    assert mirrors.resolve("gs://ab/c") == "gs://ab/c"
    assert mirrors.resolve("gs://a") == "file:///one"


def test_a_mirror_rule_that_cannot_be_read_is_named_with_its_line(tmp_path: Path) -> None:
    table = tmp_path / "mirrors"
    table.write_text("gs://a -> file:///b\ngs://c file:///d\n")
    with pytest.raises(ValueError, match=r"mirror table, line 3: 'gs://c file:///d' is not of the form"):
        Mirrors.from_environment({"FAIRLEAD_STORAGE_MIRRORS_FILE": str(table)})
