"""Changing the shape of tensors, joining them and picking parts, as functions of the tape; array-generic."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import namespace
from fastarch.autograd import Array, Function
from fastarch.tensor_functions import unbroadcast


class Reshape(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return x.reshape(shape)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return dy.reshape(ctx.shape), None


class Permute(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, axes: tuple[int, ...]) -> Array:
        ctx.axes = axes
        return x.transpose(axes)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        ndim = len(ctx.axes)
        inverse = [0] * ndim
        for place, axis in enumerate(ctx.axes):
            inverse[axis % ndim] = place
        return dy.transpose(inverse), None


class Expand(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, shape: tuple[int, ...]) -> Array:
        ctx.shape = x.shape
        return namespace(x).broadcast_to(x, shape)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return unbroadcast(dy, ctx.shape), None


class Concatenate(Function):
    """Joins arrays along an existing axis; the axis comes first so that any number of arrays can follow."""

    @staticmethod
    def forward(ctx: Any, axis: int, *arrays: Array) -> Array:
        ctx.axis = axis
        ctx.sizes = [array.shape[axis] for array in arrays]
        return namespace(arrays[0]).concatenate(arrays, axis=axis)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        grads: list[Array | None] = [None]
        start = 0
        whole = (slice(None),) * (ctx.axis % dy.ndim)
        for size in ctx.sizes:
            part = (*whole, slice(start, start + size))
            grads.append(dy[part])
            start += size
        return tuple(grads)


class Stack(Function):
    @staticmethod
    def forward(ctx: Any, axis: int, *arrays: Array) -> Array:
        ctx.axis = axis
        return namespace(arrays[0]).stack(arrays, axis=axis)

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        return (None, *namespace(dy).moveaxis(dy, ctx.axis, 0))


class Unbind(Function):
    """The slices of x along one axis, as many outputs; the way to walk over time steps without a gradient per
    slice.
    """

    @staticmethod
    def forward(ctx: Any, x: Array, axis: int) -> tuple[Array, ...]:
        ctx.axis = axis
        return tuple(namespace(x).moveaxis(x, axis, 0))

    @staticmethod
    def backward(ctx: Any, *grads: Array | None) -> Any:
        some = next(g for g in grads if g is not None)
        xp = namespace(some)
        return xp.stack([xp.zeros_like(some) if g is None else g for g in grads], axis=ctx.axis), None


# ---- selection


class GetItem(Function):
    @staticmethod
    def forward(ctx: Any, x: Array, index: Any) -> Array:
        ctx.shape = x.shape
        ctx.index = index
        return x[index]

    @staticmethod
    def backward(ctx: Any, dy: Array) -> Any:
        xp = namespace(dy)
        dx = xp.zeros(ctx.shape, dy.dtype)
        parts = ctx.index if isinstance(ctx.index, tuple) else (ctx.index,)
        if all(
            part is None or part is Ellipsis or isinstance(part, (int, slice, np.integer)) for part in parts
        ):
            dx[ctx.index] = dy
        else:
            xp.add.at(dx, ctx.index, dy)  # an array index may name an element several times
        return dx, None
