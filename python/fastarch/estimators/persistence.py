"""Estimators as files: arrays in safetensors, the rest as JSON in its header; reading runs no code of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastarch import io

_KEY = "fastarch.estimator"
_FORMAT = 1
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
# What an altered header can make of numbers, dtypes and nesting.
_UNREADABLE = (
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    ArithmeticError,
    SyntaxError,
    RecursionError,
)


def save(estimator: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes an estimator to one file; see `Estimator.save`."""
    arrays: dict[str, np.ndarray] = {}
    tree = {"format": _FORMAT, **_estimator(estimator, arrays, type(estimator).__name__)}
    io.save(arrays, path, {**(metadata or {}), _KEY: json.dumps(tree, sort_keys=True)})


def load(path: str | os.PathLike[str], classes: Mapping[str, type]) -> Any:
    """The estimator in a file, if its class is among `classes`. Raises FileNotFoundError or ValueError."""
    metadata = io.load_metadata(path)
    if _KEY not in metadata:
        raise ValueError(f"[load] {path} holds no estimator, expected a file that an estimator's save wrote")
    arrays = io.load(path)
    try:
        tree = json.loads(metadata[_KEY])
        if tree["format"] != _FORMAT:
            raise ValueError(f"format {tree['format']}, expected {_FORMAT}")
        return _restored(tree, arrays, classes)
    except _UNREADABLE as error:
        raise ValueError(f"[load] {path} cannot be read as an estimator: {error}") from None


def _estimator(estimator: Any, arrays: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    names = set(estimator.get_params(deep=False))
    return {
        "class": type(estimator).__name__,
        "params": {n: _encode(getattr(estimator, n), arrays, f"{where}.{n}") for n in sorted(names)},
        "fitted": {
            n: _encode(v, arrays, f"{where}.{n}")
            for n, v in sorted(vars(estimator).items())
            if n not in names
        },
    }


def _restored(tree: Mapping[str, Any], arrays: Mapping[str, np.ndarray], classes: Mapping[str, type]) -> Any:
    name = tree["class"]
    if name not in classes:
        raise ValueError(f"it holds {name!r}, expected {', '.join(classes)}")
    cls: Any = classes[name]
    known = cls._parameters()
    unknown = set(tree["params"]) - set(known)
    if unknown:
        raise ValueError(
            f"{name} has no parameter {', '.join(sorted(unknown))}; another version wrote the file"
        )
    estimator = cls(**{n: _decode(v, arrays, classes) for n, v in tree["params"].items()})
    for attribute, value in tree["fitted"].items():
        if (
            not attribute.isidentifier()
            or attribute.startswith("__")
            or callable(getattr(cls, attribute, None))
        ):
            raise ValueError(f"{attribute!r} is no attribute that fit sets")
        setattr(estimator, attribute, _decode(value, arrays, classes))
    return estimator


def _encode(value: Any, arrays: dict[str, np.ndarray], where: str) -> Any:
    """`value` as JSON; what JSON lacks becomes {"$kind": ...}, arrays go to `arrays` under a name."""
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return value if np.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return {"$scalar": value.dtype.str, "value": _encode(value.item(), arrays, where)}
    if isinstance(value, np.ndarray) or (
        hasattr(value, "get") and hasattr(value, "__cuda_array_interface__")
    ):
        return _encode_array(value if isinstance(value, np.ndarray) else value.get(), arrays, where)
    if isinstance(value, (list, tuple)):
        items = [_encode(item, arrays, f"{where}.{i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"$dict": {key: _encode(item, arrays, f"{where}.{key}") for key, item in value.items()}}
    if isinstance(value, np.random.RandomState):
        return {"$randomstate": _encode(value.get_state(legacy=False), arrays, where)}
    if isinstance(value, np.random.Generator):
        return {"$generator": _encode(value.bit_generator.state, arrays, where)}
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return {"$dtype": np.dtype(value).str}
    if hasattr(value, "_parameters") and hasattr(value, "get_params"):
        return {"$estimator": _estimator(value, arrays, where)}
    raise TypeError(f"[save] {where} is {type(value).__name__}, which a file of arrays and text cannot hold")


def _encode_array(array: np.ndarray, arrays: dict[str, np.ndarray], where: str) -> Any:
    if array.dtype.kind in "biuf":
        arrays[where] = array
        return {"$array": where}
    if array.dtype.kind in "US":
        return {
            "$text": array.astype("U").ravel().tolist(),
            "shape": list(array.shape),
            "dtype": array.dtype.str,
        }
    if array.dtype.kind == "O":
        items = [_encode(item, arrays, f"{where}.{i}") for i, item in enumerate(array.ravel())]
        return {"$objects": items, "shape": list(array.shape)}
    raise TypeError(f"[save] {where} has dtype {array.dtype}, which a file of arrays and text cannot hold")


def _decode(tree: Any, arrays: Mapping[str, np.ndarray], classes: Mapping[str, type]) -> Any:
    if isinstance(tree, list):
        return [_decode(item, arrays, classes) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind = next((key for key in tree if key.startswith("$")), None)
    if kind is None:
        found = f"the keys {', '.join(tree)}" if tree else "no key"
        raise ValueError(f"an entry has {found}, expected one such as $array")
    inner = tree[kind]
    if kind == "$float":
        return float(inner)
    if kind == "$scalar":
        return np.dtype(inner).type(_decode(tree["value"], arrays, classes))
    if kind == "$array":
        return arrays[inner]
    if kind == "$text":
        return np.array(inner, dtype=tree["dtype"]).reshape(tree["shape"])
    if kind == "$objects":
        array = np.empty(len(inner), dtype=object)
        array[:] = [_decode(item, arrays, classes) for item in inner]
        return array.reshape(tree["shape"])
    if kind == "$tuple":
        return tuple(_decode(item, arrays, classes) for item in inner)
    if kind == "$dict":
        return {key: _decode(item, arrays, classes) for key, item in inner.items()}
    if kind == "$dtype":
        return np.dtype(inner)
    if kind == "$estimator":
        return _restored(inner, arrays, classes)
    state = _decode(inner, arrays, classes)
    if kind == "$randomstate":
        legacy = np.random.RandomState()
        legacy.set_state(state)
        return legacy
    if kind == "$generator" and state["bit_generator"] in _BIT_GENERATORS:
        bits = getattr(np.random, state["bit_generator"])()
        bits.state = state
        return np.random.Generator(bits)
    raise ValueError(f"unknown entry {kind}")


def to_host(array: Any) -> np.ndarray:
    """A NumPy array of an array of any library and device."""
    return np.asarray(array.get() if is_device_array(array) else array)


def is_device_array(value: Any) -> bool:
    """Whether `value` is a CuPy array."""
    return hasattr(value, "get") and hasattr(value, "__cuda_array_interface__")


def arrays_in(value: Any) -> Iterator[Any]:
    """The arrays in `value`, inside lists, tuples and dicts too."""
    if isinstance(value, np.ndarray) or is_device_array(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


def moved(value: Any, device: str) -> Any:
    """`value` with its arrays of floats on "cpu" (NumPy) or "cuda" (CuPy), inside lists and dicts too."""
    if isinstance(value, np.ndarray):
        if device == "cpu" or value.dtype.kind != "f":
            return value
        import cupy

        return cupy.asarray(value)
    if is_device_array(value):
        return value.get() if device == "cpu" else value
    if isinstance(value, (list, tuple)):
        return type(value)(moved(item, device) for item in value)
    if isinstance(value, dict):
        return {key: moved(item, device) for key, item in value.items()}
    if hasattr(value, "_parameters") and hasattr(value, "to"):
        return value.to(device)
    return value
