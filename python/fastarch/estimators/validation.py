"""What comes into an estimator, checked once: samples, labels, targets, parameters.

Every refusal names the estimator and the method and says what came and what was expected.
"""

from __future__ import annotations

import math
import numbers
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastarch.arrays import Array, Restore, adopt, namespace

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def is_sparse(x: Any) -> bool:
    """Whether `x` is a sparse matrix or array of SciPy, without importing SciPy."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and scipy_sparse.issparse(x)


def features(
    X: Any,
    who: str,
    *,
    sparse: bool = False,
    allow_nan: bool = False,
    minimum: int = 1,
    dims: Sequence[int] = (2,),
) -> tuple[Array, Restore]:
    """X as [N, D] float32 or float64, C-contiguous, and the function that turns a result into X's type.

    dims: the numbers of dimensions that may come, 4 for pictures [N, C, H, W].
    float32 and float64 stay, narrower floats become float32, everything else float64. NumPy, CuPy and
    whatever speaks DLPack is used in place; lists and data frames become NumPy. With `sparse`, a SciPy matrix
    comes back as CSR. Raises ValueError or TypeError for anything that is not a matrix of finite numbers (NaN
    passes with `allow_nan`), or has fewer than `minimum` samples or no feature.
    """
    if is_sparse(X):
        if not sparse:
            raise TypeError(f"[{who}] X is a sparse matrix, expected a dense array: pass X.toarray()")
        return _csr(X, who, allow_nan, minimum), _as_is
    x, restore = _native(X, who, "X")
    x = _floating(x, who, "X")
    if x.ndim not in dims:
        hint = (
            ". Reshape your data: X.reshape(-1, 1) for one feature, X.reshape(1, -1) for one sample"
            if x.ndim < 2
            else ": X.reshape(len(X), -1) for pictures"
            if 2 in dims
            else ""
        )
        expected = " or ".join({2: "2 dimensions [N, D]", 4: "4 dimensions [N, C, H, W]"}[d] for d in dims)
        raise ValueError(f"[{who}] X has shape {tuple(x.shape)}, expected {expected}{hint}")
    _check_size(x.shape, who, minimum)
    check_finite(x, who, "X", allow_nan)
    return namespace(x).ascontiguousarray(x), restore


def _as_is(x: Array) -> Array:
    return x


def _csr(X: Any, who: str, allow_nan: bool, minimum: int) -> Any:
    if X.dtype.kind == "c":
        raise ValueError(f"[{who}] X is complex. Complex data not supported")
    dtype = X.dtype if X.dtype in _FLOATS else np.dtype(np.float64)
    matrix = X.tocsr().astype(dtype, copy=False)
    if not matrix.has_canonical_format:  # each entry once, columns in order
        matrix = matrix.copy()
        matrix.sum_duplicates()
    _check_size(matrix.shape, who, minimum)
    check_finite(matrix.data, who, "X", allow_nan)
    return matrix


def _native(value: Any, who: str, name: str) -> tuple[Array, Restore]:
    """A NumPy or CuPy array of what came, and the way back; lists and data frames have no way back."""
    if is_sparse(value):
        raise TypeError(f"[{who}] {name} is a sparse matrix, expected a dense array")
    if isinstance(value, np.ndarray) or hasattr(value, "__dlpack__"):
        return adopt(value, who, name)
    try:
        return np.asarray(value), _as_is
    except ValueError as error:
        raise ValueError(f"[{who}] {name} is no rectangular array: {error}") from None


def _floating(x: Array, who: str, name: str) -> Array:
    if x.dtype in _FLOATS:
        return x
    if x.dtype.kind == "c":
        raise ValueError(f"[{who}] {name} has dtype {x.dtype}. Complex data not supported")
    if (x.dtype.kind == "f" and x.dtype.itemsize < 4) or x.dtype.name in ("bfloat16", "float16"):
        return x.astype(np.float32)
    if x.dtype.kind not in "biufOSU":
        raise TypeError(f"[{who}] {name} has dtype {x.dtype}, expected numbers")
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"[{who}] {name} holds something that is no number: {error}") from None


def _check_size(shape: Sequence[int], who: str, minimum: int) -> None:
    rows, columns = shape[0], math.prod(shape[1:])
    if rows < minimum:
        raise ValueError(
            f"[{who}] X has {rows} sample(s) (shape={tuple(shape)}) while a minimum of {minimum} is required."
            + (" (n_samples=1)" if rows == 1 else "")
        )
    if columns < 1:
        raise ValueError(
            f"[{who}] X has 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required."
        )


def check_finite(x: Array, who: str, name: str, allow_nan: bool = False) -> None:
    """Raises ValueError when `x` holds an infinity, or NaN unless `allow_nan`."""
    xp = namespace(x)
    with np.errstate(all="ignore"):
        if x.size == 0 or bool(xp.isfinite(x.sum())):  # one pass; a sum that overflows is looked at again
            return
    nan = xp.isnan(x)
    if not allow_nan and bool(nan.any()):
        raise ValueError(f"[{who}] {name} contains NaN, expected finite numbers")
    if bool((~xp.isfinite(x) & ~nan).any()):
        raise ValueError(f"[{who}] {name} contains infinity or a value too large, expected finite numbers")


def feature_names(X: Any, who: str) -> np.ndarray | None:
    """The names of a data frame's columns as [D] object, or None where they are not text."""
    columns = getattr(X, "columns", None)
    if columns is None or isinstance(X, np.ndarray):
        return None
    names = list(columns)
    text = [isinstance(name, str) for name in names]
    if not any(text):
        return None
    if not all(text):
        raise TypeError(f"[{who}] X has columns named by text and by something else, expected text for all")
    return np.array(names, dtype=object)


def check_feature_names(owner: str, who: str, fitted: np.ndarray | None, came: np.ndarray | None) -> None:
    """Raises ValueError when `came` differs from the names seen by fit; warns when only one has names."""
    if fitted is None and came is None:
        return
    if came is None:
        warn(f"X does not have valid feature names, but {owner} was fitted with feature names")
        return
    if fitted is None:
        warn(f"X has feature names, but {owner} was fitted without feature names")
        return
    if len(fitted) == len(came) and (fitted == came).all():
        return
    parts = [f"[{who}] The feature names should match those that were passed during fit."]
    for head, names in (
        ("Feature names unseen at fit time:", sorted(set(came) - set(fitted))),
        ("Feature names seen at fit time, yet now missing:", sorted(set(fitted) - set(came))),
    ):
        if names:
            parts += [head, *(f"- {name}" for name in names[:5]), *(["- ..."] if len(names) > 5 else [])]
    if len(parts) == 1:
        parts.append("Feature names must be in the same order as they were in fit.")
    raise ValueError("\n".join(parts) + "\n")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line outside this package from which it was called."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("fastarch."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _target(y: Any, who: str, samples: int) -> np.ndarray:
    """y as a host array with one row a sample."""
    if y is None:
        raise ValueError(f"[{who}] requires y to be passed, but the target y is None")
    native, _ = _native(y, who, "y")
    target = np.asarray(native.get() if hasattr(native, "get") else native)
    if target.ndim not in (1, 2):
        raise ValueError(f"[{who}] y has shape {target.shape}, expected [N] or [N, T]")
    if len(target) != samples:
        raise ValueError(f"[{who}] y has {len(target)} samples, X has {samples}")
    if target.dtype.kind == "c":
        raise ValueError(f"[{who}] y has dtype {target.dtype}. Complex data not supported")
    return target


def labels(y: Any, who: str, samples: int) -> np.ndarray:
    """Class labels [N], text or whole numbers. A column [N, 1] is flattened with a warning."""
    target = _target(y, who, samples)
    if target.ndim == 2:
        if target.shape[1] != 1:
            raise ValueError(f"[{who}] y has shape {target.shape}, expected one label a sample [N]")
        _warn_of_column()
        target = target[:, 0]
    if target.dtype.kind == "f":
        check_finite(target, who, "y")
        if (target != np.floor(target)).any():
            raise ValueError(
                f"[{who}] y is continuous, expected class labels. Unknown label type: continuous"
            )
    if target.dtype.kind == "O":
        kinds = {isinstance(label, str) for label in target}
        if len(kinds) > 1:
            raise TypeError(f"[{who}] y mixes text and other labels, expected one kind")
        if kinds == {False}:
            if not all(isinstance(label, numbers.Integral) for label in target):
                raise ValueError(
                    f"[{who}] y holds labels that are neither text nor whole numbers. "
                    "Unknown label type: unknown"
                )
            target = target.astype(np.int64)
    return target


def _warn_of_column() -> None:
    # scikit-learn's users filter its own category of warning.
    exceptions = sys.modules.get("sklearn.exceptions")
    category = exceptions.DataConversionWarning if exceptions is not None else UserWarning
    warn("A column-vector y was passed when a 1d array was expected: pass y.ravel()", category)


def targets(y: Any, who: str, samples: int, dtype: Any) -> np.ndarray:
    """Numbers to predict, [N] or [N, T], of `dtype`."""
    target = _floating(_target(y, who, samples), who, "y").astype(dtype)
    check_finite(target, who, "y")
    return target


def check_count(who: str, name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Parameter `value` as an int from `low` to `high`. Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"[{who}] {name} is {value!r}, expected a whole number")
    number = int(value)
    if number < low or (high is not None and number > high):
        bounds = f"at least {low}" if high is None else f"{low} to {high}"
        raise ValueError(f"[{who}] {name} is {number}, expected {bounds}")
    return number


def check_number(
    who: str,
    name: str,
    value: Any,
    low: float = -np.inf,
    high: float = np.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Parameter `value` as a finite float from `low` to `high`, an open end excluded. Raises TypeError or
    ValueError."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"[{who}] {name} is {value!r}, expected a number")
    number = float(value)
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if not np.isfinite(number) or below or above:
        parts = [f"above {low:g}" if open_low else f"at least {low:g}"] if low > -np.inf else []
        parts += [f"below {high:g}" if open_high else f"at most {high:g}"] if high < np.inf else []
        raise ValueError(f"[{who}] {name} is {value}, expected {' and '.join(parts) or 'a finite number'}")
    return number


def check_choice(who: str, name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Parameter `value`, one of `choices`. Raises ValueError."""
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise ValueError(f"[{who}] {name} is {value!r}, expected {', '.join(map(repr, choices))}")
