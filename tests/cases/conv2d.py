"""Convolution: cases and the definition.

x [N, C, H, W], weight [K, C/groups, R, S], bias [K], y [N, K, P, Q]; with layout "NHWC" x [N, H, W, C] and y
[N, P, Q, K].
"""

from __future__ import annotations

from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout, pair

ACTIVATIONS = {
    None: lambda v: v,
    "relu": lambda v: np.maximum(v, 0.0),
    "tanh": np.tanh,
    "sigmoid": lambda v: 1.0 / (1.0 + np.exp(-v)),
}


def taps_of(x_shape, weight_shape, stride, padding, dilation, groups):
    """The products of the definition: y[n, k, p, q] += x[n, first(k) + c, h, w] * weight[k, c, r, s].

    Returns the shape of y, the number of c, the pairs (k, first(k)) and every (p, q, r, s, h, w) inside x.
    """
    (n_count, _, height, width), (k_count, c_count, r_count, s_count) = x_shape, weight_shape
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    reach_h, reach_w = dh * (r_count - 1), dw * (s_count - 1)
    (ph, bottom), (pw, right) = ends(padding, reach_h, reach_w)
    p_count = (height + ph + bottom - reach_h - 1) // sh + 1
    q_count = (width + pw + right - reach_w - 1) // sw + 1
    taps = []
    for p in range(p_count):
        for q in range(q_count):
            for r in range(r_count):
                for s in range(s_count):
                    h, w = p * sh - ph + r * dh, q * sw - pw + s * dw
                    if 0 <= h < height and 0 <= w < width:
                        taps.append((p, q, r, s, h, w))
    channels = [(k, (k // (k_count // groups)) * c_count) for k in range(k_count)]
    return (n_count, k_count, p_count, q_count), c_count, channels, taps


def ends(padding, reach_h, reach_w):
    """((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        return (reach_h // 2, reach_h - reach_h // 2), (reach_w // 2, reach_w - reach_w // 2)
    h, w = pair(padding)
    return pair(h), pair(w)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation=None, residual=None):
    """y[n, k, p, q] = f(bias[k] + residual[n, k, p, q] + sum of the products), where h is
    p * stride - padding + r * dilation.
    """
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    shape, c_count, channels, taps = taps_of(x.shape, weight.shape, stride, padding, dilation, groups)
    y = np.zeros(shape) if residual is None else residual.astype(np.float64)
    for n in range(shape[0]):
        for k, first in channels:
            for p, q, r, s, h, w in taps:
                for c in range(c_count):
                    y[n, k, p, q] += x[n, first + c, h, w] * weight[k, c, r, s]
            if bias is not None:
                y[n, k] += np.float64(bias[k])
    return ACTIVATIONS[activation](y)


def conv2d_backward(dy, x, weight, bias=True, stride=1, padding=0, dilation=1, groups=1, need=(True, True)):
    """The chain rule, one product of the definition at a time."""
    dy, x, weight = (a.astype(np.float64) for a in (dy, x, weight))
    shape, c_count, channels, taps = taps_of(x.shape, weight.shape, stride, padding, dilation, groups)
    dx, dw, db = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(shape[1])
    for n in range(shape[0]):
        for k, first in channels:
            for p, q, r, s, h, w in taps:
                for c in range(c_count):
                    dx[n, first + c, h, w] += dy[n, k, p, q] * weight[k, c, r, s]
                    dw[k, c, r, s] += dy[n, k, p, q] * x[n, first + c, h, w]
            db[k] += dy[n, k].sum()
    return (dx if need[0] else None, dw if need[1] else None, db if bias else None)


_IMAGES = ("x", "dy", "residual")  # the arguments that have a layout


def last(x):
    """[N, C, H, W] as [N, H, W, C]."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def with_channels_last(definition):
    """The definition for images of either layout: y, or dx of (dx, dw, db), has it too."""

    def either(layout="NCHW", **arguments):
        if layout == "NCHW":
            return definition(**arguments)
        images = {name: arguments[name].transpose(0, 3, 1, 2) for name in _IMAGES if name in arguments}
        result = definition(**{**arguments, **images})
        if not isinstance(result, tuple):
            return last(result)
        return (None if result[0] is None else last(result[0]), *result[1:])

    return either


# id: (x shape, (K, R, S), call arguments)
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, int, int], Arguments]] = {
    "one_of_everything": ((1, 1, 1, 1), (1, 1, 1), {}),
    "one_pixel_padded": ((1, 2, 1, 1), (3, 3, 3), {"padding": 1}),
    "primes": ((3, 5, 7, 11), (7, 3, 2), {}),
    "plain_3x3": ((2, 3, 8, 9), (4, 3, 3), {"padding": 1}),
    "lenet_first": ((1, 1, 16, 16), (6, 5, 5), {}),
    "pointwise": ((2, 7, 5, 4), (9, 1, 1), {}),
    "pointwise_packed": ((3, 5, 4, 6), (9, 1, 1), {}),
    "pointwise_grouped": ((2, 34, 2, 36), (14, 1, 1), {"groups": 2}),
    "pointwise_padded": ((1, 3, 4, 6), (2, 1, 1), {"padding": ((1, 0), (0, 2))}),
    "pointwise_cropped_by_stride": ((1, 3, 4, 8), (2, 1, 1), {"stride": (1, 2)}),
    "pointwise_strided": ((2, 4, 7, 6), (5, 1, 1), {"stride": 2}),
    "wide_129": ((1, 2, 1, 129), (2, 1, 3), {}),
    "tall_129": ((1, 1, 129, 2), (3, 5, 1), {"padding": (2, 0)}),
    "channels_33": ((1, 33, 3, 3), (35, 2, 2), {}),
    "filters_129": ((1, 2, 3, 3), (129, 2, 2), {}),
    "kernel_is_image": ((2, 3, 5, 4), (6, 5, 4), {}),
    "stride_over_kernel": ((2, 3, 11, 13), (4, 2, 2), {"stride": (3, 5)}),
    "stride_leaves_rest": ((1, 2, 8, 7), (3, 3, 3), {"stride": 2}),
    "padding_over_kernel": ((1, 2, 3, 2), (2, 2, 2), {"padding": (3, 4)}),
    "padding_uneven": ((2, 2, 5, 6), (3, 3, 2), {"padding": (0, 1)}),
    "one_sided": ((2, 2, 5, 4), (3, 3, 2), {"padding": ((3, 0), (0, 1))}),
    "one_sided_strided": ((1, 2, 6, 7), (3, 2, 3), {"padding": ((0, 1), 2), "stride": 2}),
    "same_even": ((2, 3, 5, 6), (2, 4, 2), {"padding": "same", "dilation": (1, 3)}),
    "valid": ((1, 2, 5, 4), (2, 3, 3), {"padding": "valid"}),
    "dilated": ((1, 3, 9, 8), (2, 3, 2), {"dilation": (2, 3)}),
    "dilated_over_image": ((1, 2, 4, 4), (2, 3, 3), {"dilation": 4, "padding": 4}),
    "all_arguments": (
        (2, 4, 10, 9),
        (6, 3, 2),
        {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1), "groups": 2},
    ),
    "groups": ((2, 6, 5, 5), (9, 3, 3), {"groups": 3}),
    "depthwise": ((2, 7, 6, 5), (7, 3, 3), {"groups": 7, "padding": 1}),
    "depthwise_multiplier": ((1, 3, 5, 5), (6, 2, 2), {"groups": 3, "stride": 2}),
    "depthwise_wide": ((1, 3, 19, 37), (3, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise_5x5": ((2, 2, 9, 17), (6, 5, 5), {"groups": 2, "padding": 2}),
    "depthwise_small": ((3, 5, 4, 7), (5, 3, 3), {"groups": 5, "padding": ((1, 0), (0, 1))}),
    "depthwise_7x7_strided": ((1, 2, 11, 20), (2, 7, 7), {"groups": 2, "padding": 3, "stride": 2}),
    "depthwise_phases": (
        (1, 2, 13, 12),
        (4, 3, 2),
        {"groups": 2, "padding": (3, 1), "stride": (4, 3), "dilation": (2, 3)},
    ),
    "depthwise_many_filters": ((1, 2, 5, 5), (12, 3, 3), {"groups": 2}),
    "depthwise_large_stride": ((1, 2, 150, 130), (2, 2, 3), {"groups": 2, "stride": (60, 60)}),
    # Channels in whole vectors.
    "vectors": ((2, 8, 7, 6), (16, 3, 3), {"padding": 1}),
    "vectors_of_four": ((1, 12, 5, 6), (4, 2, 3), {"padding": (1, 0)}),
    "vectors_in_groups": ((1, 16, 5, 6), (24, 3, 2), {"groups": 2, "stride": 2, "padding": 1}),
    "vectors_in_phases": ((1, 8, 9, 8), (8, 3, 3), {"stride": (2, 3), "dilation": (1, 2), "padding": 2}),
    "vectors_pointwise": ((2, 16, 3, 5), (24, 1, 1), {}),
    "vectors_pointwise_strided": ((2, 16, 5, 5), (8, 1, 1), {"stride": 2}),
    "stem": ((1, 3, 12, 13), (8, 7, 7), {"stride": 2, "padding": 3}),
    "depthwise_vectors": ((2, 16, 6, 9), (16, 3, 3), {"groups": 16, "padding": 1}),
    "depthwise_vectors_5x5": ((1, 8, 5, 6), (8, 5, 5), {"groups": 8, "padding": ((2, 1), (1, 2))}),
    "depthwise_vectors_strided": ((1, 8, 7, 9), (8, 3, 4), {"groups": 8, "stride": 2, "dilation": (2, 1)}),
    "depthwise_vectors_wide": ((1, 264, 3, 3), (264, 3, 3), {"groups": 264, "padding": 1}),
    "empty_batch": ((0, 3, 5, 5), (4, 3, 3), {}),
}


def _arguments(rng, dtype, shape, filters, call, bias=True, activation=None, residual=False) -> Arguments:
    k_count, r_count, s_count = filters
    c_count = shape[1] // call.get("groups", 1)
    scale = (c_count * r_count * s_count) ** -0.5
    arguments: Arguments = {
        "x": rng.standard_normal(shape).astype(dtype),
        "weight": (scale * rng.standard_normal((k_count, c_count, r_count, s_count))).astype(dtype),
        **call,
    }
    if bias:
        arguments["bias"] = rng.standard_normal(k_count).astype(dtype)
    if activation:
        arguments["activation"] = activation
    if residual:
        arguments["residual"] = rng.standard_normal(_output_shape(arguments, call)).astype(dtype)
    return arguments


def _output_shape(arguments, call):
    return taps_of(
        arguments["x"].shape,
        arguments["weight"].shape,
        call.get("stride", 1),
        call.get("padding", 0),
        call.get("dilation", 1),
        call.get("groups", 1),
    )[0]


def _backward_arguments(rng, dtype, shape, filters, call, **more) -> Arguments:
    arguments = _arguments(rng, dtype, shape, filters, call, bias=False)
    return {"dy": rng.standard_normal(_output_shape(arguments, call)).astype(dtype), **arguments, **more}


def _forward_case(name: str, shape: str, **more) -> Case:
    return Case("conv2d", name, partial(_forward_make, shape, more), with_channels_last(conv2d))


def _forward_make(shape, more, rng, dtype):
    return _in_layout(_arguments, shape, more, rng, dtype)


def _in_layout(make, shape, more, rng, dtype):
    """What `make` gives; `layout` among the further arguments is that of the images."""
    layout = more.get("layout")
    made = make(rng, dtype, *_SHAPES[shape], **{name: a for name, a in more.items() if name != "layout"})
    if layout is None:
        return made
    return made | {name: last(made[name]) for name in _IMAGES if name in made} | {"layout": layout}


def _backward_case(name: str, shape: str, **more) -> Case:
    # Sums over a whole batch of images: more terms than a forward sum.
    tolerance = {"float32": 5e-5, "float64": 1e-12}
    oracle = with_channels_last(conv2d_backward)
    return Case("conv2d_backward", name, partial(_backward_make, shape, more), oracle, tolerance)


def _backward_make(shape, more, rng, dtype):
    return _in_layout(_backward_arguments, shape, more, rng, dtype)


_WITH_RESIDUAL = (
    "pointwise_grouped",
    "one_of_everything",
    "primes",
    "plain_3x3",
    "lenet_first",
    "pointwise",
    "wide_129",
    "channels_33",
    "filters_129",
    "kernel_is_image",
    "stride_leaves_rest",
    "same_even",
    "groups",
    "depthwise",
    "depthwise_multiplier",
    "depthwise_wide",
    "depthwise_large_stride",
    "empty_batch",
)

_LAST_RESIDUAL = {
    "plain_3x3": "relu",
    "vectors_in_groups": "tanh",
    "vectors_pointwise": None,
    "pointwise_grouped": "relu",
    "depthwise_vectors": "sigmoid",
    "depthwise_multiplier": "relu",
}

CASES = [
    *(_forward_case(name, name) for name in _SHAPES),
    *in_every_layout(_forward_case("layout", "all_arguments"))[1:],
    _forward_case("no_bias", "plain_3x3", bias=False),
    *(_forward_case(name, "plain_3x3", activation=name) for name in ("relu", "tanh", "sigmoid")),
    *(_forward_case(f"{shape}_residual", shape, residual=True) for shape in _WITH_RESIDUAL),
    *in_every_layout(_forward_case("residual_relu", "all_arguments", residual=True, activation="relu")),
    *(
        _forward_case(f"residual_{name}_{shape}", shape, residual=True, activation=name, bias=False)
        for name in ("relu", "tanh", "sigmoid")
        for shape in ("plain_3x3", "depthwise_small")
    ),
    _forward_case("relu_no_bias", "all_arguments", bias=False, activation="relu"),
    *(_forward_case(f"last_{name}", name, layout="NHWC") for name in _SHAPES),
    *in_every_layout(_forward_case("last", "all_arguments", layout="NHWC", residual=True))[1:],
    *(
        _forward_case(f"last_residual_{name}", name, layout="NHWC", residual=True, activation=kind)
        for name, kind in _LAST_RESIDUAL.items()
    ),
    _forward_case("last_no_bias", "vectors", layout="NHWC", bias=False),
    *(_backward_case(name, name) for name in _SHAPES),
    *(_backward_case(f"last_{name}", name, layout="NHWC") for name in _SHAPES),
    *in_every_layout(_backward_case("last", "all_arguments", layout="NHWC"))[1:],
    _backward_case("last_no_bias", "vectors", layout="NHWC", bias=False),
    _backward_case("last_input_only", "vectors_pointwise", layout="NHWC", bias=False, need=(True, False)),
    _backward_case("last_bias_only", "vectors_pointwise", layout="NHWC", need=(False, False)),
    *in_every_layout(_backward_case("layout", "all_arguments"))[1:],
    _backward_case("no_bias", "plain_3x3", bias=False),
    _backward_case("input_only", "plain_3x3", bias=False, need=(True, False)),
    _backward_case("weight_only", "all_arguments", need=(False, True)),
    _backward_case("bias_only", "plain_3x3", need=(False, False)),
    _backward_case("nothing", "plain_3x3", bias=False, need=(False, False)),
]


def _gradient(name: str, layout: str = "NCHW") -> Gradient:
    call = _SHAPES[name][2]
    more = {} if layout == "NCHW" else {"layout": layout}

    def inputs(rng):
        made = _in_layout(_arguments, name, more, rng, np.float64)
        return made["x"], made["weight"], made["bias"]

    call = {**call, **more}
    return Gradient(
        "conv2d_backward",
        name if layout == "NCHW" else f"last_{name}",
        inputs,
        lambda ops, x, weight, bias: ops.conv2d(x, weight, bias, **call),
        lambda ops, dy, x, weight, bias: ops.conv2d_backward(dy, x, weight, bias=True, **call),
    )


_DIFFERENTIATED = ("one_pixel_padded", "one_sided_strided", "stride_leaves_rest", "depthwise_multiplier")
GRADIENTS = [_gradient(n) for n in (*_DIFFERENTIATED, "depthwise_small")]
GRADIENTS += [_gradient(n, "NHWC") for n in ("one_sided_strided", "depthwise_small")]
