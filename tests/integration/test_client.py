"""The client against a real API server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
import yaml
from tests.integration.conftest import UNCACHED, ApiServer

from fairlead.kube.client import Client
from fairlead.kube.errors import AlreadyExists, Conflict, Forbidden, Gone, Invalid, NotFound, Unauthorized
from fairlead.kube.objects import Object
from fairlead.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, PODS


def config_map(namespace: str, name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def deployment(namespace: str, name: str, **spec: object) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "example/image"}]}}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


async def test_an_object_is_created_read_replaced_patched_and_deleted(client: Client, namespace: str) -> None:
    created = await client.create(CONFIG_MAPS, config_map(namespace, "a", one="1"))
    assert (await client.get(CONFIG_MAPS, "a", namespace)) == created
    replaced = await client.replace(CONFIG_MAPS, {**created, "data": {"two": "2"}})
    assert replaced["data"] == {"two": "2"}
    merged = await client.patch(CONFIG_MAPS, "a", {"data": {"three": "3"}}, namespace)
    assert merged["data"] == {"two": "2", "three": "3"}
    operations = [{"op": "remove", "path": "/data/two"}]
    assert (await client.patch(CONFIG_MAPS, "a", operations, namespace, kind="json"))["data"] == {"three": "3"}
    await client.delete(CONFIG_MAPS, "a", namespace)
    with pytest.raises(NotFound, match=f'get configmaps {namespace}/a: configmaps "a" not found'):
        await client.get(CONFIG_MAPS, "a", namespace)


async def test_a_strategic_patch_merges_containers_by_name(client: Client, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(namespace, "web"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "example/side"}]}}}}
    patched = await client.patch(DEPLOYMENTS, "web", patch, namespace, kind="strategic")
    assert {c["name"] for c in patched["spec"]["template"]["spec"]["containers"]} == {"main", "side"}


async def test_a_subresource_is_patched_by_itself(client: Client, namespace: str) -> None:
    await client.create(DEPLOYMENTS, deployment(namespace, "web"))
    await client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 3}}, namespace, subresource="scale")
    assert (await client.get(DEPLOYMENTS, "web", namespace))["spec"]["replicas"] == 3
    await client.patch(DEPLOYMENTS, "web", {"status": {"replicas": 2}}, namespace, subresource="status")
    assert (await client.get(DEPLOYMENTS, "web", namespace, subresource="scale"))["status"]["replicas"] == 2


async def test_apply_removes_what_it_no_longer_gives_and_leaves_what_others_own(client: Client, namespace: str) -> None:
    await client.apply(CONFIG_MAPS, config_map(namespace, "a", ours="1", gone="1"), field_manager="us")
    await client.apply(CONFIG_MAPS, config_map(namespace, "a", theirs="1"), field_manager="them")
    applied = await client.apply(CONFIG_MAPS, config_map(namespace, "a", ours="2"), field_manager="us")
    assert applied["data"] == {"ours": "2", "theirs": "1"}


async def test_apply_of_the_same_fields_leaves_the_version_unchanged(client: Client, namespace: str) -> None:
    first = await client.apply(DEPLOYMENTS, deployment(namespace, "web"), field_manager="us")
    again = await client.apply(DEPLOYMENTS, deployment(namespace, "web"), field_manager="us")
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_apply_without_force_conflicts_with_another_owner_and_names_it(client: Client, namespace: str) -> None:
    await client.apply(DEPLOYMENTS, deployment(namespace, "web", replicas=2), field_manager="them")
    with pytest.raises(Conflict, match='conflict with "them"'):
        await client.apply(DEPLOYMENTS, deployment(namespace, "web", replicas=3), field_manager="us", force=False)


async def test_a_name_that_is_taken_is_not_a_conflict_but_exists(client: Client, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(AlreadyExists):
        await client.create(CONFIG_MAPS, config_map(namespace, "a"))


async def test_replacing_an_old_version_is_a_conflict(client: Client, namespace: str) -> None:
    old = await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace)
    with pytest.raises(Conflict, match=f"replace configmaps {namespace}/a"):
        await client.replace(CONFIG_MAPS, old)


async def test_delete_with_the_uid_of_a_predecessor_is_a_conflict(client: Client, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, "a", namespace, uid="00000000-0000-0000-0000-000000000000")


async def test_an_object_that_breaks_the_rules_is_invalid_and_the_error_names_the_field(
    client: Client, namespace: str
) -> None:
    with pytest.raises(Invalid, match=r"metadata\.name") as caught:
        await client.create(CONFIG_MAPS, config_map(namespace, "Not_A_Name"))
    assert caught.value.details["causes"][0]["field"] == "metadata.name"


async def test_a_list_comes_in_pages_of_one_moment_with_kinds_on_each_item(
    client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.kube.client.PAGE", 2)
    for name in "abcde":
        await client.create(
            CONFIG_MAPS,
            {
                **config_map(namespace, name),
                "metadata": {"name": name, "namespace": namespace, "labels": {"odd": str(name in "ace")}},
            },
        )
    listed = await client.list(CONFIG_MAPS, namespace)
    assert [item["metadata"]["name"] for item in listed.items] == list("abcde")
    assert {(item["apiVersion"], item["kind"]) for item in listed.items} == {("v1", "ConfigMap")}
    assert [
        item["metadata"]["name"] for item in (await client.list(CONFIG_MAPS, namespace, labels="odd=True")).items
    ] == list("ace")
    assert len((await client.list(CONFIG_MAPS, namespace, fields="metadata.name=b")).items) == 1


async def test_a_watch_tells_what_happens_after_the_list(client: Client, namespace: str) -> None:
    listed = await client.list(CONFIG_MAPS, namespace)
    await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace)
    await client.delete(CONFIG_MAPS, "a", namespace)
    seen: list[str] = []
    async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version=listed.resource_version)) as events:
        async for event in events:
            if event.type != "BOOKMARK":
                seen.append(event.type)
            if event.type == "DELETED":
                break
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_watch_from_a_compacted_version_is_gone_and_a_new_list_is_not(
    client: Client, kube_apiserver: ApiServer, namespace: str
) -> None:
    old = (await client.list(UNCACHED, namespace)).resource_version
    for name in ("a", "b"):  # etcd keeps the version that it is compacted at: the watch must begin before it
        await client.create(CONFIG_MAPS, config_map(namespace, name))
    fresh = (await client.list(UNCACHED, namespace)).resource_version
    await kube_apiserver.compact(fresh)
    with pytest.raises(Gone, match=f"watch podtemplates in {namespace}"):
        await anext(client.watch(UNCACHED, namespace, resource_version=old))
    await client.list(UNCACHED, namespace)


async def test_the_log_of_a_pod_that_is_nowhere_is_an_error_that_names_it(client: Client, namespace: str) -> None:
    with pytest.raises(NotFound, match=f"read the log of pods {namespace}/nobody"):
        await client.logs("nobody", namespace)


async def test_a_wrong_token_is_unauthorized_and_a_stranger_is_forbidden(
    kube_apiserver: ApiServer, tmp_path: Path
) -> None:
    content = yaml.safe_load(Path(kube_apiserver.kubeconfig).read_text())
    content["users"][0]["user"] = {"token": "wrong"}
    (tmp_path / "wrong").write_text(yaml.safe_dump(content))
    async with await Client.connect(str(tmp_path / "wrong")) as client:
        with pytest.raises(Unauthorized):
            await client.list(NAMESPACES)
    content["users"][0]["user"] = {}
    (tmp_path / "nobody").write_text(yaml.safe_dump(content))
    async with await Client.connect(str(tmp_path / "nobody")) as client:
        with pytest.raises((Forbidden, Unauthorized)):
            await client.list(PODS, "default")


async def test_a_watch_that_is_given_up_leaves_no_connection_to_the_event_loop(client: Client, namespace: str) -> None:
    """TLS would first take leave of the server, and the loop may not live that long."""
    version = (await client.list(CONFIG_MAPS, namespace)).resource_version
    async with aclosing(client.watch(CONFIG_MAPS, namespace, resource_version=version)) as events:
        await client.create(CONFIG_MAPS, config_map(namespace, "a"))
        await anext(events)
        while_watching = _sockets()
    for _ in range(3):  # rounds of the loop, no time
        await asyncio.sleep(0)
    assert _sockets() < while_watching


def _sockets() -> set[str]:
    links = (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    return {link for link in links if link.startswith("socket:")}
