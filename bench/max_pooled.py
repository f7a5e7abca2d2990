"""Convolution, ReLU and 2x2 max pooling: in one pass, by one operator after the other, and by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import peers
from peers import Convolution, Place, random_float32
from timing import Contender

import fastarch as fa

PROBLEMS = [
    Convolution("lenet conv1 5x5 pooled N64", 64, 1, 32, 6, 5),
    Convolution("lenet conv2 5x5 pooled N64", 64, 6, 14, 16, 5),
    Convolution("vgg conv1_2 3x3 64@224 pooled N2", 2, 64, 224, 64, 3, 1, 1),
    Convolution("vgg conv3_3 3x3 256@56 pooled N4", 4, 256, 56, 256, 3, 1, 1),
]
PASSES = ("forward", "gradients")


def contenders_of(p: Convolution, direction: str, place: Place) -> tuple[list[Contender], np.ndarray]:
    """Everything that computes y, or dx, dw and db, of which dw is checked; and the answer in float64."""
    rng = np.random.default_rng(0)
    x, bias = random_float32(rng, p.n, p.c, p.size, p.size), random_float32(rng, p.k)
    weight = random_float32(rng, p.k, p.c // p.groups, p.r, p.r)
    dy = random_float32(rng, p.n, p.k, p.output // 2, p.output // 2)
    host = [x, weight, bias, dy]
    here = [place.native(a) for a in host]
    one, apart = (make(p, direction) for make in (_in_one_pass, _apart))
    contenders = peers.ours(place, one(*here))
    for contender in peers.ours(place, apart(*here)):
        contenders.append(Contender(f"{contender.name} apart", contender.run))
    if peers.torch is not None:
        tensors = [place.tensor(a) for a in host]
        contenders += peers.theirs(place, _by_torch(p, direction, *tensors))
        if place.device == "cuda":
            # In double precision the processor would take longer than all measurements.
            return contenders, _by_torch(p, direction, *(a.double() for a in tensors))().cpu().numpy()
    with fa.backend("numpy"):
        return contenders, apart(*(a.astype(float) for a in host))()


Maker = Callable[..., Callable[[], Any]]


def _in_one_pass(p: Convolution, direction: str) -> Maker:
    def make(x: Any, weight: Any, bias: Any, dy: Any) -> Callable[[], Any]:
        call = {**p.call, "activation": "relu"}
        if direction == "forward":
            return lambda: fa.ops.conv2d_max_pool(x, weight, bias, **call)[0]
        y, argmax = fa.ops.conv2d_max_pool(x, weight, bias, **call)
        return lambda: fa.ops.conv2d_max_pool_backward(dy, x, weight, y, argmax, **call)[1]

    return make


def _apart(p: Convolution, direction: str) -> Maker:
    def make(x: Any, weight: Any, bias: Any, dy: Any) -> Callable[[], Any]:
        def forward() -> tuple[Any, Any, Any]:
            full = fa.ops.conv2d(x, weight, bias, **p.call, activation="relu")
            return (full, *fa.ops.max_pool2d(full, 2))

        if direction == "forward":
            return lambda: forward()[1]
        full, _, argmax = forward()

        def gradients() -> Any:
            slope = fa.ops.relu_backward(fa.ops.max_pool2d_backward(dy, argmax, full.shape, 2), full)
            return fa.ops.conv2d_backward(slope, x, weight, **p.call)[1]

        return gradients

    return make


def _by_torch(p: Convolution, direction: str, x: Any, weight: Any, bias: Any, dy: Any) -> Callable[[], Any]:
    functional, aten = peers.torch.nn.functional, peers.torch.ops.aten

    def forward() -> tuple[Any, Any, Any]:
        full = functional.conv2d(x, weight, bias, **p.call).relu_()
        return (full, *functional.max_pool2d(full, 2, return_indices=True))

    if direction == "forward":
        return lambda: forward()[1]
    full, _, indices = forward()
    sizes = [[2, 2], [2, 2], [0, 0], [1, 1], False]
    both = ([p.stride] * 2, [p.padding] * 2, [1, 1], False, [0, 0], p.groups, [True] * 3)

    def gradients() -> Any:
        slope = aten.max_pool2d_with_indices_backward(dy, full, *sizes, indices)
        slope = aten.threshold_backward(slope, full, 0)
        return aten.convolution_backward(slope, x, weight, [p.k], *both)[1]

    return gradients
