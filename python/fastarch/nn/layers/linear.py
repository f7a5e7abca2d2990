"""Linear layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastarch.nn import functional as F
from fastarch.nn import init
from fastarch.nn.layers.checks import check_activation, check_positive
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor


class Linear(Module):
    """x [..., in_features] times weight [out_features, in_features], transposed, plus bias [out_features].

    Both start uniform in +-1/sqrt(in_features), as in PyTorch. activation: None, "relu", "tanh" or "sigmoid",
    computed in the same pass. Raises ValueError for sizes that are not positive.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: str | None = None,
        dtype: Any = np.float32,
    ) -> None:
        check_positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = check_activation("Linear", activation)
        self.weight = Parameter(np.empty((out_features, in_features), dtype))
        self.bias = Parameter(np.empty(out_features, dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws weight and bias anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        return F.linear(x, self.weight, self.bias, self.activation)

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        return math.prod(outputs) * self.in_features

    def extra_repr(self) -> str:
        text = (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
        return text if self.activation is None else f"{text}, activation={self.activation!r}"
