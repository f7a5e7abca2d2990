"""Dropout whose mask is a function of (seed, offset), so that nothing needs to be stored for the backward."""

from __future__ import annotations

from typing import Any

from fastarch.ops._boundary import Array, empty, integer, operator, run
from fastarch.random import philox

_BLOCK = 1 << 18  # elements whose random words are held at a time


@operator("x", halves=True)
def dropout(x: Array, p: float, seed: int, offset: int) -> Array:
    """x / (1 - p) where kept, else 0; each element is dropped with probability p. Srivastava et al. (2014).

    x of any shape; p in [0, 1], exact to 2**-32; seed and offset in [0, 2**64) name the Philox stream:
    element i of the flattened x is kept when the stream's word i is at least floor(p * 2**32). Raises
    ValueError for p out of range.
    """
    return _apply("dropout", x, p, seed, offset)


@operator("dy", halves=True)
def dropout_backward(dy: Array, p: float, seed: int, offset: int) -> Array:
    """Gradient of dropout called with the same p, seed and offset: dy / (1 - p) where kept, else 0."""
    return _apply("dropout_backward", dy, p, seed, offset)


def _apply(op: str, x: Array, p: float, seed: int, offset: int) -> Array:
    try:
        p = float(p)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] p is {p!r}, expected a number in [0, 1]") from None
    if not 0 <= p <= 1:
        raise ValueError(f"[{op}] p is {p}, expected a probability in [0, 1]")
    seed, offset = _word64(op, "seed", seed), _word64(op, "offset", offset)
    y = empty(op, x.shape, x)
    if y.size:
        run("dropout_forward", dropout_forward, (x,), y, p, seed, offset)
    return y


def _word64(op: str, name: str, value: Any) -> int:
    value = integer(op, name, value)
    if not 0 <= value < 2**64:
        raise ValueError(f"[{op}] {name} is {value}, expected 0 to 2**64 - 1")
    return value


def dropout_forward(x: Array, y: Array, p: float, seed: int, offset: int, xp: Any) -> None:
    """y = x / (1 - p) where kept, else 0, overwritten; y is contiguous."""
    threshold = int(p * 2**32)
    if threshold == 2**32:
        y[...] = 0
        return
    scale = y.dtype.type(1 / (1 - p))
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for start in range(0, y.size, _BLOCK):
        part = slice(start, min(start + _BLOCK, y.size))
        dropped = philox(part.stop - start, seed, offset, xp, start) < threshold
        xp.multiply(flat_x[part], scale, out=flat_y[part])
        flat_y[part][dropped] = 0
