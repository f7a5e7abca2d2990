"""Normalisation as functions of tensors, under the names that PyTorch gives them."""

from __future__ import annotations

from typing import Any

from fastarch import ops
from fastarch.autograd import Array, Function
from fastarch.tensors import Tensor, as_tensor

__all__ = ["batch_norm", "local_response_norm"]


class BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Array,
        weight: Array | None,
        bias: Array | None,
        residual: Array | None,
        running: tuple[Array | None, Array | None],
        options: dict[str, Any],
    ) -> Array:
        y, mean, var = ops.batch_norm(x, *running, weight, bias, residual=residual, **options)
        ctx.options = {name: value for name, value in options.items() if name != "momentum"}
        ctx.save(x, weight, mean, var, None if options["activation"] is None else y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, weight, mean, var, y = ctx.saved
        # Without a ReLU the residual's gradient is dy itself.
        masked = ctx.needs[3] and y is not None
        dx, dweight, dbias, dresidual = ops.batch_norm_backward(
            dy, x, mean, var, weight, y, residual=masked, **ctx.options
        )
        return dx, dweight, dbias, dresidual if masked else dy, None, None


def batch_norm(
    x: Any,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Any = None,
    activation: str | None = None,
    layout: str = "NCHW",
) -> Tensor:
    """x [N, C, ...] scaled to mean 0 and variance 1 in each channel, times weight plus bias [C]; plus
    residual of x's shape, then activation None or "relu", in the same pass.

    training: by the batch's statistics, towards which the running ones [C] move in place; else by these.
    layout "NHWC": x is [N, ..., C]. Raises ValueError as fastarch.ops.batch_norm does.
    """
    options = {
        "training": training,
        "momentum": momentum,
        "eps": eps,
        "activation": activation,
        "layout": layout,
    }
    return BatchNorm.apply(as_tensor(x), weight, bias, residual, (running_mean, running_var), options)


class LocalResponseNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, numbers: tuple[int, float, float, float, bool, str]) -> Array:
        ctx.numbers = numbers
        ctx.save(x)
        return ops.local_response_norm(x, *numbers)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return ops.local_response_norm_backward(dy, ctx.saved[0], *ctx.numbers), None


def local_response_norm(
    x: Any,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    average: bool = True,
    layout: str = "NCHW",
) -> Tensor:
    """x [N, C, ...] over (k + alpha * (mean of x^2 over `size` neighbouring channels))^beta; average=False:
    over the sum of the squares. layout "NHWC": x is [N, ..., C].
    """
    return LocalResponseNorm.apply(as_tensor(x), (size, alpha, beta, k, average, layout))
