"""Made by tools/make_stubs.py."""

import collections.abc
from typing import Any

def activation_backward(dy: Any, y: Any, dx: Any, kind: int, stream: int = 0) -> None: ...
def activation_forward(x: Any, y: Any, kind: int, stream: int = 0) -> None: ...
def adaptive_avg_pool2d_backward(dy: Any, dx: Any, stream: int = 0) -> None: ...
def adaptive_avg_pool2d_forward(x: Any, y: Any, stream: int = 0) -> None: ...
def avg_pool2d_backward(
    dy: Any,
    dx: Any,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    count_include_pad: bool,
    stream: int = 0,
) -> None: ...
def avg_pool2d_forward(
    x: Any,
    y: Any,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    count_include_pad: bool,
    stream: int = 0,
) -> None: ...
def cross_entropy_backward(
    dloss: Any, probs: Any, target: Any, dx: Any, ignore_index: int, stream: int = 0
) -> None: ...
def cross_entropy_forward(
    x: Any, target: Any, loss: Any, probs: Any, ignore_index: int, stream: int = 0
) -> None: ...
def device_error() -> Any: ...
def devices() -> list: ...
def driver_version() -> int: ...
def dropout_forward(x: Any, y: Any, p: float, seed: int, offset: int, stream: int = 0) -> None: ...
def max_pool2d_backward(
    dy: Any,
    argmax: Any,
    dx: Any,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    stream: int = 0,
) -> None: ...
def max_pool2d_forward(
    x: Any,
    y: Any,
    argmax: Any,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    stream: int = 0,
) -> None: ...
def runtime_version() -> int: ...
def softmax_backward(dy: Any, y: Any, dx: Any, stream: int = 0) -> None: ...
def softmax_forward(x: Any, y: Any, stream: int = 0) -> None: ...
