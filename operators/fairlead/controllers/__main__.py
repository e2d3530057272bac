"""`python -m fairlead.controllers`: the operator process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from fairlead.api import names
from fairlead.controllers import crds
from fairlead.controllers.autoscaler import explain
from fairlead.controllers.autoscaler.agents import HttpAgents
from fairlead.controllers.autoscaler.gauges import Gauges
from fairlead.controllers.autoscaler.scraping import HttpFetch
from fairlead.controllers.inferenceservice.gateways import HttpGateways
from fairlead.controllers.inferenceservice.settings import Settings
from fairlead.controllers.wiring import inference_service_controller
from fairlead.kube.client import Client
from fairlead.kube.errors import KubeError
from fairlead.kube.events import Events
from fairlead.kube.lease import Lease, LeaseLost, new_identity
from fairlead.kube.manager import Manager
from fairlead.kube.metrics import REGISTRY

log = logging.getLogger("fairlead.controllers")

IMAGE_VOLUMES_SINCE = 35
"""Kubernetes 1.35 has the feature gate ImageVolume on by default; 1.31 to 1.34 have it off."""
_IDENTITY = "FAIRLEAD_LEASE_IDENTITY"
"""Set only when the process starts itself anew."""


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    identity = os.environ.get(_IDENTITY) or new_identity()
    _log_to_stderr(as_json=options.log_json, level=options.log_level)
    try:
        asyncio.run(_run(options, identity))
    except LeaseLost as error:
        # Nothing of what it knew may be used again. A process that ended for it would wait for minutes in the kubelet's back-off on a busy node, and so
        # would the other operator: nobody would wake models meanwhile. For the same reason it does not wait for its own Lease to run out.
        log.error("%s: starting anew", error)
        os.execve(sys.executable, sys.orig_argv, {**os.environ, _IDENTITY: identity})  # noqa: S606
    except (KubeError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


async def _run(options: argparse.Namespace, identity: str) -> None:
    async with await Client.connect(options.kubeconfig) as client:
        if options.apply_crds == "only":
            await _apply_crds(client)
            return
        namespace = options.lease_namespace or client.namespace
        lease = Lease(names.OPERATOR, namespace, identity) if options.leader_election else None
        manager = Manager(client, lease=lease, address=options.listen)
        gateways = HttpGateways(options.gateway_agents)
        events = Events(client, names.OPERATOR)
        settings = Settings(
            ingress_domain=options.ingress_domain,
            ingress_port=options.ingress_port,
            gateway_address=options.gateway_address,
            storage_initializer_image=options.storage_initializer_image,
            storage_mirrors=options.storage_mirrors,
            allow_pickle=options.allow_pickle,
            image_volumes=await _image_volumes(client, options.image_volumes),
            model_cache=options.model_cache,
            model_cache_limit=options.model_cache_limit,
            config_namespace=options.config_namespace,
        )
        agents = HttpAgents(options.gateway_agents)
        fetch = HttpFetch()
        controller, autoscaler, starts = inference_service_controller(
            manager, client, gateways, events, settings, agents, fetch, namespace=options.namespace
        )
        manager.add(controller)
        manager.add_task("autoscaler", autoscaler.run)
        manager.add_task("starts", starts.run)
        manager.add_routes(explain.route(autoscaler))
        if options.apply_crds:
            await crds.bring_up(client, events)
        gauges = Gauges(autoscaler)
        REGISTRY.register(gauges)
        try:
            await manager.run()
        finally:
            REGISTRY.unregister(gauges)
            await events.close()
            await gateways.close()
            await agents.close()
            await fetch.close()


async def _apply_crds(client: Client) -> None:
    events = Events(client, names.OPERATOR)
    try:
        await crds.bring_up(client, events)
    finally:
        await events.close()


async def _image_volumes(client: Client, told: str) -> bool:
    """Whether pods may mount images: as told, else from the version on in which the feature is on by default."""
    if told != "auto":
        return told == "on"
    try:
        version = await client.raw("/version")
        minor = int("".join(character for character in str(version.get("minor")) if character.isdigit()))
    except (KubeError, ValueError):
        return False
    return str(version.get("major")) == "1" and minor >= IMAGE_VOLUMES_SINCE


def parser() -> argparse.ArgumentParser:
    defaults = Settings()
    flags = argparse.ArgumentParser(prog="python -m fairlead.controllers", description="The Fairlead operator.")
    flags.add_argument("--kubeconfig", metavar="FILE", help="default: $KUBECONFIG, ~/.kube/config, or the pod's own")
    flags.add_argument("--namespace", metavar="NAME", help="look after one namespace only; default: all")
    flags.add_argument(
        "--ingress-domain", metavar="DOMAIN", default=defaults.ingress_domain, help="default: %(default)s"
    )
    flags.add_argument(
        "--ingress-port", metavar="PORT", type=int, help="the gateway's port in URLs, where it is not 80"
    )
    flags.add_argument("--gateway-address", metavar="HOST:PORT", help="the gateway as pods reach it")
    flags.add_argument(
        "--gateway-agents",
        metavar="HOST:PORT,…",
        type=lambda text: [part.strip() for part in text.split(",") if part.strip()],
        default=[],
        help="the gateways' agents; a host with several addresses, such as a headless Service, is several agents",
    )
    flags.add_argument(
        "--storage-initializer-image",
        metavar="IMAGE",
        default=defaults.storage_initializer_image,
        help="default: %(default)s",
    )
    flags.add_argument(
        "--storage-mirrors",
        metavar="RULES",
        default=os.environ.get(names.STORAGE_MIRRORS_ENV, ""),
        help="where models lie that manifests name elsewhere: PREFIX -> REPLACEMENT; … [FAIRLEAD_STORAGE_MIRRORS]",
    )
    flags.add_argument(
        "--allow-pickle",
        action="store_true",
        help="pickle files may be loaded unless a service or its namespace says no",
    )
    flags.add_argument(
        "--config-namespace",
        metavar="NAME",
        help="where the ConfigMap inferenceservice-config is; default: it is not read",
    )
    flags.add_argument(
        "--image-volumes",
        choices=("auto", "on", "off"),
        default="auto",
        help="whether oci:// models are mounted as images rather than fetched; auto: from Kubernetes 1.35 on",
    )
    flags.add_argument(
        "--model-cache",
        metavar="hostPath:/DIR|claim:NAME",
        type=_model_cache,
        default=defaults.model_cache,
        help="where fetched models stay for the pods after",
    )
    flags.add_argument(
        "--model-cache-limit",
        metavar="SIZE",
        default=defaults.model_cache_limit,
        help="what that may take, such as 20Gi",
    )
    flags.add_argument(
        "--listen",
        metavar="HOST:PORT",
        type=_address,
        default=("127.0.0.1", names.OPERATOR_PORT),
        help=f"for /healthz, /readyz and /metrics; default: 127.0.0.1:{names.OPERATOR_PORT}",
    )
    flags.add_argument(
        "--apply-crds",
        nargs="?",
        const="first",
        choices=["first", "only"],
        help="bring the CRDs up to this version first; only: and do nothing else",
    )
    flags.add_argument("--leader-election", action=argparse.BooleanOptionalAction, default=True)
    flags.add_argument("--lease-namespace", metavar="NAME", help="default: the pod's, or the kubeconfig's")
    flags.add_argument("--log-json", action="store_true", help="one JSON object a line")
    flags.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return flags


def _model_cache(text: str) -> str:
    kind, _, place = text.partition(":")
    if text and not (kind == "claim" and place) and not (kind == "hostPath" and place.startswith("/")):
        raise argparse.ArgumentTypeError(f"{text!r} is neither hostPath:/DIRECTORY nor claim:NAME")
    return text


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9902")
    return host.strip("[]"), int(port)


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


def _log_to_stderr(*, as_json: bool, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if as_json else text)
    logging.basicConfig(level=level.upper(), handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
