"""What the command line knows of self-organizing maps: how one is trained, reported and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import plots
from fastarch.estimators.info import EstimatorInfo, Part, Report
from fastarch.estimators.som.estimator import SOM

__all__ = ["INFO"]


def report(som: SOM, parts: Mapping[str, Part], folder: Path | None) -> Report:
    """Errors on every part; where classes are known, units labelled by majority and what that is worth."""
    training = parts["training"]
    figures: dict[str, Any] = {"units": len(som.codebook_), "epochs": som.n_epochs_}
    for name, part in parts.items():
        figures[f"{name}_quantization_error"] = som.quantization_error(part.x)
        figures[f"{name}_topographic_error"] = som.topographic_error(part.x)
    figures["empty_units"] = int((som.hit_map(training.x) == 0).sum())
    last = "test" if "test" in parts else "training"
    rows, columns = som.grid
    sentence = (
        f"{rows} x {columns} map: quantization error {figures[f'{last}_quantization_error']:.4f}, "
        f"topographic error {100 * figures[f'{last}_topographic_error']:.1f} %"
    )
    if training.y is not None and len(training.classes) > 1:
        som.label(training.x, training.y)
        for name, part in parts.items():
            if part.y is not None and len(part.y):
                figures[f"{name}_accuracy"] = float((som.classify(part.x) == part.y).mean())
        sentence += f", label of the nearest unit right for {100 * figures[f'{last}_accuracy']:.1f} %"
    return Report(sentence, figures, [] if folder is None else _pictures(som, training, folder))


def _pictures(som: SOM, part: Part, folder: Path) -> list[str]:
    """Draws the map into the run folder."""
    rows, columns = (int(size) for size in som.grid)
    codebook = np.asarray(som.codebook_, np.float64)
    labelled = hasattr(som, "unit_labels_")
    labels = _class_numbers(som) if labelled else None
    plots.u_matrix(np.asarray(som.u_matrix()), folder / "u_matrix.png", som.topology)
    plots.hit_map(
        som.hit_map(part.x),
        folder / "hits.png",
        som.topology,
        "Training samples by unit",
        labels=labels,
        classes=part.classes if labelled else (),
    )
    plots.colour_map(
        plots.map_colours(codebook, (rows, columns)),
        folder / "colours.png",
        som.topology,
        "The codebook in colours",
    )
    pictures = ["u_matrix.png", "hits.png", "colours.png"]
    if part.shape is not None and part.shape[0] == 1:
        images = codebook.reshape(rows, columns, *part.shape[1:])
        plots.codebook_map(images, folder / "codebook.png", som.topology)
        pictures.append("codebook.png")
    else:
        plots.component_planes(np.asarray(som.component_planes()), folder / "components.png", som.topology)
        pictures.append("components.png")
    return pictures


def _class_numbers(som: SOM) -> np.ndarray:
    """The units' labels as numbers of the data's classes, -1 for none: [rows, columns]."""
    found = som.labels_map()
    return np.where(found >= 0, som.classes_[np.maximum(found, 0)], -1)


def predict(som: SOM, x: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The nearest unit of each sample, how far it is, and its label where the map has labels."""
    unit, distance = som.predict(x), -som.score_samples(x)
    columns = int(som.grid[1])
    answers: list[dict[str, Any]] = [
        {"row": int(i) // columns, "column": int(i) % columns, "distance": float(d)}
        for i, d in zip(unit, distance)
    ]
    if hasattr(som, "unit_labels_"):
        for answer, label in zip(answers, som.classify(x)):
            answer["class"] = classes[label]
    return answers


INFO = EstimatorInfo(
    name="som",
    title="Self-organizing map",
    builder=SOM,
    description="lays data out on a grid of units, similar samples close together",
    paper="Kohonen, Self-organized formation of topologically correct feature maps, 1982",
    report=report,
    predict=predict,
    training={"grid": (16, 20), "topology": "hexagonal", "n_epochs": 30},
    options={"epochs": "n_epochs", "lr": "learning_rate"},
)
