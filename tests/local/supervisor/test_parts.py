"""The supervisor's parts by themselves: the directory, the watchdog, manifests, what the terminal shows."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from rich.console import Console

from fairlead.kube.objects import Object
from fairlead.local.node.process import marked
from fairlead.local.supervisor import manifests, run
from fairlead.local.supervisor.errors import UpError
from fairlead.local.supervisor.home import Home, Running, check_port, free_port
from fairlead.local.supervisor.options import Options
from fairlead.local.supervisor.screen import Screen
from fairlead.local.supervisor.view import Picture, happenings, news, render, services

RUNNING = Running(os.getpid(), "http://127.0.0.1:8080", "/k", "127.0.0.1:9901")


def test_kserves_runtime_names_lead_to_ours_and_are_never_selected_by_themselves() -> None:
    runtimes = manifests.with_aliases(manifests.read([manifests.shipped("runtimes")]))
    found = {runtime["metadata"]["name"]: runtime for runtime in runtimes}
    ours, alias = found["fairlead-core"], found["kserve-sklearnserver"]
    assert alias["spec"]["containers"] == ours["spec"]["containers"]
    assert alias["metadata"]["annotations"] == ours["metadata"]["annotations"] == {"fairlead.dev/storage": "runtime"}
    assert not any(known["autoSelect"] for known in alias["spec"]["supportedModelFormats"])
    assert "kserve-torchserve" in found


def test_a_directory_is_held_by_one_process_at_a_time_and_let_go_when_it_ends(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.holder() is None
    with home.locked():
        home.remember_running(RUNNING)
        assert home.holder() == os.getpid()
        assert home.running() == RUNNING
        with pytest.raises(UpError, match=f"process {os.getpid()}"), home.locked():
            pass
    assert home.holder() is None
    assert home.running() is None


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "a directory that is yours"), (errno.EIO, "another directory")],
)
def test_a_directory_that_cannot_be_written_is_one_line_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UpError, match=words):
        Home(tmp_path).make()


def test_a_port_in_use_names_the_process_that_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UpError, match=rf"by process {os.getpid()} \(.*--port"):
            check_port(taken.getsockname()[1])


def test_a_free_port_is_none_that_an_outgoing_connection_may_get_and_is_given_once() -> None:
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports) < lowest_outgoing
    with socket.socket() as first:
        first.bind(("127.0.0.1", ports[0]))


GUARDED = """
import subprocess, sys, time
from fairlead.local.supervisor.watchdog import guarded
with guarded(sys.argv[1]):
    name, _, value = sys.argv[1].partition("=")
    subprocess.Popen(["sleep", "100"], env={name: value}, start_new_session=True)
    print("up", flush=True)
    sys.stdin.read()
"""


def guarded(mark: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", GUARDED, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_the_watchdog_clears_up_behind_a_process_that_was_killed(tmp_path: Path) -> None:
    mark = f"FAIRLEAD_TEST={tmp_path}"
    process = guarded(mark)
    deadline = time.monotonic() + 60
    while not list(marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)  # a process that has just been started may not show its environment yet
    assert len(list(marked(mark))) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while list(marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(marked(mark)) == []


def test_the_watchdog_lets_alone_what_an_orderly_end_leaves(tmp_path: Path) -> None:
    mark = f"FAIRLEAD_TEST={tmp_path}"
    process = guarded(mark)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()
    (left,) = marked(mark)
    with contextlib.suppress(ProcessLookupError):
        os.kill(left, signal.SIGKILL)


def test_a_disk_with_hardly_any_room_is_told_before_anything_is_written_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2 * 2**20))
    with pytest.raises(UpError, match=r"2 MiB are free for .*, 16 are needed: free some space"):
        Home(tmp_path).make()


def test_a_disk_that_becomes_full_during_the_start_is_no_fault_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "_log_to", no_space)
    with pytest.raises(UpError, match=r"cannot write to .*: the disk is full; free some space"):
        run.up(Options(Home(tmp_path), port=free_port()))


def test_manifests_are_read_from_files_directories_and_lists_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: A}\n- {apiVersion: v1, kind: B}\n---\n"
    )
    (tmp_path / "b.json").write_text('{"apiVersion": "v1", "kind": "C"}')
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert [obj["kind"] for obj in manifests.read([tmp_path])] == ["A", "B", "C"]


def test_a_manifest_that_is_not_there_is_named() -> None:
    with pytest.raises(UpError, match=r"/no/such\.yaml: No such file"):
        manifests.read([Path("/no/such.yaml")])


def test_the_crds_and_runtimes_are_found_and_readable() -> None:
    kinds = {obj["kind"] for kind in ("crds", "runtimes") for obj in manifests.read([manifests.shipped(kind)])}
    assert kinds == {"CustomResourceDefinition", "ClusterServingRuntime"}


def test_a_model_is_found_from_its_manifest_on_wherever_one_stands(tmp_path: Path) -> None:
    model = {"modelFormat": {"name": "sklearn"}, "storageUri": "./models/a b.skops"}
    spec = {"predictor": {"model": model}, "canary": [{"predictor": {"model": {"storageUri": "../b"}}}]}
    manifest = tmp_path / "samples" / "iris.yaml"
    manifest.parent.mkdir()
    manifest.write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "A", "spec": spec}]})
    )

    (found,) = manifests.read([manifest])

    assert found["spec"]["predictor"]["model"]["storageUri"] == f"file://{tmp_path}/samples/models/a%20b.skops"
    assert found["spec"]["canary"][0]["predictor"]["model"]["storageUri"] == f"file://{tmp_path}/b"


@pytest.mark.parametrize("uri", ["s3://bucket/model", "/models/iris", "models/iris", "https://a.example/../b"])
def test_any_other_address_stays_as_it_is(uri: str) -> None:
    obj = {"apiVersion": "v1", "kind": "A", "spec": {"storageUri": uri}}
    assert manifests.located(obj, Path("/somewhere")) == obj


def test_an_installation_without_manifests_says_so() -> None:
    with pytest.raises(UpError, match="install Fairlead again"):
        manifests.shipped("none")


def isvc(ready: bool = True, traffic: list[Object] | None = None, **conditions: str) -> Object:
    items: list[Object] = [
        {"type": "Ready", "status": "True" if ready else "False", "reason": "PredictorNotReady", "message": "see above"}
    ]
    items += [
        {"type": kind, "status": "False", "reason": "R", "message": message} for kind, message in conditions.items()
    ]
    status = {"conditions": items, "components": {"predictor": {"traffic": traffic or []}}}
    return {"metadata": {"name": "iris", "namespace": "default"}, "status": status}


def target(revision: str, percent: int, **fields: Any) -> Object:
    return {
        "revisionName": revision,
        "percent": percent,
        "latestRevision": True,
        "serviceName": f"{revision}-svc",
        **fields,
    }


def pod(workload: str, ready: bool) -> Object:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": "p", "namespace": "default", "labels": {"fairlead.dev/workload": workload}},
        "status": {"conditions": [condition]},
    }


def picture(*found: Object, pods: tuple[Object, ...] = (), events: tuple[Object, ...] = ()) -> Picture:
    return Picture(services(found, pods, {("default", "one-svc"): 12.34}, "http://g"), happenings(events))


def shown(of: Picture) -> str:
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(render(of))
        return console.export_text()


def test_the_view_shows_traffic_pods_and_rates_of_each_revision() -> None:
    split = [target("one", 80), target("two", 20, tag="latest")]
    text = shown(picture(isvc(traffic=split), pods=(pod("one-svc", True), pod("two-svc", False))))
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "iris yes one 80 % 1/1 12.3" in rows
    assert "two (latest) 20 % 0/1 -" in rows


def test_the_view_says_why_a_service_is_not_ready_and_what_happened() -> None:
    event = {
        "metadata": {}, "type": "Warning", "reason": "BackOff", "message": "again\nand again", "lastTimestamp": "2026-11-21T10:00:07Z",
        "involvedObject": {"kind": "Pod", "name": "p"},
    }  # fmt: skip
    text = shown(picture(isvc(ready=False, PredictorReady="no such file: model.skops"), events=(event,)))
    assert "iris: R: no such file: model.skops" in text
    assert "10:00:07  Pod p  BackOff  again and again" in text


def test_plain_lines_tell_only_what_changed() -> None:
    starting = picture(isvc(ready=False, PredictorReady="loading"))
    ready = picture(isvc(traffic=[target("one", 100)]))
    assert news(Picture(), starting) == ["default/iris: not ready: R: loading"]
    assert news(starting, starting) == []
    assert news(starting, ready) == [
        "default/iris: ready at http://g/serving/default/iris",
        "default/iris: traffic: 100 % one",
    ]
    assert news(ready, Picture()) == ["default/iris: deleted"]
    assert news(Picture(), Picture(troubles=("the operator ended",))) == ["the operator ended"]


async def test_the_screen_wakes_no_service_to_show_how_it_is_asked() -> None:
    asked: list[str] = []

    class Http:
        def get(self, url: str) -> None:
            asked.append(url)
            raise aiohttp.ClientError

    traffic = [target("one", 100)]
    screen = Screen(SimpleNamespace(client=None), io.StringIO(), 1.0)  # type: ignore[arg-type]
    assert await screen._find_examples(Http(), picture(isvc(traffic=traffic))) == []  # type: ignore[arg-type]
    assert asked == []
    awake = picture(isvc(traffic=traffic), pods=(pod("one-svc", True),))
    assert await screen._find_examples(Http(), awake) == [  # type: ignore[arg-type]
        "curl -s http://g/serving/default/iris/v2/models/iris"
    ]
    assert len(asked) == 1
