"""The training loop: the same seed gives the same weights bit for bit, stopped and resumed or not."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fastarch import backends, optim, random
from fastarch.nn import functional as F
from fastarch.train import evaluation, report
from fastarch.train.engine import Plan, Run, Step
from fastarch.train.folder import RunFolder, differences, versions


@dataclass
class History:
    """What `fit` returns.

    epochs: one dict per epoch (epoch, loss, accuracy, validation_loss, validation_accuracy, lr, seconds,
    samples_per_second, elapsed), as in metrics.jsonl. summary: the final figures, as in summary.json.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def fit(
    model: Any,
    train_data: Any,
    validation: Any = None,
    *,
    epochs: int,
    batch_size: int = 64,
    optimizer: Any = None,
    schedule: Any = None,
    schedule_every: Literal["epoch", "step"] = "epoch",
    loss: Callable[..., Any] | None = None,
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    early_stopping: int | None = None,
    checkpoint_every: int | None = None,
    clip_norm: float | None = None,
    augment: Callable[..., Any] | None = None,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: bool = True,
    backend: str | None = None,
    callbacks: Sequence[Callable[[Step], Any]] = (),
    test: Any = None,
    pictures: bool = True,
    config: Mapping[str, Any] | None = None,
) -> History:
    """Trains `model` on `train_data` (a Dataset, or arrays x [N, ...] and y [N]) and returns the History.

    Everything random derives from (seed, epoch, step), so equal arguments give equal weights bit for bit.

    optimizer: of `fa.optim`, Adam as it is by default. schedule: of `fa.optim.lr_scheduler`, stepped after
    every epoch or step (`schedule_every`). loss: called as loss(model(x), y), a scalar Tensor; cross-entropy
    by default. early_stopping: epochs without a lower validation loss before training stops; the weights of
    the best epoch come back. clip_norm: bound on the norm of all gradients. augment: a step of
    `fa.data.augment` for training batches. transform: applied to every batch, to normalise it for one.
    callbacks: each called with a `Step` after every step. test: evaluated once, at the end.

    run_dir: the folder for config.json, metrics.jsonl, summary.json, checkpoint.safetensors,
    model.safetensors and, with `pictures` and matplotlib, PNG files. A checkpoint is written after every
    epoch and every `checkpoint_every` steps; resume=True goes on from the last one as if nothing had
    happened. config: more entries for config.json; a resumed run must be given the same.

    Raises ValueError for a bad or changed argument, FileExistsError where run_dir holds a run that is not
    resumed, RuntimeError for a backend that cannot run, Diverged when the loss is no longer finite, and
    Interrupted after the first Ctrl-C, once all is saved.
    """
    _check(epochs, batch_size, early_stopping, checkpoint_every, clip_norm, schedule_every, seed)
    if early_stopping is not None and validation is None:
        raise ValueError("[fit] early_stopping needs validation data to watch")
    if resume and run_dir is None:
        raise ValueError("[fit] resume=True needs the run_dir of the run to resume")
    datasets = {}
    for name, given in (("train", train_data), ("validation", validation), ("test", test)):
        if given is not None or name == "train":
            datasets[name] = evaluation.as_dataset(given, "train_data" if name == "train" else name)
    folder = None if run_dir is None else RunFolder(run_dir)
    plan = Plan(
        model=model,
        datasets=datasets,
        optimizer=optimizer or optim.Adam(model.parameters()),
        schedule=schedule,
        step_schedule=schedule_every == "step",
        loss=loss or F.cross_entropy,
        seed=int(seed),
        epochs=int(epochs),
        batch_size=int(batch_size),
        early_stopping=early_stopping,
        checkpoint_every=checkpoint_every,
        clip_norm=clip_norm,
        augment=augment,
        transform=transform,
        callbacks=callbacks,
        folder=folder,
    )
    outside = random.get_state()
    try:
        with nullcontext() if backend is None else backends.backend(backend):
            if backends.current() == "cuda":  # named here, around this call or by FASTARCH_BACKEND
                model.to("cuda")
            return _fit(plan, resume, progress, pictures, backend, dict(config or {}))
    finally:
        random.set_state(outside)


def _fit(
    plan: Plan, resume: bool, progress: bool, pictures: bool, backend: str | None, config: dict[str, Any]
) -> History:
    run = Run(plan, progress)
    state = None
    if plan.folder is not None:
        settings = {**config, "fit": {**_describe(plan), "backend": backend}}
        settings["fit"]["backend_used"] = report.backend_used(plan.model)
        state = _open(plan.folder, settings, resume)
    if state is not None:
        run.restore(state)
        if plan.folder is not None:
            plan.folder.rewrite_metrics(run.at.records)
    if not run.at.finished:
        run.train()
    summary = plan.folder.read_summary() if plan.folder is not None and state is not None else None
    if summary is None:
        summary = report.finish(run, config, pictures)
    return History(run.at.records, summary)


def _check(
    epochs: int,
    batch_size: int,
    early_stopping: int | None,
    checkpoint_every: int | None,
    clip_norm: float | None,
    schedule_every: str,
    seed: int,
) -> None:
    counts = {"epochs": epochs, "batch_size": batch_size}
    counts |= {"early_stopping": early_stopping} if early_stopping is not None else {}
    counts |= {"checkpoint_every": checkpoint_every} if checkpoint_every is not None else {}
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"[fit] {name} is {value!r}, expected a whole number of at least 1")
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"[fit] seed is {seed!r}, expected a whole number from 0 to 2**64 - 1")
    if clip_norm is not None and not (clip_norm > 0 and math.isfinite(clip_norm)):
        raise ValueError(f"[fit] clip_norm is {clip_norm!r}, expected a number above 0")
    if schedule_every not in ("epoch", "step"):
        raise ValueError(f"[fit] schedule_every is {schedule_every!r}, expected 'epoch' or 'step'")


def _open(folder: RunFolder, config: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Begins the run in `folder`, or checks that it is this one and returns its last state."""
    if not (resume and folder.exists()):
        folder.begin({**config, "versions": versions()})
        return None
    saved = folder.read_config()
    before = saved.pop("versions", {})
    changed = differences(saved, json.loads(json.dumps(config)))
    if changed:
        raise ValueError(
            f"[fit] {folder.path} was begun with other settings and cannot be resumed: {'; '.join(changed)}"
        )
    news = differences(before, versions())
    if news:
        print(f"resuming with other software, the bits may differ: {'; '.join(news)}", file=sys.stderr)
    return folder.load_checkpoint()


def _describe(plan: Plan) -> dict[str, Any]:
    """What the weights depend on, as config.json holds it and as a resumed run must match it."""
    group = plan.optimizer.state_dict()["param_groups"][0]
    hyperparameters = {name: value for name, value in group.items() if name != "params"}
    schedule = None
    if plan.schedule is not None:
        every = "step" if plan.step_schedule else "epoch"
        schedule = {
            "name": type(plan.schedule).__name__,
            "every": every,
            **_plain(vars(plan.schedule)),
        }
    layout = {name: list(array.shape) for name, array in plan.model.state_dict().items()}
    return {
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "optimizer": {"name": type(plan.optimizer).__name__, **_plain(hyperparameters)},
        "schedule": schedule,
        "loss": getattr(plan.loss, "__name__", type(plan.loss).__name__),
        "early_stopping": plan.early_stopping,
        "clip_norm": plan.clip_norm,
        "model": type(plan.model).__name__,
        "dtype": str(evaluation.parameter_array(plan.model).dtype),
        "layout": hashlib.sha256(json.dumps(layout).encode()).hexdigest()[:16],
        "first_batch": _first_batch(plan),
        "datasets": {name: _fingerprint(dataset) for name, dataset in plan.datasets.items()},
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that JSON can hold."""
    kept = (bool, int, float, str, list, tuple, type(None))
    return {name: value for name, value in values.items() if isinstance(value, kept)}


def _first_batch(plan: Plan) -> str:
    """A digest of the first batch: it tells apart what no text compares, augmentation and transform."""
    for x, y in plan.loader(prefetch=0).epoch(0):
        return _digest(x, y)
    return ""


def _fingerprint(dataset: Any) -> dict[str, Any]:
    return {"name": dataset.name, "samples": len(dataset), "sha256": _digest(dataset.x, dataset.y)}


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
