"""Arguments that keep the estimators cheap in the tests that run over all of them."""

from __future__ import annotations

from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "SOM": {"grid": (4, 5), "n_epochs": 5},
    "DSNClassifier": {"n_modules": 2, "n_hidden": 20, "n_epochs": 10},
    "DSNRegressor": {"n_modules": 2, "n_hidden": 20, "n_epochs": 10},
    "TDSNClassifier": {"n_modules": 2, "n_hidden": (6, 5), "n_epochs": 10},
    "TDSNRegressor": {"n_modules": 2, "n_hidden": (6, 5), "n_epochs": 10},
    "RBM": {"n_components": 5, "n_epochs": 2},
    "GaussianRBM": {"n_components": 5, "n_epochs": 2},
    "RatingRBM": {"n_components": 5, "n_epochs": 2},
    "DBN": {"hidden_layer_sizes": (6, 4), "n_epochs": 2, "up_down_epochs": 1},
    "DBNClassifier": {"hidden_layer_sizes": (12, 8), "n_epochs": 1, "batch_size": 20, "fine_tune_rate": 0.02},
    "DBNRegressor": {"hidden_layer_sizes": (12, 8), "n_epochs": 1, "batch_size": 20, "fine_tune_rate": 0.02},
    "ConvolutionalRBM": {"n_components": 3, "n_epochs": 2},
}
