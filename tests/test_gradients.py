"""Every backward operator against central differences in float64: random cotangent, away from kinks."""

from __future__ import annotations

import numpy as np
import pytest

import fastarch as fa
from cases import GRADIENTS, Gradient
from conftest import Backend, seeded

STEP = 1e-5  # error of a difference: STEP^2 from the third derivative, 1e-16 / STEP from rounding
TOLERANCE = 1e-8


@pytest.mark.parametrize("gradient", GRADIENTS, ids=str)
def test_backward_is_the_slope_of_forward(gradient: Gradient, backend: Backend) -> None:
    rng = seeded(str(gradient))
    inputs = [np.ascontiguousarray(array) for array in gradient.inputs(rng)]

    def forward(arrays: list[np.ndarray]) -> np.ndarray:
        return backend.host(gradient.forward(fa.ops, *(backend.put(array) for array in arrays)))

    with fa.backend(backend.name):
        dy = rng.standard_normal(forward(inputs).shape)
        slopes = gradient.backward(fa.ops, backend.put(dy), *(backend.put(array) for array in inputs))
        assert len(slopes) == len(inputs)
        for index, (array, slope) in enumerate(zip(inputs, slopes, strict=True)):
            if array.dtype != np.float64:
                assert slope is None
                continue
            want = np.zeros(array.shape)
            for element in np.ndindex(array.shape):
                ends = []
                for sign in (1.0, -1.0):
                    moved = array.copy()
                    moved[element] += sign * STEP
                    ends.append(float(np.sum(dy * forward([*inputs[:index], moved, *inputs[index + 1 :]]))))
                want[element] = (ends[0] - ends[1]) / (2 * STEP)
            np.testing.assert_allclose(
                backend.host(slope),
                want,
                rtol=TOLERANCE,
                atol=TOLERANCE,
                err_msg=f"input {index} of {gradient}",
            )
