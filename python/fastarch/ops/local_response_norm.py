"""Local response normalisation across channels, with alpha for the mean or for the sum of the squares."""

from __future__ import annotations

from typing import Any

from fastarch.ops._boundary import (
    Array,
    channels_last,
    empty,
    expect_shape,
    flag,
    integer,
    number,
    operator,
    run,
)


@operator("x", halves=True)
def local_response_norm(
    x: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    average: bool = True,
    layout: str = "NCHW",
) -> Array:
    """x / (k + alpha * (mean of x^2 over `size` neighbouring channels))^beta for x [N, C, ...].

    Channel c sees c - size // 2 to c + (size - 1) // 2; those that do not exist count as zeros. average:
    alpha is for the mean, as in PyTorch and Caffe; False: for the sum, as in the paper, Krizhevsky et al.
    (2012). layout "NHWC": the channels lie last, x [N, ..., C]. size at least 1; alpha, beta at least 0; k
    above 0. Raises ValueError for other values.
    """
    op = "local_response_norm"
    numbers = _numbers(op, x, size, alpha, beta, k, average)
    last = channels_last(op, layout)
    y = empty(op, x.shape, x)
    if y.size:
        run("local_response_norm_forward", local_response_norm_forward, (x,), y, *numbers, last)
    return y


@operator("dy", "x", halves=True)
def local_response_norm_backward(
    dy: Array,
    x: Array,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    average: bool = True,
    layout: str = "NCHW",
) -> Array:
    """Gradient of local_response_norm with the same arguments: dy, x [N, C, ...] -> dx of their shape.

    Raises ValueError for shapes that do not fit.
    """
    op = "local_response_norm_backward"
    numbers = _numbers(op, x, size, alpha, beta, k, average)
    last = channels_last(op, layout)
    expect_shape(op, "dy", dy, x.shape)
    dx = empty(op, x.shape, x)
    if dx.size:
        run("local_response_norm_backward", local_response_norm_backward_gather, (dy, x), dx, *numbers, last)
    return dx


def _numbers(
    op: str, x: Array, size: Any, alpha: Any, beta: Any, k: Any, average: Any
) -> tuple[int, float, float, float]:
    """size, alpha for the sum of squares, beta and k."""
    if x.ndim < 2:
        raise ValueError(f"[{op}] x has shape {x.shape}, expected at least 2 dimensions [N, C, ...]")
    size = integer(op, "size", size)
    if not 1 <= size < 2**31:
        raise ValueError(f"[{op}] size is {size}, expected 1 to 2**31 - 1")
    alpha, beta, k = (
        number(op, name, value, 0) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))
    )
    if k == 0:
        raise ValueError(f"[{op}] k is 0, expected a number above 0")
    return size, alpha / size if flag(op, "average", average) else alpha, beta, k


def _window_sums(values: Array, before: int, after: int, xp: Any) -> Array:
    """Sums over the channels c - before to c + after of values [N, C, ...], in ascending order."""
    channels = values.shape[1]
    sums = xp.zeros(values.shape, values.dtype)
    for distance in range(-min(before, channels - 1), min(after, channels - 1) + 1):
        low, high = max(0, -distance), min(channels, channels - distance)
        sums[:, low:high] += values[:, low + distance : high + distance]
    return sums


def local_response_norm_forward(
    x: Array, y: Array, size: int, alpha: float, beta: float, k: float, last: bool, xp: Any
) -> None:
    """x [N, C, ...]; y overwritten. last: [N, ..., C]."""
    if last:
        x, y = xp.moveaxis(x, -1, 1), xp.moveaxis(y, -1, 1)
    scale = _window_sums(x * x, size // 2, (size - 1) // 2, xp)
    scale *= alpha
    scale += k
    xp.power(scale, -beta, out=scale)
    xp.multiply(x, scale, out=y)


def local_response_norm_backward_gather(
    dy: Array, x: Array, dx: Array, size: int, alpha: float, beta: float, k: float, last: bool, xp: Any
) -> None:
    """dy, x [N, C, ...]; dx overwritten. last: [N, ..., C]."""
    if last:
        dy, x, dx = (xp.moveaxis(a, -1, 1) for a in (dy, x, dx))
    before, after = size // 2, (size - 1) // 2
    scale = _window_sums(x * x, before, after, xp)
    scale *= alpha
    scale += k
    xp.multiply(dy, xp.power(scale, -beta), out=dx)
    # The channels that see a channel lie the other way round.
    shares = _window_sums(dx * x / scale, after, before, xp)
    shares *= x
    shares *= 2 * alpha * beta
    dx -= shares
