"""Makes iris.skops, the model of ../local.yaml: a logistic regression on Fisher's irises.

python manifests/samples/models/make.py
"""

from __future__ import annotations

from pathlib import Path

import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

if __name__ == "__main__":
    measurements, species = load_iris(return_X_y=True)
    skops.io.dump(LogisticRegression(max_iter=1000).fit(measurements, species), Path(__file__).with_name("iris.skops"))
