"""Batch normalisation: cases and definitions. x [N, C, ...] or, with layout "NHWC", [N, ..., C]."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout


def _by_channel(x, channels_last):
    """A float64 copy as [C, values], and the function that puts such an array back into x's shape."""
    first = np.moveaxis(x.astype(np.float64), -1 if channels_last else 1, 0)
    shape = first.shape

    def back(values):
        return np.moveaxis(values.reshape(shape), 0, -1 if channels_last else 1)

    return first.reshape(shape[0], -1), back


def batch_norm(
    x,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
    residual=None,
    activation=None,
    layout="NCHW",
):
    """y, mean, var; in training also the running statistics after the call, if there are any."""
    values, back = _by_channel(x, layout == "NHWC")
    extra = None if residual is None else _by_channel(residual, layout == "NHWC")[0]
    y = np.zeros(values.shape)
    mean, var = np.zeros(len(values)), np.zeros(len(values))
    after_mean, after_var = (None if r is None else r.astype(np.float64) for r in (running_mean, running_var))
    count = values.shape[1]
    for c, row in enumerate(values):
        if training and count:
            mean[c] = math.fsum(row) / count
            var[c] = math.fsum((v - mean[c]) ** 2 for v in row) / count
            if after_mean is not None:
                after_mean[c] += momentum * (mean[c] - after_mean[c])
                after_var[c] += momentum * (var[c] * count / (count - 1) - after_var[c])
        elif not training:
            mean[c], var[c] = running_mean[c], running_var[c]
        for i, v in enumerate(row):
            z = (v - mean[c]) / math.sqrt(var[c] + eps)
            z = z * (1.0 if weight is None else float(weight[c])) + (0.0 if bias is None else float(bias[c]))
            z += 0.0 if extra is None else extra[c, i]
            y[c, i] = max(z, 0.0) if activation == "relu" else z
    if training and after_mean is not None:
        return back(y), mean, var, after_mean, after_var
    return back(y), mean, var


def batch_norm_backward(
    dy,
    x,
    mean,
    var,
    weight=None,
    y=None,
    training=False,
    eps=1e-5,
    residual=False,
    activation=None,
    layout="NCHW",
):
    """The chain rule, channel by channel; in training through the mean and the variance as well."""
    last = layout == "NHWC"
    values, back = _by_channel(x, last)
    g = _by_channel(dy, last)[0]
    if activation == "relu":
        g = np.where(_by_channel(y, last)[0] > 0, g, 0.0)
    dx, dweight, dbias = np.zeros(values.shape), np.zeros(len(values)), np.zeros(len(values))
    count = values.shape[1]
    for c, row in enumerate(values if count else []):
        deviation = math.sqrt(float(var[c]) + eps)
        normal = [(v - float(mean[c])) / deviation for v in row]
        dbias[c] = math.fsum(g[c])
        dweight[c] = math.fsum(d * z for d, z in zip(g[c], normal, strict=True))
        factor = (1.0 if weight is None else float(weight[c])) / deviation
        for i, z in enumerate(normal):
            through = (dbias[c] + z * dweight[c]) / count if training else 0.0
            dx[c, i] = factor * (g[c, i] - through)
    return back(dx), dweight, dbias, back(g) if residual else None


# id: (shape of x, channels_last)
_SHAPES = {
    "rows": ((7, 5), False),
    "many_rows": ((129, 3), False),
    "wide_rows": ((3, 257), False),
    "packed_rows": ((11, 48), False),
    "two_values": ((2, 3), False),
    "sequence": ((3, 5, 7), False),
    "image": ((2, 3, 5, 7), False),
    "packed_image": ((3, 5, 4, 8), False),
    "one_channel": ((2, 1, 17, 16), False),
    "volume": ((2, 3, 2, 3, 4), False),
    "one_pixel": ((5, 3, 1, 1), False),
    "channels_last": ((2, 5, 7, 3), True),
    "packed_channels_last": ((2, 3, 5, 16), True),
    "empty_batch": ((0, 3, 4, 4), False),
}


def _vectors(rng, channels, dtype) -> Arguments:
    kind = np.float64 if dtype == np.float64 else np.float32
    return {
        "running_mean": rng.standard_normal(channels).astype(kind),
        "running_var": rng.uniform(0.5, 2.0, channels).astype(kind),
        "weight": rng.uniform(0.5, 1.5, channels).astype(kind),
        "bias": rng.standard_normal(channels).astype(kind),
    }


def _make(name, training, options, rng, dtype) -> Arguments:
    shape, channels_last = _SHAPES[name]
    channels = shape[-1 if channels_last else 1]
    center = rng.uniform(-2.0, 2.0, channels).reshape(
        -1 if channels_last else (1, -1) + (1,) * (len(shape) - 2)
    )
    arguments = {
        "x": (rng.standard_normal(shape) + center).astype(dtype),
        **_vectors(rng, channels, dtype),
        "training": training,
        "layout": "NHWC" if channels_last else "NCHW",
    }
    if "plain" in options:
        del arguments["weight"], arguments["bias"]
        if training:
            del arguments["running_mean"], arguments["running_var"]
    if "residual" in options:
        arguments["residual"] = rng.standard_normal(shape).astype(dtype)
    if "relu" in options:
        arguments["activation"] = "relu"
    return arguments


def _far_make(rng, dtype) -> Arguments:
    """A mean a thousand times the deviation, which a sum of squares would lose."""
    x = 1000.0 + rng.standard_normal((8, 3, 5, 5))
    return {"x": x.astype(dtype), "training": True}


def _constant_make(rng, dtype) -> Arguments:
    return {"x": np.full((4, 2, 3, 3), 1.5, dtype), "training": True}


def _backward_make(name, training, options, rng, dtype) -> Arguments:
    forward = _make(name, training, options, rng, dtype)
    y, mean, var, *_ = batch_norm(**forward)
    kind = np.float64 if dtype == np.float64 else np.float32
    arguments = {
        "dy": rng.standard_normal(y.shape).astype(dtype),
        "x": forward["x"],
        "mean": mean.astype(kind),
        "var": var.astype(kind),
        "training": training,
        "residual": "residual" in options,
        "layout": forward["layout"],
    }
    if "weight" in forward:
        arguments["weight"] = forward["weight"]
    if "relu" in options:
        arguments |= {"y": y.astype(dtype), "activation": "relu"}
    return arguments


def _call(ops, **arguments):
    """batch_norm on copies of the running statistics, which it changes, and these."""
    names = [n for n in ("running_mean", "running_var") if arguments["training"] and n in arguments]
    copies = {name: arguments[name].copy(order="C") for name in names}
    return (*ops.batch_norm(**{**arguments, **copies}), *copies.values())


def _forward(i: str, make) -> Case:
    return Case("batch_norm", i, make, batch_norm, call=_call, wide=(1, 2, 3, 4))


_VARIANTS = {
    "training": (True, ()),
    "training_plain": (True, ("plain",)),
    "training_fused": (True, ("residual", "relu")),
    "inference": (False, ()),
    "inference_plain": (False, ("plain",)),
    "inference_fused": (False, ("residual", "relu")),
}

CASES = [
    *(
        _forward(f"{variant}-{shape}", partial(_make, shape, *call))
        for variant, call in _VARIANTS.items()
        for shape in (_SHAPES if variant in ("training", "inference") else ("image", "packed_image", "rows"))
    ),
    *in_every_layout(_forward("layout", partial(_make, "image", True, ("residual", "relu"))))[1:],
    # float32 keeps 1e-4 of a deviation of 1 beside 1000.
    Case(
        "batch_norm",
        "far_mean",
        _far_make,
        batch_norm,
        {"float32": 3e-4, "float64": 1e-9},
        halves=False,
        call=_call,
    ),
    _forward("constant", _constant_make),
    *(
        Case(
            "batch_norm_backward",
            f"{variant}-{shape}",
            partial(_backward_make, shape, *call),
            batch_norm_backward,
            wide=(1, 2),
        )
        for variant, call in _VARIANTS.items()
        for shape in (
            _SHAPES if variant in ("training", "training_fused") else ("image", "channels_last", "rows")
        )
    ),
    *in_every_layout(
        Case(
            "batch_norm_backward",
            "layout",
            partial(_backward_make, "image", True, ("residual", "relu")),
            batch_norm_backward,
            wide=(1, 2),
        )
    )[1:],
]


def _gradient(name: str, training: bool, fused: bool) -> Gradient:
    shape, channels_last = _SHAPES[name]
    channels = shape[-1 if channels_last else 1]
    options = {
        "training": training,
        "layout": "NHWC" if channels_last else "NCHW",
        "activation": "relu" if fused else None,
    }

    def inputs(rng):
        return (
            rng.standard_normal(shape),
            rng.uniform(0.5, 1.5, channels),
            rng.standard_normal(channels)
            + (4.0 if fused else 0.0),  # the ReLU passes nearly all, no kink near
            rng.standard_normal(shape) * 0.1,
        )

    def forward(ops, x, weight, bias, residual):
        return _run(ops, x, weight, bias, residual)[0]

    def _run(ops, x, weight, bias, residual):
        running = () if training else (bias * 0 + 0.25, bias * 0 + 1.5)
        return ops.batch_norm(x, *(running or (None, None)), weight, bias, residual=residual, **options)

    def backward(ops, dy, x, weight, bias, residual):
        y, mean, var = _run(ops, x, weight, bias, residual)
        dx, dweight, dbias, dresidual = ops.batch_norm_backward(
            dy, x, mean, var, weight, y if fused else None, residual=True, **options
        )
        return dx, dweight, dbias, dresidual

    kind = ("training" if training else "inference") + ("_fused" if fused else "")
    return Gradient("batch_norm_backward", f"{kind}-{name}", inputs, forward, backward)


GRADIENTS = [
    _gradient("image", True, False),
    _gradient("rows", True, True),
    _gradient("channels_last", True, False),
    _gradient("image", False, True),
]


def _floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


VALID: dict[str, Arguments] = {
    "batch_norm": {
        "x": _floats(2, 4, 6, 5),
        "running_mean": _floats(4),
        "running_var": _floats(4),
        "weight": _floats(4),
        "bias": _floats(4),
        "residual": _floats(2, 4, 6, 5),
    },
    "batch_norm_backward": {
        "dy": _floats(2, 4, 6, 5),
        "x": _floats(2, 4, 6, 5),
        "mean": _floats(4),
        "var": _floats(4),
        "weight": _floats(4),
    },
}
OPTIONAL = {("batch_norm", name) for name in ("weight", "bias", "residual")} | {
    ("batch_norm_backward", "weight")
}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of every compiled kernel, with fresh arrays."""
    image, vector = (2, 3, 4, 5), (3,)
    return {
        "batch_norm_forward": {
            **{"x": _floats(*image), "weight": _floats(*vector), "bias": _floats(*vector)},
            **{
                "residual": _floats(*image),
                "running_mean": _floats(*vector),
                "running_var": _floats(*vector),
            },
            **{"y": _floats(*image), "mean": _floats(*vector), "var": _floats(*vector)},
            **{"momentum": 0.1, "eps": 1e-5, "relu": True, "channels_last": False},
        },
        "batch_norm_inference": {
            **{"x": _floats(*image), "weight": _floats(*vector), "bias": _floats(*vector)},
            **{"residual": _floats(*image), "mean": _floats(*vector), "var": _floats(*vector)},
            **{"y": _floats(*image), "eps": 1e-5, "relu": True, "channels_last": False},
        },
        "batch_norm_backward": {
            **{"dy": _floats(*image), "x": _floats(*image), "y": _floats(*image), "weight": _floats(*vector)},
            **{"mean": _floats(*vector), "var": _floats(*vector), "dx": _floats(*image)},
            **{"dresidual": _floats(*image), "dweight": _floats(*vector), "dbias": _floats(*vector)},
            **{"eps": 1e-5, "training": True, "channels_last": False},
        },
    }
