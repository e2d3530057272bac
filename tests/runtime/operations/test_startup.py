"""What a start was made of, as the model server tells it."""

from __future__ import annotations

import time

import pytest

from fairlead.runtime.operations import startup
from fairlead.runtime.operations.startup import BEGAN_ENV, Startup, process_started


def test_phases_follow_one_another_and_only_the_first_time_counts() -> None:
    start = Startup(time.time() - 1000)
    start.done("import")
    start.done("load")
    start.done("load")
    assert start.phases["import"] == pytest.approx(1000, abs=60)
    assert start.phases["load"] < 60
    assert list(start.phases) == ["import", "load"]


def test_the_start_of_the_process_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BEGAN_ENV, raising=False)
    assert time.time() - 3600 < process_started() <= time.time()


def test_processes_of_one_pod_count_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BEGAN_ENV, "0")
    startup.hand_down()
    assert process_started() == pytest.approx(startup.STARTUP.began, abs=0.001)
