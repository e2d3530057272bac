"""What Ray reads from the environment when it starts, set for serving. Values that are set already are left."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping

from fairlead.api.names import RAY_TOKEN_ENV

DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The container's log is stderr: nobody looks into files under /tmp, and nothing has to collect them.
    "RAY_LOG_TO_STDERR": "1",
    "RAY_SERVE_LOG_TO_STDERR": "1",
    "RAY_BACKEND_LOG_LEVEL": "error",
    # SIGTERM during the start would print a stack trace; crashes print theirs by Python's faulthandler.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    # Token authentication stays on (CVE-2023-48022).
    "RAY_AUTH_MODE": "token",
    # User code shares the replica's event loop with Serve's few control calls: one thread less to hop through.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.1",
    # The model server has metrics of its own; Ray's would be sent ten times a second to an agent that is not there.
    "RAY_enable_metrics_collection": "0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "60000",
    "RAY_enable_timeline": "0",
    "RAY_task_events_report_interval_ms": "0",
    # Workers import what each of them needs while the driver does.
    "RAY_prestart_worker_first_driver": "1",
    "RAY_preload_python_modules": "ray.serve._private.replica",
    # glibc would keep a heap for each of a worker's threads.
    "MALLOC_ARENA_MAX": "2",
}
IN_GROUP = {
    # A worker without a head serves on; `group` decides when it leaves.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
}
TOKENS = (RAY_TOKEN_ENV, "RAY_AUTH_TOKEN_PATH")


def prepare(environment: MutableMapping[str, str], *, in_group: bool = False) -> None:
    for name, value in {**DEFAULTS, **(IN_GROUP if in_group else {})}.items():
        environment.setdefault(name, value)
    if not any(environment.get(name) for name in TOKENS):
        # A token of our own needs no home directory to be written to.
        environment[RAY_TOKEN_ENV] = secrets.token_hex(32)
