"""Settings of the process, measured in a process of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from fairlead.runtime import tuning
if "tuned" in sys.argv:
    tuning.apply()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def requests():
    tensors = [bytes(600_000) for _ in range(16)]
requests()
before = faults()
for _ in range(20):
    requests()
print(sys.getswitchinterval(), faults() - before)
"""


def run(*arguments: str) -> tuple[float, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    interval, faults = done.stdout.split()
    return float(interval), int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_of_large_tensors_is_used_again_without_page_faults():
    _, before = run()
    _, faults = run("tuned")
    assert faults < before / 3, f"{before} faults before, {faults} with the settings"


def test_a_thread_waits_at_most_half_a_millisecond_for_the_interpreter():
    assert run("tuned")[0] == 0.0005
