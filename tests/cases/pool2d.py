"""Pooling by sliding windows: cases. The definitions are in pool2d_oracle.py."""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, all_different, in_every_layout
from cases.pool2d_oracle import (
    avg_pool2d,
    avg_pool2d_backward,
    last,
    max_pool2d,
    max_pool2d_backward,
    with_channels_last,
)

# id: (shape of x, call arguments that max and average share)
_SHAPES: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "one": ((1, 1, 1, 1), {"kernel_size": 1}),
    "lenet": ((2, 3, 8, 6), {"kernel_size": 2}),
    "primes": ((3, 5, 7, 11), {"kernel_size": (3, 2)}),
    "wide_129": ((1, 2, 2, 129), {"kernel_size": (1, 2)}),
    "tall_129": ((1, 2, 129, 1), {"kernel_size": (3, 1), "stride": 2}),
    "overlapping": ((2, 2, 9, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "stride_one": ((1, 3, 5, 6), {"kernel_size": (3, 5), "stride": 1, "padding": (1, 2)}),
    "stride_over_kernel": ((1, 2, 13, 11), {"kernel_size": 2, "stride": (5, 3)}),
    "whole_image": ((2, 3, 5, 7), {"kernel_size": (5, 7)}),
    "kernel_over_256": ((1, 1, 18, 19), {"kernel_size": 17, "stride": 1}),
    "ceil_beyond_image": ((1, 2, 1, 3), {"kernel_size": 4, "stride": 4, "ceil_mode": True}),
    "ceil": ((1, 2, 6, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil_padded": ((2, 1, 7, 5), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    # The window that ceil_mode would add starts in the right padding, so it is left out.
    "ceil_left_out": ((1, 1, 4, 5), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
    "empty_batch": ((0, 2, 4, 4), {"kernel_size": 2}),
    # Windows that tile the image, four and more in a line: moved 128 bits at a time.
    "tiles": ((2, 3, 6, 8), {"kernel_size": 2}),
    "many_tiles": ((1, 5, 10, 48), {"kernel_size": 2, "stride": 2}),
}
_DILATED: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "dilated": ((1, 2, 9, 10), {"kernel_size": 3, "stride": 1, "dilation": (2, 3)}),
    "dilated_ceil": (
        (2, 2, 8, 9),
        {"kernel_size": (2, 3), "stride": (3, 2), "padding": 1, "dilation": 2, "ceil_mode": True},
    ),
}
# Networks' windows, of which a thread takes a block: lines of whole packs of 128 bits, of 64, and others.
_BLOCKS: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "resnet": ((2, 3, 9, 32), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "resnet_64": ((1, 3, 10, 12), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "googlenet": ((1, 5, 16, 16), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "googlenet_64": ((2, 2, 6, 6), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "alexnet": ((2, 3, 27, 27), {"kernel_size": 3, "stride": 2}),
    "alexnet_last": ((3, 5, 13, 13), {"kernel_size": 3, "stride": 2}),
    "inception": ((1, 3, 14, 24), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "inception_64": ((2, 2, 5, 4), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "inception_7": ((2, 3, 7, 7), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "unpadded": ((1, 2, 12, 16), {"kernel_size": 3, "stride": 1}),
    "padded_tiles": ((1, 3, 9, 14), {"kernel_size": 2, "stride": 2, "padding": 1}),
    "padded_rows": ((1, 3, 9, 16), {"kernel_size": 3, "stride": 2, "padding": (1, 0), "ceil_mode": True}),
    "padded_columns": ((1, 3, 9, 16), {"kernel_size": 3, "stride": 2, "padding": (0, 1)}),
    "odd_tiles": ((2, 3, 7, 12), {"kernel_size": 2}),
    "odd_lines": ((1, 3, 6, 7), {"kernel_size": 2, "ceil_mode": True}),
    "three_pixels": ((1, 2, 1, 3), {"kernel_size": 3, "stride": 2, "padding": 1}),
}
# A window that dilation makes step over the whole image.
_NO_PIXEL = ((1, 2, 1, 2), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2})

# The same with the channels last, shapes as [N, C, H, W]: channels that packs of 128 bits divide, and others.
_LAST: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "one": ((1, 1, 1, 1), {"kernel_size": 1}),
    "overlapping": ((2, 16, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "odd_channels": ((2, 5, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "tiles": ((1, 32, 4, 6), {"kernel_size": 2}),
    "ceil": ((1, 8, 6, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "stride_over_kernel": ((1, 24, 9, 7), {"kernel_size": (1, 2), "stride": (4, 3)}),
    "kernel_over_256": ((1, 8, 18, 17), {"kernel_size": 17, "stride": 1}),
    "empty_batch": ((0, 8, 4, 4), {"kernel_size": 2}),
}
_LAST_DILATED: dict[str, tuple[tuple[int, ...], Arguments]] = {
    "dilated": ((1, 40, 8, 9), {"kernel_size": (2, 3), "stride": (3, 2), "padding": 1, "dilation": 2}),
}
_LAST_NO_PIXEL = ((1, 8, 1, 2), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2})


def values(rng, shape, dtype) -> np.ndarray:
    """A coarse grid of values, so that windows hold equals and the rule for them is tested."""
    return (rng.integers(-4, 5, shape) / 2).astype(dtype)


def image_make(shape, call, rng, dtype) -> Arguments:
    return {"x": values(rng, shape, dtype), **call}


def _max_backward_make(shape, call, rng, dtype) -> Arguments:
    y, argmax = max_pool2d(values(rng, shape, dtype), **call)
    call = {name: value for name, value in call.items() if name != "ceil_mode"}
    dy = rng.standard_normal(y.shape).astype(dtype)
    return {"dy": dy, "argmax": argmax, "input_shape": shape, **call}


def _avg_backward_make(shape, call, rng, dtype) -> Arguments:
    y = avg_pool2d(np.zeros(shape), **call)
    call = {name: value for name, value in call.items() if name != "ceil_mode"}
    return {"dy": rng.standard_normal(y.shape).astype(dtype), "input_shape": shape, **call}


def nan_make(rng, dtype) -> Arguments:
    x = values(rng, (1, 2, 6, 6), dtype)
    x[0, 0, 2, 3] = np.nan
    x[0, 0, 4:, 0] = np.nan
    x[0, 1, :2, :2] = -np.inf
    x[0, 1, 4, 4] = np.inf
    return {"x": x, "kernel_size": 2}


def _tiles_nan_make(rng, dtype) -> Arguments:
    """NaN in every place of a window, alone and in company; infinities of both signs."""
    x = values(rng, (1, 2, 8, 16), dtype)
    for place in range(4):
        x[0, 0, place // 2, 4 * place + place % 2] = np.nan
    x[0, 0, 2:4, :4] = np.nan
    x[0, 1, :2, :4] = -np.inf
    x[0, 1, 4, 4:7] = np.inf
    return {"x": x, "kernel_size": 2}


def _blocks_nan_make(shape, call, rng, dtype) -> Arguments:
    """NaN alone and in company, infinities of both signs, and whole windows of -inf at every border."""
    x = values(rng, shape, dtype)
    x[rng.random(shape) < 0.05] = np.nan
    x[rng.random(shape) < 0.05] = np.inf
    x[:, 0, :3] = x[:, 0, -3:] = x[:, -1, :, :3] = x[:, -1, :, -3:] = -np.inf
    return {"x": x, **call}


def _last_nan_make(rng, dtype) -> Arguments:
    """What _tiles_nan_make has, in packs of channels."""
    x = _tiles_nan_make(rng, dtype)["x"]
    return {"x": np.concatenate([x] * 4, 1), "kernel_size": 3, "stride": 2, "padding": 1}


def made_last(make, *args) -> Arguments:
    """What `make` makes, with the channels last."""
    made = {name: last(a) if isinstance(a, np.ndarray) else a for name, a in make(*args).items()}
    if "input_shape" in made:
        n, c, h, w = made["input_shape"]
        made["input_shape"] = (n, h, w, c)
    return {**made, "layout": "NHWC"}


def last_cases(op: str, make, definition, shapes) -> list[Case]:
    either, (shape, call) = with_channels_last(definition), shapes["overlapping"]
    return [
        *(Case(op, f"last_{i}", partial(made_last, make, *s), either) for i, s in shapes.items()),
        *in_every_layout(Case(op, "last", partial(made_last, make, shape, call), either))[1:],
    ]


def _cases(op: str, backward_make, forward, backward, shapes) -> list[Case]:
    shape, call = shapes["overlapping"]
    made, made_backward = partial(image_make, shape, call), partial(backward_make, shape, call)
    return [
        *(Case(op, i, partial(image_make, *s), forward) for i, s in shapes.items()),
        *in_every_layout(Case(op, "layout", made, forward))[1:],
        *(Case(f"{op}_backward", i, partial(backward_make, *s), backward) for i, s in shapes.items()),
        *in_every_layout(Case(f"{op}_backward", "layout", made_backward, backward))[1:],
    ]


_EXCLUDING_PADDING = {
    f"{name}_excluding": (_SHAPES[name][0], {**_SHAPES[name][1], "count_include_pad": False})
    for name in ("overlapping", "stride_one", "ceil", "ceil_padded")
} | {
    f"{name}_excluding": (shape, {**call, "count_include_pad": False})
    for name, (shape, call) in _BLOCKS.items()
    if "padding" in call or "ceil_mode" in call
}
_UNDILATED = _SHAPES | _BLOCKS | _EXCLUDING_PADDING

CASES = [
    *_cases("max_pool2d", _max_backward_make, max_pool2d, max_pool2d_backward, _SHAPES | _BLOCKS | _DILATED),
    Case("max_pool2d", "nan_and_inf", nan_make, max_pool2d, nonfinite=True),
    Case("max_pool2d", "tiles_nan_and_inf", _tiles_nan_make, max_pool2d, nonfinite=True),
    *(
        Case("max_pool2d", f"{i}_nan_and_inf", partial(_blocks_nan_make, *s), max_pool2d, nonfinite=True)
        for i, s in _BLOCKS.items()
    ),
    Case("max_pool2d", "no_pixel", partial(image_make, *_NO_PIXEL), max_pool2d, nonfinite=True),
    Case("max_pool2d_backward", "no_pixel", partial(_max_backward_make, *_NO_PIXEL), max_pool2d_backward),
    *_cases(
        "avg_pool2d",
        _avg_backward_make,
        avg_pool2d,
        avg_pool2d_backward,
        _SHAPES | _BLOCKS | _EXCLUDING_PADDING,
    ),
    *last_cases("max_pool2d", image_make, max_pool2d, _LAST | _LAST_DILATED),
    *last_cases("max_pool2d_backward", _max_backward_make, max_pool2d_backward, _LAST | _LAST_DILATED),
    *last_cases("avg_pool2d", image_make, avg_pool2d, _LAST),
    *last_cases("avg_pool2d_backward", _avg_backward_make, avg_pool2d_backward, _LAST),
    Case(
        "max_pool2d",
        "last_nan_and_inf",
        partial(made_last, _last_nan_make),
        with_channels_last(max_pool2d),
        nonfinite=True,
    ),
    Case(
        "max_pool2d",
        "last_no_pixel",
        partial(made_last, image_make, *_LAST_NO_PIXEL),
        with_channels_last(max_pool2d),
        nonfinite=True,
    ),
    *(
        Case(
            f"avg_pool2d{way}",
            f"last_excluding_{name}",
            partial(made_last, make, _LAST[name][0], {**_LAST[name][1], "count_include_pad": False}),
            with_channels_last(definition),
        )
        for way, make, definition in (
            ("", image_make, avg_pool2d),
            ("_backward", _avg_backward_make, avg_pool2d_backward),
        )
        for name in ("overlapping", "odd_channels", "ceil")
    ),
]


def _max_gradient(name: str) -> Gradient:
    shape, call = (_SHAPES | _DILATED)[name]
    back = {key: value for key, value in call.items() if key != "ceil_mode"}
    return Gradient(
        "max_pool2d_backward",
        name,
        lambda rng: (all_different(rng, shape),),
        lambda ops, x: ops.max_pool2d(x, **call)[0],
        lambda ops, dy, x: (
            ops.max_pool2d_backward(dy, ops.max_pool2d(x, **call)[1], tuple(x.shape), **back),
        ),
    )


def _avg_gradient(name: str) -> Gradient:
    shape, call = (_SHAPES | _EXCLUDING_PADDING)[name]
    back = {key: value for key, value in call.items() if key != "ceil_mode"}
    return Gradient(
        "avg_pool2d_backward",
        name,
        lambda rng: (rng.standard_normal(shape),),
        lambda ops, x: ops.avg_pool2d(x, **call),
        lambda ops, dy, x: (ops.avg_pool2d_backward(dy, tuple(x.shape), **back),),
    )


def last_gradient(op: str, shape, call) -> Gradient:
    """Of pooling with the channels last; shape [N, H, W, C]."""
    largest = "max" in op
    call = {**call, "layout": "NHWC"}
    back = {key: value for key, value in call.items() if key not in ("ceil_mode", "output_size")}

    def backward(ops, dy, x):
        more = (getattr(ops, op)(x, **call)[1],) if largest else ()
        return (getattr(ops, f"{op}_backward")(dy, *more, tuple(x.shape), **back),)

    return Gradient(
        f"{op}_backward",
        "last",
        lambda rng: (all_different(rng, shape),),
        lambda ops, x: getattr(ops, op)(x, **call)[0] if largest else getattr(ops, op)(x, **call),
        backward,
    )


_OVERLAPPING = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}

GRADIENTS = [
    *(last_gradient(op, (1, 6, 5, 4), _OVERLAPPING) for op in ("max_pool2d", "avg_pool2d")),
    *(_max_gradient(name) for name in ("ceil_padded", "overlapping", "dilated_ceil")),
    *(_avg_gradient(name) for name in ("ceil_padded", "ceil_padded_excluding", "stride_one")),
]
