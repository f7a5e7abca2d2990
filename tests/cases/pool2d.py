"""Pooling: cases and definitions, which are PyTorch's. x [N, C, H, W], y [N, C, P, Q]; or with the channels
last.

arg-max [N, C, P, Q] counts inside the window, r * S + s; uint8 where R * S <= 256, else int32.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, all_different, in_every_layout, pair


def output_size(size, kernel, stride, padding, dilation, ceil_mode):
    """The windows along one axis; with ceil_mode also a last one that sticks out, if it starts inside."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def windows(shape, y_shape, kernel, stride, padding, dilation=1):
    """Every (p, q) with its taps (r, s, h, w) inside the image and its area within the padded image."""
    (height, width), (r_count, s_count) = shape[2:], pair(kernel)
    (sh, sw), (ph, pw), (dh, dw) = pair(kernel if stride is None else stride), pair(padding), pair(dilation)
    for p in range(y_shape[2]):
        for q in range(y_shape[3]):
            top, left = p * sh - ph, q * sw - pw
            taps = [
                (r, s, top + r * dh, left + s * dw)
                for r in range(r_count)
                for s in range(s_count)
                if 0 <= top + r * dh < height and 0 <= left + s * dw < width
            ]
            area = (min(top + r_count, height + ph) - top) * (min(left + s_count, width + pw) - left)
            yield p, q, taps, area


def pooled_shape(shape, kernel, stride, padding, dilation, ceil_mode):
    stride = kernel if stride is None else stride
    axes = zip(shape[2:], pair(kernel), pair(stride), pair(padding), pair(dilation), strict=True)
    return (*shape[:2], *(output_size(*axis, ceil_mode) for axis in axes))


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The greatest pixel of each window and which it is: the first of equals, but the last NaN.

    A window without a pixel, which dilation can make, gives -inf and the first offset.
    """
    y_shape = pooled_shape(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    r_count, s_count = pair(kernel_size)
    y = np.full(y_shape, -np.inf)
    argmax = np.zeros(y_shape, np.uint8 if r_count * s_count <= 256 else np.int32)
    for p, q, taps, _ in windows(x.shape, y_shape, kernel_size, stride, padding, dilation):
        for n, c in np.ndindex(x.shape[:2]):
            best = None
            for r, s, h, w in taps:
                value = float(x[n, c, h, w])
                if best is None or value > best or np.isnan(value):
                    best, y[n, c, p, q], argmax[n, c, p, q] = value, value, r * s_count + s
    return y, argmax


def max_pool2d_backward(dy, argmax, input_shape, kernel_size, stride=None, padding=0, dilation=1):
    """Each dy goes to the pixel that won its window."""
    dx = np.zeros(input_shape)
    s_count = pair(kernel_size)[1]
    for p, q, taps, _ in windows(input_shape, dy.shape, kernel_size, stride, padding, dilation):
        for n, c in np.ndindex(*input_shape[:2]):
            for r, s, h, w in taps:
                if argmax[n, c, p, q] == r * s_count + s:
                    dx[n, c, h, w] += float(dy[n, c, p, q])
    return dx


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The sum of each window over its area, in which the padding counts or not."""
    y = np.zeros(pooled_shape(x.shape, kernel_size, stride, padding, 1, ceil_mode))
    for p, q, taps, area in windows(x.shape, y.shape, kernel_size, stride, padding):
        for n, c in np.ndindex(x.shape[:2]):
            total = sum(float(x[n, c, h, w]) for _, _, h, w in taps)
            y[n, c, p, q] = total / (area if count_include_pad else len(taps))
    return y


def avg_pool2d_backward(dy, input_shape, kernel_size, stride=None, padding=0, count_include_pad=True):
    """Each dy is shared out equally over its window."""
    dx = np.zeros(input_shape)
    for p, q, taps, area in windows(input_shape, dy.shape, kernel_size, stride, padding):
        for n, c in np.ndindex(*input_shape[:2]):
            for _, _, h, w in taps:
                dx[n, c, h, w] += float(dy[n, c, p, q]) / (area if count_include_pad else len(taps))
    return dx


def _cells(size, count):
    """The pixels of each of `count` cells, from floor(i * size / count) to ceil((i + 1) * size / count)."""
    return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(x, output_size):
    """The mean of each of P x Q cells."""
    p_count, q_count = pair(output_size)
    y = np.zeros((*x.shape[:2], p_count, q_count))
    for n, c, p, q in np.ndindex(y.shape):
        rows, columns = _cells(x.shape[2], p_count)[p], _cells(x.shape[3], q_count)[q]
        y[n, c, p, q] = sum(float(x[n, c, h, w]) for h in rows for w in columns) / (len(rows) * len(columns))
    return y


def adaptive_avg_pool2d_backward(dy, input_shape):
    """Each dy is shared out equally over its cell."""
    dx = np.zeros(input_shape)
    for n, c, p, q in np.ndindex(dy.shape):
        rows, columns = _cells(input_shape[2], dy.shape[2])[p], _cells(input_shape[3], dy.shape[3])[q]
        for h in rows:
            for w in columns:
                dx[n, c, h, w] += float(dy[n, c, p, q]) / (len(rows) * len(columns))
    return dx


def adaptive_max_pool2d(x, output_size):
    """The greatest pixel of each of P x Q cells, the first of equals but the last NaN, and which it is."""
    p_count, q_count = pair(output_size)
    y = np.zeros((*x.shape[:2], p_count, q_count))
    rows, columns = _cells(x.shape[2], p_count), _cells(x.shape[3], q_count)
    # A cell is at most this wide; fewer where the sizes divide evenly.
    widest = [n // c if n % c == 0 else min(n // c + 2, n) for n, c in zip(x.shape[2:], (p_count, q_count))]
    argmax = np.zeros(y.shape, np.uint8 if widest[0] * widest[1] <= 256 else np.int32)
    for n, c, p, q in np.ndindex(y.shape):
        values = [float(x[n, c, h, w]) for h in rows[p] for w in columns[q]]
        best = 0
        for i, value in enumerate(values):
            if value > values[best] or np.isnan(value):
                best = i
        y[n, c, p, q], argmax[n, c, p, q] = values[best], best
    return y, argmax


def adaptive_max_pool2d_backward(dy, argmax, input_shape):
    """Each dy goes to the pixel that won its cell."""
    dx = np.zeros(input_shape)
    for n, c, p, q in np.ndindex(dy.shape):
        rows, columns = _cells(input_shape[2], dy.shape[2])[p], _cells(input_shape[3], dy.shape[3])[q]
        r, s = divmod(int(argmax[n, c, p, q]), len(columns))
        dx[n, c, rows[r], columns[s]] += float(dy[n, c, p, q])
    return dx


def last(x):
    """[N, C, H, W] as [N, H, W, C]."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def with_channels_last(definition):
    """The definition for images of either layout."""

    def either(*args, layout="NCHW", **call):
        if layout == "NCHW":
            return definition(*args, **call)
        arrays = {name: a.transpose(0, 3, 1, 2) for name, a in call.items() if isinstance(a, np.ndarray)}
        if "input_shape" in call:
            n, h, w, c = call["input_shape"]
            arrays["input_shape"] = (n, c, h, w)
        result = definition(*args, **{**call, **arrays})
        return tuple(last(a) for a in result) if isinstance(result, tuple) else last(result)

    return either


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
# A window that dilation makes step over the whole image.
_NO_PIXEL = ((1, 2, 1, 2), {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 2})
_ADAPTIVE = {
    "one": ((1, 1, 1, 1), 1),
    "mean": ((3, 5, 7, 11), 1),
    "even": ((2, 3, 8, 6), (4, 3)),
    "overlapping": ((1, 2, 7, 11), (3, 4)),
    "larger_than_input": ((1, 2, 3, 2), (5, 7)),
    "wide_129": ((1, 1, 2, 129), (2, 10)),
    "cells_over_256": ((1, 2, 35, 37), 2),
    "empty_batch": ((0, 2, 4, 4), 2),
}

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
_LAST_ADAPTIVE = {
    "mean": ((3, 16, 7, 5), 1),
    "mean_of_odd": ((2, 5, 7, 11), 1),
    "many_channels": ((1, 264, 3, 2), 1),
    "overlapping": ((1, 8, 7, 11), (3, 4)),
    "odd_channels": ((2, 3, 7, 11), (3, 4)),
    "larger_than_input": ((1, 8, 3, 2), (5, 7)),
    "cells_over_256": ((1, 8, 17, 18), 1),
    "empty_batch": ((0, 8, 4, 4), 2),
}


def _values(rng, shape, dtype) -> np.ndarray:
    """A coarse grid of values, so that windows hold equals and the rule for them is tested."""
    return (rng.integers(-4, 5, shape) / 2).astype(dtype)


def _make(shape, call, rng, dtype) -> Arguments:
    return {"x": _values(rng, shape, dtype), **call}


def _max_backward_make(shape, call, rng, dtype) -> Arguments:
    y, argmax = max_pool2d(_values(rng, shape, dtype), **call)
    call = {name: value for name, value in call.items() if name != "ceil_mode"}
    dy = rng.standard_normal(y.shape).astype(dtype)
    return {"dy": dy, "argmax": argmax, "input_shape": shape, **call}


def _avg_backward_make(shape, call, rng, dtype) -> Arguments:
    y = avg_pool2d(np.zeros(shape), **call)
    call = {name: value for name, value in call.items() if name != "ceil_mode"}
    return {"dy": rng.standard_normal(y.shape).astype(dtype), "input_shape": shape, **call}


def _adaptive_backward_make(shape, output, rng, dtype) -> Arguments:
    dy = rng.standard_normal((*shape[:2], *pair(output))).astype(dtype)
    return {"dy": dy, "input_shape": shape}


def _adaptive_max_backward_make(shape, output, rng, dtype) -> Arguments:
    y, argmax = adaptive_max_pool2d(_values(rng, shape, dtype), output)
    return {"dy": rng.standard_normal(y.shape).astype(dtype), "argmax": argmax, "input_shape": shape}


def _adaptive_nan_make(rng, dtype) -> Arguments:
    return {"x": _nan_make(rng, dtype)["x"], "output_size": (4, 3)}


def _nan_make(rng, dtype) -> Arguments:
    x = _values(rng, (1, 2, 6, 6), dtype)
    x[0, 0, 2, 3] = np.nan
    x[0, 0, 4:, 0] = np.nan
    x[0, 1, :2, :2] = -np.inf
    x[0, 1, 4, 4] = np.inf
    return {"x": x, "kernel_size": 2}


def _tiles_nan_make(rng, dtype) -> Arguments:
    """NaN in every place of a window, alone and in company; infinities of both signs."""
    x = _values(rng, (1, 2, 8, 16), dtype)
    for place in range(4):
        x[0, 0, place // 2, 4 * place + place % 2] = np.nan
    x[0, 0, 2:4, :4] = np.nan
    x[0, 1, :2, :4] = -np.inf
    x[0, 1, 4, 4:7] = np.inf
    return {"x": x, "kernel_size": 2}


def _last_nan_make(rng, dtype) -> Arguments:
    """What _tiles_nan_make has, in packs of channels."""
    x = _tiles_nan_make(rng, dtype)["x"]
    return {"x": np.concatenate([x] * 4, 1), "kernel_size": 3, "stride": 2, "padding": 1}


def _last_global_nan_make(rng, dtype) -> Arguments:
    """Planes of one NaN, of several, of nothing but -inf, and of equal maxima far apart."""
    x = _values(rng, (1, 8, 9, 5), dtype)
    x[0, 0, 4, 2] = x[0, 1, 1, 1] = x[0, 1, 7, 3] = np.nan
    x[0, 2] = -np.inf
    x[0, 3, 2, 2] = x[0, 3, 8, 4] = 7
    x[0, 4] = np.nan
    return {"x": x, "output_size": 1}


def _made_last(make, *args) -> Arguments:
    """What `make` makes, with the channels last."""
    made = {name: last(a) if isinstance(a, np.ndarray) else a for name, a in make(*args).items()}
    if "input_shape" in made:
        n, c, h, w = made["input_shape"]
        made["input_shape"] = (n, h, w, c)
    return {**made, "layout": "NHWC"}


def _last_cases(op: str, make, definition, shapes) -> list[Case]:
    either, (shape, call) = with_channels_last(definition), shapes["overlapping"]
    return [
        *(Case(op, f"last_{i}", partial(_made_last, make, *s), either) for i, s in shapes.items()),
        *in_every_layout(Case(op, "last", partial(_made_last, make, shape, call), either))[1:],
    ]


def _adaptive_make(shape, output, rng, dtype) -> Arguments:
    return _make(shape, {"output_size": output}, rng, dtype)


def _cases(op: str, backward_make, forward, backward, shapes) -> list[Case]:
    shape, call = shapes["overlapping"]
    made, made_backward = partial(_make, shape, call), partial(backward_make, shape, call)
    return [
        *(Case(op, i, partial(_make, *s), forward) for i, s in shapes.items()),
        *in_every_layout(Case(op, "layout", made, forward))[1:],
        *(Case(f"{op}_backward", i, partial(backward_make, *s), backward) for i, s in shapes.items()),
        *in_every_layout(Case(f"{op}_backward", "layout", made_backward, backward))[1:],
    ]


_EXCLUDING_PADDING = {
    f"{name}_excluding": (_SHAPES[name][0], {**_SHAPES[name][1], "count_include_pad": False})
    for name in ("overlapping", "stride_one", "ceil", "ceil_padded")
}

CASES = [
    *_cases("max_pool2d", _max_backward_make, max_pool2d, max_pool2d_backward, _SHAPES | _DILATED),
    Case("max_pool2d", "nan_and_inf", _nan_make, max_pool2d, nonfinite=True),
    Case("max_pool2d", "tiles_nan_and_inf", _tiles_nan_make, max_pool2d, nonfinite=True),
    Case("max_pool2d", "no_pixel", partial(_make, *_NO_PIXEL), max_pool2d, nonfinite=True),
    Case("max_pool2d_backward", "no_pixel", partial(_max_backward_make, *_NO_PIXEL), max_pool2d_backward),
    *_cases("avg_pool2d", _avg_backward_make, avg_pool2d, avg_pool2d_backward, _SHAPES | _EXCLUDING_PADDING),
    *(
        Case("adaptive_avg_pool2d", i, partial(_make, s, {"output_size": o}), adaptive_avg_pool2d)
        for i, (s, o) in _ADAPTIVE.items()
    ),
    *(
        Case("adaptive_max_pool2d", i, partial(_make, s, {"output_size": o}), adaptive_max_pool2d)
        for i, (s, o) in _ADAPTIVE.items()
    ),
    Case("adaptive_max_pool2d", "nan_and_inf", _adaptive_nan_make, adaptive_max_pool2d, nonfinite=True),
    *(
        Case(
            "adaptive_max_pool2d_backward",
            i,
            partial(_adaptive_max_backward_make, *s),
            adaptive_max_pool2d_backward,
        )
        for i, s in _ADAPTIVE.items()
    ),
    *in_every_layout(
        Case(
            "adaptive_max_pool2d_backward",
            "layout",
            partial(_adaptive_max_backward_make, (2, 3, 7, 5), (3, 2)),
            adaptive_max_pool2d_backward,
        )
    )[1:],
    *in_every_layout(
        Case(
            "adaptive_avg_pool2d",
            "layout",
            partial(_make, (2, 3, 7, 5), {"output_size": (3, 2)}),
            adaptive_avg_pool2d,
        )
    )[1:],
    *(
        Case(
            "adaptive_avg_pool2d_backward",
            i,
            partial(_adaptive_backward_make, *s),
            adaptive_avg_pool2d_backward,
        )
        for i, s in _ADAPTIVE.items()
    ),
    *in_every_layout(
        Case(
            "adaptive_avg_pool2d_backward",
            "layout",
            partial(_adaptive_backward_make, (2, 3, 7, 5), (3, 2)),
            adaptive_avg_pool2d_backward,
        )
    )[1:],
]

CASES += [
    *_last_cases("max_pool2d", _make, max_pool2d, _LAST | _LAST_DILATED),
    *_last_cases("max_pool2d_backward", _max_backward_make, max_pool2d_backward, _LAST | _LAST_DILATED),
    *_last_cases("avg_pool2d", _make, avg_pool2d, _LAST),
    *_last_cases("avg_pool2d_backward", _avg_backward_make, avg_pool2d_backward, _LAST),
    *_last_cases("adaptive_avg_pool2d", _adaptive_make, adaptive_avg_pool2d, _LAST_ADAPTIVE),
    *_last_cases("adaptive_max_pool2d", _adaptive_make, adaptive_max_pool2d, _LAST_ADAPTIVE),
    *_last_cases(
        "adaptive_avg_pool2d_backward", _adaptive_backward_make, adaptive_avg_pool2d_backward, _LAST_ADAPTIVE
    ),
    *_last_cases(
        "adaptive_max_pool2d_backward",
        _adaptive_max_backward_make,
        adaptive_max_pool2d_backward,
        _LAST_ADAPTIVE,
    ),
    Case(
        "max_pool2d",
        "last_nan_and_inf",
        partial(_made_last, _last_nan_make),
        with_channels_last(max_pool2d),
        nonfinite=True,
    ),
    Case(
        "max_pool2d",
        "last_no_pixel",
        partial(_made_last, _make, *_LAST_NO_PIXEL),
        with_channels_last(max_pool2d),
        nonfinite=True,
    ),
    Case(
        "adaptive_max_pool2d",
        "global_nan_and_inf",
        _last_global_nan_make,
        adaptive_max_pool2d,
        nonfinite=True,
    ),
    Case(
        "adaptive_max_pool2d",
        "last_global_nan_and_inf",
        partial(_made_last, _last_global_nan_make),
        with_channels_last(adaptive_max_pool2d),
        nonfinite=True,
    ),
    *(
        Case(
            f"avg_pool2d{way}",
            f"last_excluding_{name}",
            partial(_made_last, make, _LAST[name][0], {**_LAST[name][1], "count_include_pad": False}),
            with_channels_last(definition),
        )
        for way, make, definition in (
            ("", _make, avg_pool2d),
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


def _adaptive_gradient(name: str) -> Gradient:
    shape, output = _ADAPTIVE[name]
    return Gradient(
        "adaptive_avg_pool2d_backward",
        name,
        lambda rng: (rng.standard_normal(shape),),
        lambda ops, x: ops.adaptive_avg_pool2d(x, output),
        lambda ops, dy, x: (ops.adaptive_avg_pool2d_backward(dy, tuple(x.shape)),),
    )


def _adaptive_max_gradient(name: str) -> Gradient:
    shape, output = _ADAPTIVE[name]
    return Gradient(
        "adaptive_max_pool2d_backward",
        name,
        lambda rng: (all_different(rng, shape),),
        lambda ops, x: ops.adaptive_max_pool2d(x, output)[0],
        lambda ops, dy, x: (
            ops.adaptive_max_pool2d_backward(dy, ops.adaptive_max_pool2d(x, output)[1], tuple(x.shape)),
        ),
    )


def _last_gradient(op: str, shape, call) -> Gradient:
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
    *(_last_gradient(op, (1, 6, 5, 4), _OVERLAPPING) for op in ("max_pool2d", "avg_pool2d")),
    *(
        _last_gradient(op, (1, 5, 4, 3), {"output_size": (3, 2)})
        for op in ("adaptive_max_pool2d", "adaptive_avg_pool2d")
    ),
    *(_adaptive_max_gradient(name) for name in ("overlapping", "even")),
    *(_max_gradient(name) for name in ("ceil_padded", "overlapping", "dilated_ceil")),
    *(_avg_gradient(name) for name in ("ceil_padded", "ceil_padded_excluding", "stride_one")),
    *(_adaptive_gradient(name) for name in ("overlapping", "larger_than_input")),
]

VALID: dict[str, Arguments] = {
    "adaptive_max_pool2d": {"x": np.ones((2, 4, 6, 5), np.float32), "output_size": (3, 2)},
    "adaptive_max_pool2d_backward": {
        "dy": np.ones((2, 4, 3, 2), np.float32),
        "argmax": np.zeros((2, 4, 3, 2), np.uint8),
        "input_shape": (2, 4, 6, 5),
    },
}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of the compiled kernels, with fresh arrays."""
    image, small = np.ones((2, 3, 6, 6), np.float32), np.ones((2, 3, 3, 3), np.float32)
    argmax = np.zeros(small.shape, np.uint8)
    return {
        "adaptive_max_pool2d_forward": {"x": image, "y": small, "argmax": argmax, "channels_last": False},
        "adaptive_max_pool2d_backward": {"dy": small, "argmax": argmax, "dx": image, "channels_last": False},
    }
