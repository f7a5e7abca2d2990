"""ReLU, tanh and the logistic sigmoid, elementwise on arrays of any shape."""

from __future__ import annotations

from fastarch.ops._boundary import ACTIVATIONS, Array, empty, expect_shape, operator, run
from fastarch.ops._elementwise import activation_backward, activation_forward


@operator("x", halves=True)
def relu(x: Array) -> Array:
    """max(x, 0) for x of any shape, of any float type; NaN stays NaN. Nair and Hinton (2010)."""
    return _forward("relu", x)


@operator("dy", "y", halves=True)
def relu_backward(dy: Array, y: Array) -> Array:
    """Gradient of relu from its output y: 0 where y <= 0, else dy. dy and y have one shape."""
    return _backward("relu", dy, y)


@operator("x", halves=True)
def tanh(x: Array) -> Array:
    """Hyperbolic tangent of x of any shape, of any float type."""
    return _forward("tanh", x)


@operator("dy", "y", halves=True)
def tanh_backward(dy: Array, y: Array) -> Array:
    """Gradient of tanh from its output y: dy * (1 - y*y). dy and y have one shape."""
    return _backward("tanh", dy, y)


@operator("x", halves=True)
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) for x of any shape, of any float type."""
    return _forward("sigmoid", x)


@operator("dy", "y", halves=True)
def sigmoid_backward(dy: Array, y: Array) -> Array:
    """Gradient of sigmoid from its output y: dy * y * (1 - y). dy and y have one shape."""
    return _backward("sigmoid", dy, y)


def _forward(name: str, x: Array) -> Array:
    y = empty(name, x.shape, x)
    if y.size:
        run("activation_forward", activation_forward, (x,), y, ACTIVATIONS[name])
    return y


def _backward(name: str, dy: Array, y: Array) -> Array:
    expect_shape(f"{name}_backward", "dy", dy, y.shape)
    dx = empty(f"{name}_backward", y.shape, y)
    if dx.size:
        run("activation_backward", activation_backward, (dy, y), dx, ACTIVATIONS[name])
    return dx
