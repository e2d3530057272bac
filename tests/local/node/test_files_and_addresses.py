"""Log files and pod addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.local.node import logs
from fairlead.local.node.addresses import Addresses, NoAddress, check_loopback, network_of


def test_the_end_of_a_log_is_at_most_two_kilobytes_of_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("".join(f"line {number:04}\n" for number in range(1000)))
    lines = logs.tail(log).splitlines()
    assert lines[-1] == "line 0999"
    assert len(lines) == logs.MESSAGE_LINES
    log.write_text("x" * 1000 + "\n" + "y" * 2000 + "\n" + "why\n")
    assert logs.tail(log).splitlines()[-1] == "why"
    assert len(logs.tail(log)) <= logs.MESSAGE_BYTES


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "none") == ""


def test_a_log_that_grew_too_large_keeps_its_end_and_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1000):
            writer.write(b"line %04d\n" % number)
        logs.trim(log, largest=5000, kept=1000)
        writer.write(b"after\n")
    lines = log.read_text().splitlines()
    assert lines[-2:] == ["line 0999", "after"]
    assert all(line.startswith("line ") for line in lines[:-1])
    assert log.stat().st_size <= 1006


def test_a_log_of_a_fair_size_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_text("hello\n")
    logs.trim(log)
    assert log.read_text() == "hello\n"


def test_only_the_logs_of_the_present_and_the_previous_run_are_kept(tmp_path: Path) -> None:
    for restart in range(5):
        current = logs.log_file(tmp_path, "ns", "p", "c", restart)
        current.parent.mkdir(parents=True, exist_ok=True)
        logs.forget_old_runs(current)
        current.write_text("")
    assert sorted(path.name for path in current.parent.iterdir()) == ["3.log", "4.log"]


SMALL = IPv4Network("127.64.0.0/28")


@given(st.lists(st.one_of(st.none(), st.integers(0, 13)), max_size=60), st.integers(0, 100))
def test_an_address_is_never_given_to_two_pods_at_once(steps: list[int | None], start: int) -> None:
    addresses = Addresses(SMALL, start)
    held: list[str] = []
    for step in steps:
        if step is None and len(held) < 14:
            new = addresses.take()
            assert new not in held
            assert IPv4Address(new) in SMALL
            held.append(new)
        elif step is not None and held:
            addresses.give_back(held.pop(step % len(held)))


def test_an_address_that_was_given_back_is_the_last_to_be_given_again() -> None:
    addresses = Addresses(SMALL)
    first = addresses.take()
    addresses.give_back(first)
    assert [addresses.take() for _ in range(14)].index(first) == 13


def test_when_all_are_taken_that_is_said() -> None:
    addresses = Addresses(SMALL)
    for _ in range(14):
        addresses.take()
    with pytest.raises(NoAddress, match="14 pod addresses"):
        addresses.take()


def test_a_directory_has_a_network_of_its_own_that_this_system_answers_on(tmp_path: Path) -> None:
    assert network_of(tmp_path) == network_of(tmp_path)
    check_loopback(network_of(tmp_path))


def test_a_system_without_the_address_is_told_where_to_run() -> None:
    with pytest.raises(NoAddress, match="Linux"):
        check_loopback(IPv4Network("192.0.2.0/24"))
