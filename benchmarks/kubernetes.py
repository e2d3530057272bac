"""What Fairlead costs and keeps on Kubernetes, beside a plain Deployment and NodePort Service of the same image: on a kind cluster of one node.

    python benchmarks/kubernetes.py                          # seven minutes, most of them waiting
    python benchmarks/kubernetes.py --only zero --only many  # 100 services at zero, 1,000 services: seven minutes, ten at most
    python benchmarks/kubernetes.py --only pods --json figures.json

Needs docker, kind, kubectl, helm and the images of `make images`. It makes a cluster of its own and deletes it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from _figures import Figures
from _kind import Kind, Unmeasurable, cluster
from _kind_cost import measure_crds, measure_idle, measure_many, measure_zero
from _kind_failures import measure_gateways, measure_pods, measure_weights
from _kind_model import versions
from _kind_serving import measure_added, measure_ready, measure_requests

from fairlead.kube.errors import KubeError

PARTS = ("idle", "crds", "ready", "requests", "added", "pods", "gateways", "weights", "zero", "many")
LONG = ("zero", "many")


def measure(part: str, kind: Kind, figures: Figures, options: argparse.Namespace) -> None:
    if part == "idle":
        measure_idle(kind, figures)
    elif part == "crds":
        measure_crds(kind, figures)
    elif part == "ready":
        measure_ready(kind, figures, options.rounds)
    elif part == "requests":
        measure_requests(kind, figures, options.rounds)
    elif part == "added":
        measure_added(kind, figures)
    elif part == "pods":
        measure_pods(kind, figures)
    elif part == "gateways":
        measure_gateways(kind, figures)
    elif part == "weights":
        measure_weights(kind, figures)
    elif part == "zero":
        measure_zero(kind, figures)
    elif part == "many":
        measure_many(kind, figures, options.services)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster goes, too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--only", choices=PARTS, action="append", help=f"default: all but {' and '.join(LONG)}")
    parser.add_argument("--rounds", type=int, default=5, help="of what takes turns with the plain Deployment")
    parser.add_argument("--services", type=int, default=1000, help="of the part `many`")
    parser.add_argument("--tag", default="0.1.0", help="of the images")
    parser.add_argument("--name", default="fairlead-bench", help="of the cluster")
    parser.add_argument("--keep", action="store_true", help="leave the cluster, and take up the one that was left")
    options = parser.parse_args()
    figures = Figures("On Kubernetes (kind, one node)")
    unfinished: list[str] = []
    try:
        with cluster(options.name, options.tag, keep=options.keep) as kind:
            figures.add("helm install to all ready, images loaded", kind.install(), "s", goal=30)
            kind.apply(*versions())
            for part in options.only or [part for part in PARTS if part not in LONG]:
                began = time.monotonic()
                try:
                    measure(part, kind, figures, options)
                except (Unmeasurable, KubeError, TimeoutError) as error:  # the other parts can be measured all the same
                    unfinished.append(part)
                    print(f"{part}: {error or type(error).__name__}", flush=True)
                load = Path("/proc/loadavg").read_text().split()[0]
                print(f"{part}: {time.monotonic() - began:.0f} s; load average of this machine {load}", flush=True)
    except Unmeasurable as error:  # without a cluster, or a chart in it, there is nothing to go on with
        sys.exit(str(error))
    finally:  # what was measured until then, in any case
        figures.finish(options.json)
    if unfinished:
        sys.exit(f"not measured to the end: {', '.join(unfinished)}")


if __name__ == "__main__":
    main()
