"""Restricted Boltzmann machines: half steps, contrastive divergence, the update in place, free energy.

The energy of visible units v and hidden units h is -v W h - b_visible v - b_hidden h, with v^2 / 2 more for
Gaussian units. Visible units are Bernoulli, Gaussian or softmax groups; Gaussian ones of a given standard
deviation sigma enter as in Cho, Ilin and Raiko (2011): (v - b_visible)^2 / (2 sigma^2) and v / sigma^2 W h.
Hidden units are Bernoulli, Gaussian of unit variance or noisy rectified linear. Smolensky (1986); Hinton,
"Training products of experts by minimizing contrastive divergence" (2002).

Random numbers depend on (seed, offset), the step, the row and the unit alone, and samples are built from
operations that every backend rounds alike: where pre-activations are equal, samples are equal bit for bit. Of
sums that backends round differently, about one sample in ten million differs in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch import arrays
from fastarch.ops import _rbm
from fastarch.ops._boundary import Array, empty, expect_dims, expect_shape, integer, run
from fastarch.ops._rbm_arguments import (
    check_sizes,
    clamp_of,
    expect_gaussian,
    expect_rows,
    expect_writable,
    group_of,
    kind_of,
    natives_of,
    number,
    precision_of,
    upward,
    word64,
)
from fastarch.ops._sampling import MOST_STEPS


def rbm_hidden(
    v: Array,
    w: Array,
    b_hidden: Array,
    seed: int = 0,
    offset: int = 0,
    unit: str = "bernoulli",
    *,
    step: int = 0,
    sigma: Array | None = None,
) -> tuple[Array, Array]:
    """Mean and sample [B, H] of the hidden units given visible ones v [B, V]; w [V, H], b_hidden [H].

    unit: "bernoulli", "gaussian" (unit variance) or "relu": max(0, a + noise of variance sigmoid(a)), whose
    mean is taken to be ln(1 + exp(a)), Nair and Hinton (2010). sigma [V], of Gaussian visibles: v / sigma^2
    is what enters. step, 0 to 2**21 - 1: which samples of the stream (seed, offset). Raises ValueError for
    shapes that do not fit and an unknown unit.
    """
    op = "rbm_hidden"
    named = [("v", v, False), ("w", w, False), ("b_hidden", b_hidden, False), ("sigma", sigma, True)]
    with arrays.caller_stream(v, op, "v"):
        (v, w, b_hidden, sigma), restore = natives_of(op, named)
        kind = kind_of(op, "unit", unit, _rbm.HIDDEN_UNITS)
        check_sizes(op, v, w, None, b_hidden, sigma)
        shape = (len(v), w.shape[1])
        mean, sample = empty(op, shape, v), empty(op, shape, v)
        _half_step(op, v, upward(w, sigma), b_hidden, None, mean, sample, False, kind, 1, seed, offset, step)
        return restore(mean), restore(sample)


def rbm_visible(
    h: Array,
    w: Array,
    b_visible: Array,
    seed: int = 0,
    offset: int = 0,
    unit: str = "bernoulli",
    *,
    step: int = 0,
    sigma: Array | None = None,
    group_size: int | None = None,
) -> tuple[Array, Array]:
    """Mean and sample [B, V] of the visible units given hidden ones h [B, H]; w [V, H], b_visible [V].

    unit: "bernoulli", "gaussian" of standard deviation sigma [V] (None: 1), or "softmax", where each
    group_size neighbours are a one-hot group. step as in rbm_hidden. Raises ValueError for shapes that do not
    fit, an unknown unit, and a group size that does not divide V.
    """
    op = "rbm_visible"
    named = [("h", h, False), ("w", w, False), ("b_visible", b_visible, False), ("sigma", sigma, True)]
    with arrays.caller_stream(h, op, "h"):
        (h, w, b_visible, sigma), restore = natives_of(op, named)
        kind = kind_of(op, "unit", unit, _rbm.VISIBLE_UNITS)
        expect_dims(op, "h", h, 2, "[B, H]")
        check_sizes(op, None, w, b_visible, None, sigma)
        expect_shape(op, "h", h, (len(h), w.shape[1]))
        group = group_of(op, kind, group_size, len(w))
        expect_gaussian(op, "unit", unit, kind, sigma)
        shape = (len(h), len(w))
        mean, sample = empty(op, shape, h), empty(op, shape, h)
        _half_step(op, h, w, b_visible, sigma, mean, sample, True, kind, group, seed, offset, step)
        return restore(mean), restore(sample)


def rbm_phases(
    v: Array,
    w: Array,
    b_visible: Array,
    b_hidden: Array,
    k: int = 1,
    seed: int = 0,
    offset: int = 0,
    chain: Array | None = None,
    visible: str = "bernoulli",
    hidden: str = "bernoulli",
    *,
    sigma: Array | None = None,
    group_size: int | None = None,
    clamp: Array | None = None,
) -> tuple[Array, Array, Array]:
    """The statistics of both phases of contrastive divergence: (h0 [B, H], vk [C, V], hk [C, H]).

    h0: means of the hidden units given the data v [B, V]; vk: visible samples after k steps of Gibbs sampling
    from `chain` [C, V] (persistent) or from v (None, C = B); hk: the means given vk. Arguments and errors as
    rbm_cd; rbm_update takes the results.
    """
    op = "rbm_phases"
    with arrays.caller_stream(v, op, "v"):
        operands, restore = _operands(op, v, w, b_visible, b_hidden, chain, sigma)
        options = (k, seed, offset, visible, hidden, group_size, clamp)
        h0, vk, hk, _ = _phases(op, operands, *options)
        return restore(h0), restore(vk), restore(hk)


def rbm_cd(
    v: Array,
    w: Array,
    b_visible: Array,
    b_hidden: Array,
    k: int = 1,
    seed: int = 0,
    offset: int = 0,
    chain: Array | None = None,
    visible: str = "bernoulli",
    hidden: str = "bernoulli",
    *,
    sigma: Array | None = None,
    group_size: int | None = None,
    clamp: Array | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Contrastive divergence CD-k: (dw [V, H], dbv [V], dbh [H], chain [C, V]), to be added to ascend.

    The statistics of the data v [B, V] minus those of the model, each a mean over its rows. chain None: from
    v, C = B, Hinton (2002); otherwise persistent chains [C, V], Tieleman (2008), and the one that comes back,
    the visible samples after k steps, is the next call's. Hidden units enter the statistics by their means,
    the chain by samples. w [V, H], b_visible [V], b_hidden [H].

    visible: "bernoulli", "gaussian" of standard deviation sigma [V] (None: 1) or "softmax" in one-hot groups
    of group_size; hidden: "bernoulli", "gaussian" or "relu". clamp [C, V], bool or uint8: units that keep the
    value they start with, which for an absent (missing) one is 0. A call takes one stream (seed, offset).
    Raises ValueError for shapes that do not fit, k out of 1 to 2**20 - 1, an unknown unit, and a group size
    that does not divide V.
    """
    op = "rbm_cd"
    with arrays.caller_stream(v, op, "v"):
        operands, restore = _operands(op, v, w, b_visible, b_hidden, chain, sigma)
        options = (k, seed, offset, visible, hidden, group_size, clamp)
        h0, vk, hk, v = _phases(op, operands, *options)
        w, sigma = operands[1], operands[5]
        dw, dbv, dbh = empty(op, w.shape, w), empty(op, w.shape[:1], w), empty(op, w.shape[1:], w)
        run("rbm_gradient", _rbm.rbm_gradient, (v, h0, vk, hk), dw, dbv, dbh)
        if sigma is not None:
            precision = precision_of(sigma)
            dw *= precision[:, None]
            dbv *= precision
        return restore(dw), restore(dbv), restore(dbh), restore(vk)


def rbm_update(
    v: Array,
    h0: Array,
    vk: Array,
    hk: Array,
    w: Array,
    b_visible: Array,
    b_hidden: Array,
    velocity_w: Array,
    velocity_bv: Array,
    velocity_bh: Array,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    *,
    sigma: Array | None = None,
) -> None:
    """Learns in place from the statistics that rbm_phases returned: w [V, H], the biases, their velocities.

    velocity = momentum * velocity + learning_rate * (gradient - weight_decay * w), the decay for w alone;
    then w += velocity. The gradient is v^T h0 / B - vk^T hk / C, divided by sigma^2 [V] where that is given,
    Hinton, "A practical guide to training restricted Boltzmann machines" (2010). v [B, V], h0 [B, H], vk [C,
    V], hk [C, H]. Raises ValueError for shapes that do not fit, no rows, and parameters that are read-only or
    not contiguous.
    """
    op = "rbm_update"
    named = [("v", v, False), ("h0", h0, False), ("vk", vk, False), ("hk", hk, False)]
    named += [("w", w, False), ("b_visible", b_visible, False), ("b_hidden", b_hidden, False)]
    named += [("velocity_w", velocity_w, False), ("velocity_bv", velocity_bv, False)]
    named += [("velocity_bh", velocity_bh, False), ("sigma", sigma, True)]
    with arrays.caller_stream(v, op, "v"):
        natives, _ = natives_of(op, named)
        v, h0, vk, hk, w, b_visible, b_hidden, *velocities, sigma = natives
        check_sizes(op, v, w, b_visible, b_hidden, sigma)
        expect_dims(op, "vk", vk, 2, "[C, V]")
        (rows, visible), chains, hidden = v.shape, len(vk), w.shape[1]
        statistics = [(rows, hidden), (chains, visible), (chains, hidden)]
        shapes = [*statistics, *(2 * [w.shape, (visible,), (hidden,)])]
        for (name, _, _), x, shape in zip(named[1:], natives[1:], shapes):
            if x.shape != shape:
                expect_shape(op, name, x, shape)
        expect_rows(op, "v", v)
        expect_rows(op, "vk", vk)
        for (name, _, _), x in zip(named[4:10], natives[4:10]):
            if type(x) is not np.ndarray or not x.flags.carray:
                expect_writable(op, name, x)
        rate, momentum, decay = (
            number(op, "learning_rate", learning_rate),
            number(op, "momentum", momentum),
            number(op, "weight_decay", weight_decay),
        )
        precision = None if sigma is None else precision_of(sigma)
        changed = (w, b_visible, b_hidden, *velocities)
        run("rbm_update", _rbm.rbm_update, (v, h0, vk, hk, precision), *changed, rate, momentum, decay)


def rbm_free_energy(
    v: Array,
    w: Array,
    b_visible: Array,
    b_hidden: Array,
    visible: str = "bernoulli",
    hidden: str = "bernoulli",
    *,
    sigma: Array | None = None,
) -> Array:
    """Free energy [B] of the rows of v [B, V]: minus the logarithm of the unnormalized probability of each.

    w [V, H], b_visible [V], b_hidden [H]; units and sigma [V] as in rbm_cd. Constants that no parameter
    enters are left out. For hidden "relu" units, which have no energy of their own, the integral of their
    mean stands, so that gradients agree with rbm_cd's. Raises ValueError for shapes that do not fit.
    """
    op = "rbm_free_energy"
    with arrays.caller_stream(v, op, "v"):
        operands, restore = _operands(op, v, w, b_visible, b_hidden, None, sigma)
        v, w, b_visible, b_hidden, _, sigma = operands
        seen = kind_of(op, "visible", visible, _rbm.VISIBLE_UNITS)
        unseen = kind_of(op, "hidden", hidden, _rbm.HIDDEN_UNITS)
        check_sizes(op, v, w, b_visible, b_hidden, sigma)
        expect_gaussian(op, "visible", visible, seen, sigma)
        energy = empty(op, v.shape[:1], v)
        if energy.size:
            inputs = (v, upward(w, sigma), b_visible, b_hidden, sigma)
            run("rbm_free_energy", _rbm.rbm_free_energy, inputs, energy, seen, unseen)
        return restore(energy)


def _operands(op: str, *values: Array | None) -> tuple[list[Any], arrays.Restore]:
    names = ("v", "w", "b_visible", "b_hidden", "chain", "sigma")
    return natives_of(op, [(name, x, i >= 4) for i, (name, x) in enumerate(zip(names, values))])


def _phases(
    op: str,
    operands: list[Any],
    k: int,
    seed: int,
    offset: int,
    visible: str,
    hidden: str,
    group_size: int | None,
    clamp: Array | None,
) -> tuple[Array, Array, Array, Array]:
    """h0, vk, hk, and v as the kernels want it."""
    v, w, b_visible, b_hidden, chain, sigma = operands
    seen = kind_of(op, "visible", visible, _rbm.VISIBLE_UNITS)
    unseen = kind_of(op, "hidden", hidden, _rbm.HIDDEN_UNITS)
    check_sizes(op, v, w, b_visible, b_hidden, sigma)
    expect_rows(op, "v", v)
    group = group_of(op, seen, group_size, len(w))
    expect_gaussian(op, "visible", visible, seen, sigma)
    k = integer(op, "k", k)
    if not 1 <= k < MOST_STEPS // 2:
        raise ValueError(f"[{op}] k is {k}, expected 1 to {MOST_STEPS // 2 - 1}")
    seed, offset = word64(op, "seed", seed), word64(op, "offset", offset)
    chains = len(v)
    if chain is not None:
        expect_dims(op, "chain", chain, 2, "[C, V]")
        expect_shape(op, "chain", chain, (len(chain), len(w)))
        expect_rows(op, "chain", chain)
        chains = len(chain)
    clamp = clamp_of(op, clamp, v, (chains, len(w)))
    h0, vk, hk = (
        empty(op, shape, v) for shape in ((len(v), w.shape[1]), (chains, len(w)), (chains, w.shape[1]))
    )
    inputs = (v, w, upward(w, sigma), b_visible, b_hidden, chain, sigma, clamp)
    run("rbm_phases", _rbm.rbm_phases, inputs, h0, vk, hk, k, seen, unseen, group, seed, offset)
    return h0, vk, hk, v


def _half_step(
    op: str,
    x: Array,
    w: Array,
    bias: Array,
    sigma: Array | None,
    mean: Array,
    sample: Array,
    down: bool,
    unit: int,
    group: int,
    seed: int,
    offset: int,
    step: int,
) -> None:
    seed, offset, step = word64(op, "seed", seed), word64(op, "offset", offset), integer(op, "step", step)
    if not 0 <= step < MOST_STEPS:
        raise ValueError(f"[{op}] step is {step}, expected 0 to {MOST_STEPS - 1}")
    if mean.size:
        inputs = (x, w, bias, sigma, None, None)
        run("rbm_half_step", _rbm.rbm_half_step, inputs, mean, sample, down, unit, group, seed, offset, step)
