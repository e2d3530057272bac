"""Addresses for pods: each has a loopback address of its own, so that every pod may use the ports that its manifest names.

Linux answers on all of 127.0.0.0/8 without being told. A network is 127.N.0.0/16: N tells apart clusters of one machine, and the first
address is drawn by lot for each life of a node, so that a gateway which still knows an address of the last life does not meet a
stranger there.
"""

from __future__ import annotations

import hashlib
import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

FIRST_NETWORK, LAST_NETWORK = 64, 191
"""127.0.0.0/10 belongs to everyone else on the machine, and the API server gives Services addresses from the top."""


class NoAddress(Exception):
    """All addresses of the node are taken, or the system has only 127.0.0.1."""


def network_of(directory: Path) -> IPv4Network:
    number = int.from_bytes(hashlib.sha256(str(directory.resolve()).encode()).digest()[:4])
    second = FIRST_NETWORK + number % (LAST_NETWORK - FIRST_NETWORK + 1)
    return IPv4Network(f"127.{second}.0.0/16")


class Addresses:
    """Unique among live pods; one that was given back is the last to be given out again."""

    def __init__(self, network: IPv4Network, start: int = 0) -> None:
        self._network = network
        self._hosts = network.num_addresses - 2
        self._next = start % self._hosts
        self._taken: set[IPv4Address] = set()

    def take(self) -> str:
        if len(self._taken) >= self._hosts:
            raise NoAddress(f"all {self._hosts} pod addresses of {self._network} are taken")
        while True:
            address = self._network[1 + self._next]
            self._next = (self._next + 1) % self._hosts
            if address not in self._taken:
                self._taken.add(address)
                return str(address)

    def give_back(self, address: str) -> None:
        self._taken.discard(IPv4Address(address))


def check_loopback(network: IPv4Network) -> None:
    """Raises NoAddress on a system that does not answer on all of 127.0.0.0/8 (macOS, the BSDs)."""
    with socket.socket() as probe:
        try:
            probe.bind((str(network[1]), 0))
        except OSError as error:
            raise NoAddress(
                f"this system has no loopback address {network[1]} ({error.strerror}): pods need addresses of their own, "
                "which Linux has out of the box. Run Fairlead on Linux, in a Linux virtual machine, or on a real cluster."
            ) from None
