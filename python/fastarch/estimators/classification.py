"""What is reported and said of an estimator that classifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import plots
from fastarch.estimators.info import Part, Report

CONFUSION, MISTAKES = "confusion.png", "mistakes.png"


def report(estimator: Any, parts: Mapping[str, Part], folder: Path | None, title: str) -> Report:
    """Accuracy on every part; of the test part, if there is one, confusion matrix and worst mistakes."""
    training, test = parts["training"], parts.get("test")
    figures = {"accuracy": estimator.score(training.x, training.y)}
    sentence = f"accuracy {100 * figures['accuracy']:.2f} % on the training data"
    drawn: list[str] = []
    if test is not None and test.y is not None:
        classes = [test.classes[i] for i in estimator.classes_]
        figures["test_accuracy"] = estimator.score(test.x, test.y)
        sentence = f"test accuracy {100 * figures['test_accuracy']:.2f} % on {len(test):,} samples"
        if folder is not None:
            position = {int(label): i for i, label in enumerate(estimator.classes_)}
            known = np.array([label in position for label in test.y.tolist()])
            true = np.array([position[label] for label in test.y[known].tolist()], dtype=np.int64)
            probability = certainty(estimator, test.x[known])
            matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
            np.add.at(matrix, (true, probability.argmax(axis=1)), 1)
            plots.confusion(matrix, classes, folder / CONFUSION, f"{title}: test split")
            drawn.append(CONFUSION)
            if test.shape is not None and test.shape[0] in (1, 3):
                pictures = test.x[known].reshape(-1, *test.shape)
                plots.mistakes(
                    pictures, true, probability, classes, folder / MISTAKES, f"{title}: worst mistakes"
                )
                drawn.append(MISTAKES)
    return Report(sentence, figures, drawn)


def certainty(estimator: Any, x: np.ndarray) -> np.ndarray:
    """Probabilities of the classes [N, K]; of an estimator without them, one for the answer and zero else."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(x))
    answer = np.searchsorted(estimator.classes_, estimator.predict(x))
    return np.eye(len(estimator.classes_), dtype=np.float32)[answer]


def answers(estimator: Any, x: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The classes of each sample, the most probable first: {"class", "probability", "top": [...]}."""
    names = [classes[i] for i in estimator.classes_]
    found = []
    for row in certainty(estimator, x):
        order = np.argsort(-row, kind="stable")
        top = [
            {"class": names[i], "index": int(estimator.classes_[i]), "probability": float(row[i])}
            for i in order
        ]
        found.append({"class": top[0]["class"], "probability": top[0]["probability"], "top": top})
    return found
