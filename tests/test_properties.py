"""Thousands of random configurations of convolution, pooling, linear and softmax against PyTorch.

Where PyTorch is missing the same configurations are compared with the definitions in tests/cases, unless
FASTARCH_REQUIRE_TORCH=1 makes its absence a failure. FASTARCH_CONFIGURATIONS scales the numbers ("10" for ten
times as many). Every configuration is a function of its number, so that a failure can be repeated alone.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cases import conv2d as conv
from cases import conv2d_max_pool as fused
from cases import convolutions, linear, softmax
from cases import pool2d_oracle as pool
from conftest import Backend

SCALE = float(os.environ.get("FASTARCH_CONFIGURATIONS", "1"))
# How many of each kind; the emulator runs every thread of every block, thousands of times slower than a GPU.
NUMBER = {
    "conv2d": 3000,
    "conv2d_max_pool": 800,
    "convolutions": 2000,
    "pooling": 3000,
    "linear": 500,
    "softmax": 500,
    "cross_entropy": 500,
}
ON_EMULATOR = {
    "conv2d": 1000,
    "conv2d_max_pool": 300,
    "convolutions": 600,
    "pooling": 1000,
    "linear": 200,
    "softmax": 200,
    "cross_entropy": 200,
}

HAS_TORCH = importlib.util.find_spec("torch") is not None
Arrays = tuple[np.ndarray, ...]


def random_convolution(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and weight and the call's other arguments; the output has at least one pixel."""
    while True:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
        c, k = (groups * int(rng.integers(1, 5)) for _ in range(2))
        if rng.random() < 0.2:  # channels and filters in whole vectors
            c, k = (groups * 4 * int(rng.integers(1, 4)) for _ in range(2))
        if rng.random() < 0.15:  # depthwise
            groups, k = c, c * int(rng.integers(1, 3))
        n, r, s = int(rng.integers(1, 4)), int(rng.integers(1, 5)), int(rng.integers(1, 5))
        height, width = (int(v) for v in rng.integers(1, 11, 2))
        if rng.random() < 0.1:  # 1x1, with pixels in whole vectors
            call = {"stride": 1, "padding": 0, "dilation": 1, "groups": groups}
            return (n, c, 2 * height, 4 * int(rng.integers(1, 4))), (k, c // groups, 1, 1), call
        if HAS_TORCH and rng.random() < 0.05:  # several tiles of the multiply; too many for the definition
            groups, c, k, n = 1, *(int(v) for v in rng.integers(1, 150, 2)), 1
            height, width = (int(v) for v in rng.integers(1, 6, 2))
        call = {
            "stride": pair_or_one(rng, 1, 5),
            "padding": pair_or_one(rng, 0, 5),
            "dilation": pair_or_one(rng, 1, 4),
            "groups": groups,
        }
        spans = zip(
            (height, width), conv.pair(call["padding"]), (r, s), conv.pair(call["dilation"]), strict=True
        )
        if all(size + 2 * pad >= dil * (kernel - 1) + 1 for size, pad, kernel, dil in spans):
            return (n, c, height, width), (k, c // groups, r, s), call


POOLING_TO_A_SIZE = ("adaptive_avg_pool2d", "adaptive_max_pool2d")


def random_pooling(rng: np.random.Generator) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """An operator, the shape of x and the call's other arguments."""
    op = str(rng.choice(["max_pool2d", "avg_pool2d", "max_pool2d", "avg_pool2d", *POOLING_TO_A_SIZE]))
    while True:
        shape = tuple(int(v) for v in rng.integers(1, (4, 5, 14, 14)))
        if rng.random() < 0.2:
            shape = (shape[0], 8, *shape[2:])  # what packs of channels divide
        if op in POOLING_TO_A_SIZE:
            return op, shape, {"output_size": pair_or_one(rng, 1, 10)}
        kernel = pair_or_one(rng, 1, 6)
        dilation = pair_or_one(rng, 1, 4) if op == "max_pool2d" else 1
        # At most half the kernel: what PyTorch takes.
        padding = tuple(int(rng.integers(0, size // 2 + 1)) for size in conv.pair(kernel))
        call: dict[str, Any] = {
            "kernel_size": kernel,
            "padding": padding,
            "ceil_mode": bool(rng.random() < 0.5),
        }
        if rng.random() < 0.8:
            call["stride"] = pair_or_one(rng, 1, 6)
        if op == "max_pool2d":
            call["dilation"] = dilation
        else:
            call["count_include_pad"] = bool(rng.random() < 0.5)
        stride = call.get("stride", kernel)
        axes = zip(*(conv.pair(v) for v in (shape[2:], kernel, stride, padding, dilation)), strict=True)
        sizes = [pool.output_size(*axis, call["ceil_mode"]) for axis in axes]
        if min(sizes) > 0 and not window_without_pixels(shape, call, dilation):
            return op, shape, call


def window_without_pixels(shape: tuple[int, ...], call: dict[str, Any], dilation: Any) -> bool:
    """Whether dilation makes a window step over the whole image, for which PyTorch's index is undefined."""
    if dilation == 1:
        return False
    sizes = (shape, call["kernel_size"], call.get("stride"), call["padding"], dilation)
    y_shape = pool.pooled_shape(*sizes, call["ceil_mode"])
    return any(not taps for _, _, taps, _ in pool.windows(shape, y_shape, *sizes[1:]))


def random_of_axes(rng: np.random.Generator) -> tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """A convolution, transposed or not: operator, shapes of x and weight, the call's other arguments."""
    while True:
        op = str(rng.choice(["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"]))
        axes, groups = int(op[-2]), int(rng.choice([1, 1, 2, 3]))
        c, k = (groups * int(rng.integers(1, 4)) for _ in range(2))
        extent, window, stride, dilation = (
            tuple(int(v) for v in rng.integers(1, high, axes)) for high in (9 - axes, 4, 4, 4)
        )
        ends = [tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(axes)]
        padding: Any = tuple(end if rng.random() < 0.5 else end[0] for end in ends)
        call: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
        n = int(rng.integers(1, 4))
        if "transpose" in op:
            more = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
            call |= {"padding": padding, "output_padding": more}
            if min(convolutions.transposed_sizes(extent, window, stride, padding, more, dilation)) > 0:
                return op, (n, c, *extent), (c, k // groups, *window), call
            continue
        named = str(rng.choice(["", "", "", "valid", "same"]))
        call["padding"] = named or padding
        if named == "same":
            call["stride"] = 1
        spans = zip(
            extent, window, dilation, convolutions.ends(call["padding"], window, dilation), strict=True
        )
        if all(size + sum(end) >= d * (t - 1) + 1 for size, t, d, end in spans):
            return op, (n, c, *extent), (k, c // groups, *window), call


def pair_or_one(rng: np.random.Generator, low: int, high: int) -> int | tuple[int, int]:
    """One number for both axes or a pair, in [low, high)."""
    if rng.random() < 0.4:
        return int(rng.integers(low, high))
    return (int(rng.integers(low, high)), int(rng.integers(low, high)))


def without(call: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != name}


# The reference: PyTorch's autograd where it is, the definitions elsewhere


def functional() -> Any:
    """torch.nn.functional, on one thread: handing such small work to several costs far more than the work."""
    import torch

    torch.set_num_threads(1)
    return torch.nn.functional


def torch_gradients(function: Callable, inputs: list[np.ndarray], dy: np.ndarray) -> Arrays:
    """function(*inputs) by PyTorch, and its gradients for the cotangent dy."""
    import torch

    leaves = [torch.tensor(a, requires_grad=True) for a in inputs]
    y = function(*leaves)
    gradients = torch.autograd.grad(y, leaves, torch.tensor(dy))
    return y.detach().numpy(), *(g.numpy() for g in gradients)


def convolution_reference(x, weight, bias, dy, call) -> Arrays:
    if HAS_TORCH:
        return torch_gradients(functools.partial(functional().conv2d, **call), [x, weight, bias], dy)
    return conv.conv2d(x, weight, bias, **call), *conv.conv2d_backward(dy, x, weight, **call)


def reference_of_axes(op: str, x, weight, bias, dy, call) -> Arrays:
    if not HAS_TORCH:
        forward = convolutions.transposed if "transpose" in op else convolutions.convolution
        backward = (
            convolutions.transposed_backward if "transpose" in op else convolutions.convolution_backward
        )
        return forward(x, weight, bias, **call), *backward(dy, x, weight, **call)
    function, sides = getattr(functional(), op), call["padding"]
    if isinstance(sides, str):
        return torch_gradients(functools.partial(function, **call), [x, weight, bias], dy)
    # PyTorch pads both ends alike, so its image is padded first, or its transposed result cut.
    ends = [(side, side) if isinstance(side, int) else side for side in sides]
    rest = call | {"padding": 0}

    def padded(x, weight, bias):
        return function(functional().pad(x, [v for end in reversed(ends) for v in end]), weight, bias, **rest)

    def cut(x, weight, bias):
        y = function(x, weight, bias, **rest)
        return y[(..., *(slice(a, size - b) for (a, b), size in zip(ends, y.shape[2:], strict=True)))]

    return torch_gradients(cut if "transpose" in op else padded, [x, weight, bias], dy)


def pooling_reference(op: str, x, dy, call) -> Arrays:
    if HAS_TORCH:
        return torch_gradients(functools.partial(getattr(functional(), op), **call), [x], dy)
    y = getattr(pool, op)(x, **call)
    y, places = (y[0], (y[1],)) if "max" in op else (y, ())
    more = {} if op in POOLING_TO_A_SIZE else without(call, "ceil_mode")
    return y, getattr(pool, f"{op}_backward")(dy, *places, x.shape, **more)


# One random configuration on one backend


def compare_convolution(backend: Backend, rng: np.random.Generator) -> None:
    x_shape, w_shape, call = random_convolution(rng)
    dtype = str(rng.choice(["float32", "float64"]))
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    bias = rng.standard_normal(w_shape[0]).astype(dtype)
    y_shape = conv.taps_of(
        x_shape, w_shape, call["stride"], call["padding"], call["dilation"], call["groups"]
    )[0]
    dy = rng.standard_normal(y_shape).astype(dtype)
    want = convolution_reference(x, weight, bias, dy, call)
    layout = str(rng.choice(["NCHW", "NHWC"]))
    put = (lambda a: backend.put(conv.last(a))) if layout == "NHWC" else backend.put
    if layout == "NHWC":
        want = (conv.last(np.asarray(want[0])), conv.last(np.asarray(want[1])), *want[2:])
    px, pdy, pw, pb = put(x), put(dy), backend.put(weight), backend.put(bias)
    call["layout"] = layout
    y = backend.call("conv2d", {"x": px, "weight": pw, "bias": pb, **call})
    gradients = backend.call("conv2d_backward", {"dy": pdy, "x": px, "weight": pw, **call})
    what = f"conv2d x {x_shape} weight {w_shape} {call} {dtype}"
    check_all((y, *gradients), want, backend, ("y", "dx", "dw", "db"), what)
    if rng.random() < 0.3:
        activation = str(rng.choice(["relu", "tanh", "sigmoid"]))
        residual = rng.standard_normal(np.shape(want[0])).astype(dtype)
        more = {"residual": backend.put(residual), "activation": activation}
        y = backend.call("conv2d", {"x": px, "weight": pw, "bias": pb, **call, **more})
        want_y = conv.ACTIVATIONS[activation](want[0] + backend.host(more["residual"]))
        check_all((y,), (want_y,), backend, ("y",), f"{what} {activation} of a residual")


def compare_conv2d_max_pool(backend: Backend, rng: np.random.Generator) -> None:
    """Against pooling the activated convolution, and against our own operators one after the other."""
    p = q = 0
    while min(p, q) < 2:
        x_shape, w_shape, call = random_convolution(rng)
        *_, p, q = conv.taps_of(
            x_shape, w_shape, *(call[name] for name in ("stride", "padding", "dilation", "groups"))
        )[0]
    dtype, activation = (
        str(rng.choice(["float32", "float64"])),
        [None, "relu", "tanh", "sigmoid"][rng.integers(4)],
    )
    y_shape = (x_shape[0], w_shape[0], p // 2, q // 2)
    # float32 could tell two numbers of a window apart that are one in another order of summation: whole
    # numbers are exact, and make ties; they leave tanh and sigmoid no slope.
    if dtype == "float32":
        activation = activation if activation == "relu" else None
        x, weight, bias, dy = (
            rng.integers(-2, 3, s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1], y_shape)
        )
    else:
        x, weight, bias, dy = (rng.standard_normal(s) for s in (x_shape, w_shape, w_shape[:1], y_shape))
    px, pw, pb, pdy = (backend.put(a) for a in (x, weight, bias, dy))
    call |= {"activation": activation}
    y, argmax = backend.call("conv2d_max_pool", {"x": px, "weight": pw, "bias": pb, **call})
    gradients = backend.call(
        "conv2d_max_pool_backward", {"dy": pdy, "x": px, "weight": pw, "y": y, "argmax": argmax, **call}
    )
    geometry = without(call, "activation")
    if HAS_TORCH:
        import torch

        def pooled(x, weight, bias):
            full = functional().conv2d(x, weight, bias, **geometry)
            return functional().max_pool2d(
                full if activation is None else getattr(torch, activation)(full), 2
            )

        want = torch_gradients(pooled, [x, weight, bias], dy)
    else:
        want_y, want_argmax = fused.conv2d_max_pool(x, weight, bias, **call)
        want = want_y, *fused.conv2d_max_pool_backward(dy, x, weight, want_y, want_argmax, **call)
    what = f"conv2d_max_pool x {x_shape} weight {w_shape} {call} {dtype}"
    check_all((y, *gradients), want, backend, ("y", "dx", "dw", "db"), what)
    full = backend.call("conv2d", {"x": px, "weight": pw, "bias": pb, **geometry})
    composed = backend.call("max_pool2d", {"x": full, "kernel_size": 2})
    np.testing.assert_array_equal(backend.host(argmax), backend.host(composed[1]), err_msg=what)


def compare_of_axes(backend: Backend, rng: np.random.Generator) -> None:
    op, x_shape, w_shape, call = random_of_axes(rng)
    dtype = str(rng.choice(["float32", "float64"]))
    x, weight = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape))
    outputs = w_shape[1] * call["groups"] if "transpose" in op else w_shape[0]
    bias = rng.standard_normal(outputs).astype(dtype)
    px, pw, pb = (backend.put(a) for a in (x, weight, bias))
    y = backend.call(op, {"x": px, "weight": pw, "bias": pb, **call})
    dy = rng.standard_normal(y.shape).astype(dtype)
    gradients = backend.call(f"{op}_backward", {"dy": backend.put(dy), "x": px, "weight": pw, **call})
    want = reference_of_axes(op, x, weight, bias, dy, call)
    what = f"{op} x {x_shape} weight {w_shape} {call} {dtype}"
    check_all((y, *gradients), want, backend, ("y", "dx", "dw", "db"), what)


def compare_pooling(backend: Backend, rng: np.random.Generator) -> None:
    op, shape, call = random_pooling(rng)
    dtype = str(rng.choice(["float32", "float64"]))
    # Values on a coarse grid hold equals, of which the first must win; distinct ones are the common case.
    x = (rng.integers(-3, 4, shape) if rng.random() < 0.3 else rng.standard_normal(shape)).astype(dtype)
    layout = str(rng.choice(["NCHW", "NHWC"]))
    last = layout == "NHWC"
    px = backend.put(pool.last(x) if last else x)
    y = backend.call(op, {"x": px, **call, "layout": layout})
    y, more = (y[0], {"argmax": y[1]}) if "max" in op else (y, {})
    dy = rng.standard_normal(y.shape).astype(dtype)
    if not op.startswith("adaptive"):
        more |= without(call, "ceil_mode")
    more |= {"dy": backend.put(dy), "input_shape": px.shape, "layout": layout}
    dx = backend.call(f"{op}_backward", more)
    want = pooling_reference(op, x, dy.transpose(0, 3, 1, 2) if last else dy, call)
    want = tuple(pool.last(np.asarray(a)) for a in want) if last else want
    check_all((y, dx), want, backend, ("y", "dx"), f"{op} x {shape} {call} {layout} {dtype}")


def compare_linear(backend: Backend, rng: np.random.Generator) -> None:
    m, i, o = (int(v) for v in rng.integers(1, 150 if HAS_TORCH and rng.random() < 0.1 else 20, 3))
    dtype = str(rng.choice(["float32", "float64"]))
    x, weight, bias, dy = (rng.standard_normal(s).astype(dtype) for s in ((m, i), (o, i), (o,), (m, o)))
    if HAS_TORCH:
        want = torch_gradients(functional().linear, [x, weight, bias], dy)
    else:
        want = (linear.linear(x, weight, bias), *linear.linear_backward(dy, x, weight))
    px, pw, pb, pdy = (backend.put(a) for a in (x, weight, bias, dy))
    y = backend.call("linear", {"x": px, "weight": pw, "bias": pb})
    gradients = backend.call("linear_backward", {"dy": pdy, "x": px, "weight": pw})
    check_all((y, *gradients), want, backend, ("y", "dx", "dw", "db"), f"linear {m} {i} {o} {dtype}")


def compare_softmax(backend: Backend, rng: np.random.Generator) -> None:
    op = str(rng.choice(["softmax", "log_softmax"]))
    shape = tuple(int(v) for v in rng.integers(1, 9, int(rng.integers(1, 5))))
    axis = int(rng.integers(-len(shape), len(shape)))
    dtype = str(rng.choice(["float32", "float64"]))
    x, dy = rng.normal(0, 5, shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    if HAS_TORCH:
        want = torch_gradients(functools.partial(getattr(functional(), op), dim=axis), [x], dy)
    else:
        y = getattr(softmax, op)(x, axis)
        want = (y, getattr(softmax, f"{op}_backward")(dy, y, axis))
    y = backend.call(op, {"x": backend.put(x), "axis": axis})
    dx = backend.call(f"{op}_backward", {"dy": backend.put(dy), "y": y, "axis": axis})
    check_all((y, dx), want, backend, ("y", "dx"), f"{op} {shape} axis {axis} {dtype}")


def compare_cross_entropy(backend: Backend, rng: np.random.Generator) -> None:
    n, c = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    dtype = str(rng.choice(["float32", "float64"]))
    ignore = int(rng.integers(-2, c))
    logits, dloss = rng.normal(0, 5, (n, c)).astype(dtype), rng.standard_normal(n).astype(dtype)
    target = np.where(rng.random(n) < 0.2, ignore, rng.integers(0, c, n))
    if HAS_TORCH:
        import torch

        rows = functools.partial(
            functional().cross_entropy, target=torch.tensor(target), ignore_index=ignore, reduction="none"
        )
        want = torch_gradients(rows, [logits], dloss)
    else:
        loss, probs = softmax.cross_entropy(logits, target, ignore)
        want = (loss, softmax.cross_entropy_backward(dloss, probs, target, ignore))
    rest = {"target": backend.put(target), "ignore_index": ignore}
    loss, probs = backend.call("cross_entropy", {"logits": backend.put(logits), **rest})
    dx = backend.call("cross_entropy_backward", {"dloss": backend.put(dloss), "probs": probs, **rest})
    what = f"cross_entropy {n} {c} ignoring {ignore} {dtype}"
    check_all((loss, dx), want, backend, ("loss", "dlogits"), what)


def check_all(got: tuple, want: Arrays, backend: Backend, names: tuple[str, ...], what: str) -> None:
    for name, array, expected in zip(names, got, want, strict=True):
        host = backend.host(array)
        assert host.shape == expected.shape, f"{name} of {what}"
        tolerance = 1e-4 if host.dtype == np.float32 else 1e-11
        np.testing.assert_allclose(
            host, expected, rtol=tolerance, atol=tolerance, err_msg=f"{name} of {what}"
        )


COMPARISONS: dict[str, Callable[[Backend, np.random.Generator], None]] = {
    "conv2d": compare_convolution,
    "conv2d_max_pool": compare_conv2d_max_pool,
    "convolutions": compare_of_axes,
    "pooling": compare_pooling,
    "linear": compare_linear,
    "softmax": compare_softmax,
    "cross_entropy": compare_cross_entropy,
}


def test_pytorch_is_here_when_required() -> None:
    if os.environ.get("FASTARCH_REQUIRE_TORCH") == "1":
        assert HAS_TORCH, "FASTARCH_REQUIRE_TORCH=1 and PyTorch is not installed"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("kind", COMPARISONS)
def test_random_configurations(kind: str, backend: Backend, count_configurations) -> None:
    number = max(1, round((ON_EMULATOR if backend.name == "emulator" else NUMBER)[kind] * SCALE))
    for index in range(number):
        try:
            COMPARISONS[kind](backend, np.random.default_rng([index, len(kind)]))
        except Exception as error:
            raise AssertionError(f"configuration {index} of {kind} on {backend}: {error}") from error
    peer = "PyTorch" if HAS_TORCH else "the definition (PyTorch is not installed)"
    count_configurations(f"{kind} on {backend} against {peer}", number)


@pytest.mark.parametrize("size", [1, 300, 5000])
def test_generic_code_in_small_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It splits what is too large for the cache into blocks of images and rows: here everything is."""
    backend = Backend("numpy", np)
    x = np.random.default_rng(size).standard_normal(1031)
    call = {"x": x, "p": 0.3, "seed": 1, "offset": 2}
    whole = backend.call("dropout", call)
    blocks = {
        "_BLOCK_BYTES": ("_patches", "_max_pool"),
        "_BLOCK": ("dropout",),
        "_BLOCK_COLUMNS": ("_patches",),
    }
    for constant, names in blocks.items():
        for name in names:
            module = importlib.import_module(f"fastarch.ops.{name}")
            monkeypatch.setattr(module, constant, 1 if constant == "_BLOCK_COLUMNS" else size)
    np.testing.assert_array_equal(backend.call("dropout", call), whole)
    for index in range(max(1, round(400 * SCALE))):
        compare_convolution(backend, np.random.default_rng([index, size]))
        compare_pooling(backend, np.random.default_rng([index, size]))


@pytest.mark.skipif(
    not HAS_TORCH, reason="compares the definitions of tests/cases with PyTorch, which is not installed"
)
def test_the_definitions_are_pytorch() -> None:
    """The oracles themselves: what every other test trusts."""
    for index in range(60):
        compare_definitions(np.random.default_rng([index, 99]))


def compare_definitions(rng: np.random.Generator) -> None:
    x_shape, w_shape, call = random_convolution(rng)
    x, weight, bias = (rng.standard_normal(s) for s in (x_shape, w_shape, w_shape[:1]))
    y = conv.conv2d(x, weight, bias, **call)
    dy = rng.standard_normal(y.shape)
    got = (y, *conv.conv2d_backward(dy, x, weight, **call))
    for array, expected in zip(got, convolution_reference(x, weight, bias, dy, call), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-11, atol=1e-11)
    op, shape, call = random_pooling(rng)
    x = rng.integers(-3, 4, shape).astype(np.float64)
    y = getattr(pool, op)(x, **call)
    y, argmax = y if "max" in op else (y, None)
    dy = rng.standard_normal(y.shape)
    want_y, want_dx = pooling_reference(op, x, dy, call)
    more = {} if op in POOLING_TO_A_SIZE else without(call, "ceil_mode")
    more |= {} if argmax is None else {"argmax": argmax}
    dx = getattr(pool, f"{op}_backward")(dy, input_shape=shape, **more)
    np.testing.assert_allclose(y, want_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, want_dx, rtol=1e-12, atol=1e-12)
