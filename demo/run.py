"""The demo: v1 is served, v2 becomes a 20 % canary, is promoted, and is rolled back, under traffic all the time; then a
pipeline of two models on Ray Serve, over REST and gRPC, that loses a replica.

    python -m demo.run

Exit code 0 only if no request failed, every answer was the model's own, and the split was what the manifest says.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from demo import ray_act
from demo.models import Digits, Trained, train
from demo.stage import PATIENCE, DemoFailed, cluster, console, is_ready, progress, wait
from demo.traffic import Traffic
from fairlead.kube.objects import Object

CANARY_PERCENT = 20
ANSWERS_PER_STEP = 500
ANSWERS_FOR_SPLIT = 1500
"""Telling answers (on images that the models see differently) that the split is measured by."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="fairlead-demo-") as place:
        try:
            _demo(Path(place))
        except (DemoFailed, subprocess.CalledProcessError) as error:
            console.print(f"[bold red]The demo failed:[/] {error}")
            return 1
    return 0


def _demo(place: Path) -> None:
    console.rule("1. Two models of handwritten digits")
    with console.status("training"):
        digits = train(place / "models")
    for name, model in (("v1", digits.v1), ("v2", digits.v2)):
        console.print(f"   {name}: {model.title}, {model.accuracy:.1%} of {len(digits.images)} unseen images right")
    first = _manifest(place / "v1.yaml", digits.v1)
    second = _manifest(place / "v2.yaml", digits.v2, canary=CANARY_PERCENT)

    console.rule("2. A cluster on this machine")
    with cluster(place / "cluster") as (run, port):
        _rollout(digits, run, port, first, second)
        run("delete", "digits")
        ray_act.play(run, port, place)
    console.rule("[bold green]All answers were the models' own, no request failed")


def _rollout(digits: Digits, run: Callable[..., None], port: int, first: Path, second: Path) -> None:
    console.rule("3. Version 1 is served")
    run("apply", "-f", str(first))
    wait("digits", "ready", is_ready)
    with Traffic(port, digits) as traffic:
        _all_from(traffic, "v1")

        console.rule(f"4. Version 2 gets {CANARY_PERCENT} % of the traffic")
        run("apply", "-f", str(second))
        wait(
            "digits",
            "the split is in effect",
            lambda isvc: is_ready(isvc) and _percents(isvc) == [CANARY_PERCENT, 100 - CANARY_PERCENT],
        )
        run("traffic", "digits")
        _check_split(traffic)

        console.rule("5. Version 2 is promoted")
        run("traffic", "digits", "--promote")
        wait("digits", "promoted", lambda isvc: is_ready(isvc) and _percents(isvc) == [100])
        _all_from(traffic, "v2")

        console.rule("6. Version 1 is rolled back to")
        run("apply", "-f", str(first))
        wait("digits", "rolled back", lambda isvc: is_ready(isvc) and _percents(isvc) == [100])
        _all_from(traffic, "v1")
    _check_none_failed(traffic)
    total = sum(traffic.counts.values())
    console.print(f"   {total} requests in all: {total} right, 0 failed")


def _manifest(path: Path, model: Trained, canary: int | None = None) -> Path:
    percent = f"\n    canaryTrafficPercent: {canary}" if canary is not None else ""
    path.write_text(f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: digits
spec:
  predictor:{percent}
    model:
      modelFormat: {{name: sklearn}}
      storageUri: {model.directory.as_uri()}
""")
    return path


def _percents(isvc: Object) -> list[int]:
    return sorted(item["percent"] for item in isvc["status"]["components"]["predictor"]["traffic"] if item["percent"])


def _all_from(traffic: Traffic, version: str) -> None:
    """From now on, every telling answer is this version's."""
    deadline = time.monotonic() + PATIENCE
    other = "v2" if version == "v1" else "v1"
    while other in traffic.recent or version not in traffic.recent:
        if time.monotonic() > deadline:
            raise DemoFailed(f"{other} still answers {PATIENCE:g} s after the traffic moved to {version}")
        time.sleep(0.05)
    before = traffic.counts[other]
    progress(ANSWERS_PER_STEP, lambda: sum(traffic.counts.values()), lambda: list(traffic.complaints))
    _check_none_failed(traffic)
    if traffic.counts[other] != before:
        raise DemoFailed(f"{traffic.counts[other] - before} answers are {other}'s, all should be {version}'s")
    console.print(f"   {ANSWERS_PER_STEP} answers, all {version}'s own")


def _check_split(traffic: Traffic) -> None:
    """The canary's share of the telling answers lies within the binomial 99.9 % band of its weight."""
    before = traffic.counts.copy()
    progress(ANSWERS_FOR_SPLIT, lambda: traffic.counts["v1"] + traffic.counts["v2"], lambda: list(traffic.complaints))
    found = {version: traffic.counts[version] - before[version] for version in ("v1", "v2")}
    _check_none_failed(traffic)
    total = sum(found.values())
    share, weight = found["v2"] / total, CANARY_PERCENT / 100
    band = 3.29 * math.sqrt(weight * (1 - weight) / total)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("   ANSWERED BY", "ANSWERS", "SHARE", ""):
        table.add_column(column, justify="left" if column in ("   ANSWERED BY", "") else "right")
    for version, answers in found.items():
        table.add_row(f"   {version}", str(answers), f"{answers / total:.1%}", "█" * round(40 * answers / total))
    console.print(table)
    if abs(share - weight) > band:
        raise DemoFailed(f"the canary answered {share:.1%}, which is not {weight:.0%} +- {band:.1%}")
    console.print(f"   {share:.1%} is {weight:.0%} within the {band:.1%} that chance explains")


def _check_none_failed(traffic: Traffic) -> None:
    if traffic.counts["wrong"] or traffic.counts["failed"]:
        counts = f"{traffic.counts['wrong']} wrong answers, {traffic.counts['failed']} failed requests"
        raise DemoFailed(f"{counts}, such as {'; '.join(traffic.complaints)}")


if __name__ == "__main__":
    sys.exit(main())
