"""What memory limits, beside PyTorch: batch and response normalisation, optimizers. Pooling is in peers.py.

The least bytes are those of the passes that docs/kernels-memory.md names; over the time they say how much of
the device's bandwidth a contender uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers import Place, ours, random_float32, theirs, torch
from timing import Contender

import fastarch as fa

DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Normalization:
    """kind: batch (training) or response (window of five); x of `shape` in a layout."""

    kind: str
    shape: tuple[int, ...]
    layout: str = "NCHW"

    @property
    def name(self) -> str:
        return f"{self.kind} norm {'x'.join(map(str, self.shape))} {self.layout}"

    def least_bytes(self, direction: str) -> float:
        passes = {"batch": (3, 5), "response": (2, 3)}[self.kind][direction == "backward"]
        return 4.0 * passes * float(np.prod(self.shape))


@dataclass(frozen=True)
class Step:
    """One optimizer step on the parameters of ResNet-50, [K, C, R, R] and [K] of each convolution."""

    kind: str  # adam or sgd

    @property
    def name(self) -> str:
        return f"{self.kind} step of 25 M parameters"


HOST: list[Normalization] = [
    Normalization("batch", (8, 64, 56, 56)),
    Normalization("batch", (8, 56, 56, 64), "NHWC"),
    Normalization("response", (4, 96, 27, 27)),
    Normalization("response", (4, 27, 27, 96), "NHWC"),
]
DEVICE = [
    Normalization("batch", (64, 64, 112, 112)),
    Normalization("batch", (64, 112, 112, 64), "NHWC"),
    Normalization("batch", (128, 1024, 14, 14)),
    Normalization("batch", (128, 14, 14, 1024), "NHWC"),
    Normalization("response", (256, 96, 55, 55)),
    Normalization("response", (256, 55, 55, 96), "NHWC"),
]
STEPS = [Step("adam"), Step("sgd")]


def contenders(p: Normalization, direction: str, place: Place) -> tuple[list[Contender], np.ndarray]:
    """Everything that computes one pass here, and the answer in float64."""
    rng = np.random.default_rng(0)
    x, dy = random_float32(rng, *p.shape), random_float32(rng, *p.shape)
    channels = p.shape[-1 if p.layout == "NHWC" else 1]
    weight, bias = random_float32(rng, channels), random_float32(rng, channels)

    def run(x: Any, dy: Any, weight: Any, bias: Any) -> Callable[[], Any]:
        """The pass; what a backward needs of a forward is computed once, before."""
        if p.kind == "response":
            numbers = {"size": 5, "layout": p.layout}
            if direction == "forward":
                return lambda: fa.ops.local_response_norm(x, **numbers)
            return lambda: fa.ops.local_response_norm_backward(dy, x, **numbers)
        options = {"training": True, "layout": p.layout}
        if direction == "forward":
            return lambda: fa.ops.batch_norm(x, weight=weight, bias=bias, **options)[0]
        _, mean, var = fa.ops.batch_norm(x, weight=weight, bias=bias, **options)
        return lambda: fa.ops.batch_norm_backward(dy, x, mean, var, weight, **options)[0]

    arrays = [x, dy, weight, bias]
    entries = ours(place, run(*(place.native(a) for a in arrays)))
    if torch is not None:
        entries += theirs(place, _torch_pass(p, direction, [place.tensor(a) for a in arrays]))
        if place.device == "cuda":
            # In double precision the processor would take longer than all measurements.
            wide = [place.tensor(a).double() for a in arrays]
            return entries, _torch_pass(p, direction, wide)().cpu().numpy()
    with fa.backend("numpy"):
        return entries, run(*(a.astype(np.float64) for a in arrays))()


def _torch_pass(p: Normalization, direction: str, tensors: list[Any]) -> Callable[[], Any]:
    """PyTorch takes channels-last images as [N, C, H, W] with other strides; its results are turned back."""
    x, dy, weight, bias = tensors
    last = p.layout == "NHWC"
    if last:
        x, dy = (a.permute(0, 3, 1, 2) for a in (x, dy))

    def turned(y: Any) -> Any:
        return y.permute(0, 2, 3, 1) if last else y

    functional = torch.nn.functional
    if p.kind == "response":

        def forward(x: Any) -> Any:
            return functional.local_response_norm(x, 5)
    else:

        def forward(x: Any) -> Any:
            return functional.batch_norm(x, None, None, weight, bias, True)

    if direction == "forward":
        return lambda: turned(forward(x))
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = forward(x)
    return lambda: turned(torch.autograd.grad(y, x, dy, retain_graph=True)[0])


def shapes() -> list[tuple[int, ...]]:
    """A list of tensors as a network has it: most small, a few large."""
    from layers import layers

    found = [(p.k, p.c // p.groups, p.r, p.r) for p, m in layers("resnet50", 1) for _ in range(m)]
    return [shape for weight in found for shape in (weight, (weight[0],), (weight[0],))] + [(1000, 2048)]


def steps(problem: Step, place: Place) -> tuple[list[Contender], float]:
    """One step by all, from equal parameters and gradients, and its least bytes."""
    rng = np.random.default_rng(0)
    start = [random_float32(rng, *shape) for shape in shapes()]
    slopes = [random_float32(rng, *shape) for shape in shapes()]
    options: dict[str, Any] = {"lr": 1e-3} if problem.kind == "adam" else {"lr": 1e-2, "momentum": 0.9}

    def ours_of(backend: str) -> Callable[[], Any]:
        parameters = [fa.nn.Parameter(place.native(a.copy())) for a in start]
        for parameter, slope in zip(parameters, slopes):
            parameter.grad = place.native(slope)
        made = (fa.optim.Adam if problem.kind == "adam" else fa.optim.SGD)(parameters, **options)

        def call() -> None:
            with fa.backend(backend):
                made.step()

        return call

    entries = [Contender(f"fastarch {name}", ours_of(name)) for name in place.backends]
    if torch is not None:
        for way in ("foreach", "fused"):
            if way == "fused" and place.device == "host":
                continue
            parameters = [place.tensor(a.copy()).requires_grad_() for a in start]
            for parameter, slope in zip(parameters, slopes):
                parameter.grad = place.tensor(slope)
            kind = torch.optim.Adam if problem.kind == "adam" else torch.optim.SGD
            entries.append(
                Contender(f"torch {way}", kind(parameters, **{way: True}, **options).step, peer=True)
            )
    count = sum(a.size for a in start)
    return entries, count * 4.0 * (7 if problem.kind == "adam" else 5)
