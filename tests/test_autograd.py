"""The backward pass: what it sums, what it keeps and frees, and its errors; and what is recorded at all."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from differences import host
from fastarch import tensors
from fastarch.autograd import Function, is_grad_enabled

R = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return R.standard_normal(shape)


def test_gradients_of_shared_values_are_summed() -> None:
    x = fa.tensor(np.array(3.0), requires_grad=True)
    y = x * x
    z = y * y + y * x + x
    z.backward()
    assert x.grad == 4 * 3**3 + 3 * 3**2 + 1


def test_gradients_accumulate_over_passes() -> None:
    x = fa.tensor(np.ones(3), requires_grad=True)
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad is first
    np.testing.assert_array_equal(x.grad, 5 * np.ones(3))


def test_a_leaf_is_its_own_root() -> None:
    x = fa.tensor(np.ones(()), requires_grad=True)
    x.backward()
    x.backward(np.array(2.0))
    assert x.grad == 3


def test_a_long_chain_needs_no_recursion() -> None:
    x = fa.tensor(np.ones(()), requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + x
    y.backward()
    assert x.grad == 20_001
    del y  # and neither does letting go of a graph that was never walked
    y = x
    for _ in range(20_000):
        y = y * 1.0
    del y


def test_gradients_of_leaves_never_share_memory() -> None:
    for function in (
        lambda a, b: a + b,
        lambda a, b: a.reshape(4, 3).T + b.T.T,
        lambda a, b: tensors.concatenate([a, b]),
        lambda a, b: tensors.stack([a, b]),
        lambda a, b: a.sum() + b.sum(),
        lambda a, b: a[:] + b,
    ):
        a = fa.tensor(np.ones((3, 4)), requires_grad=True)
        b = fa.tensor(np.ones((3, 4)), requires_grad=True)
        y = function(a, b)
        cotangent = np.ones(y.shape)
        y.backward(cotangent)
        for grad in (a.grad, b.grad):
            assert grad.flags.writeable
            assert grad.flags.c_contiguous
            assert not np.shares_memory(grad, cotangent)
        assert not np.shares_memory(a.grad, b.grad)


def test_saved_arrays_are_not_handed_out_as_gradients() -> None:
    class Dot(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save(a, b)
            return np.asarray(a @ b)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            a, b = ctx.saved
            return b, a  # right for dy = 1, and memory that belongs to the other input

    a, b = (fa.tensor(normal(3), requires_grad=True) for _ in range(2))
    Dot.apply(a, b).backward()
    a.grad *= 0
    assert (b.data != 0).all()


def test_no_gradient_where_none_is_asked() -> None:
    x = fa.tensor(np.ones(3), requires_grad=True)
    constant = fa.tensor(np.ones(3))
    y = (x * constant).sum()
    y.backward()
    assert constant.grad is None
    assert not (constant * 2).requires_grad
    assert x.detach().requires_grad is False
    assert x.detach().data is x.data


def test_functions_are_told_which_gradients_are_needed() -> None:
    seen = []

    class Watch(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any, factor: Any) -> Any:
            seen.append(ctx.needs)
            return a * b * factor

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            seen.append(ctx.needs)
            return dy, None, None

    x = fa.tensor(np.ones(2), requires_grad=True)
    Watch.apply(x, np.ones(2), 3).sum().backward()
    with fa.no_grad():
        Watch.apply(x, x, 3)
    assert seen == [(True, False, False), (True, False, False), (False, False, False)]


def test_functions_with_several_outputs() -> None:
    received = []

    class Split(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2, x * 3, x.argmax(keepdims=True)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            received.append(grads)
            return sum(g * k for g, k in zip(grads, (2, 3)) if g is not None)

    x = fa.tensor(normal(4), requires_grad=True)
    twice, thrice, where = Split.apply(x)
    assert twice.requires_grad
    assert thrice.requires_grad
    assert not where.requires_grad
    (thrice * 5).sum().backward()
    assert received[0][0] is None
    assert received[0][2] is None
    np.testing.assert_array_equal(x.grad, np.full(4, 15.0))


def test_a_branch_without_gradient_does_not_stop_the_others() -> None:
    class Block(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return None

    x = fa.tensor(np.ones(2), requires_grad=True)
    y = x * 2
    z = Block.apply(y * 3) + y
    z.sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_mixed_types_give_each_leaf_its_own() -> None:
    x = fa.tensor(np.ones(3, np.float32), requires_grad=True)
    w = fa.tensor(np.full(3, 2.0), requires_grad=True)
    y = (x * 3.0) * w
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert w.grad.dtype == np.float64
    np.testing.assert_array_equal(x.grad, np.full(3, 6.0))


def test_what_was_saved_is_freed_by_the_backward_pass() -> None:
    x = fa.tensor(np.ones(1000), requires_grad=True)
    hidden = x * 2
    kept = weakref.ref(hidden.data)
    y = (hidden * hidden).sum()
    del hidden
    assert kept() is not None
    y.backward()
    assert kept() is None


def test_what_is_not_needed_is_not_saved() -> None:
    x = fa.tensor(np.ones(10), requires_grad=True)
    hidden = x + 1
    kept = weakref.ref(hidden.data)
    y = hidden + x
    del hidden
    assert kept() is None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(10, 2.0))


def test_retain_graph_allows_a_second_pass() -> None:
    x = fa.tensor(np.ones(2), requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [4.0, 4.0])
    with pytest.raises(
        RuntimeError, match=r"\[backward\] the graph below Sum was freed .* retain_graph=True"
    ):
        y.backward()


def test_a_freed_graph_below_a_new_one_is_noticed_before_anything_changes() -> None:
    x = fa.tensor(np.ones(2), requires_grad=True)
    trunk = x * x
    trunk.sum().backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match="below Multiply was freed"):
        (trunk * 2 + x).sum().backward()
    np.testing.assert_array_equal(x.grad, before)


def test_a_failing_function_leaves_the_gradients_alone() -> None:
    class Fail(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 1

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            raise ArithmeticError("no gradient today")

    x = fa.tensor(np.ones(2), requires_grad=True)
    w = fa.tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ArithmeticError, match="today"):
        (Fail.apply(x) * w).sum().backward()
    assert x.grad is None
    assert w.grad is None


# ---- errors


def test_errors_of_backward() -> None:
    x = fa.tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(
        RuntimeError, match=r"\[backward\] a tensor of shape \(2, 3\) needs the argument grad"
    ):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"\[backward\] grad has shape \(3,\), the tensor has \(2, 3\)"):
        (x * 2).backward(np.ones(3))
    with pytest.raises(RuntimeError, match=r"\[backward\] this tensor does not require a gradient"):
        fa.tensor(np.ones(())).backward()
    with fa.no_grad():
        y = x.sum()
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        y.backward()


def test_a_leaf_changed_in_place_is_noticed() -> None:
    x = fa.tensor(np.ones(3), requires_grad=True)
    y = (x * x).sum()
    x.data *= 2
    x.mark_changed()
    with pytest.raises(
        RuntimeError, match=r"a leaf of shape \(3,\) was changed in place after Multiply used it"
    ):
        y.backward()
    assert x.grad is None
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, np.full(3, 4.0))


def test_there_are_no_in_place_operations() -> None:
    x = fa.tensor(np.ones(3), requires_grad=True)
    y = x
    y += 1
    assert y is not x
    np.testing.assert_array_equal(x.data, np.ones(3))
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 1.0  # type: ignore[index]


def test_errors_of_functions() -> None:
    class TooFew(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            return a + b

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return dy

    class WrongShape(Function):
        @staticmethod
        def forward(ctx: Any, a: Any, *, scale: float = 1.0) -> Any:
            return a.sum(axis=0) * scale

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return dy

    x = fa.tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(RuntimeError, match=r"\[TooFew.backward\] returned 1 gradients, forward took 2"):
        TooFew.apply(x, x).sum().backward()
    with pytest.raises(RuntimeError, match=r"\[WrongShape.backward\] gave shape \(3,\) .* shape \(2, 3\)"):
        WrongShape.apply(x).sum().backward()
    with pytest.raises(TypeError, match=r"\[WrongShape\] pass the tensor 'scale' by position"):
        WrongShape.apply(x, scale=x)

    class NoArray(Function):
        @staticmethod
        def forward(ctx: Any, a: Any) -> Any:
            return float(a.sum())

    with pytest.raises(TypeError, match=r"\[NoArray\] forward returned float, expected arrays"):
        NoArray.apply(x)
    with pytest.raises(TypeError, match=r"\[Function\] a Function needs a static method forward"):
        Function.apply(x)


# ---- no_grad


def test_no_grad_as_context_and_decorator() -> None:
    x = fa.tensor(np.ones(2), requires_grad=True)

    @fa.no_grad()
    def called(y: Any) -> Any:
        """Doubles."""
        return y * 2

    @fa.no_grad
    def bare(y: Any) -> Any:
        return y * 2

    assert called.__doc__ == "Doubles."
    assert not called(x).requires_grad
    assert not bare(x).requires_grad
    assert (x * 2).requires_grad
    scope = fa.no_grad()
    with scope:
        with scope:
            assert not is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()
    with pytest.raises(KeyError), fa.no_grad():
        raise KeyError
    assert is_grad_enabled()


def test_no_grad_belongs_to_its_thread() -> None:
    seen = []
    with fa.no_grad():
        thread = threading.Thread(target=lambda: seen.append(is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


# ---- against another library


@pytest.mark.parametrize("seed", range(20))
def test_random_expressions_against_pytorch(seed: int) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    rng = np.random.default_rng(seed)
    values = [rng.uniform(0.5, 1.5, shape) for shape in ((3, 4), (4,), (3, 1), ())]
    ours = [fa.tensor(v, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    mine, other = list(ours), list(theirs)
    steps: list[Callable[..., Any]] = [
        lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a / (b * b + 1), lambda a, b: a - b.mean(),
        lambda a, b: (a * a + 1) ** 0.5 + b, lambda a, b: (-abs(a)).exp() * b,
        lambda a, b: (a * a + 1).log() - b,
        lambda a, b: a.sum(-1, keepdim=True) * b if a.ndim else a * b, lambda a, b: a.clip(-1, 1) + b,
        lambda a, b: a.reshape(-1)[:3].sum() + b,
    ]  # fmt: skip
    for _ in range(12):
        step = steps[rng.integers(len(steps))]
        i, j = rng.integers(len(mine), size=2)
        mine.append(step(mine[i], mine[j]))
        other.append(step(other[i], other[j]))
    sum(m.sum() for m in mine).backward()
    sum(o.sum() for o in other).backward()
    for m, o in zip(mine, other):
        np.testing.assert_allclose(m.numpy(), o.detach().numpy(), rtol=1e-12)
    for m, o in zip(ours, theirs):
        np.testing.assert_allclose(host(m.grad), o.grad.numpy(), rtol=1e-10, atol=1e-12)
