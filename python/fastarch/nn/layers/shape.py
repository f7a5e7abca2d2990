"""Layers that change the shape, or nothing."""

from __future__ import annotations

from typing import Any

from fastarch.nn.module import Module
from fastarch.tensors import Tensor, as_tensor


class Flatten(Module):
    """Joins the dimensions from start_dim to end_dim, both included, into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Any) -> Tensor:
        return as_tensor(x).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Gives back its input; takes the place of a layer that is left out."""

    def forward(self, x: Any) -> Any:
        return x
