"""The operator process: its flags, its errors, its logs."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairlead.controllers.__main__ import JsonFormatter, main, parser
from fairlead.kube.lease import LeaseLost


def test_a_kubeconfig_that_is_not_there_ends_it_with_a_plain_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["--kubeconfig", str(tmp_path / "none")]) == 1
    assert str(tmp_path / "none") in caplog.text


def test_agents_and_addresses_are_read_from_flags() -> None:
    options = parser().parse_args(["--gateway-agents", "a:1, b:2", "--listen", "[::1]:0", "--no-leader-election"])
    assert options.gateway_agents == ["a:1", "b:2"]
    assert options.listen == ("::1", 0)
    assert options.leader_election is False


def test_an_address_without_a_port_says_what_one_looks_like(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--listen", "localhost"])
    assert "'localhost' is not HOST:PORT, such as 127.0.0.1:9902" in capsys.readouterr().err


def test_json_logs_are_one_object_a_line() -> None:
    record = logging.LogRecord("fairlead", logging.WARNING, "", 0, "%s is\nlate", ("iris",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = orjson.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "fairlead", "iris is\nlate")


def test_an_operator_that_has_lost_its_lease_begins_anew_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It must not wait in the kubelet's back-off, as a process that ends would."""
    begun: list[Any] = []
    identities: list[str] = []

    async def lose(options: argparse.Namespace, identity: str) -> None:
        identities.append(identity)
        raise LeaseLost("lease fairlead-operator could not be renewed for 10 s")

    monkeypatch.setattr("fairlead.controllers.__main__._run", lose)
    monkeypatch.setattr(os, "execve", lambda *given: begun.append(given))
    main([])
    ((program, words, environment),) = begun
    assert (program, words) == (sys.executable, sys.orig_argv)
    monkeypatch.setattr(os, "environ", environment)
    main([])
    assert identities[0] == identities[1], "its Lease is its own still"
    assert "could not be renewed for 10 s: starting anew" in caplog.text
