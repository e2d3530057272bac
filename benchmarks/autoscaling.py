"""To zero and back: what autoscaling costs and loses, on a kind cluster of one node, beside a plain Deployment and NodePort Service of the same image.

    python benchmarks/autoscaling.py                                # all but `kills`, `trace` and `many`: about eight minutes
    python benchmarks/autoscaling.py --only wakes --rounds 20 --json figures.json
    python benchmarks/autoscaling.py --only bursts --repetitions 20 --limit 900
    python benchmarks/autoscaling.py --only trace --minutes 60
    python benchmarks/autoscaling.py --timeline                     # one wake-up of each kind, step by step
    python benchmarks/autoscaling.py --timeline --only bursts       # each burst, step by step

Needs docker, kind, kubectl, helm and the images of `make images`; builds the tiny server's itself (tiny/server.py). It makes a cluster of its own and
deletes it. What is compared takes turns. `embedded` and `many` run on embedded clusters.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from _figures import Figures
from _kills import measure_kills
from _kind import cluster, run
from _kind_model import versions
from _kind_serving import measure_ready
from _laptop_wakes import measure_laptop
from _many import measure_tick
from _process import end_with_us
from _tiny import IMAGE
from _zero import NAMESPACE, Bench
from _zero_many import BURST, measure_bursts, measure_overshoot, measure_trace
from _zero_single import measure_iris, measure_wakes, print_timelines

from fairlead.kube.client import Client


async def measure_apply(bench: Bench) -> None:
    bench.kind.apply(*versions())
    await asyncio.to_thread(measure_ready, bench.kind, bench.figures, bench.options.rounds)


ON_KIND: dict[str, Callable[[Bench], Awaitable[None]]] = {
    "wakes": measure_wakes,
    "iris": measure_iris,
    "apply": measure_apply,
    "bursts": measure_bursts,
    "overshoot": measure_overshoot,
    "kills": measure_kills,
    "trace": measure_trace,
}
ON_LAPTOP = ("embedded", "many")
LONG = ("kills", "trace", "many")


async def on_kind(parts: list[str], figures: Figures, options: argparse.Namespace) -> None:
    with cluster(options.name, options.tag, keep=options.keep) as kind:
        if not options.installed:
            run("docker", "build", "-q", "-t", IMAGE, str(Path(__file__).parent / "tiny"))
            run("kind", "load", "docker-image", "--name", options.name, IMAGE, f"fairlead/runtime-core:{options.tag}")
            kind.install()
        async with await Client.connect(kind.kubeconfig) as client:
            bench = Bench(kind, client, figures, options)
            bench.make_namespace(NAMESPACE)
            if options.timeline and not options.only:
                await print_timelines(bench)
                return
            for part in parts:
                began = time.monotonic()
                try:
                    async with asyncio.timeout(None if part == "trace" else options.limit):
                        await ON_KIND[part](bench)
                except TimeoutError:
                    print(f"{part}: given up after {options.limit:g} s; --limit gives it more", flush=True)
                print(f"{part}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)


async def on_laptop(part: str, figures: Figures, options: argparse.Namespace) -> None:
    if part == "embedded":
        await measure_laptop(figures, options.rounds, options.engines)
    else:
        await measure_tick(figures, options.services)


def main() -> None:
    parts = (*ON_KIND, *ON_LAPTOP)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--only", choices=parts, action="append", help=f"default: all but {', '.join(LONG)}")
    parser.add_argument("--rounds", type=int, default=5, help="of single wake-ups")
    parser.add_argument("--repetitions", type=int, default=3, help=f"of {BURST} at once")
    parser.add_argument(
        "--limit", type=float, default=240, metavar="SECONDS", help="for each part on kind but the trace"
    )
    parser.add_argument(
        "--token",
        action="store_true",
        help="of the part `bursts`: pods with the API server's token, as custom containers have it unless they say no",
    )
    parser.add_argument("--minutes", type=float, default=60, help="of the trace")
    parser.add_argument("--seed", default="spikes", help="of the trace")
    parser.add_argument(
        "--failures", default="autoscaling-failures.jsonl", metavar="FILE", help="of the trace, a line each"
    )
    parser.add_argument("--services", type=int, default=1000, help="of the part `many`")
    parser.add_argument("--engines", nargs="+", default=["process", "ray"], help="of the part `embedded`")
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="show the steps of one wake-up of each kind, and measure nothing; with `--only bursts` those of each burst",
    )
    parser.add_argument("--tag", default="0.1.0", help="of the images")
    parser.add_argument("--name", default="fairlead-scale", help="of the cluster")
    parser.add_argument("--keep", action="store_true", help="leave the cluster, and take up the one that was left")
    parser.add_argument(
        "--installed", action="store_true", help="with --keep: leave the chart and the images as they are there"
    )
    options = parser.parse_args()
    end_with_us()
    chosen = options.only or [part for part in parts if part not in LONG]
    figures = Figures("To zero and back")
    here = [part for part in chosen if part in ON_KIND]
    try:
        if here or options.timeline:
            asyncio.run(on_kind(here, figures, options))
        for part in chosen:
            if part in ON_LAPTOP and not options.timeline:
                asyncio.run(on_laptop(part, figures, options))
    finally:  # what was measured until then, in any case
        if figures.figures:
            figures.finish(options.json)


if __name__ == "__main__":
    main()
