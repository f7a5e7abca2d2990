"""What classifiers, regressors, transformers and clusterers share, each beside `Estimator`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastarch.arrays import namespace
from fastarch.estimators import validation
from fastarch.estimators.persistence import to_host

if TYPE_CHECKING:
    from fastarch.estimators.base import Estimator

    _Base = Estimator
else:
    _Base = object


class Transformer(_Base):
    """Adds fit_transform, get_feature_names_out and set_output to a class with fit and transform.

    A subclass gives `_n_features_out`, the width of what transform returns.
    """

    _sklearn_output_config: dict[str, str]  # scikit-learn's clone copies it

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """``fit(X, y).transform(X)``: what transform returns."""
        return self.fit(X, y, **fit_params).transform(X)  # type: ignore[attr-defined]

    _n_features_out: int

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of transform's result, such as rbm0, rbm1: [features] object.

        input_features: checked against the names seen by fit. Raises ValueError where they differ.
        """
        self._check_fitted("get_feature_names_out")
        who = f"[{self._name}.get_feature_names_out]"
        if input_features is not None:
            names = np.asarray(input_features, dtype=object)
            seen = getattr(self, "feature_names_in_", None)
            if seen is not None and not np.array_equal(seen, names):
                raise ValueError(f"{who} input_features is not equal to feature_names_in_")
            if len(names) != self.n_features_in_:
                raise ValueError(
                    f"{who} input_features should have length equal to the number of features "
                    f"{self.n_features_in_}, got {len(names)}"
                )
        stem = self._name.lower()
        return np.array([f"{stem}{i}" for i in range(self._n_features_out)], dtype=object)

    def set_output(self, *, transform: str | None = None) -> Any:
        """What transform returns: "default" (arrays), "pandas" or "polars"; None leaves it as it is."""
        if transform is not None:
            choices = ("default", "pandas", "polars")
            validation.check_choice(f"{self._name}.set_output", "transform", transform, choices)
            self._sklearn_output_config = {"transform": transform}
        return self


class Classifier(_Base):
    """Adds score and the handling of labels to a class with predict."""

    _kind = "classifier"
    _needs_y = True
    classes_: np.ndarray

    def _encode(self, y: Any, method: str, samples: int) -> np.ndarray:
        """Labels as indices into `classes_` [N] int64, which this sets, sorted.

        Raises ValueError for fewer than 2 classes.
        """
        who = f"{self._name}.{method}"
        known, index = np.unique(validation.labels(y, who, samples), return_inverse=True)
        if len(known) < 2:
            raise ValueError(f"[{who}] y has 1 class ({known.tolist()[0]!r}), expected at least 2")
        self.classes_ = known
        return index.astype(np.int64)

    def _labels(self, index: Any) -> Any:
        """The labels of class indices [N]; numbers stay on the device, text has none."""
        if isinstance(index, np.ndarray):
            return self.classes_[index]
        labels = self.classes_[index.get()]
        return namespace(index).asarray(labels) if labels.dtype.kind in "biu" else labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of samples whose predicted label is right, 0 to 1, weighted where weights are given."""
        predicted = to_host(self.predict(X))  # type: ignore[attr-defined]
        right = predicted == validation.labels(y, f"{self._name}.score", len(predicted))
        return float(np.average(right, weights=sample_weight))


class Regressor(_Base):
    """Adds score to a class with predict."""

    _kind = "regressor"
    _needs_y = True
    n_outputs_: int
    _flat: bool

    def _targets(self, y: Any, method: str, x: Any) -> np.ndarray:
        """y as [N, T] of x's dtype on the host; `_as_targets` gives predictions the shape that y had."""
        found = validation.targets(y, f"{self._name}.{method}", x.shape[0], x.dtype)
        self._flat = found.ndim == 1
        found = found.reshape(len(found), -1)
        self.n_outputs_ = found.shape[1]
        return found

    def _as_targets(self, predicted: Any) -> Any:
        """Predictions [N, T], or [N] where fit was given [N]."""
        return predicted[:, 0] if self._flat else predicted

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The coefficient of determination R2, averaged over outputs: 1 is perfect, 0 the mean's.

        A constant output counts 1 where it is predicted exactly and 0 otherwise.
        """
        predicted = to_host(self.predict(X)).astype(np.float64)  # type: ignore[attr-defined]
        samples = len(predicted)
        target = validation.targets(y, f"{self._name}.score", samples, np.float64).reshape(samples, -1)
        weight = np.ones(samples) if sample_weight is None else np.asarray(sample_weight, np.float64)
        mean = np.average(target, axis=0, weights=weight)
        residual = weight @ (target - predicted.reshape(samples, -1)) ** 2
        total = weight @ (target - mean) ** 2
        constant = total == 0
        share = np.where(constant, residual == 0, 1 - residual / np.where(constant, 1, total))
        return float(share.mean())


class Clusterer(_Base):
    """Adds fit_predict to a class whose fit leaves `labels_`."""

    _kind = "clusterer"
    labels_: Any

    def fit_predict(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """``fit(X).labels_``: the cluster of every sample."""
        return self.fit(X, y, **fit_params).labels_  # type: ignore[attr-defined]
