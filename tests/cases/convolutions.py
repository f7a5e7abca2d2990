"""Convolution along one and three axes, transposed convolution along one and two: cases and the definition.

x [N, C, *D], weight [K, C/groups, *T], bias [K], y [N, K, *O], where D, T and O are sizes of one to three
axes; a transposed convolution has weight [C, K/groups, *T].
"""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout
from cases.conv2d import ACTIVATIONS


def each(value, axes):
    """A number (or a pair) for each axis."""
    return (value,) * axes if isinstance(value, int) else tuple(value)


def ends(padding, window, dilation):
    """(before, after) for each axis."""
    reach = [d * (t - 1) for t, d in zip(window, dilation, strict=True)]
    if padding == "valid":
        return [(0, 0)] * len(window)
    if padding == "same":
        return [(far // 2, far - far // 2) for far in reach]
    return [(p, p) if isinstance(p, int) else p for p in each(padding, len(window))]


def products_of(extent, window, stride, padding, dilation):
    """Sizes of y, and every (position in y, tap, position in x) of the definition, one axis times another."""
    sizes, axes = [], []
    steps = each(stride, len(extent)), each(dilation, len(extent))
    pads = ends(padding, window, steps[1])
    for size, taps, s, d, (before, after) in zip(extent, window, *steps, pads, strict=True):
        sizes.append((size + before + after - d * (taps - 1) - 1) // s + 1)
        reads = [(o, t, o * s - before + t * d) for o in range(sizes[-1]) for t in range(taps)]
        axes.append([read for read in reads if 0 <= read[2] < size])
    return tuple(sizes), [tuple(zip(*read, strict=True)) for read in product(*axes)]


def convolution(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, activation=None):
    """y[n, k, o] = f(bias[k] + sum of x[n, first(k) + c, d] * weight[k, c, t] over the reads (o, t, d))."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    sizes, reads = products_of(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    k_count, c_count = weight.shape[:2]
    y = np.zeros((x.shape[0], k_count, *sizes))
    for k in range(k_count):
        first = k // (k_count // groups) * c_count
        for c, (o, t, d) in product(range(c_count), reads):
            y[(slice(None), k, *o)] += x[(slice(None), first + c, *d)] * weight[(k, c, *t)]
        if bias is not None:
            y[:, k] += np.float64(bias[k])
    return ACTIVATIONS[activation](y)


def convolution_backward(
    dy, x, weight, bias=True, stride=1, padding=0, dilation=1, groups=1, need=(True, True)
):
    """The chain rule, one product of the definition at a time."""
    dy, x, weight = (a.astype(np.float64) for a in (dy, x, weight))
    _, reads = products_of(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    k_count, c_count = weight.shape[:2]
    dx, dw = np.zeros(x.shape), np.zeros(weight.shape)
    for k in range(k_count):
        first = k // (k_count // groups) * c_count
        for c, (o, t, d) in product(range(c_count), reads):
            slope = dy[(slice(None), k, *o)]
            dx[(slice(None), first + c, *d)] += slope * weight[(k, c, *t)]
            dw[(k, c, *t)] += (slope * x[(slice(None), first + c, *d)]).sum()
    db = dy.sum(axis=(0, *range(2, dy.ndim)))
    return dx if need[0] else None, dw if need[1] else None, db if bias else None


def transposed_sizes(extent, window, stride, padding, output_padding, dilation):
    axes = len(extent)
    lists = (each(a, axes) for a in (stride, output_padding, dilation))
    zipped = zip(extent, window, *lists, ends(padding, window, each(dilation, axes)), strict=True)
    return tuple((size - 1) * s + d * (t - 1) + 1 + more - sum(pad) for size, t, s, more, d, pad in zipped)


def transposed(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Every x[n, c, d] adds x[n, c, d] * weight[c, k, t] to y[n, first(c) + k, o], o = d*stride - padding +
    t*dilation.
    """
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    extent, window = x.shape[2:], weight.shape[2:]
    sizes = transposed_sizes(extent, window, stride, padding, output_padding, dilation)
    c_count, k_count = weight.shape[:2]
    y = np.zeros((x.shape[0], k_count * groups, *sizes))
    for c, k, (o, t, d) in transposed_reads(x, weight, sizes, stride, padding, dilation):
        y[(slice(None), c // (c_count // groups) * k_count + k, *o)] += (
            x[(slice(None), c, *d)] * weight[(c, k, *t)]
        )
    if bias is not None:
        y += bias.astype(np.float64).reshape(-1, *[1] * len(sizes))
    return y


def transposed_reads(x, weight, sizes, stride, padding, dilation):
    axes = len(sizes)
    s, d = each(stride, axes), each(dilation, axes)
    pads = ends(padding, weight.shape[2:], d)
    for position in np.ndindex(*x.shape[2:]):
        for tap in np.ndindex(*weight.shape[2:]):
            out = tuple(position[i] * s[i] - pads[i][0] + tap[i] * d[i] for i in range(axes))
            if all(0 <= o < size for o, size in zip(out, sizes, strict=True)):
                for c, k in np.ndindex(*weight.shape[:2]):
                    yield c, k, (out, tap, position)


def transposed_backward(
    dy, x, weight, bias=True, stride=1, padding=0, output_padding=0, groups=1, dilation=1, need=(True, True)
):
    dy, x, weight = (a.astype(np.float64) for a in (dy, x, weight))
    c_count, k_count = weight.shape[:2]
    dx, dw = np.zeros(x.shape), np.zeros(weight.shape)
    for c, k, (o, t, d) in transposed_reads(x, weight, dy.shape[2:], stride, padding, dilation):
        slope = dy[(slice(None), c // (c_count // groups) * k_count + k, *o)]
        dx[(slice(None), c, *d)] += slope * weight[(c, k, *t)]
        dw[(c, k, *t)] += (slope * x[(slice(None), c, *d)]).sum()
    db = dy.sum(axis=(0, *range(2, dy.ndim)))
    return dx if need[0] else None, dw if need[1] else None, db if bias else None


# id: (x shape, (K, *T), call arguments)
_SHAPES = {
    "conv1d": {
        "one_of_everything": ((1, 1, 1), (1, 1), {}),
        "primes": ((3, 5, 11), (7, 3), {}),
        "same_even": ((2, 3, 9), (4, 4), {"padding": "same"}),
        "causal": ((2, 3, 9), (4, 3), {"padding": ((4, 0),), "dilation": 2}),
        "long_129": ((1, 2, 129), (2, 5), {"padding": 2, "stride": 3}),
        "everything": ((2, 4, 13), (6, 3), {"padding": (3,), "stride": (2,), "dilation": (2,), "groups": 2}),
        "depthwise": ((2, 7, 8), (7, 3), {"groups": 7, "padding": 1}),
        "empty_batch": ((0, 3, 5), (4, 3), {}),
    },
    "conv3d": {
        "one_of_everything": ((1, 1, 1, 1, 1), (1, 1, 1, 1), {}),
        "primes": ((2, 3, 5, 3, 7), (2, 3, 2, 5), {}),
        "plain": ((2, 2, 4, 5, 3), (3, 3, 3, 3), {"padding": 1}),
        "strided": ((1, 2, 7, 4, 5), (2, 3, 2, 2), {"stride": (2, 1, 3)}),
        "stride_over_kernel": ((1, 2, 8, 3, 4), (2, 2, 1, 2), {"stride": (5, 2, 3)}),
        "dilated": ((1, 2, 7, 4, 6), (2, 3, 2, 2), {"dilation": (3, 2, 1), "padding": (2, 1, 0)}),
        "dilation_shares_stride": (
            (1, 2, 9, 2, 3),
            (2, 3, 1, 2),
            {"dilation": (4, 1, 2), "stride": (6, 1, 2)},
        ),
        "same": ((1, 2, 4, 3, 5), (2, 2, 3, 4), {"padding": "same"}),
        "one_sided": ((1, 2, 3, 4, 2), (2, 3, 2, 2), {"padding": ((2, 0), (0, 1), (1, 3))}),
        "everything": (
            (2, 4, 5, 4, 6),
            (6, 2, 3, 2),
            {"stride": (2, 1, 2), "padding": (1, 2, 1), "dilation": (2, 1, 2), "groups": 2},
        ),
        "depthwise": ((1, 3, 4, 4, 4), (3, 3, 3, 3), {"groups": 3, "padding": 1}),
        "empty_batch": ((0, 2, 3, 4, 4), (3, 2, 2, 2), {}),
    },
    "conv_transpose1d": {
        "one_of_everything": ((1, 1, 1), (1, 1), {}),
        "strided": ((2, 3, 7), (4, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
        "stride_over_kernel": ((1, 2, 5), (3, 2), {"stride": (5,), "output_padding": (4,)}),
        "everything": (
            (2, 4, 6),
            (6, 3),
            {"stride": 3, "padding": ((2, 1),), "output_padding": 2, "groups": 2, "dilation": 2},
        ),
    },
    "conv_transpose2d": {
        "one_of_everything": ((1, 1, 1, 1), (1, 1, 1), {}),
        "primes": ((3, 5, 7, 3), (7, 3, 2), {}),
        "doubling": ((2, 4, 4, 5), (3, 4, 4), {"stride": 2, "padding": 1}),
        "stride_over_kernel": ((2, 3, 4, 3), (2, 2, 2), {"stride": (3, 5), "output_padding": (2, 4)}),
        "output_padding_of_dilation": (
            (1, 2, 3, 4),
            (2, 2, 2),
            {"dilation": (3, 2), "output_padding": (2, 1)},
        ),
        "padding_over_kernel": ((1, 2, 6, 7), (2, 2, 2), {"padding": (2, 3)}),
        "one_sided": ((1, 2, 4, 3), (2, 3, 3), {"padding": ((2, 0), (0, 1))}),
        "everything": (
            (2, 4, 5, 4),
            (6, 3, 2),
            {"stride": (2, 3), "padding": (2, 1), "output_padding": (1, 2), "groups": 2, "dilation": (2, 1)},
        ),
        "depthwise": ((2, 3, 4, 4), (3, 3, 3), {"groups": 3, "stride": 2}),
        "empty_batch": ((0, 3, 4, 4), (2, 3, 3), {}),
    },
}


def is_transposed(op: str) -> bool:
    return "transpose" in op


def _arguments(op, rng, dtype, shape, filters, call, bias=True, activation=None) -> Arguments:
    (k, *window), groups = filters, call.get("groups", 1)
    ends = (shape[1], k // groups) if is_transposed(op) else (k, shape[1] // groups)
    scale = (shape[1] // groups * prod(window)) ** -0.5
    made: Arguments = {
        "x": rng.standard_normal(shape).astype(dtype),
        "weight": (scale * rng.standard_normal((*ends, *window))).astype(dtype),
        **call,
    }
    if bias:
        made["bias"] = rng.standard_normal(k).astype(dtype)
    if activation:
        made["activation"] = activation
    return made


def output_shape(op: str, shape, filters, call):
    """The shape of y, which the oracle gives an empty batch of."""
    window, axes = filters[1:], len(filters) - 1
    if is_transposed(op):
        more = call.get("output_padding", 0), call.get("dilation", 1)
        sizes = transposed_sizes(shape[2:], window, call.get("stride", 1), call.get("padding", 0), *more)
    else:
        geometry = (
            call.get(name, default) for name, default in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        sizes = products_of(shape[2:], window, *geometry)[0]
    assert len(sizes) == axes
    return (shape[0], filters[0], *sizes)


def _forward_make(op, shape, more, rng, dtype):
    return _arguments(op, rng, dtype, *_SHAPES[op][shape], **more)


def _backward_make(op, shape, more, rng, dtype):
    arguments = _arguments(op, rng, dtype, *_SHAPES[op][shape], bias=False)
    dy = rng.standard_normal(output_shape(op, *_SHAPES[op][shape])).astype(dtype)
    return {"dy": dy, **arguments, **more}


def _forward_case(op: str, name: str, shape: str, **more) -> Case:
    oracle = transposed if is_transposed(op) else convolution
    return Case(op, name, partial(_forward_make, op, shape, more), oracle)


def _backward_case(op: str, name: str, shape: str, **more) -> Case:
    oracle = transposed_backward if is_transposed(op) else convolution_backward
    # Sums over a whole batch of images: more terms than a forward sum.
    tolerance = {"float32": 5e-5, "float64": 1e-12}
    return Case(f"{op}_backward", name, partial(_backward_make, op, shape, more), oracle, tolerance)


def _cases(op: str) -> list[Case]:
    cases = [
        *(_forward_case(op, name, name) for name in _SHAPES[op]),
        *in_every_layout(_forward_case(op, "layout", "everything"))[1:],
        _forward_case(op, "no_bias", "everything", bias=False),
        *(_backward_case(op, name, name) for name in _SHAPES[op]),
        *in_every_layout(_backward_case(op, "layout", "everything"))[1:],
        _backward_case(op, "input_only", "everything", bias=False, need=(True, False)),
        _backward_case(op, "weight_only", "everything", bias=False, need=(False, True)),
        _backward_case(op, "bias_only", "everything", need=(False, False)),
    ]
    if not is_transposed(op):
        cases += [
            _forward_case(op, name, "everything", activation=name) for name in ("relu", "tanh", "sigmoid")
        ]
    return cases


CASES = [case for op in _SHAPES for case in _cases(op)]


def _gradient(op: str, name: str) -> Gradient:
    shape, filters, call = _SHAPES[op][name]

    def inputs(rng):
        made = _arguments(op, rng, np.float64, shape, filters, call)
        return made["x"], made["weight"], made["bias"]

    return Gradient(
        f"{op}_backward",
        name,
        inputs,
        lambda ops, x, weight, bias: getattr(ops, op)(x, weight, bias, **call),
        lambda ops, dy, x, weight, bias: getattr(ops, f"{op}_backward")(dy, x, weight, **call),
    )


GRADIENTS = [
    _gradient("conv1d", "causal"),
    _gradient("conv3d", "stride_over_kernel"),
    _gradient("conv3d", "one_sided"),
    _gradient("conv_transpose1d", "everything"),
    _gradient("conv_transpose2d", "stride_over_kernel"),
    _gradient("conv_transpose2d", "one_sided"),
]


def _valid(op: str) -> dict[str, Arguments]:
    shape, filters, call = _SHAPES[op]["everything"]
    arguments = _arguments(op, np.random.default_rng(0), np.float32, shape, filters, call)
    dy = np.ones(output_shape(op, shape, filters, call), np.float32)
    backward = {name: value for name, value in arguments.items() if name != "bias"}
    return {op: arguments, f"{op}_backward": {"dy": dy, **backward}}


VALID = {name: call for op in _SHAPES for name, call in _valid(op).items()}
OPTIONAL = {(op, "bias") for op in _SHAPES}


def _bad(op: str) -> list[tuple]:
    """(changed arguments, error, what the message says) for the operator and its backward."""
    x, weight = VALID[op]["x"], VALID[op]["weight"]
    axes = x.ndim - 2
    rows: list[tuple] = [
        ({"x": x[:, :2]}, ValueError, r"x has 2 channels, weight expects 4"),
        ({"weight": weight[:, :, :0]}, ValueError, "weight has shape .* expected no size of zero"),
        ({"groups": 3}, ValueError, "groups is 3"),
        ({"groups": 0}, ValueError, "groups is 0"),
        ({"groups": 2.0}, TypeError, "groups"),
        ({"stride": 0}, ValueError, "stride is 0"),
        ({"stride": 1.5}, TypeError, "stride is 1.5"),
        ({"stride": (1,) * (axes + 1)}, ValueError, f"stride has {axes + 1} numbers"),
        ({"stride": 2**31}, ValueError, "stride"),
        ({"dilation": -1}, ValueError, "dilation is -1"),
        ({"dilation": True}, TypeError, "dilation is True"),
        ({"padding": -1}, ValueError, "padding is -1"),
        ({"padding": ((1, 2),) * (axes + 1)}, ValueError, f"padding has {axes + 1} entries"),
        ({"padding": ((1, -2),) * axes}, ValueError, r"padding is \(1, -2\)"),
        ({"padding": ((1, 2, 3),) * axes}, ValueError, "padding has 3 numbers"),
        ({"padding": None}, TypeError, "padding is None"),
    ]
    if is_transposed(op):
        rows += [
            ({"output_padding": 6}, ValueError, "output_padding is 6, expected less than"),
            ({"output_padding": -1}, ValueError, "output_padding is -1"),
            ({"output_padding": 0.5}, TypeError, "output_padding is 0.5"),
            ({"padding": "same"}, TypeError, "padding is 'same'"),
            ({"padding": 100}, ValueError, "padding 100 leaves nothing of the output"),
            ({"x": x[:, :, :0]}, ValueError, "x has shape"),
        ]
    else:
        rows += [
            ({"padding": "same"}, ValueError, "padding 'same' with stride"),
            ({"padding": "full"}, ValueError, "padding is 'full'"),
            ({"dilation": 30}, ValueError, "weight reaches over"),
        ]
    alone = [
        (op, {"bias": np.ones(5, np.float32)}, ValueError, r"bias has shape \(5,\), expected \(6,\)"),
        (f"{op}_backward", {"dy": VALID[f"{op}_backward"]["dy"][:1]}, ValueError, "dy has shape"),
        (f"{op}_backward", {"bias": 1}, TypeError, "bias is 1"),
        (f"{op}_backward", {"need": True}, TypeError, "need is True"),
    ]
    if not is_transposed(op):
        alone.append((op, {"activation": "gelu"}, ValueError, "activation is 'gelu'"))
    return [*((name, *row) for name in (op, f"{op}_backward") for row in rows), *alone]


BAD = [row for op in _SHAPES for row in _bad(op)]
