"""ReLU, tanh and the logistic sigmoid, elementwise on arrays of any shape."""

from __future__ import annotations

from typing import Any

from fastarch.ops._boundary import ACTIVATIONS, Array, empty, expect_shape, operator, run
from fastarch.ops._select import choose

# exp(LARGEST_EXPONENT) is still finite; beyond it the sigmoid is 0 to the dtype's precision anyway.
_LARGEST_EXPONENT = {4: 88.0, 8: 709.0}


@operator("x")
def relu(x: Array) -> Array:
    """max(x, 0) for x of any shape, float32 or float64; NaN stays NaN. Nair and Hinton (2010)."""
    return _forward("relu", x)


@operator("dy", "y")
def relu_backward(dy: Array, y: Array) -> Array:
    """Gradient of relu from its output y: 0 where y <= 0, else dy. dy and y have one shape."""
    return _backward("relu", dy, y)


@operator("x")
def tanh(x: Array) -> Array:
    """Hyperbolic tangent of x of any shape, float32 or float64."""
    return _forward("tanh", x)


@operator("dy", "y")
def tanh_backward(dy: Array, y: Array) -> Array:
    """Gradient of tanh from its output y: dy * (1 - y*y). dy and y have one shape."""
    return _backward("tanh", dy, y)


@operator("x")
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) for x of any shape, float32 or float64."""
    return _forward("sigmoid", x)


@operator("dy", "y")
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


def activation_forward(x: Array, y: Array, kind: int, xp: Any) -> None:
    """y = f(x), overwritten; y may be x. kind: a value of ACTIVATIONS."""
    if kind == 1:
        xp.maximum(x, 0, out=y)
    elif kind == 2:
        xp.tanh(x, out=y)
    elif kind == 3:
        xp.negative(x, out=y)
        xp.minimum(y, _LARGEST_EXPONENT[y.dtype.itemsize], out=y)
        xp.exp(y, out=y)
        y += 1
        xp.reciprocal(y, out=y)
    elif y is not x:
        y[...] = x


def activation_backward(dy: Array, y: Array, dx: Array, kind: int, xp: Any) -> None:
    """dx = dy * f'(x) from y = f(x), overwritten; dx may be dy."""
    if kind == 1:
        gone = y <= 0  # a NaN lets dy through, as in PyTorch
        choose(xp.logical_not(gone, out=gone), dy, dx, xp)
    elif kind == 2:
        slope = y * y
        xp.subtract(1, slope, out=slope)
        xp.multiply(dy, slope, out=dx)
    elif kind == 3:
        slope = 1 - y
        slope *= y
        xp.multiply(dy, slope, out=dx)
    elif dx is not dy:
        dx[...] = dy
