"""What a finished run leaves behind: model, final figures, pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastarch import backends, io, plots
from fastarch.train import evaluation
from fastarch.train.engine import Plan, Run
from fastarch.train.folder import MODEL, SUMMARY, versions

MODEL_KEY = "fastarch.model"  # the one key in the model file's header; with several, their order would vary
CURVES, CONFUSION, FILTERS, MISTAKES = "curves.png", "confusion.png", "filters.png", "mistakes.png"


def finish(run: Run, config: Mapping[str, Any], pictures: bool) -> dict[str, Any]:
    """Evaluates a finished run on its test data, fills its folder if it has one, and returns its summary."""
    plan, test, logits = run.plan, run.plan.datasets.get("test"), None
    summary = _training_figures(run)
    if test is not None:
        figures, logits = evaluation.evaluate(plan.model, test, plan.loss, plan.transform)
        summary |= {f"test_{name}": value for name, value in figures.items()}
        summary["test_samples"] = len(test)
    summary |= {"seed": plan.seed, "backend": backend_used(plan.model), "versions": versions()}
    if plan.folder is None:
        return summary
    summary["run_dir"] = str(plan.folder.path)
    described = {key: value for key, value in config.items() if key != "command"}
    io.save(plan.model, plan.folder / MODEL, {MODEL_KEY: json.dumps(described, sort_keys=True)})
    if pictures:
        title = str(config.get("title", type(plan.model).__name__))
        try:
            summary["pictures"] = _draw(plan, title, run.at.records, summary, logits)
        except plots.MissingMatplotlib as error:
            print(f"no pictures were drawn: {error}", file=sys.stderr)
    plan.folder.write_json(SUMMARY, summary)  # last: a folder with a summary is complete
    return summary


def backend_used(model: Any) -> str:
    """The backend that was named, or the one that the default choice comes to for this model's arrays."""
    named = backends.current()
    if named is not None:
        return named
    if not isinstance(evaluation.parameter_array(model), np.ndarray):
        return "cuda"
    return "cpu" if backends.reason_unusable("cpu") is None else "numpy"


def _training_figures(run: Run) -> dict[str, Any]:
    at = run.at
    last = at.records[-1]
    chosen = at.records[at.best["epoch"] - 1] if at.best is not None else last
    figures = {name: chosen[name] for name in chosen if name.endswith(("loss", "accuracy"))}
    seconds = sum(record["seconds"] for record in at.records)
    samples = len(run.plan.datasets["train"]) * len(at.records)
    return {
        "epochs": len(at.records),
        "stopped_early": at.stopped_early,
        **({"best_epoch": at.best["epoch"]} if at.best is not None else {}),
        **figures,
        "train_samples": len(run.plan.datasets["train"]),
        "seconds": round(at.elapsed, 3),
        "samples_per_second": round(samples / max(seconds, 1e-9), 1),
        "parameters": sum(int(np.prod(p.shape)) for p in run.plan.model.parameters()),
    }


def _draw(
    plan: Plan,
    title: str,
    records: list[dict[str, Any]],
    summary: Mapping[str, Any],
    logits: np.ndarray | None,
) -> list[str]:
    """Draws the pictures that make sense for this run and returns their names."""
    assert plan.folder is not None
    drawn = [CURVES]
    epochs = f"{summary['epochs']} epochs" if summary["epochs"] > 1 else "1 epoch"
    plots.curves(
        records,
        plan.folder / CURVES,
        title,
        f"{epochs}, {summary['seconds']:.1f} s, {summary['samples_per_second']:,.0f} samples a second",
        test_accuracy=summary.get("test_accuracy"),
        best_epoch=summary.get("best_epoch"),
    )
    first = evaluation.to_host(evaluation.parameter_array(plan.model))
    if first.ndim == 4:
        plots.filters(first, plan.folder / FILTERS, f"{title}: first layer")
        drawn.append(FILTERS)
    test = plan.datasets.get("test")
    if test is None or logits is None or not evaluation.is_classification(logits, test.y):
        return drawn
    classes = test.classes or [str(i) for i in range(logits.shape[1])]
    matrix = evaluation.confusion_matrix(test.y, logits.argmax(axis=1), len(classes))
    plots.confusion(matrix, classes, plan.folder / CONFUSION, f"{title}: test split")
    drawn.append(CONFUSION)
    if test.x.ndim == 4 and test.x.shape[1] in (1, 3):
        certainty = evaluation.probabilities(logits)
        plots.mistakes(test.x, test.y, certainty, classes, plan.folder / MISTAKES, f"{title}: worst mistakes")
        drawn.append(MISTAKES)
    return drawn
