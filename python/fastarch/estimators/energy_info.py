"""Restricted Boltzmann machines and deep belief networks on the command line: what is reported and drawn."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import plots
from fastarch.estimators import classification
from fastarch.estimators.dbn_supervised import DBNClassifier
from fastarch.estimators.info import EstimatorInfo, Part, Report, as_images
from fastarch.estimators.persistence import to_host
from fastarch.estimators.rbm import RBM

CURVES, FILTERS, SAMPLES, RECONSTRUCTIONS = "curves.png", "filters.png", "samples.png", "reconstructions.png"
_MOST_FILTERS, _SAMPLES, _RECONSTRUCTED, _STEPS = 80, 40, 12, 1000


def _report_rbm(estimator: Any, parts: Mapping[str, Part], folder: Path | None) -> Report:
    """Reconstruction error and pseudo-likelihood of every part; filters, samples, reconstructions, curves."""
    training, shown = parts["training"], parts.get("test", parts["training"])
    figures: dict[str, Any] = {}
    for name, part in parts.items():
        prefix = "" if name == "training" else f"{name}_"
        error = np.mean((to_host(estimator.reconstruct(part.x)) - part.x) ** 2)
        figures[f"{prefix}reconstruction_error"] = float(error)
        figures[f"{prefix}pseudo_likelihood"] = estimator.score(part.x)
    last = "test_" if "test" in parts else ""
    which = "test" if last else "training"
    sentence = (
        f"{which} reconstruction error {figures[f'{last}reconstruction_error']:.4f} a feature, "
        f"pseudo-likelihood {figures[f'{last}pseudo_likelihood']:.2f} nat a sample"
    )
    if folder is None:
        return Report(sentence, figures)
    heading = f"{RBM_INFO.title} on {training.name}"
    history = estimator.history_
    lines = {
        "Reconstruction error": {"": [record["reconstruction_error"] for record in history]},
        "Mean activity of the hidden units": {"": [record["hidden_activity"] for record in history]},
    }
    plots.panels(lines, folder / CURVES, heading, "of 256 training samples, after each epoch")
    drawn = [CURVES]
    if _drawable(training):
        drawn.append(_draw_filters(to_host(estimator.components_), training, folder, heading))
        drawn += _draw_samples(estimator, shown, which, folder, heading)
    return Report(sentence, figures, drawn)


def _drawable(part: Part) -> bool:
    return part.shape is not None and part.shape[0] in (1, 3)


def _draw_filters(weight: np.ndarray, part: Part, folder: Path, heading: str) -> str:
    """The hidden units' weights [H, D] as pictures, the largest first."""
    order = np.argsort(-np.square(weight).sum(1), kind="stable")[:_MOST_FILTERS]
    images = as_images(weight[order], part.shape)
    if images.ndim == 4:
        images = 0.5 + 0.5 * images / (float(np.abs(images).max()) or 1.0)
    note = f"{len(order)} of {len(weight)} hidden units, the largest weights first"
    plots.tiles(images, folder / FILTERS, f"{heading}: filters", note, signed=images.ndim == 3)
    return FILTERS


def _draw_samples(estimator: Any, part: Part, which: str, folder: Path, heading: str) -> list[str]:
    dreamer = copy.deepcopy(estimator)  # sampling draws on from an estimator's own random numbers
    samples = np.clip(to_host(dreamer.sample(_SAMPLES, _STEPS, mean=True)), 0, 1)
    note = f"{_SAMPLES} chains after {_STEPS:,} steps of Gibbs sampling, means of the last one"
    plots.tiles(as_images(samples, part.shape), folder / SAMPLES, f"{heading}: samples", note)
    some = slice(0, min(_RECONSTRUCTED, len(part)))
    originals = part.images(some)
    images = np.clip(as_images(to_host(estimator.reconstruct(part.x[some])), part.shape), 0, 1)
    plots.tiles(
        np.concatenate([originals, images]),
        folder / RECONSTRUCTIONS,
        f"{heading}: reconstructions",
        f"the first {len(originals)} {which} samples, through the hidden units and back",
        columns=len(originals),
        row_labels=["samples", "reconstructed"],
    )
    return [SAMPLES, RECONSTRUCTIONS]


def _predict_rbm(estimator: Any, x: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """How well a sample is reconstructed and explained, and the hidden units that are most on."""
    hidden = to_host(estimator.transform(x))
    errors = ((to_host(estimator.reconstruct(x)) - x) ** 2).mean(1)
    scores = to_host(estimator.score_samples(x))
    return [
        {
            "pseudo_likelihood": float(score),
            "reconstruction_error": float(error),
            "most_active": [int(unit) for unit in np.argsort(-row, kind="stable")[:5]],
        }
        for row, error, score in zip(hidden, errors, scores)
    ]


def _report_dbn(estimator: Any, parts: Mapping[str, Part], folder: Path | None) -> Report:
    """Accuracy; the curves of both phases, the filters of the first layer, confusion and mistakes."""
    training = parts["training"]
    heading = f"{DBN_INFO.title} on {training.name}"
    made = classification.report(estimator, parts, folder, heading)
    made.figures["parameters"] = sum(int(array.size) for layer in estimator.layers_ for array in layer)
    if folder is None:
        return made
    lines: dict[str, dict[str, list[float]]] = {
        "Pretraining: reconstruction error": {},
        "Fine-tuning: loss": {},
    }
    for record in estimator.history_:
        if "layer" in record:
            panel, line, value = 0, f"layer {record['layer']}", record["reconstruction_error"]
        else:
            panel, line, value = 1, "", record["loss"]
        list(lines.values())[panel].setdefault(line, []).append(value)
    lines = {name: drawn for name, drawn in lines.items() if drawn}
    sizes = "-".join(str(len(bias)) for _, bias in estimator.layers_)
    plots.panels(lines, folder / CURVES, heading, f"{training.x.shape[1]}-{sizes} units")
    drawn = [CURVES]
    if _drawable(training):
        drawn.append(_draw_filters(to_host(estimator.layers_[0][0]), training, folder, heading))
    made.pictures[:0] = drawn
    return made


_OPTIONS = {
    "batch_size": "batch_size",
    "lr": "learning_rate",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
}

RBM_INFO = EstimatorInfo(
    name="rbm",
    title="Restricted Boltzmann machine",
    builder=RBM,
    description="binary units, contrastive divergence; learns features without labels, and samples",
    paper="Hinton, Training products of experts by minimizing contrastive divergence, 2002",
    report=_report_rbm,
    predict=_predict_rbm,
    training={"n_components": 128, "n_epochs": 60},
    options={**_OPTIONS, "epochs": "n_epochs"},
)

DBN_INFO = EstimatorInfo(
    name="dbn",
    title="Deep belief network",
    builder=DBNClassifier,
    description="restricted Boltzmann machines trained one on the other, then fine-tuned as a classifier",
    paper="Hinton, Osindero and Teh, A fast learning algorithm for deep belief nets, 2006",
    report=_report_dbn,
    predict=classification.answers,
    supervised=True,
    training={"hidden_layer_sizes": (200, 200), "n_epochs": 40, "fine_tune_epochs": 30},
    options={**_OPTIONS, "epochs": "fine_tune_epochs"},
)
