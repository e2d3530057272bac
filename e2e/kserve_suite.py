"""KServe's own end-to-end tests, not a line changed, against the chart on a kind cluster of their own.

    make e2e-kserve KSERVE=path/to/kserve/test/e2e [TESTS="predictor/test_sklearn.py -k v2"] [PYTHON_KSERVE=python]

The folder is one of a checkout of KServe; the Python one with `kserve[test]` in it, of the version that the checkout is for. What the tests expect around
them is made first: their namespace, the gateway's address in KSERVE_INGRESS_HOST_PORT, small models of the same kind in place of their public ones (by
the chart's `storage.mirrors`), a stand-in for TensorFlow Serving, which only says that it is there, and one for Knative's `event_display`, which prints
the CloudEvents that it is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import skops.io
import xgboost
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from e2e.kind import CUSTOM_IMAGE, MODELS, KindCluster
from e2e.registry import Registry

NAMESPACE = "kserve-ci-e2e-test"
EXAMPLES = "gs://kfserving-examples/models/"
STAND_INS = {
    "sklearn/newsgroup/model.joblib": "news.skops",
    "xgboost/1.5/model": "classes.ubj",
    "xgboost/iris": "classes.ubj",
    "xgboost/iris/model.bst": "classes.ubj",
    "lightgbm/iris": "chances.lgb",
    "lightgbm/v2/iris": "chances.lgb",
    "tensorflow/flowers": "news.skops",
    "tensorflow/flowers-2": "news.skops",
}
"""Beside those that all scenarios have (`e2e.cluster.mirrors`)."""
TENSORFLOW: dict[str, Any] = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "tensorflow-stand-in"},
    "spec": {
        "supportedModelFormats": [{"name": "tensorflow", "version": "1", "autoSelect": True}],
        "protocolVersions": ["v1"],
        "containers": [
            {
                "name": "kserve-container",
                "image": CUSTOM_IMAGE,
                "command": ["python", "-m", "http.server", "8080", "--directory", "/mnt/models"],
            }
        ],
    },
}


FILES = (
    "predictor/test_raw_deployment.py",
    "predictor/test_sklearn.py",
    "predictor/test_xgboost.py",
    "predictor/test_lightgbm.py",
    "predictor/test_predictive.py",
    "predictor/test_autoscaling.py",
    "predictor/test_canary.py",
    "predictor/test_canary_raw_deployment.py",
    "predictor/test_scheduler_name.py",
    "batcher/test_raw_batcher.py",
    "logger/test_raw_logger.py",
)
"""What is run if nothing is named: the files of which docs/migrating-from-kserve.md says which tests pass."""
EVENT_DISPLAY = "gcr.io/knative-releases/knative.dev/eventing-contrib/cmd/event_display"
PRINTER = """
import http.server, os

class Printer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        os.write(1, b"%s%s\\n" % (bytes(self.headers), body))

http.server.ThreadingHTTPServer(("", 8080), Printer).serve_forever()
"""


def build_event_display() -> None:
    dockerfile = f"FROM {CUSTOM_IMAGE}\nCMD {json.dumps(['python', '-c', PRINTER])}\n"
    build = ["docker", "build", "--quiet", "--tag", EVENT_DISPLAY, "-"]
    subprocess.run(build, input=dockerfile, text=True, check=True, timeout=300, stdout=subprocess.DEVNULL)


def train(directory: Path) -> list[Path]:
    """The stand-ins: classes of irises, chances of irises with their columns' names, and a group of news."""
    measurements, species = load_iris(return_X_y=True)
    names = ["sepal_length_(cm)", "sepal_width_(cm)", "petal_length_(cm)", "petal_width_(cm)"]
    softmax = {"objective": "multi:softmax", "num_class": 3}
    classes = xgboost.train(softmax, xgboost.DMatrix(measurements, species), num_boost_round=10)
    classes.save_model(directory / "classes.ubj")
    rows = lightgbm.Dataset(measurements, species, feature_name=names)
    chances = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, rows, num_boost_round=10)
    chances.save_model(directory / "chances.lgb")
    groups = ["engine wheels", "orbit moon", "the word of the law and the sin"]
    news = make_pipeline(TfidfVectorizer(), MultinomialNB()).fit(groups, np.array([7, 14, 19]))
    skops.io.dump(news, directory / "news.skops")
    return [directory / name for name in ("classes.ubj", "chances.lgb", "news.skops")]


def run(suite: Path, python: str, arguments: list[str]) -> int:
    """pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="fairlead-kserve-") as scratch:
        directory = Path(scratch)
        models = f"http://models.{MODELS}.svc.cluster.local/"
        stand_ins = {EXAMPLES + address: models + name for address, name in STAND_INS.items()}
        build_event_display()
        unpacked = directory / "event-display"
        unpacked.mkdir()
        with (
            KindCluster(directory, {}, files=train(directory), mirrored=stand_ins) as cluster,
            Registry(EVENT_DISPLAY, unpacked, kinds_gateway()) as registry,
        ):
            registry.stand_in("gcr.io", cluster.workers)
            wanted = cluster.kubectl("create", "namespace", NAMESPACE, "--dry-run=client", "-o", "json")
            cluster.kubectl("apply", "-f", "-", stdin=wanted)
            cluster.apply(NAMESPACE, TENSORFLOW)
            environment = {
                **os.environ,
                "KUBECONFIG": str(cluster.kubeconfig),
                "KSERVE_INGRESS_HOST_PORT": cluster.gateway.removeprefix("http://"),
            }
            command = [python, "-m", "pytest", "-p", "no:cacheprovider", *(arguments or _there(suite))]
            return subprocess.run(command, cwd=suite, env=environment, check=False).returncode


def _there(suite: Path) -> list[str]:
    return [name for name in FILES if (suite / name).exists()]


def kinds_gateway() -> str:
    """This machine's address in the network of kind's nodes."""
    inspect = ["docker", "network", "inspect", "kind", "--format", "{{range .IPAM.Config}}{{.Gateway}} {{end}}"]
    addresses = subprocess.run(inspect, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    return next(address for address in addresses if "." in address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="the folder test/e2e of a checkout of KServe")
    parser.add_argument("--python", default=sys.executable, help="with kserve[test] of that checkout's version")
    options, arguments = parser.parse_known_args()
    if not (options.suite / "common" / "utils.py").exists():
        sys.exit(f"{options.suite} is not the folder test/e2e of a checkout of KServe: it has no common/utils.py")
    python = shutil.which(options.python)
    if python is None:
        sys.exit(f"{options.python}: there is no such program")
    sys.exit(run(options.suite.resolve(), str(Path(python).absolute()), arguments))


if __name__ == "__main__":
    main()
