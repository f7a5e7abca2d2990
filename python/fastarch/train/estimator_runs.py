"""Training an estimator into a run folder: data, fit, report, and what the command line may ask of it."""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import backends, data, plots
from fastarch.estimators import ESTIMATORS, EstimatorInfo, Part, watched
from fastarch.train.features import Features
from fastarch.train.folder import MODEL, SUMMARY, RunFolder, versions
from fastarch.train.interrupt import Interrupted, Interrupts
from fastarch.train.report import MODEL_KEY
from fastarch.train.settings import DTYPES, EMBEDDED

_SPLIT_SEED = 0  # as for architectures: the parts of a data set do not change with a run's seed
_COMMON = ("data", "label", "shape", "test_split", "seed", "dtype", "backend", "model")


@dataclass(frozen=True)
class EstimatorSettings:
    """Everything that decides what an estimator learns. arguments: those of its constructor."""

    estimator: str
    data: str = EMBEDDED
    label: str | None = None
    shape: list[int] | None = None
    test_split: float = 0.2
    seed: int = 0
    dtype: str = "float32"
    backend: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Prepared:
    """An estimator to train, its data, and what config.json and the model file say about both."""

    settings: EstimatorSettings
    info: EstimatorInfo
    estimator: Any
    parts: dict[str, Part]
    features: Features
    classes: list[str]
    title: str

    def headline(self) -> str:
        """What is going to be trained, in one line."""
        parts = ", ".join(f"{len(part):,} {name}" for name, part in self.parts.items())
        return f"{self.title}: {self.parts['training'].x.shape[1]:,} features; {parts} samples"

    def description(self) -> dict[str, Any]:
        """What a prediction has to know beside the estimator."""
        return {
            "title": self.title,
            "estimator": self.settings.estimator,
            "classes": self.classes,
            "features": self.features.to_dict(),
        }


def settings(name: str, given: Mapping[str, Any]) -> EstimatorSettings:
    """The estimator's recipe with what was `given` on the command line on top.

    Raises ValueError for an option or argument that makes no sense for this estimator.
    """
    info = ESTIMATORS[name]
    taken = list(inspect.signature(info.builder).parameters)
    refused = [option for option in given if option not in (*_COMMON, *info.options)]
    if refused:
        flags = ", ".join(_flag(option) for option in refused)
        verb = "do" if len(refused) > 1 else "does"
        known = ", ".join(_flag(option) for option in info.options) or "none of the recipe's options"
        raise ValueError(
            f"[train] {flags} {verb} not apply to {name}, which takes {known}, and by --model NAME=VALUE "
            f"its own arguments {', '.join(_own(taken))}"
        )
    arguments = dict(info.training)
    arguments |= {info.options[option]: given[option] for option in given if option in info.options}
    own = given.get("model", {})
    unknown = [argument for argument in own if argument not in _own(taken)]
    if unknown:
        hint = "; the seed is --seed" if "random_state" in unknown else ""
        raise ValueError(
            f"[train] {name} has no argument {', '.join(unknown)}; it takes {', '.join(_own(taken))}{hint}"
        )
    common = {option: given[option] for option in _COMMON if option in given and option != "model"}
    asked = EstimatorSettings(name, **{"data": info.dataset, **common}, arguments={**arguments, **own})
    if not 0 <= asked.test_split < 1:
        raise ValueError(f"[train] test_split is {asked.test_split}, expected a share from 0 to below 1")
    if asked.dtype not in DTYPES:
        raise ValueError(f"[train] dtype is {asked.dtype!r}, expected one of {', '.join(DTYPES)}")
    return asked


def _flag(option: str) -> str:
    return "--early-stop" if option == "early_stopping" else "--" + option.replace("_", "-")


def _own(taken: list[str]) -> list[str]:
    return [argument for argument in taken if argument not in ("random_state", "verbose")]


def prepare(asked: EstimatorSettings) -> Prepared:
    """Reads the data and makes the estimator. Raises ValueError or OSError, saying what is wrong."""
    info = ESTIMATORS[asked.estimator]
    raw = _read(asked)
    whole = raw["training"]
    if info.supervised and (not whole.labelled or len(whole.classes) < 2):
        raise ValueError(
            f"[train] {whole.name!r} has {len(whole.classes)} classes, training needs at least 2"
        )
    features = Features.fit(whole, info.scaling)
    shape = None if features.pictures is None else features.shape
    parts = {
        name: Part(
            features.rows(part.x, asked.dtype),
            part.y if part.labelled else None,
            tuple(whole.classes),
            shape,
            whole.name,
        )
        for name, part in raw.items()
    }
    estimator = info.builder(**asked.arguments, **_seeded(info, asked.seed))
    return Prepared(
        asked, info, estimator, parts, features, list(whole.classes), f"{info.title} on {whole.name}"
    )


def _seeded(info: EstimatorInfo, seed: int) -> dict[str, Any]:
    taken = inspect.signature(info.builder).parameters
    return {"random_state": seed} if "random_state" in taken else {}


def _read(asked: EstimatorSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"label": asked.label}
    pictures_of_any_size = False
    if asked.data != EMBEDDED and Path(asked.data).is_dir():
        if asked.shape is not None:
            if len(asked.shape) != 3:
                raise ValueError(f"[train] shape is {asked.shape}, expected C,H,W for a folder of pictures")
            options |= {"channels": asked.shape[0], "size": (asked.shape[1], asked.shape[2])}
        else:
            pictures_of_any_size = True
    else:
        options["shape"] = None if asked.shape is None else tuple(asked.shape)
    try:
        if not asked.test_split:
            return {"training": data.load(asked.data, **options)}
        training, test = data.train_test(asked.data, asked.test_split, _SPLIT_SEED, **options)
    except data.DataError as error:
        if pictures_of_any_size and "give a size" in str(error):
            raise ValueError(f"{error}: --shape C,H,W") from None
        raise
    return {"training": training, "test": test}


def run(
    prepared: Prepared, folder: RunFolder, *, progress: bool = True, pictures: bool = True
) -> dict[str, Any]:
    """Trains, reports and fills the run folder; returns the summary.

    Raises what fit raises; FileExistsError when the folder holds a run; Interrupted after Ctrl-C or SIGTERM,
    when what was learnt until then has been kept.
    """
    asked, training = prepared.settings, prepared.parts["training"]
    folder.begin({**prepared.description(), "command": asdict(asked), "versions": versions()})
    if hasattr(prepared.estimator, "verbose"):
        prepared.estimator.set_params(verbose=int(progress))
    seen: list[dict[str, Any]] = []
    with Interrupts() as signals:

        def watch(record: dict[str, Any]) -> bool:
            seen.append(record)
            folder.append_metrics(record)
            return signals.received is not None

        began = time.perf_counter()
        try:
            with _backend(asked.backend), watched(watch):
                x, y = _placed(training.x), training.y if prepared.info.supervised else None
                fitted = prepared.estimator.fit(x) if y is None else prepared.estimator.fit(x, y)
        except (ValueError, TypeError):
            if not seen:  # an argument that cannot be leaves no folder behind
                folder.abandon()
            raise
        seconds = time.perf_counter() - began
        used = _backend_used(asked.backend)
        if asked.backend == "cuda":
            fitted.to("cpu")
        stopped = signals.received
        with _backend("numpy" if asked.backend == "numpy" else None):
            summary = _finish(prepared, fitted, folder, seen, pictures)
    summary |= {
        "rounds": len(seen),
        "train_samples": len(training),
        "test_samples": len(prepared.parts.get("test", ())),
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(training) * max(len(seen), 1) / max(seconds, 1e-9), 1),
        "interrupted": stopped is not None,
        "seed": asked.seed,
        "backend": used,
        "versions": versions(),
        "run_dir": str(folder.path),
    }
    folder.write_json(SUMMARY, summary)  # last: a folder with a summary is complete
    if stopped is not None:
        raise Interrupted(
            f"stopped after {len(seen)} {'rounds' if len(seen) != 1 else 'round'}; "
            f"what was learnt until then is in {folder.path}",
            signal=stopped,
            epoch=len(seen),
            step=0,
            run_dir=folder.path,
        )
    return summary


def _finish(
    prepared: Prepared, fitted: Any, folder: RunFolder, seen: list[dict[str, Any]], pictures: bool
) -> dict[str, Any]:
    """Saves the estimator, draws, and returns the figures with the sentence that says them."""
    prepared.estimator.set_params(verbose=0)
    # The description lies beside the estimator in the file's header.
    described = {MODEL_KEY: json.dumps(prepared.description(), sort_keys=True)}
    fitted.save(folder / MODEL, described)  # first of all: a report that goes wrong costs no training
    where = folder.path if pictures else None
    try:
        report = prepared.info.report(fitted, prepared.parts, where)
    except plots.MissingMatplotlib as error:
        print(f"no pictures were drawn: {error}", file=sys.stderr)
        report = prepared.info.report(fitted, prepared.parts, None)
    fitted.save(folder / MODEL, described)  # with what the report found, such as labels of a map's units
    last = {} if not seen else {k: v for k, v in seen[-1].items() if k not in ("title", "seconds")}
    summary = {"estimator": prepared.settings.estimator, "result": report.sentence, **last, **report.figures}
    return {**summary, "pictures": report.pictures} if pictures else summary


def _backend(name: str | None) -> Any:
    return nullcontext() if name is None else backends.backend(name)


def _backend_used(name: str | None) -> str:
    named = name or backends.current()
    if named is not None:
        return named
    return "cpu" if backends.reason_unusable("cpu") is None else "numpy"


def _placed(x: np.ndarray) -> Any:
    """x where the chosen backend computes."""
    if backends.current() != "cuda":
        return x
    import cupy

    return cupy.asarray(x)


def is_run(config: Mapping[str, Any]) -> bool:
    """Whether a run's config.json is one of an estimator."""
    return "estimator" in config
