"""From settings to a finished run folder: data, model, optimizer, schedule, and `fit` on them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import data, models, nn, optim, random
from fastarch.train.folder import RunFolder
from fastarch.train.loop import History, fit
from fastarch.train.preprocessing import Preprocessing
from fastarch.train.settings import EMBEDDED, Settings

_SPLIT_SEED = 0  # the parts of a data set do not change with a run's seed: accuracies stay comparable


@dataclass
class Experiment:
    """Settings made into objects: what `fit` needs, and what config.json and the model file say about it."""

    settings: Settings
    title: str
    model: Any
    datasets: dict[str, Any]
    preprocessing: Preprocessing
    config: dict[str, Any]

    def headline(self) -> str:
        """What is going to be trained, in one line."""
        count = sum(int(np.prod(parameter.shape)) for parameter in self.model.parameters())
        parts = ", ".join(f"{len(part):,} {name}" for name, part in self.datasets.items())
        return f"{self.title}: {count:,} parameters; {parts} samples"


def prepare(settings: Settings) -> Experiment:
    """Reads the data and builds the model. Raises ValueError or OSError, saying what is wrong with either."""
    info = model_info(settings.architecture)
    options = _reading(settings, info.input_shape)
    raw: dict[str, Any] = {}
    if settings.test_split:
        # Data with a test set of its own keep it; the share is for the others.
        raw["training"], raw["test"] = data.train_test(
            settings.data, settings.test_split, _SPLIT_SEED, **options
        )
    else:
        raw["training"] = data.load(settings.data, **options)
    whole = raw["training"]
    if not whole.labelled or len(whole.classes) < 2:
        raise ValueError(
            f"[train] {whole.name!r} has {len(whole.classes)} classes, training needs at least 2"
        )
    if settings.validation_split:
        raw["training"], raw["validation"] = data.split(whole, settings.validation_split, _SPLIT_SEED)
    channels = whole.x.shape[1] if whole.x.ndim == 4 else info.input_shape[0]
    # Colour or grey comes from the data where the builder lets it, the size from the architecture.
    arguments = {"num_classes": len(whole.classes), **_channels(info, channels), **settings.model}
    random.manual_seed(settings.seed)
    model = build(settings.architecture, arguments, settings.dtype)
    channels = arguments.get("in_channels", info.input_shape[0])
    preprocessing = Preprocessing.fit(raw["training"], (channels, *info.input_shape[1:]))
    datasets: dict[str, Any] = {
        name: data.Dataset(preprocessing.resize(raw[name].x), raw[name].y, whole.classes, whole.name)
        for name in ("training", "validation", "test")
        if name in raw
    }
    title = f"{getattr(info, 'title', settings.architecture)} on {whole.name}"
    config = {
        "title": title,
        "architecture": settings.architecture,
        "arguments": arguments,
        "dtype": settings.dtype,
        "classes": list(whole.classes),
        "preprocessing": preprocessing.to_dict(),
        "command": settings.to_dict(),
    }
    return Experiment(settings, title, model, datasets, preprocessing, config)


def run(
    experiment: Experiment,
    folder: RunFolder,
    *,
    resume: bool = False,
    progress: bool = True,
    pictures: bool = True,
) -> History:
    """Trains, evaluates and fills the run folder; see `fit` for what it raises."""
    settings = experiment.settings
    optimizer = _optimizer(experiment.model, settings)
    steps = math.ceil(len(experiment.datasets["training"]) / settings.batch_size) * settings.epochs
    return fit(
        experiment.model,
        experiment.datasets["training"],
        experiment.datasets.get("validation"),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        optimizer=optimizer,
        schedule=_schedule(optimizer, settings, steps),
        schedule_every="step",
        seed=settings.seed,
        run_dir=folder.path,
        resume=resume,
        early_stopping=settings.early_stopping,
        checkpoint_every=settings.checkpoint_every,
        clip_norm=settings.clip_norm,
        augment=data.augment.preset(
            _augmentation(settings.augment, experiment.preprocessing.channels),
            fill=experiment.preprocessing.background,
        ),
        transform=experiment.preprocessing.normalize(),
        progress=progress,
        backend=settings.backend,
        test=experiment.datasets.get("test"),
        pictures=pictures,
        config=experiment.config,
    )


def settings(architecture: str, given: Mapping[str, Any]) -> Settings:
    """The architecture's own recipe with what was `given` on top. Raises ValueError."""
    info = model_info(architecture)
    asked = Settings.of(architecture, {"data": info.dataset, **info.training}, given)
    if asked.augment != "auto":
        data.augment.preset(asked.augment)  # raises ValueError for an unknown name
    return asked


def model_info(architecture: str) -> Any:
    """The entry of `models.MODELS`. Raises ValueError with the known names for another."""
    if architecture not in models.MODELS:
        known = ", ".join(models.MODELS)
        raise ValueError(f"[train] there is no architecture {architecture!r}, expected one of {known}")
    return models.MODELS[architecture]


def build(architecture: str, arguments: Mapping[str, Any], dtype: str) -> nn.Module:
    """The architecture with `arguments`. Raises ValueError for an argument that its builder does not take."""
    builder = model_info(architecture).builder
    taken = inspect.signature(builder).parameters
    unknown = [name for name in arguments if name not in taken]
    if unknown:
        raise ValueError(
            f"[train] {architecture} takes {', '.join(taken)}; it has no argument {', '.join(unknown)}"
        )
    return builder(**arguments).to(dtype)


def _reading(settings: Settings, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """What reading the data depends on: pictures in a folder come in many sizes and are fitted at once."""
    shape = None if settings.shape is None else tuple(settings.shape)
    from_folder = settings.data != EMBEDDED and Path(settings.data).is_dir()
    size = input_shape[1:] if from_folder else None
    return {"label": settings.label, "shape": shape, "size": size}


def _channels(info: Any, channels: int) -> dict[str, int]:
    return {"in_channels": channels} if "in_channels" in inspect.signature(info.builder).parameters else {}


def _augmentation(name: str, channels: int) -> str:
    """Handwriting and the like may turn and slant; photographs may be mirrored."""
    return {1: "digits", 3: "flip-crop"}.get(channels, "none") if name == "auto" else name


def _optimizer(model: Any, settings: Settings) -> Any:
    parameters: Any = model.parameters()
    common: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        return optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.momentum > 0, **common)
    if settings.optimizer == "rmsprop":
        return optim.RMSprop(parameters, momentum=settings.momentum, **common)
    return {"adam": optim.Adam, "adamw": optim.AdamW}[settings.optimizer](parameters, **common)


def _schedule(optimizer: Any, settings: Settings, steps: int) -> Any:
    """Cosine to zero, ten times lower after each third, or exponentially to a hundredth; one step a batch."""
    schedules = optim.lr_scheduler
    if settings.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, T_max=steps)
    if settings.schedule == "step":
        return schedules.StepLR(optimizer, step_size=max(1, math.ceil(steps / 3)), gamma=0.1)
    if settings.schedule == "exponential":
        return schedules.ExponentialLR(optimizer, gamma=0.01 ** (1 / steps))
    return None
