"""Losses: values written out in loops, gradients by differences, PyTorch with every option, extremes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import exp, inf, log
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend
from differences import check_gradients, host
from fastarch import nn
from fastarch.nn import functional as F

R = np.random.default_rng(2)
X = R.standard_normal((6, 4))
TARGET = np.array([0, 3, -100, 1, 3, 2])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25])
SOFT = R.dirichlet(np.ones(4), 6)
LOG_PROBS = np.log(R.dirichlet(np.ones(4), 6))
PROBS = R.dirichlet(np.ones(4), 6)
BINARY = R.integers(0, 2, (6, 4)).astype(float)


def reduced(rows: list[float], weights: list[float], reduction: str) -> Any:
    if reduction == "none":
        return np.array(rows)
    return sum(rows) if reduction == "sum" else sum(rows) / sum(weights)


def naive_cross_entropy(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray, ignored: int, reduction: str, smoothing: float
) -> Any:
    """From the definition, row by row: -sum of q log p with q the smoothed, weighted target."""
    rows, weights = [], []
    classes = x.shape[1]
    for row, t in zip(x, target):
        if t == ignored:
            rows.append(0.0)
            weights.append(0.0)
            continue
        total = sum(exp(v) for v in row)
        loss = 0.0
        for c in range(classes):
            q = smoothing / classes + (1 - smoothing if c == t else 0)
            loss -= weight[c] * q * log(exp(row[c]) / total)
        rows.append(loss)
        weights.append(weight[t])
    return reduced(rows, weights, reduction)


def naive_bce(x: np.ndarray, t: np.ndarray, w: np.ndarray, p: np.ndarray, reduction: str) -> Any:
    out = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        sigmoid = 1 / (1 + exp(-x[index]))
        out[index] = (
            -(p[index[1]] * t[index] * log(sigmoid) + (1 - t[index]) * log(1 - sigmoid)) * w[index[1]]
        )
    return {"none": out, "sum": out.sum(), "mean": out.mean()}[reduction]


def naive_kl(x: np.ndarray, t: np.ndarray, reduction: str) -> Any:
    out = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        out[index] = t[index] * (log(t[index]) - x[index])
    return {"none": out, "sum": out.sum(), "mean": out.mean(), "batchmean": out.sum() / len(x)}[reduction]


@pytest.mark.parametrize(
    ("reduction", "weight", "smoothing"), list(product(("mean", "sum", "none"), (None, WEIGHT), (0.0, 0.2)))
)
def test_cross_entropy_is_its_definition(
    backend: Backend, reduction: str, weight: np.ndarray | None, smoothing: float
) -> None:
    every = np.ones(4) if weight is None else weight
    want = naive_cross_entropy(X, TARGET, every, -100, reduction, smoothing)
    with fa.backend(backend.name):
        got = F.cross_entropy(
            backend.put(X),
            backend.put(TARGET),
            backend.put(weight),
            reduction=reduction,
            label_smoothing=smoothing,
        )
    np.testing.assert_allclose(host(got.data), want, rtol=1e-12)
    if not smoothing:
        logs = X - np.log(np.exp(X).sum(1, keepdims=True))
        with fa.backend(backend.name):
            got = F.nll_loss(backend.put(logs), backend.put(TARGET), backend.put(weight), reduction=reduction)
        np.testing.assert_allclose(host(got.data), want, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses_are_their_definitions(reduction: str) -> None:
    difference = (X - PROBS) ** 2
    want = {"none": difference, "sum": difference.sum(), "mean": difference.mean()}[reduction]
    np.testing.assert_allclose(F.mse_loss(X, PROBS, reduction).data, want, rtol=1e-12)
    np.testing.assert_allclose(
        F.binary_cross_entropy_with_logits(X, SOFT, WEIGHT, reduction, WEIGHT + 1).data,
        naive_bce(X, SOFT, WEIGHT, WEIGHT + 1, reduction),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        F.binary_cross_entropy_with_logits(X, BINARY, reduction=reduction).data,
        naive_bce(X, BINARY, np.ones(4), np.ones(4), reduction),
        rtol=1e-12,
    )


@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
def test_kl_div_is_its_definition(reduction: str) -> None:
    want = naive_kl(LOG_PROBS, PROBS, reduction)
    np.testing.assert_allclose(F.kl_div(LOG_PROBS, PROBS, reduction).data, want, rtol=1e-12)
    np.testing.assert_allclose(
        F.kl_div(LOG_PROBS, np.log(PROBS), reduction, log_target=True).data, want, rtol=1e-12
    )


def test_kl_div_mean_warns_and_divides_by_the_elements() -> None:
    with pytest.warns(UserWarning, match="batchmean"):
        got = F.kl_div(LOG_PROBS, PROBS)
    np.testing.assert_allclose(got.data, naive_kl(LOG_PROBS, PROBS, "mean"), rtol=1e-12)


GRADIENTS: list[tuple[str, Callable[..., Any], tuple[np.ndarray, ...]]] = [
    ("mse", lambda x, t: F.mse_loss(x, t), (X, PROBS)),
    ("mse none", lambda x, t: F.mse_loss(x, t, "none"), (X, PROBS)),
    ("mse sum, strided", lambda x: F.mse_loss(x.T, PROBS.T, "sum"), (X,)),
    ("bce", lambda x, t: F.binary_cross_entropy_with_logits(x, t), (X, SOFT)),
    (
        "bce weighted",
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, WEIGHT, "none", WEIGHT + 2),
        (X, SOFT),
    ),
    ("kl", lambda x, t: F.kl_div(x, t, "batchmean"), (LOG_PROBS, PROBS)),
    ("kl log", lambda x, t: F.kl_div(x, t, "none", True), (LOG_PROBS, np.log(PROBS))),
    ("cross_entropy", lambda x: F.cross_entropy(x, TARGET), (X,)),
    ("cross_entropy none", lambda x: F.cross_entropy(x, TARGET, reduction="none"), (X,)),
    ("cross_entropy weighted", lambda x: F.cross_entropy(x, TARGET, WEIGHT, reduction="sum"), (X,)),
    ("cross_entropy smoothed", lambda x: F.cross_entropy(x, TARGET, WEIGHT, label_smoothing=0.1), (X,)),
    (
        "cross_entropy smoothed none",
        lambda x: F.cross_entropy(x, TARGET, reduction="none", label_smoothing=0.1),
        (X,),
    ),
    ("cross_entropy soft", lambda x: F.cross_entropy(x, SOFT, WEIGHT), (X,)),
    ("nll", lambda x: F.nll_loss(x, TARGET, WEIGHT), (LOG_PROBS,)),
    ("nll none", lambda x: F.nll_loss(x, TARGET, reduction="none"), (LOG_PROBS,)),
]


@pytest.mark.parametrize(("function", "inputs"), [g[1:] for g in GRADIENTS], ids=[g[0] for g in GRADIENTS])
def test_gradients(function: Callable[..., Any], inputs: tuple[np.ndarray, ...]) -> None:
    check_gradients(function, *inputs)


def test_cross_entropy_gradient_on_every_backend(backend: Backend) -> None:
    target = backend.put(TARGET)
    with fa.backend(backend.name):
        check_gradients(lambda x: F.cross_entropy(x, target), X, xp=backend.xp)


def compare(name: str, x: np.ndarray, target: np.ndarray, **options: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    mine, theirs = fa.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    arrays = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    want = getattr(torch.nn.functional, name)(theirs, torch.tensor(target), **arrays)
    got = getattr(F, name)(mine, target, **options)
    assert got.shape == tuple(want.shape)
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=1e-12, atol=1e-14)
    cotangent = R.standard_normal(got.shape)
    got.backward(cotangent)
    want.backward(torch.tensor(cotangent))
    np.testing.assert_allclose(mine.grad, theirs.grad.numpy(), rtol=1e-11, atol=1e-14)


SHAPES = [((6, 4), (6,)), ((4,), ()), ((3, 4, 2), (3, 2)), ((2, 5, 3, 2), (2, 3, 2))]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("shape", "target_shape"), SHAPES)
def test_class_losses_against_pytorch(shape: Any, target_shape: Any, reduction: str) -> None:
    classes = shape[1] if len(shape) > 1 else shape[0]
    x = R.standard_normal(shape)
    target = np.asarray(R.integers(0, classes, target_shape))
    weight = R.uniform(0.1, 2, classes)
    for w, smoothing, ignored in product((None, weight), (0.0, 0.3), (-100, int(target.flat[0]))):
        if ignored >= 0 and not target_shape:
            continue  # nothing would be left; see test_nothing_to_average
        options = {"reduction": reduction, "ignore_index": ignored, "weight": w}
        compare("cross_entropy", x, target, label_smoothing=smoothing, **options)
        if not smoothing:
            compare("nll_loss", x, target, **options)
    soft = np.moveaxis(
        R.dirichlet(np.ones(classes), (*shape[:1], *shape[2:]) if len(shape) > 1 else ()), -1, 0
    )
    if len(shape) > 1:
        soft = np.moveaxis(soft, 0, 1)
    for w, smoothing in product((None, weight), (0.0, 0.3)):
        compare("cross_entropy", x, soft, weight=w, reduction=reduction, label_smoothing=smoothing)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_elementwise_losses_against_pytorch(reduction: str) -> None:
    compare("mse_loss", X, SOFT, reduction=reduction)
    for weight, pos_weight in product((None, WEIGHT), (None, WEIGHT + 1)):
        compare(
            "binary_cross_entropy_with_logits",
            X * 30,
            SOFT,
            reduction=reduction,
            weight=weight,
            pos_weight=pos_weight,
        )
    compare("kl_div", LOG_PROBS, PROBS, reduction=reduction if reduction != "mean" else "batchmean")
    compare("kl_div", LOG_PROBS, np.where(PROBS < 0.2, 0.0, PROBS), reduction="sum")
    compare("kl_div", LOG_PROBS, np.log(PROBS), reduction="sum", log_target=True)


def test_the_loss_of_extreme_logits_is_finite() -> None:
    x = fa.tensor(np.array([[1e4, -1e4, 0.0]], np.float32), requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, np.array([[0.0, 1.0, 0.5]], np.float32), reduction="none")
    np.testing.assert_allclose(loss.data, [[1e4, 1e4, log(2)]], rtol=1e-6)
    loss.sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, -1, 0]])
    x.grad = None
    loss = F.cross_entropy(x, np.array([1]))
    assert loss.item() == 2e4
    loss.backward()
    np.testing.assert_array_equal(x.grad, [[1, -1, 0]])


def test_an_ignored_row_counts_nothing_even_if_infinite() -> None:
    log_probs = np.array([[0.0, -inf], [log(0.5), log(0.5)]])
    loss = F.nll_loss(log_probs, np.array([1, 0]), ignore_index=1)
    np.testing.assert_allclose(loss.data, log(2))


@pytest.mark.filterwarnings("error")
def test_nothing_to_average() -> None:
    ignored = np.full(6, -100)
    for loss in (
        F.cross_entropy(X, ignored),
        F.nll_loss(X, ignored),
        F.cross_entropy(X, ignored, label_smoothing=0.1),
        F.mse_loss(np.empty((0, 3)), np.empty((0, 3))),
        F.cross_entropy(np.empty((0, 3)), np.empty(0, int)),
    ):
        assert loss.shape == ()
        assert np.isnan(loss.item())
    assert F.cross_entropy(X, ignored, reduction="sum").item() == 0


def test_float32_stays_float32() -> None:
    x = X.astype(np.float32)
    weight = WEIGHT.astype(np.float32)
    for make in (
        lambda t: F.cross_entropy(t, TARGET, WEIGHT, label_smoothing=0.1),
        lambda t: F.cross_entropy(t, TARGET.astype(np.int32), weight),
        lambda t: F.cross_entropy(t, SOFT),
        lambda t: F.nll_loss(t, TARGET),
        lambda t: F.mse_loss(t, x + 1),
        lambda t: F.mse_loss(t, x + 1, "none"),
        lambda t: F.binary_cross_entropy_with_logits(t, SOFT, weight, pos_weight=WEIGHT),
        lambda t: F.kl_div(t, x * x, "sum"),
    ):
        tensor = fa.tensor(x, requires_grad=True)
        loss = make(tensor)
        assert loss.dtype == np.float32
        loss.sum().backward()
        assert tensor.grad.dtype == np.float32


def test_modules_are_the_functions() -> None:
    pairs: list[tuple[nn.Module, Any, Any]] = [
        (
            nn.CrossEntropyLoss(WEIGHT, 3, "sum", 0.1),
            F.cross_entropy(X, TARGET % 4, WEIGHT, 3, "sum", 0.1),
            TARGET % 4,
        ),
        (nn.NLLLoss(WEIGHT, 3, "none"), F.nll_loss(X, TARGET % 4, WEIGHT, 3, "none"), TARGET % 4),
        (nn.MSELoss("sum"), F.mse_loss(X, SOFT, "sum"), SOFT),
        (
            nn.BCEWithLogitsLoss(WEIGHT, "sum", pos_weight=WEIGHT),
            F.binary_cross_entropy_with_logits(X, SOFT, WEIGHT, "sum", WEIGHT),
            SOFT,
        ),
        (nn.KLDivLoss("batchmean"), F.kl_div(X, SOFT, "batchmean"), SOFT),
        (nn.KLDivLoss("sum", log_target=True), F.kl_div(X, LOG_PROBS, "sum", True), LOG_PROBS),
    ]
    for module, want, target in pairs:
        np.testing.assert_array_equal(module(X, target).data, want.data)
        assert module.state_dict() == {}
    assert repr(nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
    assert repr(nn.MSELoss("sum")) == "MSELoss(reduction='sum')"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: F.cross_entropy(X, TARGET, reduction="avg"),
            ValueError,
            r"\[cross_entropy\] reduction must be",
        ),
        (
            lambda: F.cross_entropy(X, TARGET[:5]),
            ValueError,
            r"input has shape \(6, 4\), target has shape \(5,\)",
        ),
        (lambda: F.cross_entropy(X, TARGET + 1), ValueError, r"\[cross_entropy\] target 4 is not one of 4"),
        (lambda: F.nll_loss(X, TARGET - 1), ValueError, r"\[nll_loss\] target -1 is not one of 4 classes"),
        (lambda: F.cross_entropy(X, TARGET > 0), TypeError, r"expected integer class indices, got bool"),
        (
            lambda: F.cross_entropy(X, TARGET, WEIGHT[:3]),
            ValueError,
            r"weight has shape \(3,\), expected one",
        ),
        (lambda: F.cross_entropy(X, TARGET, label_smoothing=2), ValueError, r"label_smoothing must be in"),
        (lambda: F.cross_entropy(X, SOFT[:, :3]), ValueError, r"target probabilities have shape \(6, 3\)"),
        (lambda: F.cross_entropy(1.0, 0), ValueError, r"expected input \[N, C\] or \[C\]"),
        (lambda: F.mse_loss(X, X[:, :1]), ValueError, r"\[mse_loss\] input has shape \(6, 4\), target has"),
        (lambda: F.kl_div(X, X[0]), ValueError, r"\[kl_div\] input has shape"),
        (lambda: F.kl_div(X, X, "median"), ValueError, r"\[kl_div\] reduction must be .* batchmean"),
        (
            lambda: F.binary_cross_entropy_with_logits(X, BINARY, pos_weight=np.ones(3)),
            ValueError,
            r"pos_weight of shape \(3,\) does not broadcast to the input's \(6, 4\)",
        ),
        (
            lambda: F.cross_entropy(X, fa.tensor(SOFT, requires_grad=True)),
            ValueError,
            r"target probabilities have no gradient here",
        ),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
