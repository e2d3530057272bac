"""Informers, leases, events and the manager against a real API server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from tests.integration.conftest import UNCACHED, ApiServer

from fairlead.kube import metrics
from fairlead.kube.client import Client
from fairlead.kube.controller import Controller
from fairlead.kube.events import Events
from fairlead.kube.informer import Informer
from fairlead.kube.lease import Elector, Lease, LeaseLost
from fairlead.kube.manager import Manager
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.resources import CONFIG_MAPS, EVENTS, LEASES


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def config_map(namespace: str, name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"of": "test"}}, "data": data}


@asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[Informer]:
    task = asyncio.create_task(informer.run())
    try:
        async with asyncio.timeout(60):
            await informer.synced.wait()
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_informer_follows_what_matches_its_selector(client: Client, namespace: str) -> None:
    await client.create(CONFIG_MAPS, config_map(namespace, "before"))
    async with running(Informer(client, CONFIG_MAPS, namespace=namespace, labels="of=test")) as informer:
        assert informer.store.keys() == {Key(namespace, "before")}
        applied = await client.apply(CONFIG_MAPS, config_map(namespace, "after", x="1"), field_manager="test")
        assert applied["metadata"]["managedFields"]
        await until(lambda: informer.store.get(namespace, "after"))
        held = informer.store.get(namespace, "after")
        assert held is not None
        assert (held["kind"], held["data"], "managedFields" in held["metadata"]) == ("ConfigMap", {"x": "1"}, False)
        await client.patch(CONFIG_MAPS, "before", {"metadata": {"labels": {"of": "another"}}}, namespace)
        await until(lambda: informer.store.keys() == {Key(namespace, "after")})
        await client.delete(CONFIG_MAPS, "after", namespace)
        await until(lambda: len(informer.store) == 0)


async def test_an_informer_that_was_away_too_long_lists_again_and_tells_of_deletions(
    client: Client, kube_apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    for name in ("stays", "goes"):
        await client.create(UNCACHED, {"metadata": {"name": name, "namespace": namespace}, "template": template})
    informer = Informer(client, UNCACHED, namespace=namespace)
    deleted: list[Key] = []
    informer.on_change(lambda old, new: deleted.append(key_of(old)) if old and not new else None)
    away, real_watch = asyncio.Event(), client.watch

    async def watch(*args: object, **options: object) -> AsyncIterator[object]:
        await away.wait()
        async for event in real_watch(*args, **options):  # type: ignore[arg-type]
            yield event

    monkeypatch.setattr(client, "watch", watch)
    async with running(informer):
        await client.delete(UNCACHED, "goes", namespace)
        await client.patch(UNCACHED, "stays", {"metadata": {"labels": {"a": "b"}}}, namespace)
        await kube_apiserver.compact((await client.list(UNCACHED, namespace)).resource_version)
        away.set()
        await until(lambda: deleted)
        assert deleted == [Key(namespace, "goes")]
        assert informer.store.keys() == {Key(namespace, "stays")}
        labels = {"resource": str(UNCACHED), "reason": "gone"}
        assert metrics.REGISTRY.get_sample_value("fairlead_informer_watch_restarts_total", labels) == 1


async def test_a_lease_is_taken_renewed_given_back_and_taken_by_the_next(client: Client, namespace: str) -> None:
    def candidate(identity: str) -> Elector:
        lease = Lease("op", namespace, identity=identity, duration=90, renew_deadline=60, retry_period=0.2)
        return Elector(client, lease)

    async def spec() -> Object:
        return (await client.get(LEASES, "op", namespace))["spec"]  # type: ignore[no-any-return]

    first, second = candidate("one"), candidate("two")
    await first.acquire()
    taken = await spec()
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.7)
    while (renewed := await spec())["renewTime"] == taken["renewTime"]:
        await asyncio.sleep(0.05)
    assert (renewed["holderIdentity"], renewed["leaseTransitions"]) == ("one", 0)
    assert renewed["renewTime"] > taken["renewTime"]
    assert not waiting.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    await first.release()
    await asyncio.wait_for(waiting, 45)
    assert ((await spec())["holderIdentity"], (await spec())["leaseTransitions"]) == ("two", 1)
    await client.patch(LEASES, "op", {"spec": {"holderIdentity": "thief"}}, namespace)
    with pytest.raises(LeaseLost, match="was taken by thief"):
        await second.hold()


async def test_an_event_is_accepted_and_counted(client: Client, namespace: str) -> None:
    about = await client.create(CONFIG_MAPS, config_map(namespace, "a"))
    events = Events(client, "fairlead-operator")
    for _ in range(2):
        events.emit(about, "Warning", "ModelLoadFailed", "no such file")
        await events.close()
    fields = f"involvedObject.uid={about['metadata']['uid']}"
    (event,) = (await client.list(EVENTS, namespace, fields=fields)).items
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Warning",
        "ModelLoadFailed",
        "no such file",
        2,
    )


async def test_an_operator_makes_what_its_objects_ask_for_and_puts_right_what_others_change(
    client: Client, namespace: str
) -> None:
    """Each ConfigMap `x` labelled `of: test` shall have a `x-copy` with its data."""
    manager = Manager(client, lease=Lease("op", namespace), address=("127.0.0.1", 0))
    originals = manager.informer(CONFIG_MAPS, namespace=namespace, labels="of=test")
    copies = manager.informer(CONFIG_MAPS, namespace=namespace, labels="of=copy")

    async def reconcile(key: Key) -> None:
        if original := originals.store.get(*key):
            metadata = {"name": f"{key.name}-copy", "namespace": key.namespace, "labels": {"of": "copy"}}
            await client.apply(CONFIG_MAPS, {"metadata": metadata, "data": original["data"]}, field_manager="copier")

    controller = Controller("copier", reconcile)
    controller.watch(originals)
    controller.watch(copies, lambda copy: [Key(namespace, re.sub("-copy$", "", copy["metadata"]["name"]))])
    manager.add(controller)
    task = asyncio.create_task(manager.run())

    def copied(name: str) -> object:
        return (copies.store.get(namespace, f"{name}-copy") or {}).get("data")

    for number in range(20):
        await client.create(CONFIG_MAPS, config_map(namespace, f"m{number}", n=str(number)))
    await until(lambda: all(copied(f"m{number}") == {"n": str(number)} for number in range(20)))
    first = copies.store.get(namespace, "m4-copy")
    await client.patch(CONFIG_MAPS, "m3-copy", {"data": {"n": "wrong"}}, namespace)
    await client.delete(CONFIG_MAPS, "m4-copy", namespace)
    await until(lambda: copies.store.get(namespace, "m4-copy") not in (None, first))
    await until(lambda: copied("m3") == {"n": "3"} and copied("m4") == {"n": "4"})
    manager.stop()
    await asyncio.wait_for(task, 60)
    assert (await client.get(LEASES, "op", namespace))["spec"]["holderIdentity"] == ""
