"""Batch and local response normalisation as layers, and pooling in one dimension: against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend, seeded
from fastarch import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

# Our layer, PyTorch's, the shape of x.
LAYERS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "BatchNorm1d rows": (lambda: nn.BatchNorm1d(5), lambda: torch.nn.BatchNorm1d(5), (7, 5)),
    "BatchNorm1d sequences": (lambda: nn.BatchNorm1d(5), lambda: torch.nn.BatchNorm1d(5), (3, 5, 11)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), lambda: torch.nn.BatchNorm2d(4), (3, 4, 5, 6)),
    "BatchNorm2d cumulative": (
        lambda: nn.BatchNorm2d(4, momentum=None),
        lambda: torch.nn.BatchNorm2d(4, momentum=None),
        (3, 4, 5, 6),
    ),
    "BatchNorm2d plain": (
        lambda: nn.BatchNorm2d(4, eps=1e-3, affine=False, track_running_stats=False),
        lambda: torch.nn.BatchNorm2d(4, eps=1e-3, affine=False, track_running_stats=False),
        (3, 4, 5, 6),
    ),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), lambda: torch.nn.BatchNorm3d(3), (2, 3, 4, 3, 2)),
    "LocalResponseNorm": (
        lambda: nn.LocalResponseNorm(5, alpha=0.3, k=2.0),
        lambda: torch.nn.LocalResponseNorm(5, alpha=0.3, k=2.0),
        (2, 9, 4, 3),
    ),
    "LocalResponseNorm even": (
        lambda: nn.LocalResponseNorm(4, alpha=0.3, beta=0.6),
        lambda: torch.nn.LocalResponseNorm(4, alpha=0.3, beta=0.6),
        (2, 7, 5),
    ),
    "AdaptiveMaxPool2d": (
        lambda: nn.AdaptiveMaxPool2d((3, None)),
        lambda: torch.nn.AdaptiveMaxPool2d((3, None)),
        (2, 3, 7, 5),
    ),
    "MaxPool1d": (
        lambda: nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True),
        lambda: torch.nn.MaxPool1d(3, stride=2, padding=1, ceil_mode=True),
        (2, 3, 12),
    ),
    "MaxPool1d dilated": (
        lambda: nn.MaxPool1d((2,), dilation=3),
        lambda: torch.nn.MaxPool1d(2, dilation=3),
        (2, 3, 12),
    ),
    "AvgPool1d": (
        lambda: nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        lambda: torch.nn.AvgPool1d(3, 2, 1, count_include_pad=False),
        (2, 3, 11),
    ),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(4), lambda: torch.nn.AdaptiveAvgPool1d(4), (2, 3, 11)),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(4), lambda: torch.nn.AdaptiveMaxPool1d(4), (2, 3, 11)),
}


def same(got: Any, want: Any, message: str) -> None:
    np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=message)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_pytorch_s(name: str, backend: Backend) -> None:
    """Outputs, gradients and running statistics over three training steps, then evaluation."""
    make, peer_make, shape = LAYERS[name]
    rng = seeded(name)
    layer, peer = make(), peer_make()
    for p, q in zip(layer.parameters(), peer.parameters(), strict=True):
        p.data[...] = rng.uniform(0.5, 1.5, p.shape)
        q.data[...] = torch.tensor(p.data)
    if backend.name == "cuda":
        layer.cuda()
    with fa.backend(backend.name):
        for step in range(4):
            layer.train(step < 3)
            peer.train(step < 3)
            x = (2.0 + rng.standard_normal(shape)).astype(np.float32)
            ours, theirs = fa.tensor(backend.put(x), requires_grad=True), torch.tensor(x, requires_grad=True)
            y, z = layer(ours), peer(theirs)
            dy = rng.standard_normal(y.shape).astype(np.float32)
            layer.zero_grad()
            peer.zero_grad()
            y.backward(backend.put(dy))
            z.backward(torch.tensor(dy))
            same(backend.host(y.data), z, f"y, step {step}")
            same(backend.host(ours.grad), theirs.grad, f"dx, step {step}")
            for p, q in zip(layer.parameters(), peer.parameters(), strict=True):
                same(backend.host(p.grad), q.grad, f"gradient, step {step}")
    state = layer.state_dict()
    assert list(state) == list(peer.state_dict())
    for key, value in peer.state_dict().items():
        same(state[key], value, key)


def test_state_dicts_go_both_ways() -> None:
    peer = torch.nn.BatchNorm2d(3)
    peer(torch.randn(4, 3, 5, 5))
    layer = nn.BatchNorm2d(3)
    layer.load_state_dict(peer.state_dict())
    assert layer.num_batches_tracked == 1
    x = seeded("state").standard_normal((2, 3, 4, 4)).astype(np.float32)
    same(layer.eval()(x).data, peer.eval()(torch.tensor(x)), "y")
    peer.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})


def test_residual_and_relu_in_one_pass(backend: Backend) -> None:
    """The same as batch norm, sum and ReLU one after the other, gradients included."""
    rng = seeded("fused")
    x, extra, dy = (rng.standard_normal((4, 3, 5, 6)).astype(np.float32) for _ in range(3))
    fused, plain = nn.BatchNorm2d(3, activation="relu"), nn.BatchNorm2d(3)
    results = []
    with fa.backend(backend.name):
        for layer, call in (
            (fused, lambda a, b: fused(a, b)),
            (plain, lambda a, b: fa.nn.functional.relu(plain(a) + b)),
        ):
            if backend.name == "cuda":
                layer.cuda()
            tensors = [fa.tensor(backend.put(v), requires_grad=True) for v in (x, extra)]
            y = call(*tensors)
            y.backward(backend.put(dy))
            grads = [t.grad for t in tensors] + [p.grad for p in layer.parameters()]
            results.append([backend.host(v) for v in (y.data, *grads, *layer.buffers())])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_residual_without_relu_gets_dy(backend: Backend) -> None:
    layer = nn.BatchNorm1d(2)
    if backend.name == "cuda":
        layer.cuda()
    x, extra = (fa.tensor(backend.put(np.ones((3, 2), np.float32)), requires_grad=True) for _ in range(2))
    dy = np.arange(6, dtype=np.float32).reshape(3, 2)
    with fa.backend(backend.name):
        layer(x, extra).backward(backend.put(dy))
    np.testing.assert_array_equal(backend.host(extra.grad), dy)


def test_channels_last_is_the_same(backend: Backend) -> None:
    rng = seeded("layout")
    x = rng.standard_normal((2, 8, 5, 3)).astype(np.float32)
    weight, bias = rng.standard_normal((2, 8)).astype(np.float32)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    with fa.backend(backend.name):
        put = backend.put
        y, mean, var = fa.ops.batch_norm(put(x), weight=put(weight), bias=put(bias), training=True)
        z, mean_z, var_z = fa.ops.batch_norm(
            put(last), weight=put(weight), bias=put(bias), training=True, layout="NHWC"
        )
    np.testing.assert_allclose(backend.host(z).transpose(0, 3, 1, 2), backend.host(y), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(backend.host(mean_z), backend.host(mean), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backend.host(var_z), backend.host(var), rtol=1e-5)


LAYERS_LAST: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "MaxPool2d": (lambda **k: nn.MaxPool2d(3, 2, 1, ceil_mode=True, **k), (2, 8, 7, 6)),
    "AvgPool2d": (lambda **k: nn.AvgPool2d(3, 2, 1, False, False, **k), (2, 8, 7, 6)),
    "AdaptiveAvgPool2d": (lambda **k: nn.AdaptiveAvgPool2d((3, None), **k), (2, 8, 7, 6)),
    "AdaptiveMaxPool2d": (lambda **k: nn.AdaptiveMaxPool2d((3, None), **k), (2, 8, 7, 6)),
    "BatchNorm1d": (lambda **k: nn.BatchNorm1d(8, **k), (3, 8, 5)),
    "BatchNorm2d": (lambda **k: nn.BatchNorm2d(8, activation="relu", **k), (3, 8, 5, 4)),
    "BatchNorm3d": (lambda **k: nn.BatchNorm3d(8, **k), (2, 8, 3, 2, 2)),
    "LocalResponseNorm": (lambda **k: nn.LocalResponseNorm(5, 0.5, **k), (2, 8, 3, 2)),
}


@pytest.mark.parametrize("name", LAYERS_LAST)
def test_layers_with_the_channels_last_are_the_same(name: str, backend: Backend) -> None:
    make, shape = LAYERS_LAST[name]
    x = seeded(f"last {name}").standard_normal(shape).astype(np.float32)
    results = []
    for layout in ("NCHW", "NHWC"):
        moved = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "NHWC" else x
        layer = make(layout=layout)
        assert ("NHWC" in repr(layer)) == (layout == "NHWC")
        if backend.name == "cuda":
            layer.cuda()
        tensor = fa.tensor(backend.put(moved), requires_grad=True)
        with fa.backend(backend.name):
            y = layer(tensor)
            (y * y).sum().backward()
        both = [backend.host(a) for a in (y.data, tensor.grad)]
        results.append([np.moveaxis(a, -1, 1) if layout == "NHWC" else a for a in both])
    for last, first in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(last, first, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"layout must be 'NCHW' or 'NHWC', got 'NWHC'"):
        make(layout="NWHC")


def test_many_splits_give_the_same_sums() -> None:
    """More blocks share a channel on a device of more multiprocessors; the result is no other."""
    reason = fa.backends.reason_unusable("emulator")
    if reason:
        pytest.skip(f"the emulator cannot run here: {reason}")
    from fastarch import _emulator

    rng = seeded("splits")
    for shape, layout in (((3, 2, 64, 70), "NCHW"), ((5000, 3), "NCHW"), ((4, 40, 30, 8), "NHWC")):
        x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
        results = []
        for multiprocessors in (2, 132):
            _emulator.set_multiprocessors(multiprocessors)
            try:
                with fa.backend("emulator"):
                    y, mean, var = fa.ops.batch_norm(x, training=True, layout=layout)
                    grads = fa.ops.batch_norm_backward(dy, x, mean, var, training=True, layout=layout)
            finally:
                _emulator.set_multiprocessors(2)
            results.append((y, mean, var, *grads[:3]))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_alpha_for_the_sum_is_alexnet_s() -> None:
    x = seeded("alexnet").standard_normal((2, 8, 3, 3)).astype(np.float32)
    ours = fa.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 2.0, average=False)
    peer = torch.nn.functional.local_response_norm(torch.tensor(x), 5, 5e-4, 0.75, 2.0)
    same(ours.data, peer, "y")


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.BatchNorm2d(0), ValueError, "num_features must be positive"),
    (lambda: nn.BatchNorm2d(3, eps=-1.0), ValueError, "eps must be at least 0"),
    (lambda: nn.BatchNorm2d(3, momentum=2.0), ValueError, "momentum must be in"),
    (lambda: nn.BatchNorm2d(3, activation="tanh"), ValueError, "activation must be None or 'relu'"),
    (lambda: nn.BatchNorm2d(3)(np.ones((2, 3, 4), "f")), ValueError, r"expected \[N, 3, H, W\]"),
    (lambda: nn.BatchNorm1d(3)(np.ones((2, 4), "f")), ValueError, r"expected \[N, 3\] or \[N, 3, L\]"),
    (lambda: nn.BatchNorm1d(3)(np.ones((1, 3), "f")), ValueError, "more than one value per channel"),
    (lambda: nn.LocalResponseNorm(0), ValueError, "size must be positive"),
    (lambda: nn.LocalResponseNorm(3, k=0.0), ValueError, "k must be above 0"),
    (lambda: nn.MaxPool1d(2)(np.ones((2, 3, 4, 5), "f")), ValueError, r"expected \[N, C, L\]"),
    (lambda: fa.ops.batch_norm(np.ones((2, 3), "f")), ValueError, "running_mean and running_var are None"),
    (
        lambda: fa.ops.batch_norm(np.ones((2, 3), "f"), np.ones(3, "f"), training=True),
        TypeError,
        "running_var is None, expected an array as running_mean is",
    ),
    (
        lambda: fa.ops.batch_norm(np.ones((2, 3), "e"), weight=np.ones(3, "e"), training=True),
        TypeError,
        "weight has dtype float16, expected float32",
    ),
    (
        lambda: fa.ops.batch_norm(np.ones((2, 3), "f"), activation="tanh", training=True),
        ValueError,
        "activation is 'tanh', expected None or 'relu'",
    ),
    (
        lambda: fa.ops.batch_norm_backward(
            *np.ones((2, 2, 3), "f"), *np.ones((2, 3), "f"), activation="relu"
        ),
        ValueError,
        "y is None, expected batch_norm's output",
    ),
    (
        lambda: nn.BatchNorm2d(4, layout="NHWC")(np.ones((2, 4, 5, 6), "f")),
        ValueError,
        r"expected \[N, H, W, 4\]",
    ),
    (lambda: nn.BatchNorm1d(4, layout="NHWC")(np.ones((2, 5), "f")), ValueError, r"\[N, 4\] or \[N, L, 4\]"),
    (lambda: fa.ops.local_response_norm(np.ones((2, 3), "f"), 3, k=0), ValueError, "k is 0"),
    (lambda: fa.ops.local_response_norm(np.ones(3, "f"), 3), ValueError, "at least 2 dimensions"),
]


@pytest.mark.parametrize(("call", "error", "match"), ERRORS, ids=[match for _, _, match in ERRORS])
def test_errors(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=rf"^\[\w+\] .*{match}"):
        call()


def test_frozen_running_statistics_are_refused() -> None:
    frozen = np.ones(3, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="running_mean is read-only or not contiguous"):
        fa.ops.batch_norm(np.ones((2, 3), np.float32), frozen, np.ones(3, np.float32), training=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_16_bit_batch_norm_keeps_float32(dtype: str) -> None:
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.float16
    layer = nn.BatchNorm1d(3, dtype=kind)
    assert layer.weight.dtype == layer.running_mean.dtype == np.float32
    with fa.backend("numpy"):
        assert layer(np.ones((4, 3), kind)).dtype == kind


def test_a_cumulative_mean_is_refused_in_a_capture() -> None:
    graph, x = fa.cuda.graph(nn.BatchNorm1d(3, momentum=None)), np.ones((4, 3), "f")
    graph(x)
    with pytest.raises(RuntimeError, match=r"\[graph\] BatchNorm1d with momentum=None counts its batches"):
        graph(x)
