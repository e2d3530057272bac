"""End-to-end scenarios: the same files run on the embedded cluster and on a real one, through the `cluster` fixture.

`--cluster=local` (the default) starts `fairlead up` once for the session, `--cluster=kind` a kind cluster with the chart in it; each
test has a namespace of its own.

`-n 2` (pytest-xdist) is safe: a worker is a session of its own, with a cluster of its own (on kind named after the worker; on the laptop in a directory, on a
port and a loopback network of its own). So no scenario must be alone, not even those that break a cluster for all: the API server killed, a node drained, the
chart upgraded or removed. It takes the memory and the processors of so many clusters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import Cluster, LocalCluster
from e2e.kind import KindCluster
from e2e.models import constant_model


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", default="local", choices=["local", "kind"], help="where the scenarios run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A scenario's time limit, which is for what hangs, does not count what the session's cluster takes to come up."""
    for item in items:
        item.add_marker(pytest.mark.timeout(600, func_only=True))


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, models: dict[str, Path]
) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    kind = request.config.getoption("--cluster") == "kind"
    with KindCluster(directory, models) if kind else LocalCluster(directory) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own. What it held is written out if the test fails."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.make_namespace(name)
    failed_before = request.session.testsfailed
    yield name
    if request.session.testsfailed > failed_before:
        cluster.save_state(name, request.node.name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that always answer their own number: the answer tells which revision gave it."""
    root = tmp_path_factory.mktemp("models")
    return {f"v{number}": constant_model(root / f"v{number}", number) for number in (1, 2, 3)}
