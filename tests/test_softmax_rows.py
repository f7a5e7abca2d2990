"""Rows with infinities and NaN, short ones in registers and long ones in one pass: as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import FLOATS, Backend, seeded

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

INF, NAN = float("inf"), float("nan")
# What stands at the places first, middle and last of a row of numbers; "all" fills it.
SPECIAL = {
    "masked ends": {"first": -INF, "last": -INF},
    "one number": {"all": -INF, "middle": 3.0},
    "nothing but -inf": {"all": -INF},
    "inf": {"middle": INF},
    "inf first": {"first": INF, "last": -INF},
    "nan first": {"first": NAN},
    "nan last": {"last": NAN},
    "nan among -inf": {"all": -INF, "first": NAN, "last": 1.0},
    "far apart": {"all": -2e4, "last": 2e4},
    "ever larger": {"all": "ascending"},
}


def rows(length: int) -> np.ndarray:
    rng = seeded(f"rows {length}")
    x = rng.standard_normal((len(SPECIAL), length))
    for row, places in zip(x, SPECIAL.values(), strict=True):
        for place, value in places.items():
            if value == "ascending":
                row[:] = np.linspace(-50, 50, length)
            elif place == "all":
                row[:] = value
            else:
                row[{"first": 0, "middle": length // 2, "last": length - 1}[place]] = value
    return x


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("length", [5, 16, 63, 96, 1000, 1024, 1031, 2056, 4096])
def test_softmax_is_pytorch_s(length: int, dtype: str, backend: Backend) -> None:
    x = rows(length).astype(FLOATS[dtype])
    target = np.arange(len(x)) * 7 % length
    wide = torch.tensor(x.astype(np.float64))
    want = torch.softmax(wide, -1).numpy()
    losses = torch.nn.functional.cross_entropy(wide, torch.tensor(target), reduction="none").numpy()
    with np.errstate(all="ignore"):
        y = backend.call("softmax", {"x": backend.put(x)})
        loss, probs = backend.call("cross_entropy", {"logits": backend.put(x), "target": backend.put(target)})
    tolerance = {"float32": 2e-6, "float64": 1e-13, "float16": 5e-4, "bfloat16": 4e-3}[dtype]
    for array in (y, probs):
        got = backend.host(array).astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=str(list(SPECIAL)))
    got = backend.host(loss).astype(np.float64)
    np.testing.assert_allclose(got, losses, rtol=5 * tolerance, atol=5 * tolerance)
