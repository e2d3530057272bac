"""`fairlead serve`: a file, a directory or a class, and plain words when it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.runtime import cli
from fairlead.runtime.errors import LoadError
from fairlead.runtime.settings import Settings


@pytest.fixture
def ran(monkeypatch):
    """The settings with which the server would have run."""
    runs: list[Settings] = []
    monkeypatch.setattr(cli, "_run", lambda settings: runs.append(settings) or 0)
    return runs


def test_a_model_file_is_served_under_its_name_on_this_machine_only(ran, tmp_path):
    file = tmp_path / "iris.skops"
    file.touch()
    assert cli.serve([str(file), "--http_port", "9000"]) == 0
    (settings,) = ran
    assert (settings.model_name, settings.model_dir, settings.host) == ("iris", file, "127.0.0.1")
    assert (settings.http_port, settings.engine) == (9000, "process")


def test_a_python_file_is_a_class_to_serve(ran, tmp_path):
    file = tmp_path / "scorer.py"
    file.touch()
    cli.serve([str(file), "--model_name", "best"])
    assert (ran[0].model_name, ran[0].model_class) == ("best", str(file))


def test_a_class_is_served_under_its_name(ran):
    cli.serve(["my.models:Scorer", "--engine", "ray"])
    assert (ran[0].model_name, ran[0].model_class, ran[0].engine) == ("scorer", "my.models:Scorer", "ray")


def test_what_is_neither_is_named(ran, capsys):
    assert cli.serve(["nothing.skops"]) == 2
    assert capsys.readouterr().err == "nothing.skops: there is no such file, and it is not MODULE:CLASS\n"
    assert not ran


def test_the_last_line_of_a_failure_is_plain(monkeypatch, capsys):
    def refuse(settings: Settings):
        raise LoadError("the model\nis not there") from KeyError("cause")

    monkeypatch.setattr(cli, "select", refuse)
    assert cli.main(["--model_dir", str(Path("none"))]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1] == "fairlead: the model is not there"
    assert "KeyError: 'cause'" in lines[:-1]
