"""The table of units that the resident recurrent kernels take, against the kernels and the documentation."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import fastarch as fa
from conftest import FLOATS, Backend

ROOT = Path(__file__).resolve().parent.parent
_SPEC = importlib.util.spec_from_file_location("recurrent_capacity", ROOT / "tools/recurrent_capacity.py")
assert _SPEC is not None
assert _SPEC.loader is not None
capacity = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = capacity
_SPEC.loader.exec_module(capacity)

EMULATED = capacity.Device("emulated", "emulator", 227 * 1024, 2, True)


def run(kind: str, dtype: np.dtype, units: int, algorithm: str, backward: bool) -> None:
    width, t, n = capacity.GATES[kind] * units, 2, 4
    name, h = kind.lower(), np.zeros((n, units), dtype)
    states = (h, h) if kind == "LSTM" else (h,)
    weights = np.full((width, 1), 0.1, dtype), np.full((width, units), 0.1 / units, dtype)
    chosen = "step" if backward else algorithm  # where only the backward is too large
    y, _, saved = getattr(fa.ops, name)(np.ones((t, n, 1), dtype), *states, *weights, algorithm=chosen)
    if backward:
        saved = dataclasses.replace(saved, algorithm={"persistent": 2, "cluster": 3}[algorithm])
        getattr(fa.ops, f"{name}_backward")(y, *([None] * len(states)), saved)


@pytest.mark.backends("emulator")
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("algorithm", ["persistent", "cluster"])
def test_the_kernels_take_as_many_units_as_the_table_says(
    algorithm: str, kind: str, dtype: str, backward: bool, backend: Backend
) -> None:
    itemsize = FLOATS[dtype].itemsize
    most = capacity.largest(EMULATED, algorithm, capacity.GATES[kind], itemsize, backward)
    with fa.backend(backend.name):
        run(kind, FLOATS[dtype], most, algorithm, backward)
        with pytest.raises(ValueError, match=rf"algorithm '{algorithm}': .* do not fit"):
            run(kind, FLOATS[dtype], most + 1, algorithm, backward)


@pytest.mark.parametrize("algorithm", ["persistent", "cluster"])
def test_the_documentation_has_the_table(algorithm: str) -> None:
    text = (ROOT / "docs/kernels-recurrent.md").read_text()
    assert capacity.table(algorithm) in text, "run tools/recurrent_capacity.py and put its tables there"
