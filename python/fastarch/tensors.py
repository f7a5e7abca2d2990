"""Tensors: arrays that remember how they came about, with PyTorch's names for what can be done to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastarch import shape_functions as shapes
from fastarch import tensor_functions as functions
from fastarch.arrays import adopt, is_float
from fastarch.autograd import Array, Function, Variable, run_backward
from fastarch.capturing import refuse


class Extremes(NamedTuple):
    """The largest or smallest elements along a dimension, and where they are (the first of equal ones)."""

    values: Tensor
    indices: Array


class Tensor(Variable):
    """An array on the tape. `data` is the array itself, `grad` a plain array of the same shape, or None.

    Made by `fastarch.tensor`. Operators and methods follow PyTorch; numbers on either side of an operator
    take the tensor's type; comparisons give plain arrays. There are no in-place operations: `t += 1` makes a
    new tensor.
    """

    __slots__ = ()
    __array_ufunc__ = None  # `array * tensor` goes to Tensor.__rmul__
    __hash__ = object.__hash__

    def __init__(self, data: Array, requires_grad: bool = False) -> None:
        if requires_grad and not is_float(data.dtype):
            raise TypeError(f"[tensor] only floating-point tensors have gradients, got {data.dtype}")
        self.data = data
        self.grad = None
        self.requires_grad = requires_grad
        self._edge = None
        self._version = 0

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.data.size

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        refuse("a condition reads a tensor on the host")
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __repr__(self) -> str:
        body = np.array2string(np.asarray(self._host()), separator=", ", prefix="tensor(")
        notes = f", dtype={self.dtype}" if self.dtype != np.float32 else ""
        if self._edge is not None:
            notes += f", grad_fn=<{type(self._edge[0]).__name__}>"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({body}{notes})"

    def _host(self) -> np.ndarray:
        refuse("a tensor is read on the host")
        return self.data if isinstance(self.data, np.ndarray) else self.data.get()

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array, without history; a copy only when it has to come from the device."""
        return self._host()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError(
                "[tensor] it requires a gradient that an array would lose; use .numpy() or .detach()"
            )
        if not isinstance(self.data, np.ndarray):
            raise TypeError("[tensor] the data is on the device; .numpy() copies it to the host")
        array = self.data if dtype is None else self.data.astype(dtype, copy=False)
        return array.copy() if copy and array is self.data else array

    def item(self) -> Any:
        """The only element as a Python number; raises ValueError when there are more, or none."""
        refuse("item() reads a value on the host")
        if self.data.size != 1:
            raise ValueError(f"[item] expected one element, got shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        refuse("tolist() reads values on the host")
        return self.data.tolist()

    def detach(self) -> Tensor:
        """The same data without history."""
        return Tensor(self.data)

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Adds to the `grad` of every leaf the gradient of this tensor, weighted by `grad` (default 1, for
        one element).

        The graph is freed on the way unless `retain_graph`. Raises RuntimeError when the tensor has no
        gradient or `grad` is left out for more than one element, ValueError when `grad` has another shape.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "[backward] this tensor does not require a gradient, and was not computed from one that does"
            )
        data = self.data
        if grad is None:
            if data.size != 1:
                raise RuntimeError(
                    f"[backward] a tensor of shape {data.shape} needs the argument grad; "
                    "only one with a single element does not"
                )
            grad = np.ones_like(data)  # dispatches to CuPy for its arrays
        else:
            grad = _as_array(grad).astype(data.dtype, copy=False)
            if grad.shape != data.shape:
                raise ValueError(f"[backward] grad has shape {grad.shape}, the tensor has {data.shape}")
        run_backward(self, grad, retain_graph)

    # ---- operators

    def __add__(self, other: Any) -> Tensor:
        return functions.Add.apply(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return functions.Add.apply(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return functions.Subtract.apply(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return functions.Subtract.apply(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return functions.Multiply.apply(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return functions.Multiply.apply(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return functions.Divide.apply(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return functions.Divide.apply(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return functions.Power.apply(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return functions.Power.apply(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return functions.MatMul.apply(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return functions.MatMul.apply(other, self)

    def __neg__(self) -> Tensor:
        return functions.Negative.apply(self)

    def __abs__(self) -> Tensor:
        return functions.Abs.apply(self)

    def __eq__(self, other: Any) -> Any:
        return self.data == _plain(other)

    def __ne__(self, other: Any) -> Any:
        return self.data != _plain(other)

    def __lt__(self, other: Any) -> Any:
        return self.data < _plain(other)

    def __le__(self, other: Any) -> Any:
        return self.data <= _plain(other)

    def __gt__(self, other: Any) -> Any:
        return self.data > _plain(other)

    def __ge__(self, other: Any) -> Any:
        return self.data >= _plain(other)

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, tuple):
            index = tuple([_plain(part) for part in index])
        else:
            index = _plain(index)
        return shapes.GetItem.apply(self, index)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.unbind())

    # ---- elementwise

    def exp(self) -> Tensor:
        return functions.Exp.apply(self)

    def log(self) -> Tensor:
        return functions.Log.apply(self)

    def sqrt(self) -> Tensor:
        return functions.Sqrt.apply(self)

    def abs(self) -> Tensor:
        return functions.Abs.apply(self)

    def pow(self, exponent: Any) -> Tensor:
        return functions.Power.apply(self, exponent)

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        """Limits every element to [min, max]; the gradient passes where the element was inside, bounds
        included.
        """
        return functions.Clip.apply(self, min, max)

    clamp = clip

    def matmul(self, other: Any) -> Tensor:
        return functions.MatMul.apply(self, other)

    def astype(self, dtype: Any) -> Tensor:
        return functions.Cast.apply(self, np.dtype(dtype))

    # ---- reductions

    def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return functions.Sum.apply(self, dim, keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return functions.Mean.apply(self, dim, keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The largest element or, given a dimension, the largest along it with their positions: (values,
        indices).
        """
        return self._extreme(1, dim, keepdim)

    def min(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The smallest element or, given a dimension, the smallest along it with their positions: (values,
        indices).
        """
        return self._extreme(-1, dim, keepdim)

    def _extreme(self, sign: int, dim: int | None, keepdim: bool) -> Any:
        if dim is None:
            return functions.Extreme.apply(self, sign)
        indices = self.data.argmax(axis=dim) if sign > 0 else self.data.argmin(axis=dim)
        kept = list(self.shape)
        kept[dim] = 1
        values = functions.TakeAlong.apply(self, indices.reshape(kept), dim % self.ndim)
        if keepdim:
            return Extremes(values, indices.reshape(kept))
        return Extremes(values.reshape(indices.shape), indices)

    def argmax(self, dim: int | None = None) -> Array:
        return self.data.argmax(axis=dim)

    def argmin(self, dim: int | None = None) -> Array:
        return self.data.argmin(axis=dim)

    # ---- shapes

    def reshape(self, *shape: Any) -> Tensor:
        return shapes.Reshape.apply(self, _dimensions(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Joins the dimensions from start_dim to end_dim, both included, into one."""
        shape = self.data.shape
        ndim = len(shape) or 1
        if not (-ndim <= start_dim < ndim and -ndim <= end_dim < ndim) or start_dim % ndim > end_dim % ndim:
            raise ValueError(f"[flatten] cannot join dimensions {start_dim} to {end_dim} of shape {shape}")
        start, stop = start_dim % ndim, end_dim % ndim + 1
        count = 1
        for n in shape[start:stop]:
            count *= n
        return shapes.Reshape.apply(self, (*shape[:start], count, *shape[stop:]))

    def squeeze(self, dim: int | None = None) -> Tensor:
        """Drops dimension `dim` if its size is 1 or, without an argument, every dimension of size 1."""
        if dim is None:
            return shapes.Reshape.apply(self, tuple([n for n in self.shape if n != 1]))
        shape = list(self.shape)
        if shape[dim] == 1:
            del shape[dim]
        return shapes.Reshape.apply(self, tuple(shape))

    def unsqueeze(self, dim: int) -> Tensor:
        """Adds a dimension of size 1 at place `dim`, in [-ndim - 1, ndim]."""
        if not -self.ndim - 1 <= dim <= self.ndim:
            raise ValueError(f"[unsqueeze] got dim {dim} for a tensor of {self.ndim} dimensions")
        place = dim + self.ndim + 1 if dim < 0 else dim
        return shapes.Reshape.apply(self, (*self.shape[:place], 1, *self.shape[place:]))

    def expand(self, *shape: Any) -> Tensor:
        return shapes.Expand.apply(self, _dimensions(shape))

    def permute(self, *dims: Any) -> Tensor:
        return shapes.Permute.apply(self, _dimensions(dims))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Exchanges two dimensions."""
        axes = list(range(self.ndim))
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
        return shapes.Permute.apply(self, tuple(axes))

    @property
    def T(self) -> Tensor:
        return shapes.Permute.apply(self, tuple(range(self.ndim))[::-1])

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """The slices along `dim`, as a tuple."""
        if self.ndim == 0:
            raise TypeError("[unbind] a tensor without dimensions has no slices")
        return shapes.Unbind.apply(self, dim)


Function.result_type = Tensor


def _dimensions(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """Both spellings, f(2, 3) and f((2, 3))."""
    if len(arguments) == 1 and isinstance(arguments[0], Sequence):
        return tuple(arguments[0])
    return arguments


def _plain(value: Any) -> Any:
    return value.data if isinstance(value, Variable) else value


def _as_array(value: Any) -> Array:
    """Any array as a NumPy or CuPy array without a copy where possible; Python floats become float32."""
    if isinstance(value, Variable):
        return value.data
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "dtype") and not isinstance(value, np.generic):
        array = adopt(value, "tensor")[0]
    else:
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.generic):
            array = array.astype(np.float32)
    if array.dtype.kind not in "fiub" and not is_float(array.dtype):
        raise TypeError(f"[tensor] expected numbers, got {type(value).__name__} of type {array.dtype}")
    return array


def tensor(x: Any, requires_grad: bool = False, dtype: Any = None) -> Tensor:
    """Wraps an array for the tape; an array is shared, not copied, unless `dtype` changes it.

    x: a NumPy or CuPy array, anything with __dlpack__, a number or nested lists of them (floats become
    float32). Raises TypeError for anything else, and when a gradient is asked of integers.
    """
    array = _as_array(x)
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    return Tensor(array, requires_grad)


def as_tensor(x: Any) -> Tensor:
    """The tensor itself, or anything else wrapped by `tensor`."""
    return x if isinstance(x, Tensor) else tensor(x)


def concatenate(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Joins tensors along an existing dimension; their other dimensions must agree."""
    if not tensors:
        raise ValueError("[concatenate] expected at least one tensor")
    return shapes.Concatenate.apply(dim, *tensors)


def stack(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Joins tensors of one shape along a new dimension."""
    if not tensors:
        raise ValueError("[stack] expected at least one tensor")
    return shapes.Stack.apply(dim, *tensors)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Elements of `a` where `condition` holds and of `b` elsewhere; the three are broadcast."""
    return functions.Where.apply(_as_array(condition), a, b)
