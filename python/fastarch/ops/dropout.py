"""Dropout whose mask is a function of (seed, offset), so that nothing needs to be stored for the backward."""

from __future__ import annotations

from typing import Any

from fastarch.ops._boundary import Array, empty, operator, random_offset, random_seed, run
from fastarch.random import philox

_BLOCK = 1 << 18  # elements whose random words are held at a time


@operator("x", halves=True)
def dropout(x: Array, p: float, seed: int, offset: Any) -> Array:
    """x / (1 - p) where kept, else 0; each element is dropped with probability p. Srivastava et al. (2014).

    x of any shape; p in [0, 1], exact to 2**-32; seed and offset in [0, 2**64) name the Philox stream:
    element i of the flattened x is kept when the stream's word i is at least floor(p * 2**32). offset may
    also be an array [1] of int64 where x lies, whose bits are read when the kernel runs: in a CUDA graph each
    replay can draw anew. Raises ValueError for p out of range.
    """
    return _apply("dropout", x, p, seed, offset)


@operator("dy", halves=True)
def dropout_backward(dy: Array, p: float, seed: int, offset: Any) -> Array:
    """Gradient of dropout called with the same p, seed and offset: dy / (1 - p) where kept, else 0."""
    return _apply("dropout_backward", dy, p, seed, offset)


def _apply(op: str, x: Array, p: float, seed: int, offset: Any) -> Array:
    try:
        p = float(p)
    except (TypeError, ValueError):
        raise TypeError(f"[{op}] p is {p!r}, expected a number in [0, 1]") from None
    if not 0 <= p <= 1:
        raise ValueError(f"[{op}] p is {p}, expected a probability in [0, 1]")
    seed, (offset, word) = random_seed(op, seed), random_offset(op, offset, x)
    y = empty(op, x.shape, x)
    if y.size:
        run("dropout_forward", dropout_forward, (x,), y, p, seed, offset, word)
    return y


def dropout_forward(
    x: Array, y: Array, p: float, seed: int, offset: int, word: Array | None, xp: Any
) -> None:
    """y = x / (1 - p) where kept, else 0, overwritten; y is contiguous. word: None, or [1], the offset."""
    stream = offset if word is None else word
    threshold = int(p * 2**32)
    if threshold == 2**32:
        y[...] = 0
        return
    scale = y.dtype.type(1 / (1 - p))
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for start in range(0, y.size, _BLOCK):
        part = slice(start, min(start + _BLOCK, y.size))
        dropped = philox(part.stop - start, seed, stream, xp, start) < threshold
        xp.multiply(flat_x[part], scale, out=flat_y[part])
        flat_y[part][dropped] = 0
