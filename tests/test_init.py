"""Initial values: ranges, variances, and the same numbers for the same seed."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from fastarch import nn
from fastarch.nn import init


def weight(*shape: int) -> Any:
    return nn.Parameter(np.full(shape, np.nan, np.float32))


@pytest.mark.parametrize(
    ("fill", "variance", "bound"),
    [
        (lambda w: init.uniform_(w, -2, 4), 3.0, (-2, 4)),
        (lambda w: init.normal_(w, 0, 0.5), 0.25, None),
        (lambda w: init.xavier_uniform_(w, 2.0), 4 * 2 / (450 + 900), None),
        (lambda w: init.xavier_normal_(w), 2 / (450 + 900), None),
        (lambda w: init.kaiming_uniform_(w), 2 / 450, (-sqrt(6 / 450), sqrt(6 / 450))),
        (lambda w: init.kaiming_uniform_(w, a=sqrt(5)), 1 / (3 * 450), (-1 / sqrt(450), 1 / sqrt(450))),
        (lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"), 2 / 900, None),
        (lambda w: init.kaiming_normal_(w, nonlinearity="tanh"), 25 / 9 / 450, None),
    ],
)
def test_variance_and_range(fill: Any, variance: float, bound: tuple[float, float] | None) -> None:
    w = weight(100, 50, 3, 3)  # fan in 450, fan out 900
    fa.manual_seed(3)
    assert fill(w) is w
    values = w.data.astype(np.float64)
    assert np.isfinite(values).all()
    mean = 1.0 if bound == (-2, 4) else 0.0
    assert abs(values.mean() - mean) < 6 * sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=0.03)
    if bound is not None:
        low, high = bound
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high


def test_constants() -> None:
    assert (init.constant_(weight(3), 2.5).data == 2.5).all()
    assert (init.zeros_(weight(3)).data == 0).all()
    assert (init.ones_(weight(3)).data == 1).all()


def test_gains() -> None:
    assert init.calculate_gain("relu") == sqrt(2)
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("linear") == 1
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(sqrt(2 / 1.04))
    assert init.calculate_gain("leaky_relu") == pytest.approx(sqrt(2 / 1.0001))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"\[calculate_gain\] got 'swish'"):
        init.calculate_gain("swish")
    with pytest.raises(ValueError, match=r"\[init\] a weight of shape \(3,\) has no fan"):
        init.kaiming_uniform_(weight(3))
    with pytest.raises(ValueError, match=r"\[init\] mode must be 'fan_in' or 'fan_out'"):
        init.kaiming_normal_(weight(3, 3), mode="fan_avg")


def test_layers_start_as_in_pytorch() -> None:
    fa.manual_seed(0)
    for layer, fan_in in ((nn.Linear(200, 300), 200), (nn.Conv2d(32, 64, 3, groups=2), 144)):
        bound = 1 / sqrt(fan_in)
        for parameter in layer.parameters():
            values = parameter.data
            assert parameter.dtype == np.float32
            assert abs(values).max() <= bound
            assert abs(values).max() > 0.9 * bound
            assert values.var() == pytest.approx(bound**2 / 3, rel=0.25)


def test_the_seed_decides_every_bit() -> None:
    def draw() -> list[bytes]:
        fa.manual_seed(12)
        return [p.data.tobytes() for p in nn.Sequential(nn.Conv2d(1, 6, 5), nn.Linear(84, 10)).parameters()]

    first = draw()
    assert draw() == first
    with fa.backend("numpy"):
        assert draw() == first
    fa.manual_seed(13)
    assert nn.Conv2d(1, 6, 5).weight.data.tobytes() != first[0]
