"""The arithmetic of tensors as functions of the tape: elementwise, products and reductions.

`fastarch.tensors` gives them their operators and PyTorch's method names. Everything here is array-generic.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastarch.arrays import is_float, namespace
from fastarch.autograd import Array, Function


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sums `g` over the axes along which an operand of `shape` was broadcast."""
    if g.shape == shape:
        return g
    extra = g.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + axis for axis, n in enumerate(shape) if n == 1 and g.shape[extra + axis] != 1
    )
    return g.sum(axis=axes, keepdims=True).reshape(shape)


def _operands(name: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Turns a Python number into a scalar of the other operand's type, so that it never widens a float32
    array.
    """
    if type(a) is type(b) is np.ndarray:
        return a, b
    if not hasattr(b, "dtype") or isinstance(b, float):  # numpy.float64 is a float too
        return a, _scalar_like(name, a, b)
    if not hasattr(a, "dtype") or isinstance(a, float):
        return _scalar_like(name, b, a), b
    return a, b


def _scalar_like(name: str, array: Array, number: Any) -> Any:
    if not (hasattr(array, "dtype") and isinstance(number, (int, float))):
        raise TypeError(f"[{name}] expected a tensor, an array or a number, got {type(number).__name__}")
    dtype = array.dtype
    if is_float(dtype):
        return dtype.type(number)
    return np.result_type(dtype, type(number)).type(number)


# ---- elementwise


class Add(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Array:
        a, b = _operands("add", a, b)
        ctx.shapes = a.shape, b.shape
        return a + b

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        a, b = ctx.shapes
        return unbroadcast(dy, a) if ctx.needs[0] else None, unbroadcast(dy, b) if ctx.needs[1] else None


class Subtract(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Array:
        a, b = _operands("subtract", a, b)
        ctx.shapes = a.shape, b.shape
        return a - b

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        a, b = ctx.shapes
        return unbroadcast(dy, a) if ctx.needs[0] else None, unbroadcast(-dy, b) if ctx.needs[1] else None


class Multiply(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Array:
        a, b = _operands("multiply", a, b)
        ctx.shapes = a.shape, b.shape
        ctx.save(a if ctx.needs[1] else None, b if ctx.needs[0] else None)
        return a * b

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        a, b = ctx.saved
        da = unbroadcast(dy * b, ctx.shapes[0]) if ctx.needs[0] else None
        db = unbroadcast(dy * a, ctx.shapes[1]) if ctx.needs[1] else None
        return da, db


class Divide(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Array:
        a, b = _operands("divide", a, b)
        y = a / b
        ctx.shapes = a.shape, b.shape
        ctx.save(b, y if ctx.needs[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        b, y = ctx.saved
        quotient = dy / b
        da = unbroadcast(quotient, ctx.shapes[0]) if ctx.needs[0] else None
        db = unbroadcast(-quotient * y, ctx.shapes[1]) if ctx.needs[1] else None
        return da, db


class Power(Function):
    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Array:
        a, b = _operands("power", a, b)
        y = a * a if b.ndim == 0 and b == 2 else a**b
        ctx.shapes = a.shape, b.shape
        ctx.save(a, b, y if ctx.needs[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        a, b, y = ctx.saved
        da = db = None
        if ctx.needs[0]:
            # b * a^(b-1), without 0 * inf where the exponent is 0
            one = b.dtype.type(1)
            less = namespace(dy).where(b == 0, one, b - one) if b.ndim else (b - one if b != 0 else one)
            da = unbroadcast(dy * (b * a**less), ctx.shapes[0])
        if ctx.needs[1]:
            xp = namespace(dy)
            # y * log(a), with the limit 0 where a is 0 and so is y
            zero = (a == 0) & (b >= 0)
            db = unbroadcast(dy * y * xp.log(xp.where(zero, a.dtype.type(1), a)), ctx.shapes[1])
        return da, db


class Negative(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        return -x

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return -dy


class Exp(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = namespace(x).exp(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return dy * ctx.saved[0]


class Log(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        ctx.save(x)
        return namespace(x).log(x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        return dy / ctx.saved[0]


class Sqrt(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        y = namespace(x).sqrt(x)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        y = ctx.saved[0]
        return dy / (y + y)


class Abs(Function):
    @staticmethod
    def forward(ctx: Any, x: Array) -> Array:
        ctx.save(x)
        return abs(x)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Array:
        x = ctx.saved[0]
        return dy * namespace(x).sign(x)


class Clip(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, low: float | None, high: float | None) -> Array:
        if low is None and high is None:
            raise ValueError("[clip] expected a lower bound, an upper bound or both")
        ctx.bounds = low, high
        ctx.save(x)
        low = None if low is None else x.dtype.type(low)
        high = None if high is None else x.dtype.type(high)
        return namespace(x).clip(x, low, high)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x = ctx.saved[0]
        low, high = ctx.bounds
        inside = x >= low if low is not None else x <= high
        if low is not None and high is not None:
            inside &= x <= high
        return dy * inside, None, None


class Where(Function):
    @staticmethod
    def forward(ctx: Any, condition: Array, a: Any, b: Any) -> Array:
        a, b = _operands("where", a, b)
        ctx.shapes = a.shape, b.shape
        ctx.save(condition)
        return namespace(condition).where(condition, a, b)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        (condition,) = ctx.saved
        where, zero = namespace(dy).where, dy.dtype.type(0)
        da = unbroadcast(where(condition, dy, zero), ctx.shapes[0]) if ctx.needs[1] else None
        db = unbroadcast(where(condition, zero, dy), ctx.shapes[1]) if ctx.needs[2] else None
        return None, da, db


class Cast(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, dtype: Any) -> Array:
        ctx.dtype = x.dtype
        return x.astype(dtype)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return dy.astype(ctx.dtype), None


# ---- products


class MatMul(Function):
    """a [..., M, K] times b [..., K, N], with NumPy's rules for one-dimensional operands and broadcasting."""

    @staticmethod
    def forward(ctx: Any, a: Array, b: Array) -> Array:
        if a.ndim == 0 or b.ndim == 0:
            raise ValueError(
                f"[matmul] expected operands of at least one dimension, got {a.shape} and {b.shape}"
            )
        if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            raise ValueError(f"[matmul] the inner sizes of {a.shape} and {b.shape} differ")
        ctx.save(a, b)
        return a @ b

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        a, b = ctx.saved
        a_shape, b_shape = a.shape, b.shape
        if b.ndim == 1:
            b, dy = b[:, None], dy[..., None]
        if a.ndim == 1:
            a, dy = a[None, :], dy[..., None, :]
        da = db = None
        if ctx.needs[0]:
            da = unbroadcast(dy @ b.swapaxes(-1, -2), a.shape).reshape(a_shape)
        if ctx.needs[1]:
            if b.ndim == 2:  # one product instead of a batch of them and a sum
                db = a.reshape(-1, a.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])
            else:
                db = unbroadcast(a.swapaxes(-1, -2) @ dy, b.shape)
            db = db.reshape(b_shape)
        return da, db


# ---- reductions


def _axes(dim: Any, ndim: int) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(ndim))
    return tuple(
        axis % ndim if -ndim <= axis < ndim else axis for axis in ((dim,) if isinstance(dim, int) else dim)
    )


class Sum(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, dim: Any, keepdim: bool) -> Array:
        ctx.shape = x.shape
        ctx.axes = _axes(dim, x.ndim)
        return x.sum(axis=ctx.axes, keepdims=keepdim)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return _spread(dy, ctx.shape, ctx.axes), None, None


class Mean(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, dim: Any, keepdim: bool) -> Array:
        ctx.shape = x.shape
        ctx.axes = _axes(dim, x.ndim)
        return x.mean(axis=ctx.axes, keepdims=keepdim)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        count = prod([ctx.shape[axis] for axis in ctx.axes])
        return _spread(dy / dy.dtype.type(count), ctx.shape, ctx.axes), None, None


def _spread(dy: Array, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    if not shape:
        return dy
    kept = tuple([1 if axis in axes else n for axis, n in enumerate(shape)])
    dy = dy.reshape(kept)  # an array again, where arithmetic had made a scalar of it
    return namespace(dy).broadcast_to(dy, shape)


class Extreme(Function):
    """The largest (sign 1) or smallest (sign -1) of all elements; elements that tie share the gradient
    evenly.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, sign: int) -> Array:
        y = x.max() if sign > 0 else x.min()
        ctx.save(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        x, y = ctx.saved
        chosen = x == y
        return chosen * (dy / chosen.sum().astype(dy.dtype)), None


class TakeAlong(Function):
    """The elements of x at `indices` along one axis, whose length in `indices` is 1."""

    @staticmethod
    def forward(ctx: Any, x: Array, indices: Array, axis: int) -> Array:
        ctx.shape, ctx.axis = x.shape, axis
        ctx.save(indices)
        return namespace(x).take_along_axis(x, indices, axis)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        (indices,) = ctx.saved
        xp = namespace(dy)
        shape = [1] * len(ctx.shape)
        shape[ctx.axis] = ctx.shape[ctx.axis]
        places = xp.arange(ctx.shape[ctx.axis]).reshape(shape)
        return dy * (places == indices), None, None
