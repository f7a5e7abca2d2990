"""Data sets: reading them, splitting them, and handing them out in batches."""

from __future__ import annotations

from fastarch.data import augment
from fastarch.data.dataset import DataError, Dataset, split
from fastarch.data.digits import digits
from fastarch.data.folder import load_picture
from fastarch.data.formats import load, train_test
from fastarch.data.loader import Loader
from fastarch.data.transforms import Normalize, fit_images, one_hot, to_unit

__all__ = [
    "DataError",
    "Dataset",
    "Loader",
    "Normalize",
    "augment",
    "digits",
    "fit_images",
    "load",
    "load_picture",
    "one_hot",
    "split",
    "to_unit",
    "train_test",
]
