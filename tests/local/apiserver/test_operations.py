"""What the verbs mean, and what follows a deletion."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fairlead.local.apiserver.admission import Options
from fairlead.local.apiserver.errors import StatusError
from fairlead.local.apiserver.garbage import expire_events
from fairlead.local.apiserver.journal import SqliteJournal
from fairlead.local.apiserver.queries import list_page, seen_as, selection

CONTAINERS = [{"name": "c", "image": "i:1"}]
DEPLOYMENT = {
    "selector": {"matchLabels": {"a": "b"}},
    "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": CONTAINERS}},
}


def owned_by(owner: Any, **more: Any) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner.key.name, "uid": owner.uid, **more}
    return {"ownerReferences": [reference]}


def test_generation_counts_changes_of_the_spec_and_nothing_else(cluster: Any) -> None:
    widget = cluster.kind("Widget")
    cluster.create("Widget", "w", spec={"size": 1})
    cluster.operations.patch(widget, "default", "w", {"metadata": {"labels": {"a": "b"}}}, "merge", Options())
    cluster.operations.patch(widget, "default", "w", {"status": {"ready": "x"}}, "merge", Options(), "status")
    assert cluster.get("Widget", "w")["metadata"]["generation"] == 1
    cluster.operations.patch(widget, "default", "w", {"spec": {"size": 2}}, "merge", Options())
    assert cluster.get("Widget", "w")["metadata"]["generation"] == 2


def test_a_write_that_changes_nothing_makes_no_new_version(cluster: Any) -> None:
    stored = cluster.create("Deployment", "d", spec=DEPLOYMENT)
    same = cluster.operations.replace(cluster.kind("Deployment"), "default", "d", stored.load(), Options("test"))
    assert same.version == stored.version == cluster.store.version


def test_a_stale_version_or_another_uid_is_a_conflict(cluster: Any) -> None:
    stale = cluster.create("ConfigMap", "c").load()
    kind = cluster.kind("ConfigMap")
    cluster.operations.patch(kind, "default", "c", {"data": {"a": "1"}}, "merge", Options())
    with pytest.raises(StatusError, match="the object has been modified"):
        cluster.operations.replace(kind, "default", "c", stale, Options())
    with pytest.raises(StatusError, match="UID in precondition"):
        cluster.operations.delete(kind, "default", "c", Options(), preconditions={"uid": "other"})


def test_a_dry_run_validates_and_stores_nothing(cluster: Any) -> None:
    before = cluster.store.version
    stored = cluster.operations.create(
        cluster.kind("ConfigMap"), "default", {"metadata": {"name": "dry"}}, Options(dry_run=True)
    )
    assert stored.load()["metadata"]["uid"]
    assert (cluster.store.version, cluster.names("ConfigMap")) == (before, [])


def test_generate_name_and_missing_names_and_namespaces(cluster: Any) -> None:
    kind = cluster.kind("ConfigMap")
    made = cluster.operations.create(kind, "default", {"metadata": {"generateName": "x-"}}, Options())
    assert made.key.name.startswith("x-")
    assert len(made.key.name) == 7
    with pytest.raises(StatusError, match="name or generateName is required"):
        cluster.operations.create(kind, "default", {}, Options())
    with pytest.raises(StatusError, match='namespaces "nope" not found'):
        cluster.create("ConfigMap", "x", namespace="nope")
    with pytest.raises(StatusError, match="does not match the resource in the path"):
        cluster.operations.create(kind, "default", {"kind": "Secret", "metadata": {"name": "x"}}, Options())


def test_finalizers_hold_an_object_until_the_last_is_gone(cluster: Any) -> None:
    kind = cluster.kind("ConfigMap")
    cluster.create("ConfigMap", "held", metadata={"finalizers": ["example.dev/x"]})
    cluster.operations.delete(kind, "default", "held", Options())
    assert cluster.get("ConfigMap", "held")["metadata"]["deletionTimestamp"]
    cluster.operations.patch(kind, "default", "held", {"metadata": {"finalizers": None}}, "merge", Options())
    assert cluster.names("ConfigMap") == []


def test_dependents_follow_their_last_owner(cluster: Any) -> None:
    one, two = cluster.create("ConfigMap", "one"), cluster.create("ConfigMap", "two")
    references = owned_by(one)["ownerReferences"] + owned_by(two)["ownerReferences"]
    cluster.create("Secret", "both", metadata={"ownerReferences": references})
    child = cluster.create("ConfigMap", "child", metadata=owned_by(one))
    cluster.create("Secret", "grandchild", metadata=owned_by(child))
    kind = cluster.kind("ConfigMap")
    cluster.operations.delete(kind, "default", "one", Options())
    cluster.settle()
    assert (cluster.names("ConfigMap"), cluster.names("Secret")) == (["two"], ["both"])
    assert [o["name"] for o in cluster.get("Secret", "both")["metadata"]["ownerReferences"]] == ["two"]
    cluster.operations.delete(kind, "default", "two", Options())
    cluster.settle()
    assert cluster.names("Secret") == []


def test_an_object_whose_owner_was_gone_before_it_came_is_collected(cluster: Any) -> None:
    owner = cluster.create("ConfigMap", "owner")
    cluster.operations.delete(cluster.kind("ConfigMap"), "default", "owner", Options())
    cluster.create("Secret", "late", metadata=owned_by(owner))
    cluster.settle()
    assert cluster.names("Secret") == []


def test_foreground_deletion_waits_for_blocking_dependents_and_orphaning_frees_them(cluster: Any) -> None:
    kind = cluster.kind("ConfigMap")
    owner = cluster.create("ConfigMap", "front")
    cluster.create(
        "Secret", "slow", metadata={**owned_by(owner, blockOwnerDeletion=True), "finalizers": ["example.dev/x"]}
    )
    cluster.operations.delete(kind, "default", "front", Options(), propagation="Foreground")
    cluster.settle()
    assert cluster.names("ConfigMap") == ["front"]
    cluster.operations.patch(
        cluster.kind("Secret"), "default", "slow", {"metadata": {"finalizers": None}}, "merge", Options()
    )
    cluster.settle()
    assert (cluster.names("ConfigMap"), cluster.names("Secret")) == ([], [])
    cluster.create("Secret", "free", metadata=owned_by(cluster.create("ConfigMap", "parent")))
    cluster.operations.delete(kind, "default", "parent", Options(), propagation="Orphan")
    cluster.settle()
    assert (cluster.names("ConfigMap"), cluster.names("Secret")) == ([], ["free"])
    assert not cluster.get("Secret", "free")["metadata"]["ownerReferences"]


def test_a_crd_takes_its_objects_with_it_and_is_no_longer_served(cluster: Any) -> None:
    cluster.create("Widget", "w", spec={"size": 1})
    cluster.operations.delete(cluster.kind("CustomResourceDefinition"), "", "widgets.example.dev", Options())
    cluster.settle()
    assert cluster.kinds.find("example.dev", "v1", "widgets") is None
    assert list(cluster.store.list(("example.dev", "widgets"))) == []


def test_a_scheduled_pod_gets_its_grace_and_an_unscheduled_one_goes_at_once(cluster: Any) -> None:
    kind = cluster.kind("Pod")
    cluster.create("Pod", "waiting", spec={"containers": CONTAINERS})
    assert cluster.operations.delete(kind, "default", "waiting", Options())[1] is True
    cluster.create("Pod", "running", spec={"containers": CONTAINERS, "nodeName": "laptop"})
    assert cluster.operations.delete(kind, "default", "running", Options())[1] is False
    assert cluster.get("Pod", "running")["metadata"]["deletionGracePeriodSeconds"] == 30
    assert cluster.operations.delete(kind, "default", "running", Options(), grace=0)[1] is True


def test_services_get_distinct_loopback_addresses_and_keep_them(cluster: Any) -> None:
    addresses = {
        cluster.create("Service", f"s{i}", spec={"ports": [{"port": 80}]}).load()["spec"]["clusterIP"]
        for i in range(300)
    }
    assert len(addresses) == 300
    assert all(address.startswith("127.255.") and not address.endswith((".0", ".255")) for address in addresses)
    before = cluster.get("Service", "s0")["spec"]["clusterIP"]
    changed = {"metadata": {"name": "s0"}, "spec": {"ports": [{"port": 81}]}}
    assert (
        cluster.operations.replace(cluster.kind("Service"), "default", "s0", changed, Options()).load()["spec"][
            "clusterIP"
        ]
        == before
    )
    assert cluster.create("Service", "headless", spec={"clusterIP": "None"}).load()["spec"]["clusterIP"] == "None"


def test_pages_together_are_the_whole_list(cluster: Any) -> None:
    names = [f"c{i}" for i in range(7)]
    for name in names:
        cluster.create("ConfigMap", name)
    kind, everything = cluster.kind("ConfigMap"), selection(cluster.kind("ConfigMap"), "default", "", "")
    seen, token = [], ""
    while True:
        page = list_page(cluster.store, kind, everything, 3, token)
        seen += [o.key.name for o in page.items]
        token = page.next
        if not token:
            break
    assert seen == names


def test_a_watch_with_a_selector_sees_objects_enter_and_leave(cluster: Any) -> None:
    kind = cluster.kind("ConfigMap")
    wanted = selection(kind, "default", "a=b", "")
    watch = cluster.store.subscribe(kind.storage, cluster.store.version)
    cluster.create("ConfigMap", "c")
    for labels in ({"a": "b"}, {"a": "b", "c": "d"}, {"a": None}):
        cluster.operations.patch(kind, "default", "c", {"metadata": {"labels": labels}}, "merge", Options())
    assert [seen_as(event, wanted) for event in watch.pending] == [None, "ADDED", "MODIFIED", "DELETED"]


def test_old_events_go_after_an_hour(cluster: Any) -> None:
    cluster.create("Event", "old", involvedObject={"kind": "Pod"})
    cluster.now += 3000
    cluster.create("Event", "new", involvedObject={"kind": "Pod"})
    cluster.now += 700
    expire_events(cluster.operations)
    assert cluster.names("Event") == ["new"]


def test_state_and_unfinished_deletions_survive_in_the_journal(make_cluster: Any, tmp_path: Path) -> None:
    first = make_cluster(SqliteJournal(tmp_path / "state.db"))
    first.create("Namespace", "default")
    first.create("Secret", "child", metadata=owned_by(first.create("ConfigMap", "owner")))
    first.operations.delete(first.kind("ConfigMap"), "default", "owner", Options())
    version = first.store.version
    second = make_cluster(SqliteJournal(tmp_path / "state.db"))
    assert second.store.version == version
    assert second.names("Secret") == ["child"]
    second.settle()
    assert second.names("Secret") == []
    for made in (first, second):
        made.store.journal.close()


def test_a_full_disk_refuses_the_write_says_so_and_leaves_reads_and_state_as_they_were(
    make_cluster: Any, tmp_path: Path
) -> None:
    journal = SqliteJournal(tmp_path / "state.db")
    cluster = make_cluster(journal)
    cluster.create("Namespace", "default")
    cluster.create("ConfigMap", "before")
    pages = journal.connection.execute("PRAGMA page_count").fetchone()[0]
    journal.connection.execute(f"PRAGMA max_page_count={pages}")
    version = cluster.store.version
    with pytest.raises(StatusError, match="database or disk is full") as caught:
        cluster.create("ConfigMap", "large", data={"a": "x" * 100_000})
    assert (caught.value.code, cluster.store.version, cluster.names("ConfigMap")) == (507, version, ["before"])
    journal.connection.execute("PRAGMA max_page_count=1000000")
    cluster.create("ConfigMap", "after")
    journal.close()
    names = [
        row[0]
        for row in sqlite3.connect(tmp_path / "state.db").execute("SELECT name FROM objects WHERE plural='configmaps'")
    ]
    assert sorted(names) == ["after", "before"]
