"""Elementwise choice between a number and zero, at the speed of a multiplication."""

from __future__ import annotations

from typing import Any

from fastarch.arrays import Array

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
