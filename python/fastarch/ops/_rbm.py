"""Restricted Boltzmann machines, array-generic: what the compiled kernels of the family compute.

The kinds of units and their numbers, half steps, the phases of contrastive divergence, and the two ways to
use them: the gradient, and the update in place. B rows of data, C chains, V visible and H hidden units.
"""

from __future__ import annotations

from typing import Any

from fastarch.ops import _sampling as sampling
from fastarch.ops._boundary import Array

BERNOULLI, GAUSSIAN, RELU, SOFTMAX = range(4)
HIDDEN_UNITS = {"bernoulli": BERNOULLI, "gaussian": GAUSSIAN, "relu": RELU}
VISIBLE_UNITS = {"bernoulli": BERNOULLI, "gaussian": GAUSSIAN, "softmax": SOFTMAX}


def rbm_half_step(
    x: Array,
    w: Array,
    bias: Array,
    sigma: Array | None,
    clamp: Array | None,
    held: Array | None,
    mean: Array | None,
    sample: Array | None,
    down: bool,
    unit: int,
    group: int,
    seed: int,
    offset: int,
    step: int,
    xp: Any,
) -> None:
    """Half of a Gibbs step: x [B, I], w [V, H], bias [O]; mean, sample [B, O], overwritten; either is None.

    down: from hidden to visible, I = H and O = V; else up. sigma [O] scales the noise of Gaussian units.
    Where clamp [B, O] is not zero, sample takes what held [B, O] has. group: units in a softmax.
    """
    a = xp.empty((len(x), w.shape[0 if down else 1]), x.dtype) if mean is None else mean
    xp.matmul(x, w.T if down else w, out=a)
    a += bias
    rows, columns = a.shape
    if unit == GAUSSIAN:
        if sample is not None:
            noise = sampling.normal(rows, columns, a.dtype, seed, offset, step, xp)
            xp.multiply(noise, 1 if sigma is None else sigma, out=sample)
            sample += a
    elif unit == RELU:
        if sample is not None:
            spread = a.copy()
            sampling.sigmoid(spread, xp)
            xp.sqrt(spread, out=spread)
            spread *= sampling.normal(rows, columns, a.dtype, seed, offset, step, xp)
            spread += a
            xp.maximum(spread, 0, out=sample)
        if mean is not None:
            mean[...] = sampling.softplus(a, xp)
    elif unit == SOFTMAX:
        sampling.softmax_groups(a, group, xp)
        if sample is not None:
            words = sampling.words_of(rows, columns, seed, offset, step, xp)[:, : columns // group]
            sampling.one_of_group(words, a, group, sample, xp)
    else:
        sampling.sigmoid(a, xp)
        if sample is not None:
            words = sampling.words_of(rows, columns, seed, offset, step, xp)
            sampling.bernoulli(words, a, sample, xp)
    if clamp is not None:
        xp.copyto(sample, held, where=clamp != 0)


def rbm_phases(
    v: Array,
    w: Array,
    w_up: Array,
    b_visible: Array,
    b_hidden: Array,
    chain: Array | None,
    sigma: Array | None,
    clamp: Array | None,
    h0: Array,
    vk: Array,
    hk: Array,
    k: int,
    visible: int,
    hidden: int,
    group: int,
    seed: int,
    offset: int,
    xp: Any,
) -> None:
    """Both phases: h0 [B, H], the means given the data v [B, V]; vk [C, V], samples after k Gibbs steps from
    `chain` [C, V] (None: from v); hk [C, H], their means. All overwritten.

    w_up [V, H] leads from visible to hidden units: w, or for Gaussian visibles w / sigma^2. The steps of the
    random positions are 0 for the first sample of hidden units, 1 for the visible ones that follow, and so
    on. Where clamp [C, V] is not zero, visible units stay as the chains start.
    """
    h = xp.empty(hk.shape, v.dtype)
    up = (None, None, None)
    start = v if chain is None else chain
    x = start
    for i in range(k):
        mean = h0 if i == 0 and chain is None else None
        rbm_half_step(x, w_up, b_hidden, *up, mean, h, False, hidden, 1, seed, offset, 2 * i, xp)
        down = (sigma, clamp, start, None, vk)
        rbm_half_step(h, w, b_visible, *down, True, visible, group, seed, offset, 2 * i + 1, xp)
        x = vk
    if chain is None:
        rbm_half_step(vk, w_up, b_hidden, *up, hk, None, False, hidden, 1, seed, offset, 2 * k, xp)
        return
    # The means of both phases at once: on small arrays every operation saved counts.
    rows = len(v)
    means = xp.empty((rows + len(vk), hk.shape[1]), v.dtype)
    both = xp.concatenate((v, vk))
    rbm_half_step(both, w_up, b_hidden, *up, means, None, False, hidden, 1, seed, offset, 2 * k, xp)
    h0[...] = means[:rows]
    hk[...] = means[rows:]


def rbm_gradient(
    v: Array, h0: Array, vk: Array, hk: Array, dw: Array, dbv: Array, dbh: Array, xp: Any
) -> None:
    """dw [V, H] = v^T h0 / B - vk^T hk / C; dbv [V], dbh [H]: the differences of the columns' means."""
    _difference(v, h0, vk, hk, 1.0, dw, dbv, dbh, xp)


def _difference(
    v: Array, h0: Array, vk: Array, hk: Array, scale: float, dw: Array, dbv: Array, dbh: Array, xp: Any
) -> None:
    """The gradients times scale, each as one product over the rows of both phases."""
    rows = len(v)
    left, right = xp.concatenate((v, vk)), xp.concatenate((h0, hk))
    weights = xp.empty(len(left), v.dtype)
    weights[:rows] = scale / rows
    weights[rows:] = -scale / len(vk)
    xp.matmul(weights, left, out=dbv)
    xp.matmul(weights, right, out=dbh)
    left *= weights[:, None]
    xp.matmul(left.T, right, out=dw)


def rbm_update(
    v: Array,
    h0: Array,
    vk: Array,
    hk: Array,
    precision: Array | None,
    w: Array,
    b_visible: Array,
    b_hidden: Array,
    velocity_w: Array,
    velocity_bv: Array,
    velocity_bh: Array,
    rate: float,
    momentum: float,
    decay: float,
    xp: Any,
) -> None:
    """Every velocity = momentum * velocity + rate * (gradient - decay * parameter), the decay for w alone;
    every parameter += its velocity. Both in place. precision [V] (None: ones) scales the visible gradients.
    """
    dw, dbv, dbh = (xp.empty(p.shape, p.dtype) for p in (w, b_visible, b_hidden))
    _difference(v, h0, vk, hk, rate, dw, dbv, dbh, xp)
    if precision is not None:
        dw *= precision[:, None]
        dbv *= precision
    if decay:
        dw -= w * (rate * decay)
    parts = ((w, velocity_w, dw), (b_visible, velocity_bv, dbv), (b_hidden, velocity_bh, dbh))
    for parameter, velocity, gradient in parts:
        velocity *= momentum
        velocity += gradient
        parameter += velocity


def rbm_free_energy(
    v: Array, w: Array, b_visible: Array, b_hidden: Array, sigma: Array | None, energy: Array,
    visible: int, hidden: int, xp: Any,
) -> None:  # fmt: skip
    """energy [B], overwritten: of each row of v [B, V], the hidden units summed out; w is w_up.

    Hidden units contribute the integral of their mean: ln(1 + exp(a)), a^2 / 2 or -Li2(-exp(a)).
    """
    a = v @ w
    a += b_hidden
    if hidden == GAUSSIAN:
        a *= a
        a *= 0.5
    elif hidden == RELU:
        a = integral_of_softplus(a, xp)
    else:
        a = sampling.softplus(a, xp)
    xp.sum(a, axis=1, out=energy)
    if visible == GAUSSIAN:
        x = v - b_visible
        if sigma is not None:
            x /= sigma
        x *= x
        energy -= 0.5 * x.sum(axis=1)
    else:
        energy += v @ b_visible
    xp.negative(energy, out=energy)


# B_n / (n + 1)!, with the Bernoulli numbers of even index n = 2, 4, ...
_DILOGARITHM = (
    0.027777777777777778,
    -0.00027777777777777778,
    4.7241118669690098e-06,
    -9.1857730746619636e-08,
    1.8978869988970999e-09,
    -4.0647616451442255e-11,
    8.9216910204564526e-13,
    -1.9939295860721076e-14,
)


def integral_of_softplus(a: Array, xp: Any) -> Array:
    """The integral of ln(1 + exp(t)) from -infinity to a, which is -Li2(-exp(a)), to rounding.

    Li2(-exp(-|a|)) as a series in -ln(1 + exp(-|a|)), which is at most ln 2; from there to a > 0 by the
    inversion of the dilogarithm. Lewin, "Polylogarithms and Associated Functions" (1981).
    """
    u = -sampling.softplus(-xp.abs(a), xp)
    square = u * u
    series = xp.zeros_like(u)
    for c in reversed(_DILOGARITHM):
        series *= square
        series += c
    li2 = u - 0.25 * square + u * square * series
    return xp.where(a > 0, a * a / 2 + 3.141592653589793**2 / 6 + li2, -li2)
