"""Deep stacking networks on the command line: what is reported and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import plots
from fastarch.estimators import classification
from fastarch.estimators.dsn.estimators import DSNClassifier, TDSNClassifier
from fastarch.estimators.info import EstimatorInfo, Part, Report, as_images

CURVES, WEIGHTS = "curves.png", "weights.png"
_SHOWN = 40


def _report(title: str) -> Any:
    def report(estimator: Any, parts: Mapping[str, Part], folder: Path | None) -> Report:
        """Accuracy, the squared error after each module, and the weights of the lowest hidden units."""
        training = parts["training"]
        heading = f"{title} on {training.name}"
        made = classification.report(estimator, parts, folder, heading)
        predictions = estimator._predictions(training.x)
        right = [float((p.argmax(axis=1) == training.y).mean()) for p in predictions]
        made.figures |= {
            "modules": estimator.n_modules_,
            "module_errors": estimator.errors_,
            "module_accuracies": right,
            "parameters": _parameters(estimator),
        }
        falls = " > ".join(f"{error:.3g}" for error in estimator.errors_)
        of = " of the modules" if estimator.n_modules_ > 1 else ""
        made.sentence += f"; squared error{of} {falls}"
        if folder is not None:
            made.pictures[:0] = _draw(estimator, training, folder, heading)
        return made

    return report


def _parameters(estimator: Any) -> int:
    arrays = [a for module in estimator.weights_ for a in module] + [
        *estimator.outputs_,
        *(estimator.top_ or []),
    ]
    return sum(int(a.size) for a in arrays)


def _draw(estimator: Any, training: Part, folder: Path, heading: str) -> list[str]:
    history = [{**record, "epoch": i + 1} for i, record in enumerate(estimator.history_)]
    note = f"{estimator.n_modules_} modules, one after the other"
    drawn = []
    if history:  # where nothing could be learnt there was no step
        plots.curves(history, folder / CURVES, heading, note)
        drawn.append(CURVES)
    if training.shape is None or training.shape[0] not in (1, 3):
        return drawn
    weight = np.concatenate([estimator.weights_[0][i] for i in range(0, len(estimator.weights_[0]), 2)])
    # The units that the output weights lean on most come first.
    images = as_images(weight, (1, *training.shape[1:]) if training.shape[0] == 1 else training.shape)
    use = np.abs(estimator.outputs_[0]).sum(axis=1)
    groups = len(estimator.weights_[0]) // 2
    order = np.argsort(-use[:-1], kind="stable") if groups == 1 else np.arange(len(weight))
    shown = order[:_SHOWN]
    of = "the ones used most" if groups == 1 else "both groups"
    if training.shape[0] == 3:
        peak = float(np.abs(images).max()) or 1.0
        images = 0.5 + 0.5 * images / peak
    plots.tiles(
        images[shown],
        folder / WEIGHTS,
        f"{heading}: hidden units of the first module",
        f"{len(shown)} of {len(weight)}, {of}",
        signed=training.shape[0] == 1,
    )
    return [*drawn, WEIGHTS]


_OPTIONS = {"epochs": "n_epochs", "batch_size": "batch_size", "lr": "learning_rate", "momentum": "momentum"}

DSN = EstimatorInfo(
    name="dsn",
    title="Deep stacking network",
    builder=DSNClassifier,
    description="modules with closed-form output weights, stacked on their inputs and predictions",
    paper="Deng, Yu and Platt, Scalable stacking and learning for building deep architectures, 2012",
    report=_report("Deep stacking network"),
    predict=classification.answers,
    supervised=True,
    training={"n_modules": 3, "n_hidden": 300, "n_epochs": 50},
    options=_OPTIONS,
)

TDSN = EstimatorInfo(
    name="tdsn",
    title="Tensor deep stacking network",
    builder=TDSNClassifier,
    description="a deep stacking network whose features are products of two groups of hidden units",
    paper="Hutchinson, Deng and Yu, Tensor deep stacking networks, 2013",
    report=_report("Tensor deep stacking network"),
    predict=classification.answers,
    supervised=True,
    training={"n_modules": 3, "n_hidden": 12, "n_epochs": 50},
    options=_OPTIONS,
)
