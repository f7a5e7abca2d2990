"""What the Python layer adds to an operator's call: checks, choice of backend, output arrays, passing on.

The kernels are replaced by functions that do nothing, so that what remains of a call is the layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import fastarch as fa
from fastarch import backends


class EmptyKernels:
    """Stands in for a compiled module: every kernel returns at once."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*arguments: Any, **named: Any) -> None:
    return None


@contextmanager
def empty_kernels() -> Iterator[None]:
    """Inside, the backend "cpu" is one whose kernels do nothing."""
    loaded, reasons = dict(backends._loaded), dict(backends._reasons)
    backends._loaded["cpu"] = EmptyKernels()  # type: ignore[assignment]
    backends._reasons.pop("cpu", None)
    backends._implementations.clear()
    try:
        with fa.backend("cpu"):
            yield
    finally:
        backends._loaded.clear()
        backends._loaded.update(loaded)
        backends._reasons.clear()
        backends._reasons.update(reasons)
        backends._implementations.clear()


def calls() -> dict[str, Callable[[], Any]]:
    """A small call of each operator, as a layer would make it."""
    f = np.float32
    x, weight, bias = np.ones((2, 3, 8, 8), f), np.ones((4, 3, 3, 3), f), np.ones(4, f)
    dy, small = np.ones((2, 4, 6, 6), f), np.ones((2, 3, 4, 4), f)
    rows, matrix, wide = np.ones((4, 8), f), np.ones((5, 8), f), np.ones((4, 5), f)
    argmax, target, losses = np.zeros((2, 3, 4, 4), np.uint8), np.zeros(4, np.int64), np.ones(4, f)
    vector = np.ones(3, f)
    ops = fa.ops
    return {
        "conv2d": lambda: ops.conv2d(x, weight, bias),
        "conv2d_backward": lambda: ops.conv2d_backward(dy, x, weight),
        "linear": lambda: ops.linear(rows, matrix),
        "linear_backward": lambda: ops.linear_backward(wide, rows, matrix),
        "max_pool2d": lambda: ops.max_pool2d(x, 2),
        "max_pool2d_backward": lambda: ops.max_pool2d_backward(small, argmax, x.shape, 2),
        "avg_pool2d": lambda: ops.avg_pool2d(x, 2),
        "avg_pool2d_backward": lambda: ops.avg_pool2d_backward(small, x.shape, 2),
        "adaptive_avg_pool2d": lambda: ops.adaptive_avg_pool2d(x, 2),
        "relu": lambda: ops.relu(x),
        "relu_backward": lambda: ops.relu_backward(x, x),
        "softmax": lambda: ops.softmax(rows),
        "cross_entropy": lambda: ops.cross_entropy(rows, target),
        "cross_entropy_backward": lambda: ops.cross_entropy_backward(losses, rows, target),
        "dropout": lambda: ops.dropout(x, 0.5, 1, 2),
        "batch_norm": lambda: ops.batch_norm(x, vector, vector, vector, vector),
        "batch_norm_backward": lambda: ops.batch_norm_backward(x, x, vector, vector, vector),
        "local_response_norm": lambda: ops.local_response_norm(x, 5),
        "adaptive_max_pool2d": lambda: ops.adaptive_max_pool2d(x, 2),
    }


def microseconds(run: Callable[[], Any], rounds: int = 40, repeats: int = 500) -> float:
    """This thread's time on the processor in the fastest round: what the work takes undisturbed."""
    best = float("inf")
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(repeats):
            run()
        best = min(best, (time.thread_time() - start) / repeats)
    return best * 1e6


def measure(quick: bool = False) -> dict[str, float]:
    """Microseconds for each operator, with the empty function's own call taken off."""
    rounds = 20 if quick else 100
    nothing = microseconds(_nothing, rounds)
    with empty_kernels():
        return {name: microseconds(run, rounds) - nothing for name, run in calls().items()}


if __name__ == "__main__":
    for name, added in measure().items():
        print(f"{name:<26} {added:6.2f} us")
