"""Pooling over windows of [N, C, H, W], with layout "NHWC" of [N, H, W, C], and of [N, C, L]."""

from __future__ import annotations

from typing import Any

from fastarch.nn import functional as F
from fastarch.nn.layers.checks import check_layout, pair
from fastarch.nn.module import Module
from fastarch.tensors import Tensor, as_tensor


class MaxPool2d(Module):
    """The largest element of every window; stride None is the kernel's size, padding counts as minus
    infinity.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        ceil_mode: bool = False,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = pair("MaxPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("MaxPool2d", "stride", stride, 1)
        self.padding = pair("MaxPool2d", "padding", padding, 0)
        self.dilation = pair("MaxPool2d", "dilation", dilation, 1)
        self.ceil_mode = ceil_mode
        self.layout = check_layout("MaxPool2d", layout)

    def forward(self, x: Any) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool2d(x, *window, self.ceil_mode, layout=self.layout)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={_short(self.kernel_size)}, stride={_short(self.stride)}, "
            f"padding={_short(self.padding)}, dilation={_short(self.dilation)}, ceil_mode={self.ceil_mode}"
        ) + _other(self.layout)


class AvgPool2d(Module):
    """The mean of every window; stride None is the kernel's size, count_include_pad puts padding in the
    divisor.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        layout: str = "NCHW",
    ) -> None:
        self.kernel_size = pair("AvgPool2d", "kernel_size", kernel_size, 1)
        self.stride = self.kernel_size if stride is None else pair("AvgPool2d", "stride", stride, 1)
        self.padding = pair("AvgPool2d", "padding", padding, 0)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.layout = check_layout("AvgPool2d", layout)

    def forward(self, x: Any) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return F.avg_pool2d(x, *window, self.ceil_mode, self.count_include_pad, layout=self.layout)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={_short(self.kernel_size)}, stride={_short(self.stride)}, "
            f"padding={_short(self.padding)}"
        ) + _other(self.layout)


class AdaptiveAvgPool2d(Module):
    """Means over windows chosen so that the output is [N, C, *output_size]; None in it keeps that
    dimension.
    """

    def __init__(self, output_size: Any, *, layout: str = "NCHW") -> None:
        self.output_size = output_size
        self.layout = check_layout("AdaptiveAvgPool2d", layout)

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size, layout=self.layout)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}" + _other(self.layout)


class AdaptiveMaxPool2d(Module):
    """Maxima over windows chosen so that the output is [N, C, *output_size]; None in it keeps that
    dimension.
    """

    def __init__(self, output_size: Any, *, layout: str = "NCHW") -> None:
        self.output_size = output_size
        self.layout = check_layout("AdaptiveMaxPool2d", layout)

    def forward(self, x: Any) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size, layout=self.layout)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}" + _other(self.layout)


def _other(layout: str) -> str:
    return "" if layout == "NCHW" else f", layout={layout!r}"


class _Pool1d(Module):
    """Pooling of [N, C, L], which is pooling of images one pixel high."""

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim != 3:
            raise ValueError(f"[{type(self).__name__}] x has shape {x.shape}, expected [N, C, L]")
        n, c, length = x.shape
        y = self._pool(x.reshape(n, c, 1, length))
        return y.reshape(n, c, y.shape[3])

    def _pool(self, x: Tensor) -> Tensor:
        raise TypeError(f"[{type(self).__name__}] a pooling layer needs a method _pool")


def _flat(layer: str, name: str, value: Any, least: int, height: int) -> tuple[int, int]:
    """(height, value) for a number, which may stand in a tuple."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return height, pair(layer, name, value, least)[1]


class MaxPool1d(_Pool1d):
    """The largest element of every window of x [N, C, L]; arguments as of MaxPool2d, one number each."""

    def __init__(
        self,
        kernel_size: int,
        stride: Any = None,
        padding: int = 0,
        dilation: int = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size = _flat("MaxPool1d", "kernel_size", kernel_size, 1, 1)
        self.stride = self.kernel_size if stride is None else _flat("MaxPool1d", "stride", stride, 1, 1)
        self.padding = _flat("MaxPool1d", "padding", padding, 0, 0)
        self.dilation = _flat("MaxPool1d", "dilation", dilation, 1, 1)
        self.ceil_mode = ceil_mode

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size[1]}, stride={self.stride[1]}, padding={self.padding[1]}, "
            f"dilation={self.dilation[1]}, ceil_mode={self.ceil_mode}"
        )


class AvgPool1d(_Pool1d):
    """The mean of every window of x [N, C, L]; arguments as of AvgPool2d, one number each."""

    def __init__(
        self,
        kernel_size: int,
        stride: Any = None,
        padding: int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size = _flat("AvgPool1d", "kernel_size", kernel_size, 1, 1)
        self.stride = self.kernel_size if stride is None else _flat("AvgPool1d", "stride", stride, 1, 1)
        self.padding = _flat("AvgPool1d", "padding", padding, 0, 0)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def _pool(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size[1]}, stride={self.stride[1]}, padding={self.padding[1]}"


class AdaptiveAvgPool1d(_Pool1d):
    """Means of x [N, C, L] over windows chosen so that the output is [N, C, output_size]."""

    def __init__(self, output_size: int) -> None:
        self.output_size = _flat("AdaptiveAvgPool1d", "output_size", output_size, 1, 1)

    def _pool(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size[1]}"


class AdaptiveMaxPool1d(_Pool1d):
    """Maxima of x [N, C, L] over windows chosen so that the output is [N, C, output_size]."""

    def __init__(self, output_size: int) -> None:
        self.output_size = _flat("AdaptiveMaxPool1d", "output_size", output_size, 1, 1)

    def _pool(self, x: Tensor) -> Tensor:
        return F.adaptive_max_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size[1]}"


def _short(value: tuple[int, int]) -> int | tuple[int, int]:
    return value[0] if value[0] == value[1] else value
