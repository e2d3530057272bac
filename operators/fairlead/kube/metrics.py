"""What the control plane counts, under the names that controller-runtime and client-go made usual, so that dashboards fit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

REGISTRY = CollectorRegistry()
GCCollector(REGISTRY)
ProcessCollector(registry=REGISTRY)

RECONCILES = Counter(
    "controller_runtime_reconcile",
    "Reconciles by result: success, requeue_after, error, terminal_error.",
    ["controller", "result"],
    registry=REGISTRY,
)
RECONCILE_ERRORS = Counter(
    "controller_runtime_reconcile_errors", "Reconciles that failed.", ["controller"], registry=REGISTRY
)
RECONCILE_SECONDS = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "How long a reconcile took.",
    ["controller"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    registry=REGISTRY,
)
ACTIVE_WORKERS = Gauge(
    "controller_runtime_active_workers", "Reconciles that run now.", ["controller"], registry=REGISTRY
)
QUEUE_DEPTH = Gauge("workqueue_depth", "Keys that wait for a worker.", ["name"], registry=REGISTRY)
QUEUE_SECONDS = Histogram(
    "workqueue_queue_duration_seconds",
    "How long a key waited for a worker.",
    ["name"],
    buckets=(0.001, 0.01, 0.1, 1, 10, 60, 600),
    registry=REGISTRY,
)
LEADER = Gauge(
    "leader_election_master_status", "1 while this process holds the Lease, else 0.", ["name"], registry=REGISTRY
)
LISTS = Counter("fairlead_informer_lists", "Full lists of a kind.", ["resource"], registry=REGISTRY)
WATCH_RESTARTS = Counter(
    "fairlead_informer_watch_restarts",
    "Watches that began anew, by why: ended (by the server, routine), silent, gone, failed.",
    ["resource", "reason"],
    registry=REGISTRY,
)
EVENTS_DROPPED = Counter(
    "fairlead_events_dropped", "Events that were not written, by why.", ["reason"], registry=REGISTRY
)
LOOP_LAG = Gauge("fairlead_event_loop_lag_seconds", "How late the event loop's last tick was.", registry=REGISTRY)
