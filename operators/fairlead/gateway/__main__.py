"""`python -m fairlead.gateway`: the agent. HAProxy itself is started by whoever starts this: see `haproxy.command`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from fairlead.api import names
from fairlead.gateway.agent import Agent
from fairlead.gateway.haproxy import ensure_files
from fairlead.gateway.server import served
from fairlead.gateway.settings import Settings, SettingsError
from fairlead.gateway.succession import RELIEVED, Succession
from fairlead.kube.client import Client
from fairlead.kube.errors import ConfigError
from fairlead.kube.objects import Key


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = _settings(options)
        ensure_files(settings)
        if not options.render_only:
            host, _, port = options.listen.rpartition(":")
            asyncio.run(_serve(settings, options, host.strip("[]"), int(port)))
    except (SettingsError, ConfigError, OSError) as error:
        print(f"fairlead.gateway: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _serve(settings: Settings, options: argparse.Namespace, host: str, port: int) -> None:
    client = await Client.connect(options.kubeconfig, options.context)
    agent = Agent(settings, client)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with served(agent, host, port):
            tasks = {asyncio.create_task(agent.run()), asyncio.create_task(stop.wait())}
            if options.service is not None:
                tasks.add(asyncio.create_task(Succession(client, options.service, settings.directory).run()))
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for task in done:
                task.result()
            agent.programmer.write()
    finally:
        await client.close()


def _settings(options: argparse.Namespace) -> Settings:
    chosen = {
        name: value
        for name in (
            "threads",
            "max_connections",
            "http_backends",
            "grpc_backends",
            "slots",
            "hold_timeout",
            "hold_limit",
            "hold_bytes",
        )
        if (value := getattr(options, name)) is not None
    }
    bind = tuple(options.bind or [f"127.0.0.1:{names.GATEWAY_PORT}"])
    return Settings(directory=options.directory, bind=bind, domain=options.domain, **chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fairlead.gateway", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="HAProxy's configuration, maps and sockets")
    parser.add_argument(
        "--bind",
        action="append",
        metavar="HOST:PORT",
        help=f"where HAProxy listens (127.0.0.1:{names.GATEWAY_PORT}); repeatable",
    )
    parser.add_argument(
        "--listen", default=f"127.0.0.1:{names.GATEWAY_AGENT_PORT}", metavar="HOST:PORT", help="the agent's own port"
    )
    parser.add_argument("--domain", default=names.DEFAULT_DOMAIN, help="of external hosts: {name}-{namespace}.{domain}")
    parser.add_argument(
        "--service",
        type=_service,
        metavar="NAMESPACE/NAME",
        help=f"that of all gateways: while a pod of it is ready, there is a file `{RELIEVED}` in the directory",
    )
    parser.add_argument("--kubeconfig", help="else the pod's service account, or KUBECONFIG")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument(
        "--render-only", action="store_true", help="write HAProxy's first configuration, if there is none, and end"
    )
    parser.add_argument("--threads", type=int, help="of HAProxy")
    parser.add_argument("--max-connections", type=int, help="of clients to HAProxy")
    parser.add_argument("--http-backends", type=int, help="workloads that fit without a reload, HTTP")
    parser.add_argument("--grpc-backends", type=int, help="the same for gRPC")
    parser.add_argument("--slots", type=int, help="pods of a workload that fit without a reload")
    parser.add_argument(
        "--hold-timeout", type=float, metavar="SECONDS", help="how long a request waits for a first ready pod"
    )
    parser.add_argument("--hold-limit", type=int, help="requests that wait so, for one workload")
    parser.add_argument("--hold-bytes", type=int, help="memory that all requests which wait so may take")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _service(text: str) -> Key:
    namespace, _, name = text.partition("/")
    if not namespace or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAMESPACE/NAME")
    return Key(namespace, name)


if __name__ == "__main__":
    sys.exit(main())
