"""Samples of random units that are the same on every backend: array-generic, and the definition of the
compiled ones (csrc/core/sampling.h).

A backend's own exp or log may differ from another's in the last bit, and then now and then a sample does. So
these are built from additions, multiplications, divisions and square roots alone, each of which is rounded
once, in one order, never fused: equal pre-activations give equal bits. Probabilities are right to 1e-7 in
float32.

Element (row, column) of a layer of `columns` units takes word column % 4 of the Philox position
step * 2**40 + row * ceil(columns / 4) + column // 4, so that a row's samples do not depend on how many rows
there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import Array
from fastarch.random import philox

STEP_BITS = 40  # of positions: a step has 2**40 of them
MOST_STEPS = 1 << 21  # so that the number of a word, 4 a position, is a 63-bit one

_BLOCK = 1 << 15  # elements that pass through all the operations before the next ones do: they stay in cache


class _Format:
    """What the arithmetic needs of a float type, as numbers of that type: NumPy is quicker with those."""

    def __init__(self, bits: int, mantissa: int, root_half: int, tables: tuple[list[float], ...]) -> None:
        self.integer = f"int{bits}"
        self.mantissa = mantissa
        bias = (1 << (bits - mantissa - 2)) - 1
        number = np.dtype(f"float{bits}").type
        self.log2_e, self.minus_log2_e = number(1.4426950408889634), number(-1.4426950408889634)
        self.ln_2, self.one = number(0.6931471805599453), number(1)
        # Of an exponent, so that powers of two stay normal numbers.
        self.least, self.most = number(2 - bias), number(bias - 2)
        # Adding it rounds to an integer, which the lowest bits then hold as the exponent of a power of two.
        self.round = number(1.5 * 2.0**mantissa + bias)
        self.root_half = root_half  # the bits of sqrt(1/2)
        self.exp2, self.log, self.sin, self.cos = ([number(c) for c in table] for table in tables)
        self.words = number(2.0**24 if bits == 32 else 2.0**32)  # of random words that there is room for


# Chebyshev fits, lowest coefficient first. exp2: (2^f - 1) / f for |f| <= 1/2; log: ln((1 + s) / (1 - s)) / s
# in s^2; sin, cos: sin(pi/2 g) / g and (cos(pi/2 g) - 1) / g^2 in g^2, for |g| <= 1/2.
_FORMATS = {
    4: _Format(
        32,
        23,
        0x3F3504F3,
        (
            [0.6931471824645996, 0.2402234971523285, 0.055503811687231064, 0.00966636836528778,
             0.0013381302123889327],
            [2.0, 0.666668176651001, 0.3997485041618347, 0.29924389719963074],
            [1.5707963705062866, -0.6459634900093079, 0.07968021929264069, -0.004602149128913879],
            [-1.2337005138397217, 0.253669410943985, -0.02086152881383896, 0.0009067399078048766],
        ),
    ),
    8: _Format(
        64,
        52,
        0x3FE6A09E667F3BCD,
        (
            [0.6931471805599453, 0.24022650695910097, 0.0555041086648216, 0.009618129107606888,
             0.0013333558146416936, 0.0001540353044173605, 1.525273382983612e-05, 1.321544258792169e-06,
             1.0178062445845774e-07, 7.072585949269223e-09, 4.4549605981865186e-10],
            [2.0, 0.6666666666666666, 0.40000000000007496, 0.2857142856881913, 0.2222222267692954,
             0.18181773738016305, 0.1538716092613408, 0.13248763083460116, 0.13262103674021808],
            [1.5707963267948966, -0.6459640975062443, 0.07969262624604301, -0.004681754132340976,
             0.0001604411407509421, -3.59864335298231e-06, 5.633933781537854e-08],
            [-1.2337005501361697, 0.2536695079010478, -0.020863480763340773, 0.0009192602745468447,
             -2.5202039028029178e-05, 4.710678405505227e-07, -6.329396344967424e-09],
        ),
    ),
}  # fmt: skip


def words_of(rows: int, columns: int, seed: int, offset: int, step: int, xp: Any) -> Array:
    """A random word for each element of a layer at this step: [rows, columns] uint32."""
    width = 4 * ((columns + 3) // 4)
    words = philox(rows * width, seed, offset, xp, step << (STEP_BITS + 2))
    return words.reshape(rows, width)[:, :columns]


def sigmoid(x: Array, xp: Any) -> None:
    """x = 1 / (1 + exp(-x)), in place; x is contiguous. NaN stays NaN."""
    form = _FORMATS[x.dtype.itemsize]
    flat = x.reshape(-1)
    size = min(flat.size, _BLOCK)
    q, n = xp.empty(size, x.dtype), xp.empty(size, x.dtype)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        part *= form.minus_log2_e
        _exp2(part, q[: part.size], n[: part.size], form, xp)
        part += form.one
        xp.reciprocal(part, out=part)


def exponential(x: Array, xp: Any) -> None:
    """x = exp(x), in place, for x <= 0; below the smallest normal number it is that one."""
    form = _FORMATS[x.dtype.itemsize]
    x *= form.log2_e
    _exp2(x, xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype), form, xp)


def _exp2(x: Array, q: Array, n: Array, form: _Format, xp: Any) -> None:
    """x = 2^x, in place, x held within the exponents of normal numbers. q, n: room for as much."""
    x.clip(form.least, form.most, out=x)  # NaN passes
    xp.add(x, form.round, out=n)
    xp.subtract(n, form.round, out=q)
    x -= q
    _polynomial(form.exp2, x, q, xp)
    x *= q
    x += form.one
    bits = n.view(form.integer)
    bits <<= form.mantissa  # all else falls out on the left
    x *= n


def _polynomial(coefficients: list[Any], x: Array, out: Array, xp: Any) -> None:
    """out = the polynomial at x, by Horner's rule; out is other memory than x."""
    xp.multiply(x, coefficients[-1], out=out)
    for c in coefficients[-2:0:-1]:
        out += c
        out *= x
    out += coefficients[0]


def bernoulli(words: Array, p: Array, out: Array, xp: Any) -> None:
    """out = 1 where word < p * 2^32, else 0, the upper 24 bits of both in float32; p of NaN gives 0."""
    bar = p * _FORMATS[p.dtype.itemsize].words
    if p.dtype.itemsize == 4:
        words = (words >> 8).view("int32")  # signed ones convert faster
    xp.copyto(out, words.astype(p.dtype) < bar)


def normal(rows: int, columns: int, dtype: Any, seed: int, offset: int, step: int, xp: Any) -> Array:
    """A standard normal number for each element: [rows, columns]. Box and Muller (1958).

    Of each two columns the even one takes the cosine and the odd one the sine; the even one's word gives the
    radius, the odd one's the angle.
    """
    width = 4 * ((columns + 3) // 4)
    words = philox(rows * width, seed, offset, xp, step << (STEP_BITS + 2)).reshape(-1, 2)
    form = _FORMATS[xp.dtype(dtype).itemsize]
    x = words[:, 0].astype(dtype)
    x += 0.5
    radius = _root_of_log(x, form, xp)

    turn = xp.ascontiguousarray(words[:, 1])
    g = (turn << 2).view("int32").astype(dtype)
    g *= 2.0**-32
    square = g * g
    sine, cosine = xp.empty_like(g), xp.empty_like(g)
    _polynomial(form.sin, square, sine, xp)
    sine *= g
    _polynomial(form.cos, square, cosine, xp)
    cosine *= square
    cosine += 1
    xp.negative(radius, out=radius, where=(turn >> 31).astype(bool))
    sine *= radius
    cosine *= radius
    swapped = (turn >> 30 & 1).astype(bool)
    out = xp.empty((rows * width // 2, 2), dtype)
    out[:, 0] = xp.where(swapped, sine, cosine)
    out[:, 1] = xp.where(swapped, cosine, sine)
    return out.reshape(rows, width)[:, :columns]


def _root_of_log(x: Array, form: _Format, xp: Any) -> Array:
    """sqrt(-2 ln(x / 2^32)) for 0 < x <= 2^32."""
    bits = x.view(form.integer)
    exponent = (bits - form.root_half) >> form.mantissa
    m = (bits - (exponent << form.mantissa)).view(x.dtype)  # sqrt(1/2) <= m < sqrt(2)
    s = m - 1
    m += 1
    s /= m
    q = xp.empty_like(s)
    _polynomial(form.log, s * s, q, xp)
    q *= s
    e = (exponent - 32).astype(x.dtype)
    e *= form.ln_2
    e += q
    e *= -2
    return xp.sqrt(e, out=e)


def softmax_groups(a: Array, group: int, xp: Any) -> None:
    """a [M, n * group] becomes the softmax of each group of neighbours, in place; sums run left to right."""
    x = a.reshape(-1, group)
    x -= x.max(axis=1, keepdims=True)
    exponential(x, xp)
    x /= xp.cumsum(x, axis=1)[:, -1:]


def one_of_group(words: Array, p: Array, group: int, out: Array, xp: Any) -> None:
    """One-hot samples of groups with the probabilities p [M, n * group]; words [M, n], one a group.

    The unit whose share of the cumulative sum the uniform number falls into.
    """
    sums = xp.cumsum(p.reshape(-1, group), axis=1)
    single = p.dtype.itemsize == 4
    u = (words >> 8 if single else words).astype(p.dtype).reshape(-1)
    u *= 2.0**-24 if single else 2.0**-32
    bar = u * sums[:, -1]
    chosen = (sums[:, :-1] <= bar[:, None]).sum(axis=1)
    out.reshape(-1, group)[...] = chosen[:, None] == xp.arange(group)


def softplus(x: Array, xp: Any) -> Array:
    """ln(1 + exp(x)), to rounding: for means and energies, which no sample depends on."""
    y = xp.abs(x)
    xp.negative(y, out=y)
    xp.exp(y, out=y)
    xp.log1p(y, out=y)
    y += xp.maximum(x, 0)
    return y
