"""Deep stacking networks, with one group of hidden units in a module or, for the tensor variant, two."""

from fastarch.estimators.dsn.estimators import DSNClassifier, DSNRegressor, TDSNClassifier, TDSNRegressor

__all__ = ["DSNClassifier", "DSNRegressor", "TDSNClassifier", "TDSNRegressor"]
