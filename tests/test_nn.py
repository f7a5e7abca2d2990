"""Layers: gradients on every backend, agreement with PyTorch, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend
from differences import check_gradients, host
from fastarch import nn
from fastarch.nn import functional as F

R = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return R.standard_normal(shape)


def distinct(*shape: int) -> np.ndarray:
    """Values far enough apart, and from zero, that no difference step passes a kink."""
    return (R.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2 + 0.25) / 10


# ---- the functions of the tape


FUNCTIONS: list[tuple[str, Callable[..., Any], tuple[np.ndarray, ...]]] = [
    ("linear", lambda x, w, b: F.linear(x, w, b), (normal(3, 4), normal(2, 4), normal(2))),
    ("linear without bias", lambda x, w: F.linear(x, w), (normal(2, 3, 4), normal(2, 4))),
    ("linear relu", lambda x, w, b: F.linear(x, w, b, "relu"), (normal(3, 4), normal(5, 4), normal(5))),
    ("linear sigmoid", lambda x, w, b: F.linear(x, w, b, "sigmoid"), (normal(3, 4), normal(2, 4), normal(2))),
    ("conv2d", lambda x, w, b: F.conv2d(x, w, b), (normal(2, 2, 5, 4), normal(3, 2, 3, 2), normal(3))),
    (
        "conv2d with a residual",
        lambda x, w, b, r: F.conv2d(x, w, b, residual=r),
        (normal(2, 2, 5, 4), normal(3, 2, 3, 2), normal(3), normal(2, 3, 3, 3)),
    ),
    (
        "conv2d tanh with a residual",
        lambda x, w, r: F.conv2d(x, w, None, 1, 1, activation="tanh", residual=r),
        (normal(2, 2, 4, 4), normal(2, 2, 3, 3), normal(2, 2, 4, 4)),
    ),
    (
        "conv2d of itself",
        lambda x, w: F.conv2d(x, w, None, 1, 1, activation="sigmoid", residual=x),
        (normal(2, 2, 4, 4), normal(2, 2, 3, 3)),
    ),
    (
        "conv2d_max_pool tanh",
        lambda x, w, b: F.conv2d_max_pool(x, w, b, 1, (1, 0), activation="tanh"),
        (normal(2, 2, 5, 4), normal(3, 2, 3, 2), normal(3)),
    ),
    (
        "conv2d tanh with everything",
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2, "tanh"),
        (normal(2, 4, 5, 5), normal(2, 2, 3, 2), normal(2)),
    ),
    (
        "conv1d tanh",
        lambda x, w, b: F.conv1d(x, w, b, 2, ((2, 1),), activation="tanh"),
        (normal(2, 2, 6), normal(3, 2, 3), normal(3)),
    ),
    (
        "conv3d",
        lambda x, w, b: F.conv3d(x, w, b, padding=1),
        (normal(1, 2, 3, 2, 3), normal(2, 2, 2, 2, 2), normal(2)),
    ),
    (
        "conv3d relu",
        lambda x, w: F.conv3d(x, w, stride=2, activation="relu"),
        (normal(1, 1, 4, 3, 3), normal(2, 1, 2, 2, 2)),
    ),
    (
        "conv_transpose1d",
        lambda x, w, b: F.conv_transpose1d(x, w, b, 3, output_padding=2),
        (normal(2, 2, 4), normal(2, 3, 2), normal(3)),
    ),
    (
        "conv_transpose2d",
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1, 2),
        (normal(2, 4, 3, 2), normal(4, 1, 3, 2), normal(2)),
    ),
    ("conv2d same", lambda x, w: F.conv2d(x, w, padding="same"), (normal(1, 1, 4, 5), normal(2, 1, 2, 3))),
    ("max_pool2d", lambda x: F.max_pool2d(x, 2), (distinct(2, 2, 4, 5),)),
    ("max_pool2d ceil", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (distinct(1, 2, 6, 5),)),
    ("max_pool2d dilated", lambda x: F.max_pool2d(x, 2, 1, 0, (2, 1)), (distinct(1, 1, 5, 4),)),
    ("avg_pool2d", lambda x: F.avg_pool2d(x, (2, 3), 2, 1), (normal(2, 1, 5, 6),)),
    (
        "avg_pool2d ceil",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        (normal(1, 2, 6, 5),),
    ),
    (
        "conv2d last with everything",
        lambda x, w, b, r: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2, "tanh", r, layout="NHWC"),
        (normal(1, 5, 4, 4), normal(2, 2, 3, 2), normal(2), normal(1, 3, 6, 2)),
    ),
    (
        "conv2d last",
        lambda x, w: F.conv2d(x, w, padding=1, layout="NHWC"),
        (normal(1, 4, 3, 2), normal(3, 2, 3, 3)),
    ),
    ("max_pool2d last", lambda x: F.max_pool2d(x, 3, 2, 1, layout="NHWC"), (distinct(2, 5, 4, 3),)),
    ("avg_pool2d last", lambda x: F.avg_pool2d(x, 3, 2, 1, layout="NHWC"), (normal(2, 5, 4, 3),)),
    ("adaptive_avg_pool2d last", lambda x: F.adaptive_avg_pool2d(x, 2, layout="NHWC"), (normal(2, 5, 4, 3),)),
    (
        "adaptive_max_pool2d last",
        lambda x: F.adaptive_max_pool2d(x, 2, layout="NHWC"),
        (distinct(2, 5, 4, 3),),
    ),
    (
        "local_response_norm last",
        lambda x: F.local_response_norm(x, 3, 0.5, layout="NHWC"),
        (normal(2, 3, 5),),
    ),
    ("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (normal(2, 2, 5, 7),)),
    ("relu", F.relu, (distinct(3, 5),)),
    ("tanh", F.tanh, (normal(3, 5),)),
    ("sigmoid", F.sigmoid, (normal(3, 5),)),
    ("softmax", lambda x: F.softmax(x, 1), (normal(2, 4, 3),)),
    ("log_softmax", lambda x: F.log_softmax(x, 0), (normal(4, 3),)),
]


@pytest.mark.parametrize(("function", "inputs"), [f[1:] for f in FUNCTIONS], ids=[f[0] for f in FUNCTIONS])
def test_gradients(backend: Backend, function: Callable[..., Any], inputs: tuple[np.ndarray, ...]) -> None:
    with fa.backend(backend.name):
        check_gradients(function, *inputs, xp=backend.xp)


def test_dropout(backend: Backend) -> None:
    with fa.backend(backend.name):
        x = fa.tensor(backend.put(np.full((50, 40), 2.0)), requires_grad=True)
        fa.manual_seed(5)
        y = F.dropout(x, 0.25)
        y.sum().backward()
        values, slopes = host(y.data), host(x.grad)
        np.testing.assert_allclose(np.unique(values), [0, 2 / 0.75])
        np.testing.assert_array_equal(values, 2 * slopes)
        assert 0.2 < (values == 0).mean() < 0.3
        fa.manual_seed(5)
        np.testing.assert_array_equal(host(F.dropout(x, 0.25).data), values)
        assert (host(F.dropout(x, 0.25).data) != values).any(), "the second draw repeats the first"
        assert not host(F.dropout(x, 1.0).data).any()
        assert F.dropout(x, 0.25, training=False) is x
        assert F.dropout(x, 0.0) is x
    with pytest.raises(ValueError, match=r"\[dropout\] p must be in \[0, 1\], got 1.5"):
        F.dropout(x, 1.5)


def test_plain_arrays_are_taken_as_they_are() -> None:
    layer = nn.Linear(3, 2)
    y = layer(np.ones((4, 3), np.float32))
    assert isinstance(y, fa.Tensor)
    y.sum().backward()
    np.testing.assert_array_equal(layer.bias.grad, [4, 4])


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_that_nobody_needs_are_not_computed(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    asked = []
    original = fa.ops.conv2d_backward

    def watch(dy: Any, x: Any, weight: Any, bias: Any, *rest: Any, **options: Any) -> Any:
        asked.append((bias, rest[-1]))
        return original(dy, x, weight, bias, *rest, **options)

    monkeypatch.setattr(fa.ops, "conv2d_backward", watch)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, bias=False))
    if frozen:
        model[1].requires_grad_(False)
    model(np.ones((1, 1, 6, 6), np.float32)).sum().backward()
    assert asked == [(False, (True, not frozen)), (True, (False, True))]
    assert (model[1].weight.grad is None) == frozen


def test_sequential_pools_in_the_convolutions_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = fa.ops.conv2d_max_pool

    def watch(*args: Any) -> Any:
        asked.append(args[-1])
        return original(*args)

    monkeypatch.setattr(fa.ops, "conv2d_max_pool", watch)
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 2, padding=1, padding_mode="reflect", activation="tanh"), nn.MaxPool2d(2, 2)),
        *(nn.Conv2d(4, 3, 3, padding=1), nn.MaxPool2d(2, 1)),  # windows that overlap
        *(nn.Conv2d(3, 2, 1, activation="relu"), nn.ReLU(), nn.MaxPool2d(2)),  # two activations
        nn.Conv2d(2, 2, 1),
    )
    x = np.random.default_rng(3).standard_normal((2, 1, 18, 17)).astype(np.float32)
    got = model(x)
    assert asked == ["relu", "tanh"]
    got.sum().backward()
    slopes = [parameter.grad.copy() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = None
    want = fa.tensor(x)
    for module in model:
        want = module(want)
    want.sum().backward()
    np.testing.assert_allclose(got.data, want.data, rtol=1e-6, atol=1e-6)
    for slope, parameter in zip(slopes, model.parameters(), strict=True):
        np.testing.assert_allclose(slope, parameter.grad, rtol=1e-5, atol=1e-5)
    asked.clear()
    assert model.summary((1, 18, 17)).count("MaxPool2d") == 4, "a layer is missing from the table"
    assert not asked


# ---- against PyTorch


LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Conv2d", (2, 4, 3), {}, (2, 2, 7, 6)),
    ("Conv2d", (4, 6, (3, 2), 2, (1, 2), (1, 2), 2), {}, (2, 4, 7, 9)),
    ("Conv2d", (2, 3, 3), {"padding": "same", "bias": False}, (1, 2, 5, 5)),
    ("Conv2d", (2, 3, (4, 3)), {"padding": "same", "padding_mode": "circular"}, (2, 2, 6, 5)),
    ("Conv2d", (2, 3, 3), {"padding": (2, 1), "padding_mode": "reflect", "stride": 2}, (2, 2, 6, 5)),
    ("Conv2d", (2, 3, 3), {"padding": (4, 0), "padding_mode": "replicate"}, (2, 2, 2, 5)),
    ("Conv1d", (2, 4, 3), {}, (2, 2, 9)),
    ("Conv1d", (4, 6, 4, 1), {"padding": "same", "dilation": 2, "groups": 2}, (2, 4, 9)),
    ("Conv1d", (2, 3, 3, 2, 2), {"padding_mode": "reflect", "bias": False}, (1, 2, 7)),
    ("Conv3d", (2, 3, 3), {"padding": 1}, (2, 2, 4, 5, 3)),
    ("Conv3d", (4, 2, (2, 3, 1), (2, 1, 3), (1, 2, 0), (2, 1, 1), 2), {}, (1, 4, 5, 4, 6)),
    ("Conv3d", (1, 2, 3), {"padding": 1, "padding_mode": "circular"}, (1, 1, 3, 4, 2)),
    ("ConvTranspose1d", (2, 4, 3), {"stride": 2, "output_padding": 1}, (2, 2, 5)),
    ("ConvTranspose2d", (2, 4, 4, 2, 1), {}, (2, 2, 4, 5)),
    ("ConvTranspose2d", (4, 6, (3, 2), 3, (1, 0), (2, 1), 2, False, (2, 1)), {}, (1, 4, 3, 4)),
    ("MaxPool2d", (2,), {}, (2, 3, 7, 6)),
    ("MaxPool2d", (3, 2, 1), {"ceil_mode": True}, (2, 3, 8, 6)),
    ("MaxPool2d", ((2, 3), 1, 0, 2), {}, (2, 3, 8, 7)),
    ("AvgPool2d", (2,), {}, (2, 3, 7, 6)),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, (2, 3, 8, 6)),
    ("AdaptiveAvgPool2d", (3,), {}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool2d", ((None, 2),), {}, (2, 3, 5, 7)),
    ("ReLU", (), {}, (3, 4)),
    ("Tanh", (), {}, (3, 4)),
    ("Sigmoid", (), {}, (3, 4)),
    ("Softmax", (), {"dim": 1}, (3, 4, 2)),
    ("Dropout", (0.0,), {}, (3, 4)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Identity", (), {}, (3, 4)),
]


@pytest.mark.parametrize(("name", "args", "options", "shape"), LAYERS, ids=[f"{a[0]}-{a[1]}" for a in LAYERS])
def test_layers_are_pytorch_s(name: str, args: Any, options: Any, shape: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    mine = getattr(nn, name)(*args, **options).double()
    theirs = getattr(torch.nn, name)(*args, **options).double()
    assert repr(mine) == repr(theirs).replace(", inplace=False", "")
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in state.items()}
    mine.load_state_dict(state)
    values = normal(*shape)
    x, other = fa.tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, want = mine(x), theirs(other)
    np.testing.assert_allclose(y.numpy(), want.detach().numpy(), rtol=1e-11, atol=1e-12)
    cotangent = normal(*y.shape)
    y.backward(cotangent)
    want.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(x.grad, other.grad.numpy(), rtol=1e-10, atol=1e-12)
    for (key, parameter), peer in zip(mine.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(parameter.grad, peer.grad.numpy(), rtol=1e-10, atol=1e-12, err_msg=key)


def test_output_size_of_a_transposed_convolution() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    mine, theirs = (
        nn.ConvTranspose2d(2, 3, 3, 3, 1).double(),
        torch.nn.ConvTranspose2d(2, 3, 3, 3, 1).double(),
    )
    mine.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    x = normal(2, 2, 4, 5)
    for size in ((10, 13), (12, 14), (11, 15)):
        want = theirs(torch.tensor(x), output_size=size).detach().numpy()
        np.testing.assert_allclose(mine(fa.tensor(x), output_size=size).numpy(), want, rtol=1e-11, atol=1e-12)
    with pytest.raises(ValueError, match=r"\[ConvTranspose2d\] output_size must be between \(10, 13\) and"):
        mine(fa.tensor(x), output_size=(13, 13))


def test_padding_of_one_side() -> None:
    layer = nn.Conv2d(1, 1, 2, padding=((1, 0), 2), bias=False, dtype=np.float64)
    x = normal(1, 1, 3, 4)
    want = F.conv2d(np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 2))), layer.weight)
    np.testing.assert_allclose(layer(x).numpy(), want.numpy(), rtol=1e-12)
    assert "padding=((1, 0), 2)" in repr(layer)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad_is_pytorch_s(backend: Backend, mode: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    values = normal(2, 3, 5, 4)
    for ends in ((1, 2), (2, 0, 0, 3), (3, 3, 4, 1)):
        x, other = (
            fa.tensor(backend.put(values), requires_grad=True),
            torch.tensor(values, requires_grad=True),
        )
        with fa.backend(backend.name):
            y = F.pad(x, ends, mode)
            want = torch.nn.functional.pad(other, (*ends, 0, 0)[:4], mode)
            np.testing.assert_array_equal(host(y.data), want.detach().numpy())
            cotangent = normal(*y.shape)
            y.backward(backend.put(cotangent))
        want.backward(torch.tensor(cotangent))
        np.testing.assert_allclose(host(x.grad), other.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_reprs() -> None:
    layer = nn.Conv2d(1, 6, 5, padding=(2, 1), groups=1, bias=False, activation="relu")
    assert repr(layer) == (
        "Conv2d(1, 6, kernel_size=(5, 5), stride=(1, 1), padding=(2, 1), bias=False, activation='relu')"
    )
    model = nn.Sequential(nn.Linear(4, 2), nn.Sequential(nn.ReLU(), nn.Dropout(0.1)))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=2, bias=True)\n"
        "  (1): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Dropout(p=0.1)\n"
        "  )\n"
        ")"
    )


# ---- a fused activation is the layer followed by the activation


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_fused_activations(backend: Backend, activation: str) -> None:
    follow = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[activation]()
    for make, shape in (
        (lambda **o: nn.Conv2d(2, 3, 3, dtype=np.float64, **o), (2, 2, 5, 5)),
        (lambda **o: nn.Linear(4, 3, dtype=np.float64, **o), (5, 4)),
    ):
        fused, plain = make(activation=activation), make()
        plain.load_state_dict(fused.state_dict())
        values = normal(*shape)
        with fa.backend(backend.name):
            gradients = []
            for model in (fused, nn.Sequential(plain, follow)):
                if backend.xp is not np:
                    model.to("cuda")
                x = fa.tensor(backend.put(values), requires_grad=True)
                y = model(x)
                (y * y).sum().backward()
                gradients.append([host(y.data), host(x.grad), *(host(p.grad) for p in model.parameters())])
        for got, want in zip(*gradients):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


# ---- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Linear(0, 3), ValueError, r"\[Linear\] in_features must be positive, got 0"),
        (lambda: nn.Linear(3, 2.5), TypeError, r"\[Linear\] out_features must be an int, got 2.5"),
        (lambda: nn.Linear(3, 2, activation="gelu"), ValueError, r"\[Linear\] activation must be .* 'gelu'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, r"\[Conv2d\] groups=2 does not divide both"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, r"\[Conv2d\] kernel_size must be an int or a pair"),
        (lambda: nn.Conv2d(3, 4, 0), ValueError, r"\[Conv2d\] kernel_size must be at least 1, got 0"),
        (
            lambda: nn.Conv2d(3, 4, 3, padding=-1),
            ValueError,
            r"\[Conv2d\] padding must be at least 0, got -1",
        ),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), TypeError, r"\[Conv2d\] padding must be .* 'full'"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), ValueError, r"padding_mode must be one of zeros"),
        (lambda: nn.Conv2d(3, 4, 3, 2, "same"), ValueError, r"\[Conv2d\] padding 'same' needs stride 1"),
        (lambda: nn.Conv2d(3, 4, 3, padding=((1, 2), (1, -1))), ValueError, "padding must be at least 0"),
        (lambda: nn.Conv2d(3, 4, 3, padding=((1, 2), (1,))), ValueError, "padding must be an int or a pair"),
        (lambda: nn.Conv2d(3, 4, 3, padding=((1, 2), 1, 1)), ValueError, "padding must have 2 entries"),
        (
            lambda: nn.Conv1d(3, 4, (3, 3)),
            ValueError,
            "kernel_size must be an int or a tuple of one",
        ),
        (lambda: nn.Conv3d(3, 4, (3, 3)), ValueError, r"\[Conv3d\] kernel_size must be an int or a triple"),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"),
            ValueError,
            "padding_mode must be 'zeros'",
        ),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, padding="same"),
            TypeError,
            r"\[ConvTranspose2d\] padding",
        ),
        (lambda: nn.ConvTranspose1d(3, 4, 3, groups=2), ValueError, r"\[ConvTranspose1d\] groups=2"),
        (lambda: F.pad(np.ones((2, 3)), (3, 0), "reflect"), ValueError, r"\[pad\] reflect .* at most 2"),
        (lambda: F.pad(np.ones((2, 3)), (4, 0), "circular"), ValueError, r"\[pad\] circular .* at most 3"),
        (lambda: F.pad(np.ones((2, 0)), (1, 0), "replicate"), ValueError, r"\[pad\] replicate .* at most 0"),
        (lambda: F.pad(np.ones((2, 3)), (-1, 0)), ValueError, r"\[pad\] pad is \(-1, 0\)"),
        (lambda: F.pad(np.ones((2, 3)), (1.0, 0)), TypeError, r"\[pad\] pad is"),
        (lambda: F.pad(np.ones((2, 3)), (1, 0, 2)), ValueError, r"\[pad\] pad has 3 numbers"),
        (lambda: F.pad(np.ones((2, 3)), (1, 0), "mirror"), ValueError, r"\[pad\] mode is 'mirror'"),
        (lambda: nn.MaxPool2d(2, stride=0), ValueError, r"\[MaxPool2d\] stride must be at least 1"),
        (lambda: nn.AvgPool2d(True), TypeError, r"\[AvgPool2d\] kernel_size must be an int or a pair"),
        (lambda: nn.Dropout(-0.1), ValueError, r"\[Dropout\] p must be in \[0, 1\], got -0.1"),
        (lambda: nn.Sequential(nn.ReLU(), "relu"), TypeError, r"\[Sequential\] expected modules, got str"),
        (lambda: nn.Sequential({"a": nn.ReLU(), "forward": nn.ReLU()}), ValueError, "'forward' is taken"),
        (lambda: nn.Parameter(np.arange(3)), TypeError, r"\[Parameter\] expected floating-point"),
        (lambda: nn.Module()(1), TypeError, r"\[Module\] a module needs a method forward"),
        (lambda: nn.Conv2d(3, 4, 3)(np.ones((1, 2, 5, 5), "f")), ValueError, r"\[conv2d\] x has 2 channels"),
    ],
)
def test_errors(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("size", [9, "99", (9,), (1, 9, 9), (1, 1, 1, 9, 9), np.array([9, 9])])
def test_output_size_of_another_form(size: Any) -> None:
    layer = nn.ConvTranspose2d(2, 2, 3)
    with pytest.raises(ValueError, match=r"^\[ConvTranspose2d\] output_size must be 2 sizes, or the 4"):
        layer(np.ones((1, 2, 5, 5), "f"), output_size=size)
