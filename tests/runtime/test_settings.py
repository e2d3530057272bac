"""Flags and environment: KServe's fit, ours add to them, mistakes are named."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fairlead.runtime.engines.selection import choose
from fairlead.runtime.errors import LoadError
from fairlead.runtime.settings import parse, warn_of_ignored


def test_a_kserve_runtimes_arguments_fit():
    settings = parse(
        ["--model_name=iris", "--model_dir=/mnt/models", "--http_port=8080", "--grpc_port=8081", "--workers=2",
         "--enable_grpc=false", "--max_buffer_size=1048576", "--predictor_host=p:80", "--predictor_protocol=v2"],
        {},
    )  # fmt: skip
    assert settings.model_name == "iris"
    assert settings.model_dir == Path("/mnt/models")
    assert settings.grpc_port is None
    assert settings.workers == 2
    assert settings.max_body == 1048576
    assert (settings.predictor_host, settings.predictor_protocol) == ("p:80", "v2")


def test_flags_that_mean_nothing_here_are_named_once_and_ignored(caplog):
    settings = parse(["--enable_latency_logging", "--nthread=4", "--model_name", "m"], {})
    with caplog.at_level(logging.WARNING):
        warn_of_ignored(settings)
    assert settings.model_name == "m"
    assert [record.getMessage().split()[0] for record in caplog.records] == ["--enable_latency_logging", "--nthread"]


def test_the_environment_gives_defaults_and_flags_win():
    environment = {"HOST": "127.0.0.9", "PORT": "9000", "STORAGE_URI": "s3://b/m", "FAIRLEAD_ENGINE": "ray"}
    settings = parse([], environment)
    assert (settings.host, settings.http_port, settings.storage_uri, settings.engine) == (
        "127.0.0.9",
        9000,
        "s3://b/m",
        "ray",
    )
    assert parse(["--http_port", "9001"], environment).http_port == 9001


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "--workers must be at least 1"),
        (["--http_port", "70000"], "--http_port must be between"),
        (["--enable_grpc", "maybe"], "neither true nor false"),
        (["--engine", "spark"], "invalid choice"),
    ],
)
def test_settings_that_make_no_sense_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit):
        parse(flags, {})
    assert message in capsys.readouterr().err


GIB = 2**30


@pytest.mark.parametrize(
    ("wanted", "installed", "limit", "engine", "why"),
    [
        ("process", True, 8 * GIB, "process", "asked for"),
        ("ray", True, GIB, "ray", "asked for"),
        ("auto", False, 8 * GIB, "process", "Ray is not installed"),
        ("auto", True, None, "process", "no memory limit"),
        ("auto", True, GIB, "process", "the memory limit is 1.0 GiB"),
        ("auto", True, 4 * GIB, "ray", "the memory limit is 4.0 GiB"),
    ],
)
def test_auto_chooses_by_memory_and_says_why(wanted, installed, limit, engine, why):
    name, reason = choose(wanted, ray_installed=installed, memory_limit=limit)
    assert name == engine
    assert why in reason


def test_ray_that_is_not_installed_says_how_to_get_it():
    with pytest.raises(LoadError, match=r"pip install 'fairlead\[ray\]'"):
        choose("ray", ray_installed=False, memory_limit=None)
