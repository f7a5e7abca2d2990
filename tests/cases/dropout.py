"""Dropout: cases and the definition, with a Philox of its own in plain Python integers."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout

_MASK = 0xFFFFFFFF


def philox(seed: int, offset: int, position: int) -> tuple[int, int, int, int]:
    """The four words of Philox4x32-10: counter (position, offset), key seed, 64 bits each, low word first.

    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
    """
    c0, c1, c2, c3 = position & _MASK, position >> 32 & _MASK, offset & _MASK, offset >> 32 & _MASK
    k0, k1 = seed & _MASK, seed >> 32 & _MASK
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def dropout(x, p, seed, offset):
    """y_i = x_i / (1 - p) where word i of the stream is at least p * 2^32, else 0."""
    y = np.zeros(x.size)
    threshold = math.floor(p * 2**32)
    for i, value in enumerate(x.ravel()):
        if philox(seed, offset, i // 4)[i % 4] >= threshold:
            y[i] = float(value) / (1.0 - p)
    return y.reshape(x.shape)


def dropout_backward(dy, p, seed, offset):
    """The same elements, the same factor."""
    return dropout(dy, p, seed, offset)


# id: (shape, p, seed, offset)
_CALLS = {
    "one": ((1,), 0.5, 0, 0),
    "keeps_all": ((3, 5), 0.0, 1, 2),
    "drops_all": ((3, 5), 1.0, 1, 2),
    "primes": ((7, 13), 0.3, 42, 7),
    "odd_tail": ((2, 3, 5, 7), 0.9, 3, 1),
    "over_a_block": ((1, 1031), 0.5, 12345, 678),
    "wide_seed": ((5, 7), 0.25, 2**64 - 1, 2**63 + 12345),
    "nearly_one": ((11,), 1.0 - 2.0**-20, 5, 9),
    "tiny_p": ((11,), 1e-12, 5, 9),
    "empty": ((0, 3), 0.5, 1, 1),
}


def _make(argument, shape, p, seed, offset, rng, dtype) -> Arguments:
    return {argument: rng.standard_normal(shape).astype(dtype), "p": p, "seed": seed, "offset": offset}


CASES = [
    *(Case("dropout", i, partial(_make, "x", *call), dropout) for i, call in _CALLS.items()),
    *in_every_layout(Case("dropout", "layout", partial(_make, "x", (3, 5, 7), 0.4, 11, 13), dropout))[1:],
    *(
        Case("dropout_backward", i, partial(_make, "dy", *call), dropout_backward)
        for i, call in _CALLS.items()
    ),
    *in_every_layout(
        Case("dropout_backward", "layout", partial(_make, "dy", (3, 5, 7), 0.4, 11, 13), dropout_backward)
    )[1:],
]

GRADIENTS = [
    Gradient(
        "dropout_backward",
        "fixed_mask",
        lambda rng: (rng.standard_normal((5, 7)),),
        lambda ops, x: ops.dropout(x, 0.4, seed=3, offset=1),
        lambda ops, dy, x: (ops.dropout_backward(dy, 0.4, seed=3, offset=1),),
    )
]
