"""Local response normalisation: cases and definitions. x [N, C, ...], or [N, ..., C] with layout "NHWC"."""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout


def _seen(c, size, channels):
    """The channels in the window of channel c."""
    return [d for d in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= d < channels]


def _scale(x, size, alpha, k, average):
    scale = np.full(x.shape, float(k))
    for c in range(x.shape[1]):
        for d in _seen(c, size, x.shape[1]):
            scale[:, c] += alpha / (size if average else 1) * x[:, d].astype(np.float64) ** 2
    return scale


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, average=True):
    """y = x / (k + alpha * (sum of squares in the window, over size or not))^beta."""
    return x.astype(np.float64) / _scale(x, size, alpha, k, average) ** beta


def local_response_norm_backward(dy, x, size, alpha=1e-4, beta=0.75, k=1.0, average=True):
    """The Jacobian's transpose times dy: dy_c by x_c directly, and by every scale that sees c."""
    scale, dx = _scale(x, size, alpha, k, average), np.zeros(x.shape)
    wide, g = x.astype(np.float64), dy.astype(np.float64)
    slope = 2.0 * alpha / (size if average else 1)  # of the scale by x, times x
    for c in range(x.shape[1]):
        dx[:, c] += g[:, c] / scale[:, c] ** beta
        for d in _seen(c, size, x.shape[1]):
            dx[:, d] -= g[:, c] * beta * wide[:, c] * slope * wide[:, d] / scale[:, c] ** (beta + 1)
    return dx


def in_either_layout(definition):
    def either(layout="NCHW", **call):
        if layout == "NCHW":
            return definition(**call)
        call = {name: np.moveaxis(a, -1, 1) if isinstance(a, np.ndarray) else a for name, a in call.items()}
        return np.ascontiguousarray(np.moveaxis(definition(**call), 1, -1))

    return either


# id: (shape, options). The alphas are large so that the window shows in the result.
_CALLS: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "alexnet": ((2, 7, 5, 3), {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 2.0, "average": False}),
    "pytorch": ((2, 7, 5, 3), {"size": 5, "alpha": 0.5}),
    "even_size": ((1, 9, 4), {"size": 4, "alpha": 1.0, "beta": 0.6, "k": 0.5}),
    "one_channel_wide": ((2, 5, 3), {"size": 1, "alpha": 1.0}),
    "wider_than_channels": ((1, 3, 2, 2), {"size": 11, "alpha": 2.0}),
    "vectors": ((3, 37), {"size": 3, "alpha": 1.0, "beta": 1.0}),
    "many_pixels": ((1, 3, 23, 29), {"size": 3, "alpha": 0.3}),
    "volume": ((1, 19, 2, 3, 2), {"size": 5, "alpha": 0.3, "beta": 0.5}),
    "empty_batch": ((0, 3, 2, 2), {"size": 5}),
    # A window of five over whole runs of eight channels, and others, with the channels last.
    "last_alexnet": (
        (2, 3, 2, 24),
        {"size": 5, "alpha": 0.5, "beta": 0.75, "k": 2.0, "average": False, "layout": "NHWC"},
    ),
    "last_one_run": ((3, 2, 2, 8), {"size": 5, "alpha": 0.5, "beta": 0.6, "layout": "NHWC"}),
    "last_odd_channels": ((2, 3, 5, 7), {"size": 5, "alpha": 0.5, "layout": "NHWC"}),
    "last_even_size": ((1, 4, 16), {"size": 4, "alpha": 1.0, "beta": 0.6, "k": 0.5, "layout": "NHWC"}),
    "last_wider_than_channels": ((1, 2, 2, 3), {"size": 11, "alpha": 2.0, "layout": "NHWC"}),
    "last_empty_batch": ((0, 2, 2, 8), {"size": 5, "layout": "NHWC"}),
}


def _make(shape, call, rng, dtype) -> Arguments:
    return {"x": rng.standard_normal(shape).astype(dtype), **call}


def _backward_make(shape, call, rng, dtype) -> Arguments:
    return {"dy": rng.standard_normal(shape).astype(dtype), **_make(shape, call, rng, dtype)}


CASES = [
    *(
        Case("local_response_norm", i, partial(_make, *call), in_either_layout(local_response_norm))
        for i, call in _CALLS.items()
    ),
    *in_every_layout(
        Case(
            "local_response_norm",
            "layout",
            partial(_make, *_CALLS["alexnet"]),
            in_either_layout(local_response_norm),
        )
    )[1:],
    *(
        Case(
            "local_response_norm_backward",
            i,
            partial(_backward_make, *call),
            in_either_layout(local_response_norm_backward),
        )
        for i, call in _CALLS.items()
    ),
    *in_every_layout(
        Case(
            "local_response_norm_backward",
            "layout",
            partial(_backward_make, *_CALLS["alexnet"]),
            in_either_layout(local_response_norm_backward),
        )
    )[1:],
]


def _gradient(name: str) -> Gradient:
    shape, call = _CALLS[name]
    return Gradient(
        "local_response_norm_backward",
        name,
        lambda rng: (rng.standard_normal(shape),),
        lambda ops, x: ops.local_response_norm(x, **call),
        lambda ops, dy, x: (ops.local_response_norm_backward(dy, x, **call),),
    )


GRADIENTS = [
    _gradient(name) for name in ("alexnet", "pytorch", "even_size", "wider_than_channels", "last_alexnet")
]

_IMAGE = (2, 4, 6, 5)
VALID: dict[str, Arguments] = {
    "local_response_norm": {"x": np.ones(_IMAGE, np.float32), "size": 3},
    "local_response_norm_backward": {
        "dy": np.ones(_IMAGE, np.float32),
        "x": np.ones(_IMAGE, np.float32),
        "size": 3,
    },
}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of every compiled kernel, with fresh arrays."""
    numbers = {"size": 3, "alpha": 1e-4, "beta": 0.75, "k": 1.0, "channels_last": False}
    names = {"local_response_norm_forward": ("x", "y"), "local_response_norm_backward": ("dy", "x", "dx")}
    return {
        kernel: {**{name: np.ones(_IMAGE, np.float32) for name in arrays}, **numbers}
        for kernel, arrays in names.items()
    }
