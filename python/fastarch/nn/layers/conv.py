"""Convolutions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastarch.nn import functional as F
from fastarch.nn import init
from fastarch.nn.layers.checks import check_activation, check_positive, pair
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor


class Conv2d(Module):
    """Two-dimensional convolution (cross-correlation) of [N, in_channels, H, W] to [N, out_channels, P, Q].

    kernel_size, stride, padding, dilation: an int or a pair (height, width); padding also "same" or "valid".
    weight is [out_channels, in_channels/groups, R, S], bias [out_channels]; both start uniform in
    +-1/sqrt(in_channels/groups R S), as in PyTorch. activation: None, "relu", "tanh" or "sigmoid", computed
    with the convolution in one pass. Raises ValueError for sizes that are not positive or that groups does
    not divide.
    """

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
        *,
        activation: str | None = None,
        dtype: Any = np.float32,
    ) -> None:
        check_positive("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"[Conv2d] groups={groups} does not divide both in_channels={in_channels} and "
                f"out_channels={out_channels}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride = pair("Conv2d", "stride", stride, 1)
        self.padding = padding if padding in ("same", "valid") else pair("Conv2d", "padding", padding, 0)
        self.dilation = pair("Conv2d", "dilation", dilation, 1)
        self.groups = groups
        self.activation = check_activation("Conv2d", activation)
        self.weight = Parameter(np.empty((out_channels, in_channels // groups, *self.kernel_size), dtype))
        self.bias = Parameter(np.empty(out_channels, dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight.shape)[0])
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, self.activation
        )

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return math.prod(outputs) * math.prod(self.weight.shape[1:])

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.activation is not None:
            text += f", activation={self.activation!r}"
        return text
