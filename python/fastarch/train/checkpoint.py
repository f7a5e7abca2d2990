"""The whole state of a training run in one file; what continues from it is the same run, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastarch import io

_ARRAY, _PAIRS = "$array", "$pairs"


def save(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Writes `state` to `path`, atomically: nested dicts, lists, arrays, numbers, text, booleans and None.

    Arrays keep their bits and dtypes, floats every digit. Raises TypeError for anything else.
    """
    arrays: dict[str, Any] = {}
    meta = _pack(state, "", arrays)
    io.save_checkpoint(path, arrays, meta)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `save` wrote. Raises FileNotFoundError, and ValueError when the file is damaged."""
    arrays, meta = io.load_checkpoint(path)
    try:
        state = _unpack(meta, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"[load_checkpoint] {path} does not fit together ({error!r})") from None
    if not isinstance(state, dict):
        raise ValueError(f"[load_checkpoint] {path} holds {type(state).__name__}, expected a run's state")
    return state


def _pack(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """`value` as JSON holds it; arrays go to `arrays` under their place in the tree."""
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _pack(item, f"{name}/{key}".lstrip("/"), arrays) for key, item in value.items()}
        # JSON keys are text; an optimizer's state is keyed by the parameter's number.
        return {_PAIRS: [[key, _pack(item, f"{name}/{key}", arrays)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        arrays[name] = value
        return {_ARRAY: name}
    raise TypeError(f"[checkpoint] {name!r} is {type(value).__name__}, expected arrays, numbers or text")


def _unpack(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        if _PAIRS in value:
            return {key: _unpack(item, arrays) for key, item in value[_PAIRS]}
        return {key: _unpack(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    return value
