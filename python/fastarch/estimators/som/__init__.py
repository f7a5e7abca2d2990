"""Self-organizing maps: the estimator, and files of the Databionic ESOM Tools."""

from fastarch.estimators.som import esom
from fastarch.estimators.som.estimator import SOM

__all__ = ["SOM", "esom"]
