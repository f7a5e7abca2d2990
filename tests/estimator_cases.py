"""Arguments that keep the estimators cheap in the tests that run over all of them."""

from __future__ import annotations

from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "DSNClassifier": {"n_modules": 2, "n_hidden": 20, "n_epochs": 10},
    "DSNRegressor": {"n_modules": 2, "n_hidden": 20, "n_epochs": 10},
    "TDSNClassifier": {"n_modules": 2, "n_hidden": (6, 5), "n_epochs": 10},
    "TDSNRegressor": {"n_modules": 2, "n_hidden": (6, 5), "n_epochs": 10},
    "RBM": {"n_components": 5, "n_epochs": 2},
    "GaussianRBM": {"n_components": 5, "n_epochs": 2},
    "RatingRBM": {"n_components": 5, "n_epochs": 2},
    "ConvolutionalRBM": {"n_components": 3, "n_epochs": 2},
}
