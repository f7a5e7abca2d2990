"""Predictions from a run folder or a model file, which say how to rebuild the model and prepare its input."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import data, estimators, io
from fastarch.estimators import ESTIMATORS, EstimatorInfo
from fastarch.train import evaluation
from fastarch.train.experiment import build
from fastarch.train.features import Features
from fastarch.train.folder import MODEL, RunFolder
from fastarch.train.preprocessing import Preprocessing
from fastarch.train.report import MODEL_KEY

__all__ = ["EstimatorPredictor", "Predictor", "description", "read_pictures"]


def description(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The model file of a run folder (or `path` itself), and what it says of the model and its input.

    Raises FileNotFoundError or ValueError.
    """
    file = Path(path)
    if file.is_dir():
        folder = RunFolder(file)
        folder.read_config()  # says so when this is no run folder
        file = folder / MODEL
        if not file.is_file():
            raise FileNotFoundError(f"[predict] {path} has no {MODEL} yet: the run has not finished")
    described = io.load_metadata(file).get(MODEL_KEY)
    if described is None:
        raise ValueError(f"[predict] {file} holds weights without saying which model they belong to")
    try:
        return file, dict(json.loads(described))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"[predict] the description of the model in {file} cannot be read ({error!r})"
        ) from None


@dataclass(frozen=True)
class EstimatorPredictor:
    """A trained estimator of the command line with its classes and its preprocessing."""

    estimator: Any
    info: EstimatorInfo
    classes: list[str]
    features: Features
    title: str

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> EstimatorPredictor:
        """Reads a run folder, or the model file of one. Raises FileNotFoundError or ValueError."""
        file, config = description(path)
        try:
            name, title = config["estimator"], str(config["title"])
            classes, prepared = [str(label) for label in config["classes"]], config["features"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"[predict] the description of the model in {file} cannot be read ({error!r})"
            ) from None
        if name not in ESTIMATORS:
            raise ValueError(f"[predict] {file} holds {name!r}, expected one of {', '.join(ESTIMATORS)}")
        return cls(estimators.load(file), ESTIMATORS[name], classes, Features.from_dict(prepared), title)

    def adapt(self, picture: np.ndarray, invert: bool = False, whole: bool = False) -> np.ndarray:
        """A picture [C, H, W] of any size as the estimator knows them: [1, D]."""
        assert self.features.pictures is not None
        return self.features.rows(self.features.pictures.adapt(picture, invert, whole))

    def read_table(self, path: str) -> list[tuple[str, np.ndarray]]:
        """The samples in a table: (name, [1, D]) for each, scaled as in training.

        .npy, .npz [N, D], or a .csv with the same columns as in training. Raises FileNotFoundError or
        ValueError.
        """
        width = int(np.prod(self.features.shape))
        x = self._table(Path(path))
        x = x.reshape(-1, x.shape[-1] if x.ndim else 1)
        if x.shape[1] != width or x.dtype.kind not in "fiub":
            raise ValueError(
                f"[predict] {path} holds {x.dtype} with {x.shape[1]} features, "
                f"expected {width} numbers a sample"
            )
        names = [str(path)] if len(x) == 1 else [f"{path}[{i}]" for i in range(len(x))]
        return [(name, self.features.rows(x[i : i + 1])) for i, name in enumerate(names)]

    def _table(self, file: Path) -> np.ndarray:
        if not file.exists():
            raise FileNotFoundError(f"[predict] {file} does not exist")
        if file.suffix.lower() in (".npy", ".npz"):
            return _read_array(file)
        return data.load(file).x

    def __call__(self, x: np.ndarray) -> list[dict[str, Any]]:
        """What the estimator says of samples [N, D] as `adapt` and `read_table` give them: one dict each.

        Raises ValueError where the file lacked something that the estimator needs.
        """
        try:
            return self.info.predict(self.estimator, x, self.classes)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(
                f"[predict] the model of {self.title!r} is damaged or incomplete ({error!r})"
            ) from error


@dataclass(frozen=True)
class Predictor:
    """A trained classifier with its classes and its preprocessing."""

    model: Any
    classes: list[str]
    preprocessing: Preprocessing
    title: str

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictor:
        """Reads a run folder, or the model file of one. Raises FileNotFoundError or ValueError."""
        file, config = description(path)
        try:
            architecture, arguments, dtype = (config[key] for key in ("architecture", "arguments", "dtype"))
            classes, title = [str(name) for name in config["classes"]], str(config["title"])
            prepared = config["preprocessing"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"[predict] the description of the model in {file} cannot be read ({error!r})"
            ) from None
        model = build(architecture, arguments, dtype)
        io.load(model, file)
        return cls(model, classes, Preprocessing.from_dict(prepared), title)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Class probabilities [N, classes] of pictures as `preprocessing.adapt` makes them."""
        return evaluation.probabilities(evaluation.outputs(self.model, x, self.preprocessing.normalize()))


def read_pictures(path: str | os.PathLike[str]) -> list[tuple[str, np.ndarray]]:
    """The pictures in a picture file, .npy or .npz: (name, [C, H, W] bytes or floats from 0 to 1) for each.

    Arrays are [H, W], [N, H, W], or with channels (1 or 3) before or after the sides. Raises
    FileNotFoundError, and ValueError for anything else that cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"[predict] {path} is a folder; give the pictures in it: {path}{os.sep}*")
    if not file.exists():
        raise FileNotFoundError(f"[predict] {path} does not exist")
    if file.suffix.lower() not in (".npy", ".npz"):
        return [(str(path), data.load_picture(file)[0])]
    pictures = _as_pictures(_read_array(file), str(path))
    if len(pictures) == 1:
        return [(str(path), pictures[0])]
    return [(f"{path}[{i}]", picture) for i, picture in enumerate(pictures)]


def _read_array(file: Path) -> np.ndarray:
    try:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if "x" not in names and len(names) != 1:
                raise ValueError(f"it holds {', '.join(names) or 'nothing'}; expected an array 'x'")
            array = loaded["x" if "x" in names else names[0]]
            if not isinstance(array, np.ndarray):
                raise ValueError("it holds a file that is no array")
            return array
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"[predict] {file} cannot be read as an array ({error})") from None


def _as_pictures(array: np.ndarray, name: str) -> np.ndarray:
    """[N, C, H, W], bytes or float32 from 0 to 1."""
    expected = "expected [H, W], [N, H, W] or, with 1 or 3 channels, [C, H, W], [N, C, H, W], [N, H, W, C]"
    shape = array.shape
    if array.ndim == 2:
        array = array[None, None]
    elif array.ndim == 3 and shape[0] in (1, 3):
        array = array[None]
    elif array.ndim == 3 and shape[2] in (1, 3):
        array = array.transpose(2, 0, 1)[None]
    elif array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
        raise ValueError(f"[predict] {name} has shape {shape}, {expected}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "fiub":
        raise ValueError(f"[predict] {name} holds {array.dtype}, expected numbers")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ValueError(f"[predict] {name} has values from {low:g} to {high:g}, expected bytes or 0 to 1")
    return array.astype(np.float32)
