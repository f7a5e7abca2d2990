"""The convolutional restricted Boltzmann machine with probabilistic max pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastarch import ops, random
from fastarch.arrays import Array
from fastarch.estimators._draws import Stream, sigmoid
from fastarch.estimators.base import array_module
from fastarch.estimators.contrastive import Contrastive
from fastarch.estimators.partition import states
from fastarch.estimators.questions import host
from fastarch.estimators.rows import Rows
from fastarch.estimators.validation import check_choice, check_count, warn

__all__ = ["ConvolutionalRBM"]

_INITIAL_WEIGHT = 0.01
_ACTIVITY_RATE = 0.1
_MOST_PIXELS = 20  # of pictures that are enumerated
_UNITS_STREAM = (1 << 63) + 1


class ConvolutionalRBM(Contrastive):
    """A restricted Boltzmann machine whose weights are filters shared by all places of a picture.

    X is [N, C, H, W], or [N, C H W] dense or sparse, a picture a row; image_shape: (H, W) or (C, H, W), None
    for the shape of X, of rows one square channel where D is a square and else a row of D pixels.
    n_components: filters, of kernel_size (one int or (height, width), cut to the picture's). Hidden units lie
    in blocks of pool_size x pool_size of which at most one is on, and a pooling unit is on when one is; what
    no whole block covers is left out. visible: "bernoulli" for pixels in [0, 1], or "gaussian", standardised
    by the mean and deviation of all pixels. sparsity_target and sparsity_cost act on the hidden biases. Steps
    are means over places as well as samples; the other parameters are those of `RBM`. Lee, Grosse, Ranganath
    and Ng, "Convolutional deep belief networks for scalable unsupervised learning of hierarchical
    representations" (2009).
    """

    def __init__(
        self,
        n_components: int = 16,
        *,
        image_shape: tuple[int, ...] | None = None,
        kernel_size: int | tuple[int, int] = 5,
        pool_size: int = 2,
        visible: str = "bernoulli",
        k: int = 1,
        persistent: bool = False,
        n_chains: int | None = None,
        learning_rate: float = 0.2,
        final_learning_rate: float | None = None,
        momentum: float = 0.5,
        final_momentum: float | None = None,
        weight_decay: float = 0.001,
        sparsity_target: float | None = None,
        sparsity_cost: float = 1.0,
        batch_size: int = 10,
        n_epochs: int = 10,
        dtype: Any = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.image_shape = image_shape
        self.kernel_size = kernel_size
        self.pool_size = pool_size
        self.visible = visible
        self.k = k
        self.persistent = persistent
        self.n_chains = n_chains
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.momentum = momentum
        self.final_momentum = final_momentum
        self.weight_decay = weight_decay
        self.sparsity_target = sparsity_target
        self.sparsity_cost = sparsity_cost
        self.batch_size = batch_size
        self.n_epochs = n_epochs
        self.dtype = dtype
        self.verbose = verbose
        self.random_state = random_state

    # Input

    def _rows(self, X: Any, method: str, reset: bool = False) -> Rows:
        x, back = self._input(X, method, reset=reset, dims=(2, 4))
        shape = x.shape[1:] if len(x.shape) == 4 else None
        if reset:
            self._shape_seen_ = shape
        elif shape is not None and shape != self.image_shape_:
            raise ValueError(
                f"[{self._name}.{method}] X has pictures of {shape}, expected {self.image_shape_} as in fit"
            )
        flat = x if shape is None else x.reshape(len(x), -1)
        return Rows(flat, self.dtype if reset else self.w_.dtype, back=back)

    # Training

    def _check_parameters(self, method: str) -> None:
        super()._check_parameters(method)
        check_count(f"{self._name}.{method}", "pool_size", self.pool_size)
        check_choice(f"{self._name}.{method}", "visible", self.visible, ("bernoulli", "gaussian"))

    def _begin(self, rows: Rows) -> None:
        xp = array_module(rows.x)
        self.image_shape_ = self._settle_shape(rows.shape[1])
        kernel = self._settle_kernel()
        self._observe(rows, xp)
        stream = self._seed_, self._next_offset()
        shape = (self.n_components, self.image_shape_[0], *kernel)
        self.w_ = xp.asarray(random.normal(shape, std=_INITIAL_WEIGHT, dtype=rows.dtype, stream=stream))
        self.b_hidden_ = xp.zeros(self.n_components, rows.dtype)
        self._chain_: Array | None = None
        self._activity_: Array | None = None

    def _settle_shape(self, features: int) -> tuple[int, ...]:
        shape = self.image_shape
        who = f"{self._name}.fit"
        if shape is None and self._shape_seen_ is not None:
            return self._shape_seen_
        if shape is None:
            side = math.isqrt(features)
            return (1, side, side) if side * side == features else (1, 1, features)
        if not isinstance(shape, (tuple, list)) or len(shape) not in (2, 3):
            raise ValueError(f"[{who}] image_shape is {shape!r}, expected (H, W) or (C, H, W)")
        sizes = tuple(check_count(who, "image_shape", size) for size in shape)
        if math.prod(sizes) != features:
            raise ValueError(
                f"[{who}] X has {features} features, expected {math.prod(sizes)} of {shape} pictures"
            )
        settled = sizes if len(sizes) == 3 else (1, *sizes)
        if self._shape_seen_ not in (None, settled):
            raise ValueError(
                f"[{who}] X has pictures of {self._shape_seen_}, expected {settled}: image_shape"
            )
        return settled

    def _settle_kernel(self) -> tuple[int, int]:
        """The filters' height and width, no larger than the picture and small enough that a block fits."""
        who, given = f"{self._name}.fit", self.kernel_size
        sizes = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
        if len(sizes) != 2:
            raise ValueError(f"[{who}] kernel_size is {given!r}, expected one number or two")
        height, width = (
            min(check_count(who, "kernel_size", s), n) for s, n in zip(sizes, self.image_shape_[1:])
        )
        return height, width

    def _observe(self, rows: Rows, xp: Any) -> None:
        """The pixels' range, mean and deviation; the visible biases [C] that they give."""
        channels = self.image_shape_[0]
        low = high = 0.5
        total, squares = np.zeros(channels), np.zeros(channels)
        for _, block in rows.blocks():
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            total += host(block.reshape(len(block), channels, -1).sum((0, 2), dtype=np.float64))
        count = len(rows) * rows.shape[1] // channels
        mean = total / count
        for _, block in rows.blocks():  # of differences: squares of values far from 0 would cancel
            pixels = host(block.reshape(len(block), channels, -1))
            squares += ((pixels - mean[:, None]) ** 2).sum((0, 2))
        deviation = np.sqrt(squares / count)
        # What rounding leaves of a constant channel is no deviation.
        deviation[deviation <= 10 * np.finfo(rows.dtype).eps * np.abs(mean)] = 1
        if self.visible == "bernoulli":
            if low < 0 or high > 1:
                warn(
                    f"[{self._name}.fit] X ranges from {low:.4g} to {high:.4g}, a binary unit from 0 to 1: "
                    "values outside are clipped. Scale X, or take visible='gaussian'."
                )
            mean = (np.clip(mean, 0, 1) * count + 0.5) / (count + 1)
            bias = np.log(mean / (1 - mean))
        else:
            bias = np.zeros(channels)
        self.mean_, self.scale_, self.b_visible_ = (
            xp.asarray(a.astype(rows.dtype)) for a in (mean, deviation, bias)
        )

    def _pictures(self, x: Array) -> Array:
        """Samples [B, D] as visible units [B, C, H, W]."""
        v = x.reshape(len(x), *self.image_shape_)
        if self.visible == "bernoulli":
            return array_module(v).clip(v, 0, 1)
        return (v - self.mean_[:, None, None]) / self.scale_[:, None, None]

    def _samples(self, v: Array) -> Array:
        """Visible units or their means [B, C, H, W] as samples [B, D]."""
        if self.visible == "gaussian":
            v = v * self.scale_[:, None, None] + self.mean_[:, None, None]
        return v.reshape(len(v), -1)

    def _learn(self, x: Array, rate: float, momentum: float) -> None:
        v = self._pictures(x)
        xp = array_module(v)
        p0 = self._hidden(v)[0]
        if self.persistent and self._chain_ is None:
            n = self.batch_size if self.n_chains is None else self.n_chains
            self._chain_ = v[xp.arange(n) % len(v)]
        vk = self._walk(self._chain_ if self.persistent else v, self.k)[0]
        pk = self._hidden(vk)[0]
        if self.persistent:
            self._chain_ = vk
        places = p0.shape[2] * p0.shape[3]
        dw = self._correlate(p0, v) / (len(v) * places) - self._correlate(pk, vk) / (len(vk) * places)
        dbh = p0.mean((0, 2, 3)) - pk.mean((0, 2, 3))
        dbv = v.mean((0, 2, 3)) - vk.mean((0, 2, 3))
        if self.sparsity_target is not None:
            active = p0.mean((0, 2, 3))
            if self._activity_ is None:
                self._activity_ = active
            self._activity_ = (1 - _ACTIVITY_RATE) * self._activity_ + _ACTIVITY_RATE * active
            dbh += self.sparsity_cost * (self.sparsity_target - self._activity_)
        dw -= self.weight_decay * self.w_
        self._ascend([dw, dbv, dbh], rate, momentum)

    def _learnt(self) -> list[Array]:
        return [self.w_, self.b_visible_, self.b_hidden_]

    def _correlate(self, h: Array, v: Array) -> Array:
        """The sum over samples and places of h [B, K, P, Q] times the patch of v under it: [K, C, R, S]."""
        return ops.conv2d_backward(self._whole(h), v, self.w_, bias=False, need=(False, True))[1]

    def _figures(self, x: Array) -> dict[str, float]:
        v = self._pictures(x)
        p = self._hidden(v)[0]
        error = (self._visible_mean(p) - v) ** 2
        return {"reconstruction_error": float(error.mean()), "hidden_activity": float(p.mean())}

    # Half steps

    def _places(self) -> tuple[int, int]:
        """Rows and columns of hidden units in whole blocks."""
        _, H, W = self.image_shape_
        R, S = self.w_.shape[2:]
        p, q = self._pool()
        return (H - R + 1) // p * p, (W - S + 1) // q * q

    def _pool(self) -> tuple[int, int]:
        """A block's height and width: pool_size, or less where there are fewer hidden units."""
        _, H, W = self.image_shape_
        R, S = self.w_.shape[2:]
        return min(self.pool_size, H - R + 1), min(self.pool_size, W - S + 1)

    def _blocks(self, v: Array) -> Array:
        """The hidden units' inputs by block: [B, K, P/p, Q/q, p q]."""
        P, Q = self._places()
        p, q = self._pool()
        total = ops.conv2d(v, self.w_, self.b_hidden_)[:, :, :P, :Q]
        split = total.reshape(*total.shape[:2], P // p, p, Q // q, q)
        return split.transpose(0, 1, 2, 4, 3, 5).reshape(*total.shape[:2], P // p, Q // q, p * q)

    def _maps(self, blocks: Array) -> Array:
        """Blocks [B, K, P/p, Q/q, p q] as maps [B, K, P, Q]."""
        p, q = self._pool()
        B, K, rows, columns, _ = blocks.shape
        split = blocks.reshape(B, K, rows, columns, p, q).transpose(0, 1, 2, 4, 3, 5)
        return split.reshape(B, K, rows * p, columns * q)

    def _hidden(self, v: Array, sampled: bool = False) -> tuple[Array, Array]:
        """(probabilities, samples or nothing) of the hidden units: [B, K, P, Q]."""
        x = self._blocks(v)
        xp = array_module(x)
        # One more state, of weight exp(0): no unit of the block is on.
        top = xp.maximum(x.max(-1, keepdims=True), 0)
        weight = xp.exp(x - top)
        p = weight / (weight.sum(-1, keepdims=True) + xp.exp(-top))
        if not sampled:
            return self._maps(p), None
        u = xp.asarray(random.uniform((*p.shape[:-1], 1), stream=(self._seed_, self._next_offset())))
        upper = p.cumsum(-1)
        on = (u < upper) & (u >= upper - p)
        on &= on.cumsum(-1) == 1  # rounding of the sums lets no block have two
        return self._maps(p), self._maps(on.astype(p.dtype))

    def _whole(self, h: Array) -> Array:
        """Maps over all places of the convolution, the units outside whole blocks off."""
        _, H, W = self.image_shape_
        R, S = self.w_.shape[2:]
        P, Q = H - R + 1, W - S + 1
        if h.shape[2:] == (P, Q):
            return h
        whole = array_module(h).zeros((*h.shape[:2], P, Q), h.dtype)
        whole[:, :, : h.shape[2], : h.shape[3]] = h
        return whole

    def _visible_mean(self, h: Array) -> Array:
        """The means of the visible units given the hidden ones [B, K, P, Q]: [B, C, H, W]."""
        like = array_module(h).empty((len(h), *self.image_shape_), h.dtype)
        field = ops.conv2d_backward(self._whole(h), like, self.w_, bias=False, need=(True, False))[0]
        field += self.b_visible_[:, None, None]
        return sigmoid(field) if self.visible == "bernoulli" else field

    def _walk(self, v: Array, steps: int) -> tuple[Array, Array]:
        """(sample, mean) of the visible units after Gibbs steps from v."""
        xp, mean = array_module(v), v
        for _ in range(steps):
            mean = self._visible_mean(self._hidden(v, sampled=True)[1])
            stream = self._seed_, self._next_offset()
            if self.visible == "bernoulli":
                v = (xp.asarray(random.uniform(mean.shape, stream=stream)) < mean).astype(mean.dtype)
            else:
                v = mean + xp.asarray(random.normal(mean.shape, dtype=mean.dtype, stream=stream))
        return v, mean

    # What it is asked

    @property
    def _n_features_out(self) -> int:  # type: ignore[override]
        P, Q = self._places()
        p, q = self._pool()
        return len(self.b_hidden_) * (P // p) * (Q // q)

    def transform(self, X: Any) -> Any:
        """The probability that each pooling unit is on given X [N, D]: [N, K P/p Q/q], filter by filter."""
        rows = self._rows(X, "transform")
        parts = []
        for _, block in rows.blocks():
            x = self._blocks(self._pictures(block))
            parts.append((1 - array_module(x).exp(-_log_one_plus_sum(x))).reshape(len(block), -1))
        return self._framed(rows.back(array_module(rows.x).concatenate(parts)), X)

    def reconstruct(self, X: Any) -> Any:
        """The samples' mean given the hidden units' probabilities given X [N, D]: [N, D]."""
        rows = self._rows(X, "reconstruct")
        parts = [
            self._samples(self._visible_mean(self._hidden(self._pictures(block))[0]))
            for _, block in rows.blocks()
        ]
        return rows.back(array_module(rows.x).concatenate(parts))

    def gibbs(self, X: Any, steps: int = 1) -> Any:
        """Samples after `steps` of Gibbs sampling that start at X [N, D]: [N, D]."""
        rows = self._rows(X, "gibbs")
        check_count(f"{self._name}.gibbs", "steps", steps)
        return rows.back(self._samples(self._walk(self._pictures(rows.take(slice(None))), steps)[0]))

    def sample(self, n_samples: int = 1, steps: int = 1000, mean: bool = False) -> Any:
        """Samples of the model: [n_samples, D], `steps` Gibbs steps from independent pixels.

        mean: the last step gives the pixels' means. Each call draws on from the estimator's own random
        numbers.
        """
        self._check_fitted("sample")
        check_count(f"{self._name}.sample", "n_samples", n_samples)
        check_count(f"{self._name}.sample", "steps", steps)
        xp = array_module(self.w_)
        shape, stream = (n_samples, *self.image_shape_), (self._seed_, self._next_offset())
        if self.visible == "bernoulli":
            v = xp.asarray(random.uniform(shape, stream=stream)) < self.mean_[:, None, None]
        else:
            v = xp.asarray(random.normal(shape, stream=stream))
        v, expected = self._walk(v.astype(self.w_.dtype), steps)
        return self._samples(expected if mean else v)

    def free_energy(self, X: Any) -> Any:
        """-ln of the unnormalised probability of each sample of X [N, D]: [N]."""
        rows = self._rows(X, "free_energy")
        parts = [self._energies(self._pictures(block)) for _, block in rows.blocks()]
        return rows.back(array_module(rows.x).concatenate(parts))

    def _energies(self, v: Array) -> Array:
        hidden = _log_one_plus_sum(self._blocks(v)).sum((1, 2, 3))
        bias = self.b_visible_[:, None, None]
        if self.visible == "bernoulli":
            return -(v * bias).sum((1, 2, 3)) - hidden
        return 0.5 * ((v - bias) ** 2).sum((1, 2, 3)) - hidden

    def log_partition(self) -> float:
        """ln Z, summed over all pictures of at most 20 binary pixels. Raises ValueError for any others."""
        self._check_fitted("log_partition")
        pixels = math.prod(self.image_shape_)
        if self.visible != "bernoulli" or pixels > _MOST_PIXELS:
            raise ValueError(
                f"[{self._name}.log_partition] pictures of {pixels} {self.visible} pixels, expected at most "
                f"{_MOST_PIXELS} bernoulli ones"
            )
        xp, total = array_module(self.w_), -np.inf
        for v in states(pixels, self.w_.dtype):
            energies = self._energies(xp.asarray(v).reshape(len(v), *self.image_shape_))
            total = float(np.logaddexp(total, np.logaddexp.reduce(host(-energies).astype(np.float64))))
        return total

    def pseudo_likelihood(self, X: Any, n_units: int | None = None) -> Any:
        """The sum over the pixels of a picture of ln P(pixel | all others), for each of X [N, D]: [N], nats.

        n_units: so many pixels, drawn for each picture, stand for all; None takes all, which costs as much as
        D transforms. Raises ValueError for Gaussian pixels. Besag (1975).
        """
        return self._conditionals(X, n_units, "pseudo_likelihood")

    def _conditionals(self, X: Any, n_units: int | None, method: str) -> Any:
        who = f"{self._name}.{method}"
        rows = self._rows(X, method)
        if self.visible != "bernoulli":
            raise ValueError(f"[{who}] visible units are gaussian, expected bernoulli")
        pixels = rows.shape[1]
        count = pixels if n_units is None else check_count(who, "n_units", n_units)
        xp, stream = array_module(rows.x), Stream(self._seed_, _UNITS_STREAM)
        parts = []
        for _, block in rows.blocks():
            v = self._pictures(block)
            energy, each = self._energies(v), xp.arange(len(v))
            total = xp.zeros_like(energy)
            for i in range(count):
                unit = i if n_units is None else xp.asarray(stream.below(pixels, len(v)))
                flipped = v.reshape(len(v), -1).copy()
                flipped[each, unit] = 1 - flipped[each, unit]
                fall = energy - self._energies(flipped.reshape(v.shape))
                total -= xp.logaddexp(xp.zeros_like(fall), fall)
            parts.append(total * (pixels / count))
        return rows.back(xp.concatenate(parts))

    def score_samples(self, X: Any) -> Any:
        """The pseudo-likelihood of each sample of X [N, D], over all pixels: [N], in nats."""
        return self._conditionals(X, None, "score_samples")


def _log_one_plus_sum(x: Array) -> Array:
    """ln(1 + sum(exp(x))) along the last axis."""
    xp = array_module(x)
    top = xp.maximum(x.max(-1), 0)
    return top + xp.log(xp.exp(-top) + xp.exp(x - top[..., None]).sum(-1))
