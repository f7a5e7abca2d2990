"""fastarch predict: a trained model's answers for pictures."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np

from fastarch import backends
from fastarch.predict import EstimatorPredictor, Predictor, description, read_pictures
from fastarch.train.preprocessing import Preprocessing


def run(options: argparse.Namespace) -> int:
    """Prints the most probable classes of every picture, or what an estimator says of every sample."""
    if "estimator" in description(options.model)[1]:
        return _run_estimator(options)
    predictor = Predictor.load(options.model)
    # All inputs are read first: a bad one is reported before anything is computed.
    pictures = [entry for path in options.inputs for entry in read_pictures(path)]
    x = np.concatenate(
        [predictor.preprocessing.adapt(picture, options.invert, options.whole) for _, picture in pictures]
    )
    with nullcontext() if options.backend is None else backends.backend(options.backend):
        if backends.current() == "cuda":
            predictor.model.to("cuda")
        probabilities = predictor(x)
    answers = [
        _answer(name, row, predictor.classes, options.top) for (name, _), row in zip(pictures, probabilities)
    ]
    if options.json:
        print(json.dumps(answers, ensure_ascii=False))
    else:
        _print(answers)
    _hint(options, predictor.preprocessing, pictures)
    return 0


def _run_estimator(options: argparse.Namespace) -> int:
    predictor = EstimatorPredictor.load(options.model)
    pictures: list[tuple[str, np.ndarray]] = []
    if predictor.features.pictures is None:
        samples = [entry for path in options.inputs for entry in predictor.read_table(path)]
    else:
        pictures = [entry for path in options.inputs for entry in read_pictures(path)]
        samples = [
            (name, predictor.adapt(picture, options.invert, options.whole)) for name, picture in pictures
        ]
    with nullcontext() if options.backend is None else backends.backend(options.backend):
        x: Any = np.concatenate([row for _, row in samples])
        if backends.current() == "cuda":
            import cupy

            predictor.estimator.to("cuda")
            x = cupy.asarray(x)
        said = predictor(x)
    answers: list[dict[str, Any]] = []
    for (name, _), answer in zip(samples, said):
        top = {"top": answer["top"][: options.top]} if "top" in answer else {}
        answers.append({"input": name, **answer, **top})
    if options.json:
        print(json.dumps(answers, ensure_ascii=False))
    elif answers and "top" in answers[0]:
        _print(answers)
    else:
        width = max(len(answer["input"]) for answer in answers)
        for answer in answers:
            values = [f"{key.replace('_', ' ')} {_plain(v)}" for key, v in answer.items() if key != "input"]
            print(f"{answer['input']:<{width}}  {'   '.join(values)}")
    if predictor.features.pictures is not None:
        _hint(options, predictor.features.pictures, pictures)
    return 0


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)


def _answer(name: str, row: np.ndarray, classes: list[str], top: int) -> dict[str, Any]:
    order = np.argsort(-row, kind="stable")[:top]
    best = [{"class": classes[i], "index": int(i), "probability": float(row[i])} for i in order]
    return {"input": name, "class": best[0]["class"], "probability": best[0]["probability"], "top": best}


def _print(answers: list[dict[str, Any]]) -> None:
    name_width = max(len(answer["input"]) for answer in answers)
    class_width = max(len(entry["class"]) for answer in answers for entry in answer["top"])
    for answer in answers:
        entries = [
            f"{entry['class']:>{class_width}} {_percent(entry['probability'])}" for entry in answer["top"]
        ]
        print(f"{answer['input']:<{name_width}}  {'   '.join(entries)}")


def _percent(probability: float) -> str:
    return f"{100 * probability:5.1f} %"


def _hint(
    options: argparse.Namespace, preprocessing: Preprocessing, pictures: list[tuple[str, np.ndarray]]
) -> None:
    """Dark ink on light paper is the usual surprise for a model that learnt light ink on dark."""
    if options.invert:
        return
    odd = [name for name, picture in pictures if preprocessing.looks_inverted(picture)]
    if odd:
        ground = "dark" if preprocessing.background < 0.5 else "light"
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        print(
            f"hint: the model learnt from pictures with a {ground} background; {odd[0]}{more} looks inverted:"
            " try --invert",
            file=sys.stderr,
        )
