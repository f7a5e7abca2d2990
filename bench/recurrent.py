"""The problems of the recurrent benchmarks and all that computes them: fastarch, PyTorch and cuDNN.

float32, and on a GPU bfloat16 and float16 too. On a GPU fastarch means each of its algorithms, PyTorch cuDNN
as it chooses, and cuDNN each of its algorithms through its C API; what does not take a layer is listed as
refused. On the host each of fastarch's backends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cudnn_rnn
import numpy as np
from peers import Place, random_float32, theirs, torch
from timing import Contender

import fastarch as fa
from fastarch import arrays

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Sequence:
    """x [T, N, H], as many units as features."""

    kind: str
    t: int
    n: int
    h: int
    dtype: str = "float32"

    @property
    def name(self) -> str:
        of_type = "" if self.dtype == "float32" else f" {self.dtype}"
        return f"{self.kind} T{self.t} N{self.n} H{self.h}{of_type}"

    def flops(self, direction: str) -> float:
        """Multiplications and additions of the products; the backward has twice the forward's."""
        forward = 2.0 * self.t * self.n * GATES[self.kind] * self.h * 2 * self.h
        return forward if direction == "forward" else 3 * forward


HOST = [
    Sequence("lstm", 64, 32, 256),
    Sequence("lstm", 64, 1, 512),
    Sequence("gru", 64, 32, 256),
    Sequence("rnn", 64, 32, 256),
    Sequence("lstm", 200, 16, 32),
]
# The most telling first: a table that time cuts short has them.
TELLING = [
    *(Sequence("lstm", 1024, 16, 768, dtype) for dtype in ("float16", "bfloat16", "float32")),
    Sequence("gru", 1024, 16, 768, "bfloat16"),
    *(
        Sequence(kind, 256, n, h, dtype)
        for h, n in ((512, 16), (1024, 128), (2048, 1))
        for kind in ("lstm", "gru")
        for dtype in ("bfloat16", "float32")
    ),
]
GRID = [
    Sequence(kind, 256, n, h, dtype)
    for dtype in ("float32", "bfloat16", "float16")
    for kind in ("lstm", "gru")
    for h in (128, 512, 1024, 2048)
    for n in (1, 16, 128)
]
DEVICE = TELLING + [problem for problem in GRID if problem not in TELLING]
DIRECTIONS = ("forward", "forward+backward")


def ways(place: Place) -> list[tuple[str, str]]:
    """(backend, algorithm) of what there is a choice of."""
    if place.device == "host":
        return [(name, "auto") for name in place.backends]
    return [("cuda", algorithm) for algorithm in ("persistent", "step", "cluster")]


def name_of(backend: str, algorithm: str) -> str:
    return f"fastarch {backend if algorithm == 'auto' else algorithm}"


def names(place: Place) -> list[str]:
    """The names of all contenders."""
    found = [name_of(*way) for way in ways(place)] + [c.name for c in theirs(place, lambda: None)]
    if place.device == "cuda":
        by_name = [way for dtype in ("float32", "float16") for way in cudnn_rnn.ways(dtype, "forward")]
        found += dict.fromkeys(cudnn_rnn.name_of(*way) for way in by_name)
    return found


def contenders(problem: Sequence, direction: str, place: Place) -> tuple[list[Contender], np.ndarray]:
    """Everything that computes one pass here, and the answer in float64: y, or after a backward dw_hh."""
    p, rng = problem, np.random.default_rng(0)
    rows = GATES[p.kind] * p.h
    bound = p.h**-0.5
    host = [random_float32(rng, p.t, p.n, p.h)]
    host += [bound * random_float32(rng, *shape) for shape in ((rows, p.h), (rows, p.h), (rows,), (rows,))]
    dy = random_float32(rng, p.t, p.n, p.h)
    if p.dtype != "float32":
        kind = np.dtype(np.float16) if p.dtype == "float16" else arrays.bfloat16_dtype("bench", "x")
        *host, dy = (a.astype(kind).astype(np.float32) for a in (*host, dy))

    def run(arrays: list[Any], d: Any, algorithm: str) -> Any:
        states = (None, None) if p.kind == "lstm" else (None,)
        y, _, saved = getattr(fa.ops, p.kind)(arrays[0], *states, *arrays[1:], algorithm=algorithm)
        if direction == "forward":
            return y
        return getattr(fa.ops, f"{p.kind}_backward")(d, *states, saved).w_hh

    def of_type(a: np.ndarray) -> np.ndarray:
        return a if p.dtype == "float32" else a.astype(kind)

    native, native_dy = [place.native(of_type(a)) for a in host], place.native(of_type(dy))

    def ours(backend: str, algorithm: str) -> Callable[[], Any]:
        def call() -> Any:
            with fa.backend(backend):
                return run(native, native_dy, algorithm)

        return call

    def refusal(backend: str, algorithm: str) -> str | None:
        try:
            ours(backend, algorithm)()
        except ValueError as error:
            if f"algorithm '{algorithm}'" not in str(error):
                raise
            return str(error)  # a layer too large to stay resident
        return None

    entries = [Contender(name_of(*way), ours(*way), refused=refusal(*way)) for way in ways(place)]
    if torch is not None:
        tensors = [place.tensor(a).to(getattr(torch, p.dtype)) for a in (*host, dy)]
        entries += theirs(place, _torch_pass(p, direction, tensors[:-1], tensors[-1]))
    if place.device == "cuda":
        typed = [of_type(a) for a in host[1:]]
        entries += _cudnn(p, direction, typed, native[0], native_dy)
        if torch is not None:
            # In double precision the processor would take longer than all measurements.
            wide = [place.tensor(a).double() for a in (*host, dy)]
            return entries, _torch_pass(p, direction, wide[:-1], wide[-1])().detach().cpu().numpy()
    with fa.backend("numpy"):
        reference = run([a.astype(np.float64) for a in host], dy.astype(np.float64), "auto")
    return entries, reference


def _cudnn(p: Sequence, direction: str, weights: list[np.ndarray], x: Any, dy: Any) -> list[Contender]:
    """cuDNN by each of its algorithms, or the words in which it refuses the layer."""
    import cupy

    buffers = cupy.empty_like(x), cupy.empty_like(x)
    entries = []
    for way in cudnn_rnn.ways(p.dtype, direction):
        algorithm, math, training = way
        name = cudnn_rnn.name_of(*way)
        try:
            layer = cudnn_rnn.Layer(
                *(cudnn_rnn.find(), cudnn_rnn.Memory.of_device(), p.kind, weights[0].dtype, x.shape),
                *(algorithm, math, weights, training),
            )
            call = cudnn_rnn.pass_of(layer, direction, x, dy, buffers, cupy.asnumpy)
            call()
        except cudnn_rnn.Unsupported as error:
            entries.append(Contender(name, lambda: None, refused=str(error)))
        else:
            # tf32 is other arithmetic than float32's: listed, but no peer of it.
            entries.append(Contender(name, call, peer=math != "tf32"))
    return entries


def _torch_pass(p: Sequence, direction: str, tensors: list[Any], dy: Any) -> Callable[[], Any]:
    module = getattr(torch.nn, p.kind.upper())(p.h, p.h).to(tensors[0])
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), tensors[1:]):
            parameter.copy_(weight)
    x = tensors[0]
    if direction == "forward":
        return lambda: module(x)[0]
    x.requires_grad_()

    def both() -> Any:
        module.zero_grad()
        x.grad = None
        with torch.enable_grad():
            module(x)[0].backward(dy)
        return module.weight_hh_l0.grad

    return both
