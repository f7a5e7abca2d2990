"""Kernels that move 128 bits at a time, on arrays that begin elsewhere: contiguous slices of larger ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import FLOATS, Backend, seeded

CALLS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "max_pool2d tiles": ((2, 3, 4, 16), lambda x: fa.ops.max_pool2d(x, 2)[0]),
    "max_pool2d_backward tiles": (
        (2, 3, 2, 8),
        lambda dy: fa.ops.max_pool2d_backward(dy, *zeros(dy), (2, 3, 4, 16), 2),
    ),
    "max_pool2d blocks": ((2, 3, 5, 16), lambda x: fa.ops.max_pool2d(x, 3, 2, 1)[0]),
    "max_pool2d_backward blocks": (
        (2, 3, 3, 8),
        lambda dy: fa.ops.max_pool2d_backward(dy, *zeros(dy), (2, 3, 5, 16), 3, 2, 1),
    ),
    "avg_pool2d blocks": ((2, 3, 5, 16), lambda x: fa.ops.avg_pool2d(x, 3, 1, 1)),
    "avg_pool2d_backward blocks": (
        (2, 3, 2, 8),
        lambda dy: fa.ops.avg_pool2d_backward(dy, (2, 3, 4, 16), 2),
    ),
    "max_pool2d channels": ((2, 4, 5, 16), lambda x: fa.ops.max_pool2d(x, 3, 2, 1, layout="NHWC")[0]),
    "max_pool2d_backward channels": (
        (2, 2, 3, 16),
        lambda dy: fa.ops.max_pool2d_backward(dy, *zeros(dy), (2, 4, 5, 16), 3, 2, 1, layout="NHWC"),
    ),
    "avg_pool2d channels": ((2, 4, 5, 16), lambda x: fa.ops.avg_pool2d(x, 3, 2, 1, layout="NHWC")),
    "global pooling of channels": (
        (2, 4, 5, 16),
        lambda x: fa.ops.adaptive_max_pool2d(x, 1, layout="NHWC")[0],
    ),
    "softmax lanes": ((3, 96), fa.ops.softmax),
    "softmax block": ((2, 2056), fa.ops.softmax),
    "softmax_backward": ((3, 128), lambda y: fa.ops.softmax_backward(y, y)),
    "batch_norm planes": ((2, 3, 4, 8), lambda x: fa.ops.batch_norm(x, training=True)[0]),
    "batch_norm rows": ((9, 16), lambda x: fa.ops.batch_norm(x, training=True)[0]),
    "relu": ((5, 32), fa.ops.relu),
    "dropout": ((5, 32), lambda x: fa.ops.dropout(x, 0.5, 1, 2)),
    "local_response_norm of five": (
        (2, 3, 2, 16),
        lambda x: fa.ops.local_response_norm(x, 5, layout="NHWC"),
    ),
    "local_response_norm_backward of five": (
        (2, 3, 2, 16),
        lambda x: fa.ops.local_response_norm_backward(x, x, 5, layout="NHWC"),
    ),
    "local_response_norm": ((2, 5, 4, 4), lambda x: fa.ops.local_response_norm(x, 3)),
}


def zeros(dy: Any) -> tuple[Any]:
    """Places of maxima that begin off a multiple of their moves as well."""
    xp = np if isinstance(dy, np.ndarray) else __import__("cupy")
    return (xp.zeros(dy.size + 1, np.uint8)[1:].reshape(dy.shape),)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", CALLS)
def test_where_an_array_begins_makes_no_difference(name: str, dtype: str, backend: Backend) -> None:
    shape, call = CALLS[name]
    values = seeded(name).standard_normal(shape).astype(FLOATS[dtype])
    results = []
    for offset in (0, 1, 3):
        memory = backend.put(np.zeros(values.size + offset, values.dtype))
        x = memory[offset:].reshape(shape)
        x[...] = backend.put(values)
        assert x.flags.c_contiguous
        with fa.backend(backend.name):
            results.append(backend.host(call(x)).astype(np.float64))
    tolerance = {"float32": 1e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=tolerance, atol=tolerance)
