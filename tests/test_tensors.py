"""Tensors: the gradient of every function on the tape, values, types, and errors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from differences import array_modules, check_gradients
from fastarch import shape_functions, tensor_functions, tensors
from fastarch.autograd import Function

R = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return R.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return R.uniform(0.5, 2.0, shape)


def away_from_zero(*shape: int) -> np.ndarray:
    return R.uniform(0.2, 2.0, shape) * R.choice([-1.0, 1.0], shape)


def distinct(*shape: int) -> np.ndarray:
    return R.permutation(int(np.prod(shape))).reshape(shape) / 3.0


MASK = R.random((3, 4)) < 0.5

# For every function of the tape: (what to compute, inputs), several times over.
CASES: dict[str, list[tuple[Callable[..., Any], tuple[np.ndarray, ...]]]] = {
    "Add": [
        (lambda a, b: a + b, (normal(3, 4), normal(3, 4))),
        (lambda a, b: a + b, (normal(2, 1, 4), normal(3, 1))),
        (lambda a, b: a + b, (normal(), normal(5))),
        (lambda a: 2 + a, (normal(3),)),
        (lambda a: a + a, (normal(3),)),
    ],
    "Subtract": [
        (lambda a, b: a - b, (normal(3, 4), normal(4))),
        (lambda a: 1.5 - a, (normal(3),)),
        (lambda a: a - 1, (normal(3),)),
    ],
    "Multiply": [
        (lambda a, b: a * b, (normal(3, 4), normal(3, 1))),
        (lambda a, b: a * b, (normal(1), normal(2, 3))),
        (lambda a: 3 * a * a, (normal(4),)),
        (lambda a: a * np.arange(4.0), (normal(4),)),
    ],
    "Divide": [
        (lambda a, b: a / b, (normal(3, 4), away_from_zero(4))),
        (lambda a: 1 / a, (away_from_zero(5),)),
        (lambda a: a / 4, (normal(5),)),
    ],
    "Power": [
        (lambda a: a**2, (normal(5),)),
        (lambda a: a**3, (normal(5),)),
        (lambda a: a**-0.5, (positive(5),)),
        (lambda a: a**0, (normal(5),)),
        (lambda a, b: a**b, (positive(3, 4), normal(4))),
        (lambda a: 2.0**a, (normal(5),)),
        (lambda a: a.pow(1.5), (positive(5),)),
    ],
    "Negative": [(lambda a: -a, (normal(3, 2),))],
    "Exp": [(lambda a: a.exp(), (normal(3, 2),))],
    "Log": [(lambda a: a.log(), (positive(3, 2),))],
    "Sqrt": [(lambda a: a.sqrt(), (positive(3, 2),))],
    "Abs": [(lambda a: abs(a), (away_from_zero(3, 2),)), (lambda a: a.abs(), (away_from_zero(2),))],
    "Clip": [
        (lambda a: a.clip(-0.15, 0.15), (away_from_zero(20),)),
        (lambda a: a.clip(min=0.0), (away_from_zero(20),)),
        (lambda a: a.clamp(max=0.1), (away_from_zero(20),)),
    ],
    "Where": [
        (lambda a, b: tensors.where(MASK, a, b), (normal(3, 4), normal(4))),
        (lambda a: tensors.where(MASK, a, 0.0), (normal(3, 1),)),
    ],
    "Cast": [(lambda a: a.astype(np.float64) * 2, (normal(3),))],
    "MatMul": [
        (lambda a, b: a @ b, (normal(3, 4), normal(4, 5))),
        (lambda a, b: a @ b, (normal(4), normal(4))),
        (lambda a, b: a @ b, (normal(4), normal(4, 3))),
        (lambda a, b: a @ b, (normal(3, 4), normal(4))),
        (lambda a, b: a @ b, (normal(2, 3, 4), normal(4))),
        (lambda a, b: a @ b, (normal(2, 3, 4), normal(4, 5))),
        (lambda a, b: a @ b, (normal(3, 4), normal(2, 4, 5))),
        (lambda a, b: a @ b, (normal(4), normal(2, 4, 5))),
        (lambda a, b: a.matmul(b), (normal(2, 1, 3, 4), normal(3, 4, 2))),
        (lambda a: a @ np.ones((4, 2)), (normal(3, 4),)),
        (lambda a: np.ones((2, 3)) @ a, (normal(3, 4),)),
    ],
    "Sum": [
        (lambda a: a.sum(), (normal(3, 4),)),
        (lambda a: a.sum(dim=1), (normal(3, 4, 2),)),
        (lambda a: a.sum(dim=(0, -1), keepdim=True), (normal(3, 4, 2),)),
        (lambda a: a.sum(), (normal(),)),
    ],
    "Mean": [
        (lambda a: a.mean(), (normal(3, 4),)),
        (lambda a: a.mean(dim=-1, keepdim=True), (normal(3, 4),)),
        (lambda a: a.mean((0, 1)), (normal(3, 4, 2),)),
    ],
    "Extreme": [(lambda a: a.max(), (distinct(3, 4),)), (lambda a: a.min(), (distinct(3, 4),))],
    "TakeAlong": [
        (lambda a: a.max(dim=1).values, (distinct(3, 4),)),
        (lambda a: a.min(dim=0, keepdim=True).values, (distinct(3, 4),)),
        (lambda a: a.max(-2)[0], (distinct(2, 3, 4),)),
    ],
    "Reshape": [
        (lambda a: a.reshape(4, -1) * np.arange(3.0), (normal(3, 4),)),
        (lambda a: a.view((2, 6)), (normal(3, 4),)),
        (lambda a: a.flatten(1), (normal(2, 3, 4),)),
        (lambda a: a.squeeze(), (normal(1, 3, 1),)),
        (lambda a: a.squeeze(0), (normal(1, 3, 1),)),
        (lambda a: a.unsqueeze(-1), (normal(3),)),
    ],
    "Permute": [
        (lambda a: a.permute(2, 0, 1), (normal(2, 3, 4),)),
        (lambda a: a.permute((1, -1, 0)), (normal(2, 3, 4),)),
        (lambda a: a.transpose(0, -1), (normal(2, 3, 4),)),
        (lambda a: a.T @ a, (normal(3, 4),)),
    ],
    "Expand": [(lambda a: a.expand(2, 3, 4), (normal(3, 1),))],
    "Concatenate": [
        (lambda a, b, c: tensors.concatenate([a, b, c], dim=1), (normal(2, 1), normal(2, 3), normal(2, 2))),
        (lambda a: tensors.concatenate([a, a], dim=-1), (normal(2, 3),)),
    ],
    "Stack": [(lambda a, b: tensors.stack([a, b, a], dim=-1), (normal(2, 3), normal(2, 3)))],
    "Unbind": [
        (lambda a: a.unbind(1)[2] * a.unbind(1)[0], (normal(2, 3),)),
        (lambda a: sum(row * i for i, row in enumerate(a)), (normal(3, 2),)),
    ],
    "GetItem": [
        (lambda a: a[1], (normal(3, 4),)),
        (lambda a: a[1, 2], (normal(3, 4),)),
        (lambda a: a[..., ::-2], (normal(3, 4),)),
        (lambda a: a[:, None, 1:3], (normal(3, 4),)),
        (lambda a: a[np.array([0, 2, 2, 1])], (normal(3, 4),)),
        (lambda a: a[[0, 0], [1, 1]], (normal(3, 4),)),
        (lambda a: a[MASK], (normal(3, 4),)),
        (lambda a: a[fa.tensor([2, 0]), 1], (normal(3, 4),)),
    ],
}

ALL = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


def test_every_function_has_a_case() -> None:
    defined = {
        name
        for module in (tensor_functions, shape_functions)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Function) and value is not Function
    }
    assert set(CASES) == defined


@pytest.mark.parametrize(("name", "index"), ALL)
@pytest.mark.parametrize("xp", array_modules(), ids=lambda xp: xp.__name__)
def test_gradient_is_that_of_differences(name: str, index: int, xp: Any) -> None:
    function, inputs = CASES[name][index]
    if xp is not np and name in ("Where", "GetItem", "MatMul", "Multiply", "Reshape"):
        # these cases hold host arrays of their own; on the device they go in as device arrays
        original = function
        function = _with_device_constants(original, xp)
    check_gradients(function, *inputs, xp=xp)


def _with_device_constants(function: Callable[..., Any], xp: Any) -> Callable[..., Any]:
    names = {"np": xp, "MASK": xp.asarray(MASK), "fa": fa, "tensors": tensors}
    return type(function)(function.__code__, names, function.__name__)  # type: ignore[call-arg]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_take_the_type_of_the_tensor(dtype: Any) -> None:
    for shape in ((), (3,)):
        x = fa.tensor(np.ones(shape, dtype), requires_grad=True)
        results = [x + 1, 1 + x, x - 0.5, 2 - x, x * 2.5, 2.5 * x, x / 3, 3 / x, x**2, x**0.5, 2**x, -x]
        results += [x.clip(0, 1), x * np.float64(2), x.mean(), x.sum(), tensors.where(x > 0, x, 0.0), x.exp()]
        for y in results:
            assert y.dtype == dtype
            assert y.shape in (shape, ())
            assert isinstance(y.data, np.ndarray)
        sum(y.sum() for y in results).backward()
        assert x.grad.dtype == dtype


def test_values_of_arithmetic() -> None:
    a, b = positive(3, 4), positive(4)
    s, t = fa.tensor(a), fa.tensor(b)
    for got, want in [
        (s + t, a + b), (s - t, a - b), (s * t, a * b), (s / t, a / b), (s**t, a**b), (s @ t, a @ b),
        (-s, -a),
        (a - t, a - b), (a @ t, a @ b), (b * s, b * a), (1 / s, 1 / a), (2**s, 2**a), (s.exp(), np.exp(a)),
        (s.log(), np.log(a)), (s.sqrt(), np.sqrt(a)), (s.clip(0.7, 1.1), np.clip(a, 0.7, 1.1)),
        (s.sum(0), a.sum(0)), (s.mean(1, keepdim=True), a.mean(1, keepdims=True)), (s.max(), a.max()),
        (s.max(0).values, a.max(0)), (s.min(1).values, a.min(1)), (s.transpose(0, 1), a.T), (s.T, a.T),
        (s[1:, ::2], a[1:, ::2]), (s.flatten(), a.ravel()), (s.unsqueeze(1), a[:, None]),
        (tensors.stack([s, s], 1), np.stack([a, a], 1)),
        (tensors.concatenate([s, s], 1), np.concatenate([a, a], 1)),
        (tensors.where(a > 1, s, t), np.where(a > 1, a, b)),
        (s.expand(2, 3, 4), np.broadcast_to(a, (2, 3, 4))),
    ]:  # fmt: skip
        assert isinstance(got, fa.Tensor)
        np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_array_equal(s.max(1).indices, a.argmax(1))
    np.testing.assert_array_equal(s.argmin(0), a.argmin(0))


def test_comparisons_are_plain_arrays() -> None:
    x = fa.tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
    for got, want in [
        (x > 2, [0, 0, 1]), (x >= 2, [0, 1, 1]), (x < 2, [1, 0, 0]), (x <= x, [1, 1, 1]), (x == 2, [0, 1, 0]),
        (x != 2, [1, 0, 1]),
    ]:  # fmt: skip
        assert type(got) is np.ndarray
        assert got.dtype == bool
        np.testing.assert_array_equal(got, np.array(want, bool))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x + "1", TypeError, r"\[add\] expected a tensor, an array or a number, got str"),
        (lambda x: x * None, TypeError, r"\[multiply\] .* got NoneType"),
        (lambda x: x @ np.ones(4), ValueError, r"\[matmul\] the inner sizes of \(2, 3\) and \(4,\) differ"),
        (lambda x: x @ np.array(2.0), ValueError, r"\[matmul\] .* at least one dimension"),
        (lambda x: x.clip(), ValueError, r"\[clip\] expected a lower bound"),
        (
            lambda x: x.flatten(1, 0),
            ValueError,
            r"\[flatten\] cannot join dimensions 1 to 0 of shape \(2, 3\)",
        ),
        (lambda x: x.unsqueeze(4), ValueError, r"\[unsqueeze\] got dim 4 for a tensor of 2 dimensions"),
        (lambda x: x.item(), ValueError, r"\[item\] expected one element, got shape \(2, 3\)"),
        (lambda x: x.reshape(4, 4), ValueError, "reshape"),
        (lambda x: x.sum(dim=2), ValueError, "axis 2"),
        (lambda x: x[5], IndexError, "index 5"),
        (lambda x: list(x.sum()), TypeError, r"\[unbind\] a tensor without dimensions"),
        (lambda x: np.asarray(x), RuntimeError, r"\[tensor\] it requires a gradient"),
        (lambda x: np.add(x, 1), TypeError, "ufunc"),
        (lambda x: tensors.concatenate([]), ValueError, r"\[concatenate\] expected at least one"),
        (lambda x: tensors.stack([]), ValueError, r"\[stack\] expected at least one"),
        (lambda x: fa.tensor(np.ones(2, int), requires_grad=True), TypeError, "only floating-point .* int64"),
        (lambda x: fa.tensor("text"), TypeError, r"\[tensor\] expected numbers, got str"),
        (lambda x: fa.tensor([[1, 2], [3]]), ValueError, "inhomogeneous"),
        (lambda x: bool(x), ValueError, "ambiguous"),
    ],
)
def test_errors_of_tensors(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(fa.tensor(np.ones((2, 3)), requires_grad=True))


# ---- tensors


def test_making_tensors() -> None:
    array = np.arange(6.0).reshape(2, 3)
    assert fa.tensor(array).data is array
    assert fa.tensor(array).dtype == np.float64
    assert fa.tensor([1.0, 2.0]).dtype == np.float32
    assert fa.tensor(1.5).shape == ()
    assert fa.tensor([1, 2]).dtype == np.int64
    assert fa.tensor(array, dtype=np.float32).dtype == np.float32
    assert fa.tensor(fa.tensor(array)).data is array
    assert fa.tensor(np.float32(2)).dtype == np.float32
    assert len(fa.tensor(array)) == 2
    assert fa.tensor(array).size == 6
    assert float(fa.tensor(2.5)) == 2.5
    assert int(fa.tensor(2)) == 2
    assert fa.tensor(array).tolist() == array.tolist()
    assert np.asarray(fa.tensor(array)) is array
    np.testing.assert_array_equal(np.array(fa.tensor(array), np.float32), array)


def test_repr() -> None:
    assert repr(fa.tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert (
        repr(fa.tensor(np.array([1.0]), requires_grad=True))
        == "tensor([1.], dtype=float64, requires_grad=True)"
    )
    assert repr(fa.tensor([1.0], requires_grad=True) * 2) == "tensor([2.], grad_fn=<Multiply>)"
    assert repr(fa.nn.Parameter([1.0])) == "Parameter containing:\ntensor([1.], requires_grad=True)"


def test_ties_of_max_share_the_gradient() -> None:
    x = fa.tensor(np.array([1.0, 3.0, 3.0]), requires_grad=True)
    x.max().backward()
    np.testing.assert_array_equal(x.grad, [0, 0.5, 0.5])
    x.grad = None
    x.max(0).values.backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 0])


def test_power_at_zero() -> None:
    x = fa.tensor(np.zeros(2), requires_grad=True)
    (x**0 + x**1 + x**2).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])
    e = fa.tensor(np.array([2.0, 3.0]), requires_grad=True)
    (np.zeros(2) ** e).sum().backward()
    np.testing.assert_array_equal(e.grad, [0, 0])


def test_leaves_can_be_copied() -> None:
    x = fa.tensor(np.ones(2), requires_grad=True)
    y = copy.deepcopy(x)
    y.data *= 2
    assert y.requires_grad
    np.testing.assert_array_equal(x.data, [1, 1])


def test_tensors_of_pytorch_are_viewed() -> None:
    torch = pytest.importorskip("torch", reason="checks the use of PyTorch's tensors")
    foreign = torch.arange(4, dtype=torch.float64)
    x = fa.tensor(foreign, requires_grad=True)
    foreign[0] = 9
    assert x.data[0] == 9
    (x * x).sum().backward()
    assert isinstance(x.grad, np.ndarray)


def test_where_of_two_numbers_is_refused() -> None:
    with pytest.raises(TypeError, match=r"\[where\] expected a tensor, an array or a number, got float"):
        tensors.where(MASK, 1.0, 0.0)
