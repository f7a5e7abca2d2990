"""What every estimator is: parameters, checked input, a seed, progress, files - scikit-learn's conventions.

scikit-learn itself is never imported here, except where it asks for its own tags.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fastarch import backends, random
from fastarch.arrays import Array, Restore, namespace, on_device
from fastarch.estimators import persistence, validation
from fastarch.estimators.epochs import Epochs

Self = TypeVar("Self", bound="Estimator")


class NotFittedError(ValueError, AttributeError):
    """An estimator was asked for what only `fit` gives it."""


def _not_fitted(message: str) -> Exception:
    """scikit-learn's own exception where it is loaded, so that its users' handlers see what they expect."""
    exceptions = sys.modules.get("sklearn.exceptions")
    kind = NotFittedError if exceptions is None else exceptions.NotFittedError
    return kind(message)


class Estimator:
    """The base of all estimators: a constructor that only stores its arguments, and `fit`.

    What `fit` learns lies in attributes whose names end with an underscore; arrays stay on the device of X.
    A subclass says with the class attributes below what it takes.
    """

    _kind: str | None = None  # scikit-learn's estimator type: "classifier", "regressor", "clusterer", ...
    _sparse = False  # takes SciPy sparse matrices
    _allow_nan = False  # NaN stands for a missing value
    _positive_only = False
    _needs_y = False
    _multi_output = False
    _poor_score = False  # an accuracy or R2 that generic data need not reach
    _non_deterministic = False
    _minimum_samples = 1
    _parts: tuple[type, ...] = ()  # the kinds of estimators that it keeps inside

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        for name in ("fit", "partial_fit"):
            if name in vars(cls):
                setattr(cls, name, _whole_or_not(vars(cls)[name]))

    def __init__(self) -> None:
        """A subclass stores its arguments here as they come, and looks at them in fit."""

    # Parameters

    @classmethod
    def _parameters(cls) -> dict[str, Any]:
        """The constructor's arguments and their defaults."""
        signature = inspect.signature(cls.__init__)
        return {name: p.default for name, p in list(signature.parameters.items())[1:]}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; with `deep` nested ones as outer__inner."""
        found: dict[str, Any] = {}
        for name in sorted(self._parameters()):
            value = found[name] = getattr(self, name)
            if deep and hasattr(value, "get_params") and not isinstance(value, type):
                found |= {f"{name}__{inner}": v for inner, v in value.get_params(deep=True).items()}
        return found

    def set_params(self: Self, **params: Any) -> Self:
        """Sets constructor arguments, nested ones as outer__inner. Raises ValueError for an unknown name."""
        known = self._parameters()
        nested: dict[str, dict[str, Any]] = {}
        for key in params:
            name = key.partition("__")[0]
            if name not in known or ("__" in key and not hasattr(getattr(self, name), "set_params")):
                raise ValueError(
                    f"[{self._name}.set_params] there is no parameter {key!r}, "
                    f"expected one of {', '.join(known)}"
                )
        for key, value in params.items():
            name, _, inner = key.partition("__")
            if inner:
                nested.setdefault(name, {})[inner] = value
            else:
                setattr(self, name, value)
        for name, values in nested.items():
            getattr(self, name).set_params(**values)
        return self

    def __repr__(self) -> str:
        shown = [
            f"{name}={getattr(self, name, default)!r}"
            for name, default in self._parameters().items()
            if not _same(getattr(self, name, default), default)
        ]
        return f"{self._name}({', '.join(shown)})"

    @property
    def _name(self) -> str:
        return type(self).__name__

    # Tags, for scikit-learn alone

    @property
    def _estimator_type(self) -> str | None:
        return self._kind

    def __sklearn_tags__(self) -> Any:
        from sklearn import utils

        return utils.Tags(
            estimator_type=self._kind,
            target_tags=utils.TargetTags(
                required=self._needs_y, multi_output=self._multi_output, single_output=True
            ),
            transformer_tags=(
                utils.TransformerTags(preserves_dtype=["float64", "float32"])
                if hasattr(self, "transform")
                else None
            ),
            classifier_tags=(
                utils.ClassifierTags(poor_score=self._poor_score) if self._kind == "classifier" else None
            ),
            regressor_tags=(
                utils.RegressorTags(poor_score=self._poor_score) if self._kind == "regressor" else None
            ),
            non_deterministic=self._non_deterministic,
            input_tags=utils.InputTags(
                sparse=self._sparse, allow_nan=self._allow_nan, positive_only=self._positive_only
            ),
        )

    # Input

    def _input(
        self, X: Any, method: str, *, reset: bool = False, dims: tuple[int, ...] = (2,)
    ) -> tuple[Array, Restore]:
        """X of `method`, checked: [N, D] float32 or float64 (or CSR), and the way back to X's type.

        dims: (2, 4) where pictures [N, C, H, W] may come; their features are all C H W numbers.
        With `reset`, for fit, keeps n_features_in_ and feature_names_in_; otherwise compares with them, and
        with the device of what was learnt.
        """
        who = f"{self._name}.{method}"
        if not reset:
            self._check_fitted(method)
        names = validation.feature_names(X, who)
        if not reset:
            validation.check_feature_names(self._name, who, getattr(self, "feature_names_in_", None), names)
        x, restore = validation.features(
            X,
            who,
            sparse=self._sparse,
            allow_nan=self._allow_nan,
            minimum=self._minimum_samples if reset else 1,
            dims=dims,
        )
        count = math.prod(x.shape[1:])
        if reset:
            self.n_features_in_ = count
            vars(self).pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = names
        elif count != self.n_features_in_:
            raise ValueError(
                f"[{who}] X has {count} features, but {self._name} is expecting "
                f"{self.n_features_in_} features as input"
            )
        if not reset:
            self._check_device(x, who)
        return x, restore

    def _check_device(self, x: Array, who: str) -> None:
        came = not validation.is_sparse(x) and on_device(x)
        for value in persistence.arrays_in([v for n, v in vars(self).items() if n not in self._parameters()]):
            # Labels and names stay on the host anyway.
            if value.dtype.kind == "f" and on_device(value) != came:
                here, there = ("CUDA", "host") if came else ("host", "CUDA")
                raise ValueError(
                    f"[{who}] X lies in {here} memory, what {self._name} has learnt in {there} memory: "
                    f"call .to({'cuda' if came else 'cpu'!r})"
                )

    def to(self: Self, device: str) -> Self:
        """Moves what was learnt to "cpu" (NumPy) or "cuda" (CuPy). Raises ValueError or RuntimeError."""
        if device not in ("cpu", "cuda"):
            raise ValueError(f"[{self._name}.to] device is {device!r}, expected 'cpu' or 'cuda'")
        if device == "cuda" and (reason := backends.reason_unusable("cuda")):
            raise RuntimeError(f"[{self._name}.to] 'cuda' cannot be used here: {reason}")
        for name, value in vars(self).items():
            if name in self._parameters():
                continue
            setattr(self, name, persistence.moved(value, device))
        return self

    def _check_fitted(self, method: str) -> None:
        if not self.__sklearn_is_fitted__():
            raise _not_fitted(f"[{self._name}.{method}] this {self._name} is not fitted yet: call fit first")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    # Randomness

    def _seed(self, method: str = "fit") -> int:
        """The Philox seed that `random_state` stands for, 0 to 2**64 - 1.

        An int is the seed itself. None takes the next global stream: fa.manual_seed decides. A NumPy
        RandomState or Generator is drawn from, so that a second fit differs.
        """
        state = getattr(self, "random_state", None)
        if state is None:
            words = random.philox(2, *random.next_offset())
            return int(words[0]) << 32 | int(words[1])
        if isinstance(state, np.random.RandomState):
            high, low = state.randint(0, 2**32, size=2, dtype=np.uint64)
            return int(high) << 32 | int(low)
        if isinstance(state, np.random.Generator):
            return int(state.integers(0, 2**64, dtype=np.uint64))
        return validation.check_count(f"{self._name}.{method}", "random_state", state, 0, 2**64 - 1)

    # Progress

    def _epochs(
        self, total: int, *, unit: str = "epoch", title: str | None = None, go_on: bool = False
    ) -> Epochs:
        """The rounds of training, recorded in `history_`; `go_on` keeps earlier records (partial_fit)."""
        if not go_on or not hasattr(self, "history_"):
            self.history_: list[dict[str, Any]] = []
        return Epochs(
            total,
            self.history_,
            title=self._name if title is None else title,
            unit=unit,
            verbose=getattr(self, "verbose", 0),
        )

    # Output

    def _framed(self, result: Any, X: Any) -> Any:
        """What transform returns: an array, or the data frame that set_output or the global setting of
        scikit-learn asks for."""
        sklearn = sys.modules.get("sklearn")
        wanted = getattr(self, "_sklearn_output_config", {}).get("transform")
        if wanted is None and sklearn is not None:
            wanted = sklearn.get_config().get("transform_output")
        if wanted in (None, "default"):
            return result
        names = list(self.get_feature_names_out())  # type: ignore[attr-defined]
        host = persistence.to_host(result)
        if wanted == "pandas":
            import pandas

            return pandas.DataFrame(host, columns=names, index=getattr(X, "index", None))
        import polars

        return polars.DataFrame(host, schema=names, orient="row")

    # Files

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Writes parameters and what was learnt to one safetensors file, atomically; `load` reads it.

        metadata: text to keep beside them in the file's header. Raises TypeError for a parameter that a file
        cannot hold, such as a function, and OSError where the file cannot be written.
        """
        persistence.save(self, path, metadata)

    @classmethod
    def load(cls: type[Self], path: str | os.PathLike[str]) -> Self:
        """The estimator that `save` wrote to `path`; no code of the file is run.

        Raises FileNotFoundError, and ValueError for a damaged file or another kind of estimator.
        """
        estimator = persistence.load(path, {part.__name__: part for part in (cls, *cls._parts)})
        if type(estimator) is not cls:
            found = type(estimator).__name__
            raise ValueError(
                f"[load] {path} cannot be read as an estimator: it holds {found!r}, expected {cls.__name__}"
            )
        return estimator


def _whole_or_not(fit: Callable) -> Callable:
    """`fit` or `partial_fit` that, when it fails, leaves the estimator as it was: unfitted, or fitted to what
    came before. Arrays that a later partial_fit has changed in place stay changed."""

    @functools.wraps(fit)
    def whole(self: Any, *args: Any, **more: Any) -> Any:
        before = dict(vars(self))
        try:
            return fit(self, *args, **more)
        except BaseException:  # Ctrl-C too
            vars(self).clear()
            vars(self).update(before)
            raise

    return whole


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and a != a:
        return b != b
    try:
        return bool(a == b)
    except ValueError:  # arrays
        return bool(np.array_equal(a, b))


def array_module(x: Array) -> Any:
    """numpy or cupy, whichever computes on `x`; numpy for a sparse matrix."""
    return np if validation.is_sparse(x) else namespace(x)
