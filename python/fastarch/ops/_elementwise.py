"""Array-generic elementwise work that operators share: activations, and a number or zero by a mask."""

from __future__ import annotations

from typing import Any

from fastarch.arrays import Array

# exp(_LARGEST_EXPONENT) is still finite; beyond it the sigmoid is 0 to the dtype's precision anyway.
_LARGEST_EXPONENT = {4: 88.0, 8: 709.0}

_BITS = {4: "uint32", 8: "uint64"}


def choose(mask: Array, x: Array, out: Array | None, xp: Any) -> Array:
    """x where `mask`, else 0, in `out` (which may be x) or a new array.

    The bits of x are multiplied by 0 or 1 as integers: many times faster than a masked copy, and unlike a
    product of floats it gives 0 for a NaN or infinity that is not chosen.
    """
    bits = _BITS[x.dtype.itemsize]
    if out is None:
        return xp.multiply(x.view(bits), mask).view(x.dtype)
    xp.multiply(x.view(bits), mask, out=out.view(bits))
    return out


def activation_forward(x: Array, y: Array, kind: int, xp: Any) -> None:
    """y = f(x), overwritten; y may be x. kind: a value of ACTIVATIONS."""
    if kind == 1:
        xp.maximum(x, 0, out=y)
    elif kind == 2:
        xp.tanh(x, out=y)
    elif kind == 3:
        xp.multiply(x, -1, out=y)  # not negative: NumPy 2.4's is wrong where elements lie apart
        xp.minimum(y, _LARGEST_EXPONENT[y.dtype.itemsize], out=y)
        xp.exp(y, out=y)
        y += 1
        xp.reciprocal(y, out=y)
    elif y is not x:
        y[...] = x


def activation_backward(dy: Array, y: Array, dx: Array, kind: int, xp: Any) -> None:
    """dx = dy * f'(x) from y = f(x), overwritten; dx may be dy."""
    if kind == 1:
        gone = xp.less_equal(y, 0, out=xp.empty(y.shape, bool))  # a NaN lets dy through, as in PyTorch
        choose(xp.logical_not(gone, out=gone), dy, dx, xp)
    elif kind == 2:
        slope = xp.multiply(y, y, out=xp.empty(y.shape, y.dtype))
        xp.subtract(1, slope, out=slope)
        xp.multiply(dy, slope, out=dx)
    elif kind == 3:
        slope = xp.subtract(1, y, out=xp.empty(y.shape, y.dtype))
        slope *= y
        xp.multiply(dy, slope, out=dx)
    elif dx is not dy:
        dx[...] = dy
