"""Which objects wake the InferenceService controller, and what is kept of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from fairlead.api import names
from fairlead.controllers.autoscaler.agents import Agents
from fairlead.controllers.autoscaler.board import Board
from fairlead.controllers.autoscaler.loop import Autoscaler
from fairlead.controllers.autoscaler.scraping import Fetch, PodMetrics
from fairlead.controllers.autoscaler.starts import Starts
from fairlead.controllers.cluster import BY_SERVICE, Cluster, Writer, by_service
from fairlead.controllers.inferenceservice.catalogue import Catalogue
from fairlead.controllers.inferenceservice.controller import EventSink, Reconciler
from fairlead.controllers.inferenceservice.credentials import AWS_ROLE
from fairlead.controllers.inferenceservice.gateways import Gateways
from fairlead.controllers.inferenceservice.keda import Client as KedaClient
from fairlead.controllers.inferenceservice.keda import Keda
from fairlead.controllers.inferenceservice.lastwords import LastWords
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.inferenceservice.surroundings import CONFIG_MAP, MetadataReader, SurroundingsReader
from fairlead.kube.controller import Controller
from fairlead.kube.informer import Informer, Transform
from fairlead.kube.objects import Key, Object, key_of
from fairlead.kube.resources import (
    CLUSTER_SERVING_RUNTIMES,
    CLUSTER_STORAGE_CONTAINERS,
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    INFERENCE_SERVICES,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    SERVING_RUNTIMES,
    Resource,
)
from fairlead.kube.store import Indexer, Summary

WORKERS = 8
"""Reconciles at a time: they wait for the API server most of the time."""
_CHILDREN = (SERVICES, HORIZONTAL_POD_AUTOSCALERS, CONTROLLER_REVISIONS)


class Informers(Protocol):
    """What is needed of a Manager."""

    def informer(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        transform: Transform | None = None,
        indexers: dict[str, Indexer] | None = None,
        summary: Summary | None = None,
    ) -> Informer: ...


class Client(Writer, MetadataReader, KedaClient, Protocol):
    """What is needed of a client."""


def inference_service_controller(
    informers: Informers,
    client: Client,
    gateways: Gateways,
    events: EventSink,
    settings: Settings,
    agents: Agents,
    fetch: Fetch,
    *,
    namespace: str | None = None,
) -> tuple[Controller, Autoscaler, Starts]:
    """The controller with its informers, and the autoscaler and the measuring of starts that read the same; `namespace`: the only one to look at."""

    def children(resource: Resource, transform: Transform | None = None, summary: Summary | None = None) -> Informer:
        return informers.informer(
            resource,
            namespace=namespace,
            labels=names.LABEL_INFERENCE_SERVICE,
            transform=transform,
            indexers={BY_SERVICE: by_service},
            summary=summary,
        )

    services = informers.informer(INFERENCE_SERVICES, namespace=namespace)
    owned = {resource: children(resource) for resource in _CHILDREN}
    owned[DEPLOYMENTS] = children(DEPLOYMENTS, summary=_what_scaling_reads)
    pods = children(PODS, _what_became_of_it)
    runtimes = informers.informer(SERVING_RUNTIMES, namespace=namespace)
    all_informers = {INFERENCE_SERVICES: services, SERVING_RUNTIMES: runtimes, PODS: pods, **owned}
    for resource in (CLUSTER_SERVING_RUNTIMES, CLUSTER_STORAGE_CONTAINERS):
        all_informers[resource] = informers.informer(resource)
    all_informers[SERVICE_ACCOUNTS] = informers.informer(
        SERVICE_ACCOUNTS, namespace=namespace, transform=_what_concerns_storage
    )
    if settings.config_namespace is not None:
        all_informers[CONFIG_MAPS] = informers.informer(
            CONFIG_MAPS, namespace=settings.config_namespace, fields=f"metadata.name={CONFIG_MAP}"
        )
    if namespace is None:
        all_informers[NAMESPACES] = informers.informer(NAMESPACES, transform=_metadata_only)

    cluster = Cluster(client, {resource: informer.store for resource, informer in all_informers.items()})
    catalogue = Catalogue(cluster, namespaces=namespace is None, allow_pickle=settings.allow_pickle)
    board = Board()
    surroundings = SurroundingsReader(cluster, catalogue, client, config_namespace=settings.config_namespace)
    reconciler = Reconciler(
        cluster, catalogue, surroundings, gateways, events, LastWords(client), settings, Keda(client), board=board
    )
    controller = Controller("inferenceservice", reconciler, workers=WORKERS)

    controller.watch(services)
    for informer in (*owned.values(), pods):
        controller.watch(informer, _its_service)
    controller.watch(runtimes, _services_of(services, lambda runtime: key_of(runtime).namespace))
    for resource in (CLUSTER_SERVING_RUNTIMES, CLUSTER_STORAGE_CONTAINERS, CONFIG_MAPS):
        if resource in all_informers:
            controller.watch(all_informers[resource], _services_of(services, lambda _: None))
    _watch_accounts(controller, all_informers[SERVICE_ACCOUNTS], services)
    if namespace is None:
        _watch_annotations(controller, all_informers[NAMESPACES], services)
    starts = Starts(board, _metrics_port(cluster), fetch, controller.enqueue)
    pods.on_change(starts.noticed)
    return controller, Autoscaler(cluster, board, agents, events, controller.enqueue, PodMetrics(fetch)), starts


def _metrics_port(cluster: Cluster) -> Callable[[Object], int]:
    """Where a pod answers HTTP: the port of its readiness, which its workload's Service names."""

    def port(pod: Object) -> int:
        key = Key(pod["metadata"]["namespace"], pod["metadata"]["labels"].get(names.LABEL_WORKLOAD, ""))
        service = cluster.get(SERVICES, key) or {"metadata": {}}
        number = service["metadata"].get("annotations", {}).get(names.READINESS, "").partition("/")[0]
        return int(number) if number.isdecimal() else names.HTTP_PORT

    return port


def _its_service(obj: Object) -> Iterable[Key]:
    service = obj["metadata"].get("labels", {}).get(names.LABEL_INFERENCE_SERVICE)
    return [Key(obj["metadata"]["namespace"], service)] if service else []


def _services_of(services: Informer, namespace: Callable[[Object], str | None]) -> Callable[[Object], Iterable[Key]]:
    """All InferenceServices that may refer to an object: of its namespace, or of all."""
    return lambda obj: services.store.keys(namespace(obj))


def _watch_annotations(controller: Controller, namespaces: Informer, services: Informer) -> None:
    """A namespace's word on pickle concerns all of its services; the rest of it none."""

    def told(obj: Object | None) -> str | None:
        found: str | None = ((obj or {}).get("metadata", {}).get("annotations") or {}).get(names.ALLOW_PICKLE)
        return found

    def changed(old: Object | None, new: Object | None) -> None:
        if told(old) != told(new):
            for service in services.store.keys(key_of(new or old or {}).name):
                controller.enqueue(service)

    namespaces.on_change(changed)


def _watch_accounts(controller: Controller, accounts: Informer, services: Informer) -> None:
    """Every namespace has a ServiceAccount; what concerns services is only that one names other Secrets, or other places."""

    def changed(old: Object | None, new: Object | None) -> None:
        if _without_version(old) != _without_version(new):
            for service in services.store.keys(key_of(new or old or {}).namespace):
                controller.enqueue(service)

    accounts.on_change(changed)


def _without_version(account: Object | None) -> tuple[Any, ...]:
    """What of a ServiceAccount storage depends on; of one that names nothing, the same as of none."""
    account = account or {}
    found = (account.get("secrets"), account.get("imagePullSecrets"), account.get("metadata", {}).get("annotations"))
    return tuple(part or None for part in found)


def _what_concerns_storage(account: Object) -> Object:
    metadata = {key: account["metadata"].get(key) for key in ("name", "namespace", "resourceVersion")}
    annotations = account["metadata"].get("annotations") or {}
    told = {key: value for key, value in annotations.items() if key == AWS_ROLE or "/s3-" in key}
    kept = {key: account[key] for key in ("secrets", "imagePullSecrets") if account.get(key)}
    return {"metadata": {**metadata, "annotations": told}, **kept}


def _what_scaling_reads(deployment: Object) -> Object:
    """The autoscaler looks at each Deployment each second."""
    kept = ("name", "namespace", "uid", "resourceVersion", "labels")
    return {
        "metadata": {key: deployment["metadata"][key] for key in kept if key in deployment["metadata"]},
        "spec": {key: value for key, value in deployment["spec"].items() if key == "replicas"},
        "status": {key: value for key, value in deployment.get("status", {}).items() if key == "availableReplicas"},
    }


def _what_became_of_it(pod: Object) -> Object:
    """A pod without its spec and with little of its metadata: half of a large cluster's memory would be nothing else."""
    kept = ("name", "namespace", "uid", "resourceVersion", "labels", "creationTimestamp", "deletionTimestamp")
    metadata = {key: value for key, value in pod["metadata"].items() if key in kept}
    return {"metadata": metadata, "status": pod.get("status", {})}


def _metadata_only(obj: Object) -> Object:
    return {"metadata": obj["metadata"]}
