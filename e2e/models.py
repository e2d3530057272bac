"""Small real models for the scenarios."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skops.io
from sklearn.dummy import DummyClassifier


def constant_model(directory: Path, answer: int) -> Path:
    """A scikit-learn model over four features that always predicts `answer`; returns its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    model = DummyClassifier(strategy="constant", constant=answer).fit(np.zeros((2, 4)), [answer, answer])
    skops.io.dump(model, directory / "model.skops")
    return directory
