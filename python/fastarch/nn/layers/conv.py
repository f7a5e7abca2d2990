"""Convolutions along one, two and three axes, and transposed ones along one and two."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from fastarch.nn import functional as F
from fastarch.nn import init
from fastarch.nn.layers.checks import check_activation, check_layout, check_positive, paddings, sizes
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor

_PAD = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}  # of nn.functional.pad


class _Layer(Module):
    """What all of them hold; `weight_shape` says how channels lie in the weight."""

    axes: ClassVar[int]
    output_padding: tuple[int, ...] = ()

    def _build(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        dtype: Any,
    ) -> None:
        name = type(self).__name__
        check_positive(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"[{name}] groups={groups} does not divide both in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sizes(name, "kernel_size", kernel_size, 1, self.axes)
        self.stride = sizes(name, "stride", stride, 1, self.axes)
        self.padding = padding
        self.dilation = sizes(name, "dilation", dilation, 1, self.axes)
        self.groups = groups
        self.weight = Parameter(np.empty(self.weight_shape(), dtype))
        self.bias = Parameter(np.empty(out_channels, dtype)) if bias else None
        self.reset_parameters()

    def weight_shape(self) -> tuple[int, ...]:
        """[out_channels, in_channels/groups, *kernel_size]."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight.shape)[0])
            init.uniform_(self.bias, -bound, bound)

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return math.prod(outputs) * math.prod(self.weight.shape[1:])

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding != (0,) * self.axes:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.axes:
            text += f", dilation={self.dilation}"
        if any(self.output_padding):
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text


class _Convolution(_Layer):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: str | None = None,
        layout: str = "NCHW",
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        if padding_mode != "zeros" and padding_mode not in _PAD:
            raise ValueError(
                f"[{name}] padding_mode must be one of zeros, {', '.join(_PAD)}, got {padding_mode!r}"
            )
        named = isinstance(padding, str) and padding in ("same", "valid")
        padding = padding if named else paddings(name, padding, self.axes)
        self.padding_mode = padding_mode
        self.activation = check_activation(name, activation)
        self.layout = check_layout(name, layout)
        if layout != "NCHW" and self.axes != 2:
            raise ValueError(f"[{name}] layout must be 'NCHW' but for Conv2d, got {layout!r}")
        self._build(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype)
        if padding == "same" and max(self.stride) != 1:
            raise ValueError(f"[{name}] padding 'same' needs stride 1, got {self.stride}")

    def forward(self, x: Any) -> Tensor:
        return self._convolve(f"conv{self.axes}d", x, self.activation)

    def _convolve(self, function: str, x: Any, activation: str | None, **more: Any) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            inner = [0, 0] if self.layout == "NHWC" else []  # channels are not padded
            x, padding = F.pad(x, [*inner, *self._ends()], _PAD[self.padding_mode]), 0
        return getattr(F, function)(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups, activation, **more
        )

    def _ends(self) -> list[int]:
        """(before, after) of the last axis, then of the last but one, and so on."""
        padding = self.padding
        if padding == "valid":
            padding = (0,) * self.axes
        elif padding == "same":
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size)]
            padding = tuple((far // 2, far - far // 2) for far in reach)
        sides = [(side, side) if isinstance(side, int) else side for side in padding]
        return [end for side in reversed(sides) for end in side]

    def extra_repr(self) -> str:
        text = super().extra_repr()
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        if self.activation is not None:
            text += f", activation={self.activation!r}"
        if self.layout != "NCHW":
            text += f", layout={self.layout!r}"
        return text


class Conv1d(_Convolution):
    """Convolution of [N, in_channels, L] along one axis to [N, out_channels, Q].

    kernel_size, stride, dilation: an int; padding also "same", "valid" or ((before, after),). padding_mode:
    "zeros", "reflect", "replicate" or "circular". weight is [out_channels, in_channels/groups, S], bias
    [out_channels]; both start uniform in +-1/sqrt(in_channels/groups S), as in PyTorch. activation: None,
    "relu", "tanh" or "sigmoid", computed in the same pass. Raises ValueError for sizes that are not positive
    or that groups does not divide.
    """

    axes = 1


class Conv2d(_Convolution):
    """Two-dimensional convolution (cross-correlation) of [N, in_channels, H, W] to [N, out_channels, P, Q].

    kernel_size, stride, padding, dilation: an int or a pair (height, width); padding also "same", "valid" or
    ((top, bottom), (left, right)). padding_mode: "zeros", "reflect", "replicate" or "circular".
    weight is [out_channels, in_channels/groups, R, S], bias [out_channels]; both start uniform in
    +-1/sqrt(in_channels/groups R S), as in PyTorch. activation: None, "relu", "tanh" or "sigmoid", computed
    with the convolution in one pass. Calling the layer takes a `residual` of the output's shape, added before
    the activation in the same pass. layout "NHWC": images are [N, H, W, in_channels] and [N, P, Q,
    out_channels]; the weight, and so the state dict, is the same. Raises ValueError for sizes that are not
    positive or that groups does not divide.
    """

    axes = 2

    def forward(self, x: Any, residual: Any = None) -> Tensor:
        return self._convolve("conv2d", x, self.activation, residual=residual, layout=self.layout)

    def max_pooled(self, x: Any, activation: str | None) -> Tensor:
        """With another activation and max pooling over windows of 2x2 in the same pass."""
        return self._convolve("conv2d_max_pool", x, activation)


class Conv3d(_Convolution):
    """Convolution of volumes [N, in_channels, D, H, W] to [N, out_channels, O, P, Q].

    kernel_size, stride, padding, dilation: an int or three (depth, height, width); padding also "same",
    "valid" or three pairs (before, after). padding_mode: "zeros", "reflect", "replicate" or "circular".
    weight is [out_channels, in_channels/groups, T, R, S], bias [out_channels]; both start uniform in
    +-1/sqrt(in_channels/groups T R S), as in PyTorch. activation: None, "relu", "tanh" or "sigmoid". Raises
    ValueError for sizes that are not positive or that groups does not divide.
    """

    axes = 3


class _TransposedConvolution(_Layer):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        if padding_mode != "zeros":
            raise ValueError(
                f"[{name}] padding_mode must be 'zeros' (the padding is cut off), got {padding_mode!r}"
            )
        padding = paddings(name, padding, self.axes)
        self.output_padding = sizes(name, "output_padding", output_padding, 0, self.axes)
        self._build(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype)

    def weight_shape(self) -> tuple[int, ...]:
        """[in_channels, out_channels/groups, *kernel_size]."""
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, x: Any, output_size: Any = None) -> Tensor:
        """output_size: the wanted sizes of the output's axes, one of the `stride` many that are possible."""
        more = self.output_padding if output_size is None else self._missing(x.shape, output_size)
        call = getattr(F, f"conv_transpose{self.axes}d")
        return call(x, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)

    def _missing(self, shape: tuple[int, ...], output_size: Any) -> tuple[int, ...]:
        """The output padding that gives output_size."""
        name = type(self).__name__
        if not isinstance(output_size, (tuple, list)) or len(output_size) not in (self.axes, self.axes + 2):
            raise ValueError(
                f"[{name}] output_size must be {self.axes} sizes, or the {self.axes + 2} of a whole shape, "
                f"got {output_size!r}"
            )
        wanted = sizes(name, "output_size", tuple(output_size)[-self.axes :], 1, self.axes)
        sides = [(side, side) if isinstance(side, int) else side for side in self.padding]
        least = tuple(
            (size - 1) * s + d * (k - 1) + 1 - sum(side)
            for size, s, d, k, side in zip(shape[2:], self.stride, self.dilation, self.kernel_size, sides)
        )
        if any(not low <= size < low + step for size, low, step in zip(wanted, least, self.stride)):
            most = tuple(low + step - 1 for low, step in zip(least, self.stride))
            raise ValueError(f"[{name}] output_size must be between {least} and {most}, got {wanted}")
        return tuple(size - low for size, low in zip(wanted, least))

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return math.prod(inputs) * math.prod(self.weight.shape[1:])


class ConvTranspose1d(_TransposedConvolution):
    """Transposed convolution of [N, in_channels, L] to [N, out_channels, Q].

    Q is (L - 1)*stride - 2*padding + dilation*(kernel_size - 1) + output_padding + 1. weight is
    [in_channels, out_channels/groups, S], bias [out_channels]; both start uniform in
    +-1/sqrt(out_channels/groups S), as in PyTorch. Raises ValueError for sizes that are not positive or that
    groups does not divide.
    """

    axes = 1


class ConvTranspose2d(_TransposedConvolution):
    """Transposed convolution of [N, in_channels, H, W] to [N, out_channels, P, Q].

    P is (H - 1)*stride - 2*padding + dilation*(kernel_size - 1) + output_padding + 1; every argument an int
    or a pair (height, width). weight is [in_channels, out_channels/groups, R, S], bias [out_channels]; both
    start uniform in +-1/sqrt(out_channels/groups R S), as in PyTorch. Raises ValueError for sizes that are
    not positive or that groups does not divide.
    """

    axes = 2
