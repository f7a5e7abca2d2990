"""A convolution and the max pooling behind it: one pass where the layers allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastarch.nn.layers.activation import ReLU, Sigmoid, Tanh
from fastarch.nn.layers.conv import Conv2d
from fastarch.nn.layers.pooling import MaxPool2d
from fastarch.nn.module import Module
from fastarch.tensors import Tensor

_ACTIVATIONS: dict[type[Module], str] = {ReLU: "relu", Tanh: "tanh", Sigmoid: "sigmoid"}


def convolve_and_pool(convolution: Module, pooling: Module, x: Any) -> Tensor:
    """pooling(convolution(x)), in one pass if they are a Conv2d and a MaxPool2d(2)."""
    found = pooled_convolution((convolution, pooling), 0)
    return pooling(convolution(x)) if found is None else found[0].max_pooled(x, found[1])


def pooled_convolution(modules: Sequence[Module], at: int) -> tuple[Conv2d, str | None, int] | None:
    """The Conv2d at modules[at], the activation and the number of modules that one pass computes, up to a
    MaxPool2d(2) as the next module or the next but one, behind an activation; None where they are others.
    """
    convolution = modules[at]
    if type(convolution) is not Conv2d or at + 1 == len(modules):
        return None
    activation, end = convolution.activation, at + 1
    if activation is None and type(modules[end]) in _ACTIVATIONS:
        activation, end = _ACTIVATIONS[type(modules[end])], end + 1
    if end == len(modules) or not _halves(modules[end]):
        return None
    if any(_is_other(module) for module in modules[at : end + 1]):
        return None
    return convolution, activation, end + 1 - at


def _is_other(module: Module) -> bool:
    """Whether somebody watches its calls (nn.summary), or it takes images with their channels last."""
    return "forward" in vars(module) or getattr(module, "layout", "NCHW") != "NCHW"


def _halves(module: Module) -> bool:
    return (
        type(module) is MaxPool2d
        and module.kernel_size == module.stride == (2, 2)
        and module.padding == (0, 0)
        and module.dilation == (1, 1)
        and not module.ceil_mode
    )
