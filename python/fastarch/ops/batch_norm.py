"""Batch normalisation over the channels of [N, C, ...], with a residual and ReLU in the same pass."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import is_half
from fastarch.ops._boundary import (
    Array,
    channels_last,
    companion,
    empty,
    expect_shape,
    flag,
    number,
    operator,
    run,
    zeros,
)


@operator("x", halves=True)
def batch_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    residual: Array | None = None,
    activation: str | None = None,
    layout: str = "NCHW",
) -> tuple[Array, Array, Array]:
    """activation((x - mean) / sqrt(var + eps) * weight + bias + residual), mean and var of each channel.

    x [N, C, ...], with layout "NHWC" [N, ..., C]; residual of x's shape or None; weight, bias [C] or None;
    activation None or "relu" -> y, mean, var. training: mean and (biased) var [C] are the batch's, and
    running_mean, running_var [C], unless None, move by `momentum` towards them, in place, the variance
    unbiased; else they are the running ones. Vectors are float32 beside 16-bit data, else of x's type. Ioffe
    and Szegedy (2015). Raises ValueError for shapes that do not fit, a batch of one value per channel, and
    missing statistics.
    """
    op = "batch_norm"
    last = channels_last(op, layout)
    channels, count = _channels(op, x, last)
    dtype = _parameter_dtype(x)
    weight, bias = (
        companion(op, name, value, x, dtype, (channels,), optional=True)
        for name, value in (("weight", weight), ("bias", bias))
    )
    if (running_mean is None) != (running_var is None):
        name, other = ("running_mean", "running_var")[:: 1 if running_mean is None else -1]
        raise TypeError(f"[{op}] {name} is None, expected an array as {other} is")
    running_mean, running_var = (
        companion(op, name, value, x, dtype, (channels,), optional=True)
        for name, value in (("running_mean", running_mean), ("running_var", running_var))
    )
    residual = companion(op, "residual", residual, x, x.dtype, x.shape, optional=True)
    eps, relu = number(op, "eps", eps, 0), _relu(op, activation)
    if flag(op, "training", training):
        momentum = number(op, "momentum", momentum, 0)
        if count == 1:
            raise ValueError(
                f"[{op}] x has shape {x.shape}, expected more than one value per channel in training"
            )
        for name, running in (("running_mean", running_mean), ("running_var", running_var)):
            if running is not None and not _writable(running):
                raise ValueError(
                    f"[{op}] {name} is read-only or not contiguous, expected one to update in place"
                )
        y = empty(op, x.shape, x)
        mean, var = (zeros(op, (channels,), x, dtype) for _ in range(2))
        if y.size:
            run(
                "batch_norm_forward",
                batch_norm_forward,
                (x, weight, bias, residual),
                running_mean,
                running_var,
                y,
                mean,
                var,
                momentum,
                eps,
                relu,
                last,
            )
        return y, mean, var
    if running_mean is None or running_var is None:
        raise ValueError(
            f"[{op}] running_mean and running_var are None, expected both where training is False"
        )
    y = empty(op, x.shape, x)
    if y.size:
        inputs = (x, weight, bias, residual, running_mean, running_var)
        run("batch_norm_inference", batch_norm_inference, inputs, y, eps, relu, last)
    return y, running_mean.copy(), running_var.copy()


@operator("dy", "x", halves=True)
def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    y: Array | None = None,
    training: bool = False,
    eps: float = 1e-5,
    residual: bool = False,
    activation: str | None = None,
    layout: str = "NCHW",
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients (dx, dweight, dbias, dresidual) of batch_norm. dy, x of one shape; mean, var, weight [C].

    mean, var are what batch_norm returned; y is its output, needed for activation "relu"; residual: whether
    dresidual, of x's shape, is wanted, else it is None. Raises ValueError for shapes that do not fit.
    """
    op = "batch_norm_backward"
    last = channels_last(op, layout)
    channels, _ = _channels(op, x, last)
    expect_shape(op, "dy", dy, x.shape)
    dtype = _parameter_dtype(x)
    mean, var = (
        companion(op, name, value, x, dtype, (channels,)) for name, value in (("mean", mean), ("var", var))
    )
    weight = companion(op, "weight", weight, x, dtype, (channels,), optional=True)
    y = companion(op, "y", y, x, x.dtype, x.shape, optional=True)
    eps, relu = number(op, "eps", eps, 0), _relu(op, activation)
    training, residual = flag(op, "training", training), flag(op, "residual", residual)
    if relu and y is None:
        raise ValueError(f"[{op}] y is None, expected batch_norm's output for activation 'relu'")
    dx = empty(op, x.shape, x)
    dresidual = empty(op, x.shape, x) if residual else None
    dweight, dbias = (zeros(op, (channels,), x, dtype) for _ in range(2))
    if dx.size:
        run(
            "batch_norm_backward",
            batch_norm_backward_sums,
            (dy, x, y if relu else None, weight, mean, var),
            dx,
            dresidual,
            dweight,
            dbias,
            eps,
            training,
            last,
        )
    return dx, dweight, dbias, dresidual


def _channels(op: str, x: Array, last: bool) -> tuple[int, int]:
    """How many channels x has, and how many values each."""
    if x.ndim < 2:
        raise ValueError(f"[{op}] x has shape {x.shape}, expected at least 2 dimensions [N, C, ...]")
    channels = x.shape[-1 if last else 1]
    return channels, x.size // channels if channels else 0


def _parameter_dtype(x: Array) -> Any:
    return np.dtype(np.float32) if is_half(x.dtype) else x.dtype


def _relu(op: str, activation: Any) -> bool:
    if activation is not None and activation != "relu":
        raise ValueError(f"[{op}] activation is {activation!r}, expected None or 'relu'")
    return activation is not None


def _writable(x: Array) -> bool:
    return x.flags.c_contiguous and getattr(x.flags, "writeable", True)


def _axes(x: Array, last: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes that statistics run over, and the shape that puts a vector [C] beside x."""
    if last:
        return tuple(range(x.ndim - 1)), (1,) * (x.ndim - 1) + (-1,)
    return (0, *range(2, x.ndim)), (1, -1) + (1,) * (x.ndim - 2)


def _normalize(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    residual: Array | None,
    mean: Array,
    var: Array,
    y: Array,
    eps: float,
    relu: bool,
    shape: tuple[int, ...],
    xp: Any,
) -> None:
    scale = 1 / xp.sqrt(var + var.dtype.type(eps))
    if weight is not None:
        scale = scale * weight
    xp.subtract(x, mean.reshape(shape), out=y)
    y *= scale.reshape(shape)
    if bias is not None:
        y += bias.reshape(shape)
    if residual is not None:
        y += residual
    if relu:
        xp.maximum(y, 0, out=y)


def batch_norm_forward(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    residual: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    y: Array,
    mean: Array,
    var: Array,
    momentum: float,
    eps: float,
    relu: bool,
    last: bool,
    xp: Any,
) -> None:
    """x [N, C, ...]; y, mean and var [C] overwritten; running_mean, running_var [C] updated."""
    axes, shape = _axes(x, last)
    count = x.size // mean.size
    xp.mean(x, axis=axes, out=mean)
    distance = x - mean.reshape(shape)
    xp.multiply(distance, distance, out=distance)
    xp.mean(distance, axis=axes, out=var)
    _normalize(x, weight, bias, residual, mean, var, y, eps, relu, shape, xp)
    if running_mean is not None and running_var is not None:
        share = mean.dtype.type(momentum)
        running_mean += share * (mean - running_mean)
        running_var += share * (var * var.dtype.type(count / (count - 1)) - running_var)


def batch_norm_inference(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    residual: Array | None,
    mean: Array,
    var: Array,
    y: Array,
    eps: float,
    relu: bool,
    last: bool,
    xp: Any,
) -> None:
    """x [N, C, ...], vectors [C]; y overwritten."""
    _normalize(x, weight, bias, residual, mean, var, y, eps, relu, _axes(x, last)[1], xp)


def batch_norm_backward_sums(
    dy: Array,
    x: Array,
    y: Array | None,
    weight: Array | None,
    mean: Array,
    var: Array,
    dx: Array,
    dresidual: Array | None,
    dweight: Array,
    dbias: Array,
    eps: float,
    training: bool,
    last: bool,
    xp: Any,
) -> None:
    """dy, x, y [N, C, ...]; dx, dresidual, dweight and dbias [C] overwritten. y: None without a ReLU."""
    axes, shape = _axes(x, last)
    g = dy if y is None else xp.where(y <= 0, dy.dtype.type(0), dy)
    if dresidual is not None:
        dresidual[...] = g
    inverse = 1 / xp.sqrt(var + var.dtype.type(eps))
    normal = (x - mean.reshape(shape)) * inverse.reshape(shape)
    xp.sum(g, axis=axes, out=dbias)
    xp.sum(g * normal, axis=axes, out=dweight)
    if training:
        count = x.dtype.type(x.size // mean.size)
        normal *= (dweight / count).reshape(shape)
        xp.subtract(g, normal, out=dx)
        dx -= (dbias / count).reshape(shape)
    else:
        dx[...] = g
    dx *= (inverse if weight is None else inverse * weight).reshape(shape)
