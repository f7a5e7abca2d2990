"""The backward of operators that compute an activation in the same pass."""

from __future__ import annotations

from fastarch import ops
from fastarch.autograd import Array

ACTIVATION_BACKWARD = {"relu": ops.relu_backward, "tanh": ops.tanh_backward, "sigmoid": ops.sigmoid_backward}


def before_activation(dy: Array, y: Array, activation: str | None) -> Array:
    """The gradient of the pre-activation values, from the output that a fused operator gave."""
    return dy if activation is None else ACTIVATION_BACKWARD[activation](dy, y)
