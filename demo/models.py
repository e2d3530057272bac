"""Two models of scikit-learn's handwritten digits (1,797 images from UCI), and what each of them answers in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skops.io
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC


@dataclass(frozen=True)
class Trained:
    """A model on disk, and its own predictions of the test images."""

    directory: Path
    title: str
    accuracy: float
    answers: list[int]


@dataclass(frozen=True)
class Digits:
    images: list[list[float]]
    """The test images: 64 grey values each."""
    v1: Trained
    v2: Trained

    @property
    def telling(self) -> list[int]:
        """The images on which the two disagree: the answer tells which model gave it."""
        return [i for i, (one, two) in enumerate(zip(self.v1.answers, self.v2.answers, strict=True)) if one != two]


def split(images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Training images, test images, and the labels of each: the same in every act."""
    parts: list[np.ndarray] = train_test_split(images, labels, test_size=0.4, random_state=7)
    return parts


def train(directory: Path) -> Digits:
    """Trains both and saves them as skops files, which are data and run no code when they are loaded."""
    train_images, test_images, train_labels, test_labels = split(*load_digits(return_X_y=True))

    def fit(name: str, title: str, model: ClassifierMixin) -> Trained:
        model.fit(train_images, train_labels)
        place = directory / name
        place.mkdir(parents=True)
        skops.io.dump(model, place / "model.skops")
        answers = model.predict(test_images)
        return Trained(place, title, float(np.mean(answers == test_labels)), [int(answer) for answer in answers])

    return Digits(
        test_images.tolist(),
        v1=fit("v1", "naive Bayes", GaussianNB()),
        v2=fit("v2", "support vector machine", SVC()),
    )
