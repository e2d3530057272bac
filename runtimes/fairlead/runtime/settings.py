"""The model server's settings: KServe's flags and environment, so that a ServingRuntime's `args` fit, and ours.

A flag wins over its environment variable. Flags of KServe's that mean nothing here are accepted with a warning.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fairlead.api.addresses import is_http
from fairlead.api.names import GRPC_PORT, HTTP_PORT, LOGGER_ENV, MAX_BATCH_SIZE_ENV, MODEL_DIR, STORAGE_URI_ENV
from fairlead.runtime.runner import DEFAULT_MAX_BATCH_SIZE, DEFAULT_MAX_QUEUE

log = logging.getLogger(__name__)

ENGINES = ("auto", "process", "ray")
DEFAULT_MAX_BODY = 100 * 1024 * 1024
NOTICED_SECONDS = 6.0
"""What it takes until a server that says it is not ready is asked no more: some of the kubelet's probes (two, one every two seconds, for the runtimes of the chart), and the EndpointSlice."""
LEAVE_SECONDS = 30.0
"""At most, where probes are rarer."""
FLUSH_SECONDS = 5.0
"""At the end, for payloads that are still to be logged."""
LATE_SECONDS = 5.0
"""A drain goes on for so much longer while requests still come: a busy node tells proxies late that a pod leaves."""


@dataclass(frozen=True)
class PayloadLogging:
    """What of predictions is sent where, and what the events say of the server."""

    url: str
    requests: bool = True
    responses: bool = True
    inference_service: str = ""
    namespace: str = ""
    component: str = ""
    metadata_headers: tuple[str, ...] = ()
    """Headers of a request that its events repeat."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the JSON in FAIRLEAD_LOGGER (`names.LOGGER_ENV`). Raises ValueError."""
        given: dict[str, Any] = json.loads(text)
        if not is_http(given["url"]):
            raise ValueError(f"{given['url']!r} is no http:// or https:// address")
        mode = given.get("mode", "all")
        return cls(
            given["url"],
            requests=mode in ("all", "request"),
            responses=mode in ("all", "response"),
            inference_service=given.get("inferenceService", ""),
            namespace=given.get("namespace", ""),
            component=given.get("component", ""),
            metadata_headers=tuple(given.get("metadataHeaders", ())),
            annotations=given.get("annotations", {}),
        )


@dataclass(frozen=True)
class Settings:
    model_name: str = "model"
    model_dir: Path = Path(MODEL_DIR)
    storage_uri: str | None = None
    """Where to fetch the model from into `model_dir`; None: it lies there."""
    model_class: str | None = None
    """`package.module:Class` or a Python file, to serve it; or the torch.nn.Module that weights are for."""
    repository_dir: Path | None = None
    """A directory with a model in each subdirectory, loaded by the repository API; all of them at start."""
    max_loaded_models: int | None = None
    """Of that directory: so many at a time, each when it is asked for."""
    host: str = "0.0.0.0"
    http_port: int = HTTP_PORT
    grpc_port: int | None = GRPC_PORT
    """None: no gRPC."""
    grpc_front: str = "auto"
    """native: pygrpc-native; grpcio: grpc.aio; auto: native where it is installed."""
    engine: str = "auto"
    workers: int = 1
    """Processes (engine process) or replicas (engine ray) that share the ports."""
    num_gpus: float = 0.0
    """Of each replica (engine ray); half of one lets two replicas share it."""
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    max_queue: int = DEFAULT_MAX_QUEUE
    max_body: int = DEFAULT_MAX_BODY
    drain_seconds: float = 1.0
    """After SIGTERM, the time in which new requests are still answered: until every proxy knows that the pod leaves. LATE_SECONDS more if they go on."""
    grace_seconds: float = 25.0
    """After that, the time for requests in flight."""
    access_log: bool = False
    payload_log: PayloadLogging | None = None
    """None: payloads are not logged."""
    allow_pickle: bool | None = None
    """None: as the environment says."""
    framework: str | None = None
    predictor_host: str | None = None
    predictor_protocol: str = "v1"
    predictor_use_ssl: bool = False
    predictor_timeout: float = 600.0
    ignored: tuple[str, ...] = field(default=(), compare=False)
    """Arguments that were given and mean nothing here."""

    @property
    def seconds_to_end(self) -> float:
        """The longest that an end by SIGTERM takes."""
        late = LATE_SECONDS if self.drain_seconds else 0.0
        return self.drain_seconds + late + self.grace_seconds + FLUSH_SECONDS


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from arguments and environment. SystemExit with a message if they make no sense."""
    parser = _parser(environment)
    arguments, unknown = parser.parse_known_args(argv)
    for name in ("workers", "max_batch_size", "max_queue", "max_buffer_size"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if arguments.num_gpus < 0:
        parser.error(f"--num_gpus must not be negative, and is {arguments.num_gpus:g}")
    if arguments.max_loaded_models is not None and arguments.model_repository is None:
        parser.error("--max_loaded_models needs --model_repository: with one model there is nothing to choose from")
    if arguments.max_loaded_models is not None and arguments.max_loaded_models < 1:
        parser.error(f"--max_loaded_models must be at least 1, not {arguments.max_loaded_models}")
    for name in ("http_port", "grpc_port"):
        if not 0 <= getattr(arguments, name) <= 65535:
            parser.error(f"--{name} must be between 0 and 65535, not {getattr(arguments, name)}")
    return Settings(
        model_name=arguments.model_name,
        model_dir=arguments.model_dir,
        storage_uri=arguments.storage_uri,
        model_class=arguments.model_class,
        repository_dir=arguments.model_repository,
        max_loaded_models=arguments.max_loaded_models,
        host=arguments.host,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port if arguments.enable_grpc else None,
        grpc_front=arguments.grpc_front,
        engine=arguments.engine,
        workers=arguments.workers,
        num_gpus=arguments.num_gpus,
        max_batch_size=arguments.max_batch_size,
        max_queue=arguments.max_queue,
        max_body=arguments.max_buffer_size,
        drain_seconds=arguments.drain_seconds,
        grace_seconds=arguments.grace_seconds,
        access_log=arguments.access_log,
        payload_log=_payload_logging(parser, environment),
        allow_pickle=arguments.allow_pickle,
        framework=arguments.framework,
        predictor_host=arguments.predictor_host,
        predictor_protocol=arguments.predictor_protocol or arguments.protocol,
        predictor_use_ssl=arguments.predictor_use_ssl,
        predictor_timeout=arguments.predictor_request_timeout_seconds,
        ignored=tuple(unknown),
    )


def _payload_logging(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> PayloadLogging | None:
    text = environment.get(LOGGER_ENV)
    if not text:
        return None
    try:
        return PayloadLogging.parse(text)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f"{LOGGER_ENV} does not say where payloads are logged: {error}")


def warn_of_ignored(settings: Settings) -> None:
    for argument in settings.ignored:
        if argument.startswith("-"):
            log.warning("%s means nothing to this server and is ignored", argument.partition("=")[0])


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairlead.runtime",
        description="Serve a model over V1, V2 (REST and gRPC).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _model_flags(parser, environment)
    _port_flags(parser, environment)
    _limit_flags(parser, environment)
    _predictor_flags(parser)
    return parser


def _model_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model_name", "--model-name", default="model", help="name in every protocol's paths")
    group.add_argument(
        "--model_dir", "--model-dir", type=Path, default=Path(MODEL_DIR), help="where the model's files are"
    )
    group.add_argument(
        "--storage_uri",
        default=environment.get(STORAGE_URI_ENV) or None,
        help=f"fetch the model from here [{STORAGE_URI_ENV}]",
    )
    group.add_argument("--model_class", default=None, help="MODULE:CLASS or FILE.py to serve")
    group.add_argument(
        "--model_repository", type=Path, default=None, help="a directory with a model in each subdirectory"
    )
    group.add_argument(
        "--max_loaded_models",
        type=int,
        default=None,
        help="of those, how many may be loaded at a time: each is loaded when it is asked for, the longest unused goes",
    )
    group.add_argument("--framework", default=None, help="the model's framework, where its files fit several")
    group.add_argument("--allow_pickle", action="store_true", default=None, help="load pickles, which may run code")


def _port_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = parser.add_argument_group("ports and processes")
    group.add_argument("--host", default=environment.get("HOST") or "0.0.0.0", help="address to bind [HOST]")
    group.add_argument("--http_port", type=int, default=_port(environment), help="REST [PORT]; 0: any free one")
    group.add_argument("--grpc_port", type=int, default=GRPC_PORT, help="gRPC; 0: any free one")
    group.add_argument("--enable_grpc", type=_boolean, default=True, nargs="?", const=True, help="serve gRPC")
    group.add_argument("--grpc_front", choices=("auto", "native", "grpcio"), default="auto", help="gRPC implementation")
    group.add_argument(
        "--engine", choices=ENGINES, default=environment.get("FAIRLEAD_ENGINE") or "auto", help="[FAIRLEAD_ENGINE]"
    )
    group.add_argument("--workers", type=int, default=1, help="processes, or Ray replicas")
    group.add_argument("--num_gpus", type=float, default=0.0, help="of each Ray replica; 0.5 lets two share one")


def _limit_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = parser.add_argument_group("limits and operation")
    group.add_argument(
        "--max_batch_size",
        type=int,
        default=int(environment.get(MAX_BATCH_SIZE_ENV) or DEFAULT_MAX_BATCH_SIZE),
        help=f"rows predicted together; 1: no batching [{MAX_BATCH_SIZE_ENV}]",
    )
    group.add_argument("--max_queue", type=int, default=DEFAULT_MAX_QUEUE, help="requests that may wait for a model")
    group.add_argument("--max_buffer_size", type=int, default=DEFAULT_MAX_BODY, help="largest request body, bytes")
    group.add_argument("--drain_seconds", type=float, default=1.0, help="after SIGTERM, still accept requests so long")
    group.add_argument("--grace_seconds", type=float, default=25.0, help="then, time for requests in flight")
    group.add_argument("--access_log", action="store_true", help="a JSON line for each request")


def _predictor_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("transformers")
    group.add_argument("--predictor_host", default=None, help="host[:port] that predict() forwards to")
    group.add_argument("--predictor_protocol", default=None, help="v1, v2 or grpc-v2")
    group.add_argument("--protocol", default="v1", help="the same (KServe's older flag)")
    group.add_argument("--predictor_use_ssl", type=_boolean, default=False, nargs="?", const=True)
    group.add_argument("--predictor_request_timeout_seconds", type=float, default=600.0)


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("PORT") or str(HTTP_PORT)
    if not text.isdigit():
        raise SystemExit(f"PORT={text!r} is not a port number")
    return int(text)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
