"""Layers that only act while training."""

from __future__ import annotations

from typing import Any

from fastarch.nn import functional as F
from fastarch.nn.module import Module
from fastarch.tensors import Tensor


class Dropout(Module):
    """Zeroes each element with probability p in [0, 1] and scales the rest by 1 / (1 - p); in training only.

    Srivastava et al. 2014. Raises ValueError for p out of range.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"[Dropout] p must be in [0, 1], got {p}")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
