"""The problems of the kernel benchmarks and all that computes them: fastarch's backends and PyTorch.

float32 throughout. On a GPU PyTorch means cuDNN with its own search for the fastest algorithm, once in
float32 and once with TF32 allowed, which is its usual setting but not the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from timing import Contender

import fastarch as fa
from fastarch import backends

try:
    import torch
except ImportError:
    torch = None  # the peers are left out; the table then has no ratios


@dataclass(frozen=True)
class Convolution:
    """x [N, C, H, W], weight [K, C/groups, R, R]."""

    name: str
    n: int
    c: int
    size: int
    k: int
    r: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def output(self) -> int:
        return (self.size + 2 * self.padding - self.r) // self.stride + 1

    @property
    def flops(self) -> float:
        """Multiplications and additions of one pass; the three passes need equally many."""
        return 2.0 * self.n * self.k * self.output**2 * (self.c // self.groups) * self.r**2

    @property
    def call(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding, "groups": self.groups}


CONVOLUTIONS = [
    Convolution("lenet conv1 5x5 N64", 64, 1, 32, 6, 5),
    Convolution("lenet conv2 5x5 N64", 64, 6, 14, 16, 5),
    Convolution("alexnet conv1 11x11/4 N8", 8, 3, 224, 64, 11, 4, 2),
    Convolution("vgg conv2 3x3 64@112 N2", 2, 64, 112, 128, 3, 1, 1),
    Convolution("resnet 3x3 64@56 N8", 8, 64, 56, 64, 3, 1, 1),
    Convolution("resnet 3x3 256@14 N8", 8, 256, 14, 256, 3, 1, 1),
    Convolution("resnet 1x1 256@56 N4", 4, 256, 56, 64, 1),
    Convolution("depthwise 3x3 128@28 N8", 8, 128, 28, 128, 3, 1, 1, 128),
]
PASSES = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True)
class Pooling:
    """kind: max, average or adaptive (`kernel` is the output's extent); x [N, C, H, W] or [N, H, W, C]."""

    name: str
    kind: str
    n: int
    c: int
    size: int
    kernel: int
    stride: int = 0
    padding: int = 0
    layout: str = "NCHW"

    @property
    def shape(self) -> tuple[int, ...]:
        last = self.layout == "NHWC"
        return (self.n, *((self.size, self.size, self.c) if last else (self.c, self.size, self.size)))

    @property
    def call(self) -> dict[str, Any]:
        if self.kind == "adaptive":
            return {"output_size": self.kernel, "layout": self.layout}
        sizes = {"kernel_size": self.kernel, "stride": self.stride or self.kernel, "padding": self.padding}
        return {**sizes, "layout": self.layout}


POOLINGS = [
    Pooling("max 2x2 lenet 6@28 N64", "max", 64, 6, 28, 2),
    Pooling("average 2x2 lenet 6@28 N64", "average", 64, 6, 28, 2),
    Pooling("max 2x2 vgg 64@224 N2", "max", 2, 64, 224, 2),
    Pooling("max 3x3/2 resnet 64@112 N8", "max", 8, 64, 112, 3, 2, 1),
    Pooling("adaptive 7x7 512@14 N8", "adaptive", 8, 512, 14, 7),
    Pooling("max 2x2 vgg 64@224 NHWC N2", "max", 2, 64, 224, 2, layout="NHWC"),
    Pooling("max 3x3/2 resnet 64@112 NHWC N8", "max", 8, 64, 112, 3, 2, 1, "NHWC"),
    Pooling("average 3x3/2 64@112 NHWC N8", "average", 8, 64, 112, 3, 2, 1, "NHWC"),
    Pooling("global resnet 2048@7 NHWC N8", "adaptive", 8, 2048, 7, 1, layout="NHWC"),
]


def at_batch(problem: Any, n: int) -> Any:
    """The same problem with another batch, for a device that a small one does not fill."""
    fields = {**problem.__dict__, "n": n, "name": problem.name.rsplit(" ", 1)[0] + f" N{n}"}
    return type(problem)(**fields)


@dataclass(frozen=True)
class Place:
    """Where the arrays lie: "host" or "cuda", and which backends of fastarch compute there."""

    device: str

    @property
    def backends(self) -> list[str]:
        wanted = ["cuda"] if self.device == "cuda" else ["numpy", "cpu"]
        return [name for name in wanted if backends.reason_unusable(name) is None]

    def native(self, array: np.ndarray) -> Any:
        if self.device == "host":
            return array
        import cupy

        return cupy.asarray(array)

    def tensor(self, array: np.ndarray) -> Any:
        return torch.from_numpy(array).to("cuda" if self.device == "cuda" else "cpu")


def ours(place: Place, run: Callable[[], Any], layout: str = "") -> list[Contender]:
    """`run` on each backend of fastarch that works in this place; layout: what to add to the name."""

    def on(name: str) -> Callable[[], Any]:
        chosen = fa.backend(name)

        def call() -> Any:
            with chosen:
                return run()

        return call

    return [Contender(f"fastarch {name}{layout}", on(name)) for name in place.backends]


def by_winograd(place: Place, run: Callable[[], Any]) -> list[Contender]:
    """`run` of 3x3 convolutions by each way of Winograd's, on the compiled backends."""

    def asked(algorithm: str, contender: Contender) -> Contender:
        chosen = fa.conv_algorithm(algorithm)

        def call() -> Any:
            with chosen:
                return contender.run()

        return Contender(f"{contender.name} {algorithm}", call)

    compiled = [c for c in ours(place, run) if c.name != "fastarch numpy"]
    return [asked(name, contender) for name in ("winograd2", "winograd4") for contender in compiled]


def theirs(place: Place, run: Callable[[], Any], layout: str = "") -> list[Contender]:
    """`run` by PyTorch, without recording gradients; layout: what to add to the name."""
    if torch is None:
        return []

    def with_precision(tf32: bool) -> Callable[[], Any]:
        def call() -> Any:
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cudnn.benchmark = True
            with torch.no_grad():
                return run()

        return call

    if place.device == "host":
        return [Contender(f"torch{layout}", with_precision(False), peer=True)]
    return [
        Contender(f"torch cuDNN{layout}", with_precision(False), peer=True),
        Contender(f"torch cuDNN TF32{layout}", with_precision(True)),
    ]


def random_float32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def convolution_contenders(
    problem: Convolution, direction: str, place: Place
) -> tuple[list[Contender], np.ndarray]:
    """Everything that computes one pass of a convolution here, and the answer in float64."""
    rng, p = np.random.default_rng(0), problem
    x = random_float32(rng, p.n, p.c, p.size, p.size)
    weight = random_float32(rng, p.k, p.c // p.groups, p.r, p.r)
    dy = random_float32(rng, p.n, p.k, p.output, p.output)
    ax, aw, ady = (place.native(a) for a in (x, weight, dy))
    index = PASSES.index(direction) - 1  # of the gradient among (dx, dw)

    need = (index == 0, index == 1)

    def our_pass(x: Any, weight: Any, dy: Any, layout: str = "NCHW") -> Any:
        if direction == "forward":
            result = fa.ops.conv2d(x, weight, layout=layout, **p.call)
        else:
            more = {"bias": False, "need": need, "layout": layout, **p.call}
            result = fa.ops.conv2d_backward(dy, x, weight, **more)[index]
        # A view of an image as the reference has it.
        return result.transpose(0, 3, 1, 2) if layout == "NHWC" and index != 1 else result

    def their_pass(x: Any, weight: Any, dy: Any) -> Any:
        if direction == "forward":
            return torch.nn.functional.conv2d(x, weight, **p.call)
        both = ([p.stride] * 2, [p.padding] * 2, [1, 1], False, [0, 0], p.groups, [*need, False])
        return torch.ops.aten.convolution_backward(dy, x, weight, None, *both)[index]

    contenders = ours(place, lambda: our_pass(ax, aw, ady))
    if p.r == 3 and p.stride == p.groups == 1 and direction != "weight gradient":
        contenders += by_winograd(place, lambda: our_pass(ax, aw, ady))
    lx, ldy = (place.native(np.ascontiguousarray(a.transpose(0, 2, 3, 1))) for a in (x, dy))
    contenders += ours(place, lambda: our_pass(lx, aw, ldy, "NHWC"), " NHWC")
    if torch is not None:
        theirs_here = [place.tensor(a) for a in (x, weight, dy)]
        contenders += theirs(place, lambda: their_pass(*theirs_here))
        last = [a.to(memory_format=torch.channels_last) for a in theirs_here]
        contenders += theirs(place, lambda: their_pass(*last), " NHWC")
        if place.device == "cuda":
            # In double precision the processor would take longer than all measurements.
            return contenders, their_pass(*(a.double() for a in theirs_here)).cpu().numpy()
    return contenders, _float64(lambda: our_pass(*(a.astype(float) for a in (x, weight, dy))))


def pooling_contenders(problem: Pooling, direction: str, place: Place) -> tuple[list[Contender], np.ndarray]:
    """Everything that computes one pass of a pooling here, and the answer in float64."""
    rng, p = np.random.default_rng(0), problem
    op = {"max": "max_pool2d", "average": "avg_pool2d", "adaptive": "adaptive_avg_pool2d"}[p.kind]
    x = random_float32(rng, *p.shape)
    ax = place.native(x)
    forward, backward = getattr(fa.ops, op), getattr(fa.ops, f"{op}_backward")
    # In double precision the processor would take longer than all measurements.
    by_torch = torch is not None and place.device == "cuda"
    made = forward(ax, **p.call) if by_torch else _float64(lambda: forward(x.astype(float), **p.call))
    y, argmax = made if p.kind == "max" else (made, None)
    dy = random_float32(rng, *y.shape)
    ady, aargmax = place.native(dy), None if argmax is None else place.native(argmax)
    first = (lambda result: result[0]) if p.kind == "max" else (lambda result: result)

    def gradient(dy: Any, argmax: Any) -> Any:
        more = {"layout": p.layout} if p.kind == "adaptive" else p.call
        return backward(dy, *([argmax] if p.kind == "max" else []), input_shape=x.shape, **more)

    if direction == "forward":
        contenders = ours(place, lambda: first(forward(ax, **p.call)))
    else:
        contenders = ours(place, lambda: gradient(ady, aargmax))
    if torch is not None:
        theirs_here = [place.tensor(a) for a in (x, dy)]
        contenders += theirs(place, _torch_pooling(p, direction, *theirs_here))
        if by_torch:
            wide = [a.double() for a in theirs_here]
            return contenders, _torch_pooling(p, direction, *wide)().cpu().numpy()
    return contenders, y if direction == "forward" else _float64(lambda: gradient(dy.astype(float), argmax))


def _torch_pooling(p: Pooling, direction: str, x: Any, dy: Any) -> Callable[[], Any]:
    """PyTorch takes channels-last images as [N, C, H, W] with other strides; its results are turned back."""
    if p.layout == "NHWC":
        x, dy = (a.permute(0, 3, 1, 2) for a in (x, dy))
        run = _torch_pooling_of_planes(p, direction, x, dy)
        return lambda: run().permute(0, 2, 3, 1)
    return _torch_pooling_of_planes(p, direction, x, dy)


def _torch_pooling_of_planes(p: Pooling, direction: str, x: Any, dy: Any) -> Callable[[], Any]:
    functional, aten = torch.nn.functional, torch.ops.aten
    sizes = [[p.kernel] * 2, [p.stride or p.kernel] * 2, [p.padding] * 2]
    if p.kind == "max":
        if direction == "forward":
            return lambda: functional.max_pool2d(x, *sizes, return_indices=True)[0]
        indices = functional.max_pool2d(x, *sizes, return_indices=True)[1]
        return lambda: aten.max_pool2d_with_indices_backward(dy, x, *sizes, [1, 1], False, indices)
    if p.kind == "average":
        if direction == "forward":
            return lambda: functional.avg_pool2d(x, *sizes)
        return lambda: aten.avg_pool2d_backward(dy, x, *sizes, False, True, None)
    if direction == "forward":
        return lambda: functional.adaptive_avg_pool2d(x, p.kernel)
    return lambda: aten._adaptive_avg_pool2d_backward(dy, x)


def _float64(run: Callable[[], Any]) -> Any:
    """The reference: the generic code in double precision, which the tests compare with the definition."""
    with fa.backend("numpy"):
        return run()
