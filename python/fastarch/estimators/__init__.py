"""Learners with fit, transform and predict, after scikit-learn's conventions and without needing it."""

from __future__ import annotations

import os
from typing import Any

from fastarch.estimators import persistence
from fastarch.estimators.base import Estimator, NotFittedError
from fastarch.estimators.convolutional_rbm import ConvolutionalRBM
from fastarch.estimators.dbn import DBN
from fastarch.estimators.dbn_supervised import DBNClassifier, DBNRegressor
from fastarch.estimators.dsn import DSNClassifier, DSNRegressor, TDSNClassifier, TDSNRegressor
from fastarch.estimators.dsn.info import DSN, TDSN
from fastarch.estimators.energy_info import DBN_INFO, RBM_INFO
from fastarch.estimators.epochs import watched
from fastarch.estimators.info import EstimatorInfo, Part, Report
from fastarch.estimators.rating_rbm import RatingRBM
from fastarch.estimators.rbm import RBM, GaussianRBM
from fastarch.estimators.som import SOM
from fastarch.estimators.som.info import INFO as SOM_INFO

__all__ = [
    "CLASSES",
    "DBN",
    "ESTIMATORS",
    "RBM",
    "SOM",
    "ConvolutionalRBM",
    "DBNClassifier",
    "DBNRegressor",
    "DSNClassifier",
    "DSNRegressor",
    "Estimator",
    "EstimatorInfo",
    "GaussianRBM",
    "NotFittedError",
    "Part",
    "RatingRBM",
    "Report",
    "TDSNClassifier",
    "TDSNRegressor",
    "load",
    "watched",
]

# Every class whose files `load` reads, by name.
CLASSES: dict[str, type[Estimator]] = {
    cls.__name__: cls
    for cls in (
        RBM,
        GaussianRBM,
        RatingRBM,
        ConvolutionalRBM,
        DBN,
        DBNClassifier,
        DBNRegressor,
        DSNClassifier,
        DSNRegressor,
        TDSNClassifier,
        TDSNRegressor,
        SOM,
    )
}

# What the command line trains and lists.
ESTIMATORS: dict[str, EstimatorInfo] = {info.name: info for info in (RBM_INFO, DBN_INFO, DSN, TDSN, SOM_INFO)}


def load(path: str | os.PathLike[str]) -> Any:
    """The estimator that some estimator's `save` wrote to `path`; no code of the file is run.

    Raises FileNotFoundError, and ValueError for a damaged file or one that holds something else.
    """
    return persistence.load(path, CLASSES)
