"""The tape: functions that know their own gradient, and the backward pass over what they recorded.

Only `Function` knows about gradients. Applying one runs its `forward` on plain arrays and, when an input asks
for a gradient, keeps the function's context as a node whose edges lead to where the inputs came from.
`run_backward` walks these nodes from the result to the leaves, every node after all its consumers.

`Variable` is the part of a tensor that the tape needs; the arithmetic lives in `fastarch.tensors`, above this
module.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastarch.arrays import is_float

if TYPE_CHECKING:
    pass

Array = Any  # numpy.ndarray or cupy.ndarray

_new = object.__new__
_as_array = np.asarray
_Scalar = np.generic


class _Mode(threading.local):
    recording = True

    def __init__(self) -> None:  # once in each thread
        self.outer: list[bool] = []  # `recording` around the open no_grad blocks


_mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether functions applied now, in this thread, are recorded for a backward pass."""
    return _mode.recording


class no_grad:
    """Stops recording, as a context manager or as a decorator; in the current thread only."""

    def __new__(cls, function: Callable | None = None) -> Any:
        scope = object.__new__(cls)
        return scope if function is None else scope(function)

    def __enter__(self) -> no_grad:
        _mode.outer.append(_mode.recording)
        _mode.recording = False
        return self

    def __exit__(self, *_: object) -> None:
        _mode.recording = _mode.outer.pop()

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def without_recording(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return function(*args, **kwargs)

        return without_recording


class Variable:
    """What the tape knows of a tensor.

    data: the array. grad: a plain array of the same shape and type, or None. requires_grad: whether a
    backward pass leads here. A leaf is a variable that no function produced; only leaves collect a `grad`.
    """

    __slots__ = ("__weakref__", "_edge", "_version", "data", "grad", "requires_grad")

    data: Array
    grad: Array | None
    requires_grad: bool
    _edge: tuple[Function, int] | None  # the node that produced this variable, and which of its outputs it is
    _version: int

    @property
    def is_leaf(self) -> bool:
        """True when no recorded function produced this variable."""
        return self._edge is None

    def mark_changed(self) -> None:
        """Says that `data` was changed in place, so that a backward pass over older results raises instead of
        lying.
        """
        self._version += 1


class Function:
    """A differentiable function: the one place where a gradient is written down. Subclass it and call
    `apply`.

    class Square(Function):
        @staticmethod
        def forward(ctx, x):              # plain arrays in, a new array (or a tuple of arrays) out
            ctx.save(x)
            return x * x

        @staticmethod
        def backward(ctx, dy):            # one gradient per output in, one per positional argument of forward
        out
            (x,) = ctx.saved
            return 2 * x * dy

    y = Square.apply(fa.tensor(x, requires_grad=True))

    `ctx` is the node on the tape: `ctx.save(*arrays)` keeps arrays until the backward pass has used them,
    other attributes can be set on it freely, and `ctx.needs` holds one bool per positional argument: where it
    is False the gradient may be None and should not be computed. Keyword arguments reach `forward` as they
    are and have no gradient. A gradient is None where an output of several was not used. Gradients are not
    differentiable themselves.
    """

    # Class-level defaults: a freed node falls back to them, which is how a second backward pass is
    # recognised.
    edges: Sequence[tuple[Any, int] | None] | None = None
    needs: tuple[bool, ...] = ()
    saved: tuple[Any, ...] = ()
    outputs: Sequence[tuple[tuple[int, ...], Any]] = ()  # shape and type of each output

    result_type: ClassVar[type[Variable]] = Variable  # fastarch.tensors puts Tensor here

    def save(self, *arrays: Any) -> None:
        """Keeps arrays for the backward pass; they come back, in this order, as `ctx.saved`."""
        self.saved = arrays

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"[{type(ctx).__name__}] a Function needs a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise TypeError(f"[{type(ctx).__name__}] a Function needs a static method backward(ctx, *grads)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs `forward` on the arrays of `args` (tensors, arrays, plain values) and returns a Tensor, or a
        tuple of them.

        Raises TypeError for a tensor among the keyword arguments, where its gradient would be lost.
        """
        node = cls()
        recording = _mode.recording
        recorded = False
        values: list[Any] = []
        edges: list[tuple[Any, int] | None] = []
        needs: list[bool] = []
        for value in args:
            if isinstance(value, Variable):
                values.append(value.data)
                if recording and value.requires_grad:
                    recorded = True
                    needs.append(True)
                    # The edge to a leaf carries the leaf's version, inverted so that it is below every output
                    # number.
                    edges.append(value._edge or (value, ~value._version))
                    continue
            else:
                values.append(value)
            needs.append(False)
            edges.append(None)
        if kwargs:
            _check_keywords(cls, kwargs)
        node.needs = tuple(needs)
        result = cls.forward(node, *values, **kwargs)
        if recorded:
            node.edges = edges
        if isinstance(result, tuple):
            outs = tuple([cls._wrap(array, node, i, recorded) for i, array in enumerate(result)])
            node.outputs = [(out.data.shape, out.data.dtype) for out in outs]
            return outs
        out = cls._wrap(result, node, 0, recorded)
        node.outputs = [(result.shape, result.dtype)]
        return out

    @classmethod
    def _wrap(cls, array: Array, node: Function, index: int, recorded: bool) -> Variable:
        """Output number `index` of `node` as a tensor."""
        try:
            differentiable = recorded and (array.dtype.kind == "f" or is_float(array.dtype))
        except AttributeError:
            raise TypeError(
                f"[{cls.__name__}] forward returned {type(array).__name__}, expected arrays"
            ) from None
        out = _new(cls.result_type)
        # Reductions and 0-d arithmetic of NumPy give scalars; a tensor always holds an array.
        out.data = _as_array(array) if isinstance(array, _Scalar) else array
        out.grad = None
        out._version = 0
        if differentiable:
            out.requires_grad = True
            out._edge = (node, index)
        else:
            out.requires_grad = False
            out._edge = None
        return out


def _check_keywords(function: type[Function], keywords: dict[str, Any]) -> None:
    for name, value in keywords.items():
        if isinstance(value, Variable):
            raise TypeError(
                f"[{function.__name__}] pass the tensor {name!r} by position; keywords have no gradient"
            )


def run_backward(root: Variable, grad: Array, retain_graph: bool = False) -> None:
    """Adds the gradient of every leaf below `root` to its `grad`, for the gradient `grad` of `root` itself.

    Nothing is added to any leaf when a function fails on the way. The graph is freed as it is walked, which
    keeps the peak of memory low, unless `retain_graph`. Raises RuntimeError for a graph that was already
    freed, for a leaf that was changed in place since it was used, and for a gradient of the wrong shape.
    """
    totals: dict[Variable, Array] = {}
    if root._edge is None:
        _add_to_leaf(totals, root, grad, shared=True)
    else:
        _walk(*root._edge, grad, totals, retain_graph)
    for leaf, total in totals.items():
        if leaf.grad is None:
            leaf.grad = total
        else:
            leaf.grad += total


def _walk(
    first: Function, index: int, grad: Array, totals: dict[Variable, Array], retain_graph: bool
) -> None:
    waiting = _count_consumers(first)
    incoming: dict[Function, list[Any]] = {first: [None] * len(first.outputs)}
    incoming[first][index] = grad
    summed: set[tuple[Function, int]] = (
        set()
    )  # sums that this walk allocated, and may therefore add to in place
    ready = [first]
    while ready:
        node = ready.pop()
        edges = node.edges or ()
        grads_out = incoming.pop(node, None)
        if grads_out is None:  # no gradient arrived from any consumer, so there is none to pass on
            grads_in: tuple[Any, ...] = (None,) * len(edges)
        else:
            grads_in = _differentiate(node, grads_out)
        for edge, g in zip(edges, grads_in):
            if edge is None:
                continue
            source, index = edge
            if g is not None:
                g = _conform(node, source, index, g)
            if index < 0:
                if g is not None:
                    _add_to_leaf(totals, source, g, shared=_may_be_shared(g, node, grads_out, grads_in))
                continue
            if g is not None:
                sums = incoming.get(source)
                if sums is None:
                    sums = incoming[source] = [None] * len(source.outputs)
                if sums[index] is None:
                    sums[index] = g
                elif edge in summed:
                    sums[index] += g
                else:
                    sums[index] = sums[index] + g
                    summed.add(edge)
            waiting[source] -= 1
            if not waiting[source]:
                ready.append(source)
        if not retain_graph:
            node.__dict__.clear()


def _count_consumers(first: Function) -> dict[Function, int]:
    """How many recorded uses of each node's outputs lie between it and `first`; checks the whole graph on the
    way.
    """
    counts = {first: 0}
    stack = [first]
    while stack:
        node = stack.pop()
        if node.edges is None:
            raise RuntimeError(
                f"[backward] the graph below {type(node).__name__} was freed by an earlier backward(); "
                "pass retain_graph=True to that call to walk it twice"
            )
        for edge in node.edges:
            if edge is None:
                continue
            source, index = edge
            if index < 0:
                if source._version != ~index:
                    raise RuntimeError(
                        f"[backward] a leaf of shape {source.data.shape} was changed in place after "
                        f"{type(node).__name__} used it; run the forward pass again after changing it"
                    )
            elif source in counts:
                counts[source] += 1
            else:
                counts[source] = 1
                stack.append(source)
    return counts


def _differentiate(node: Function, grads_out: list[Any]) -> tuple[Any, ...]:
    grads_in = type(node).backward(node, *grads_out)
    if not isinstance(grads_in, tuple):
        grads_in = (grads_in,)
    if len(grads_in) != len(node.needs):
        raise RuntimeError(
            f"[{type(node).__name__}.backward] returned {len(grads_in)} gradients, "
            f"forward took {len(node.needs)} positional arguments"
        )
    return grads_in


def _conform(node: Function, source: Any, index: int, g: Array) -> Array:
    """The gradient as an array of its input's type; raises RuntimeError when its shape is not the input's."""
    shape, dtype = (source.data.shape, source.data.dtype) if index < 0 else source.outputs[index]
    if g.shape != shape:
        raise RuntimeError(
            f"[{type(node).__name__}.backward] gave shape {g.shape} as gradient of an input of shape {shape}"
        )
    if g.dtype != dtype:
        g = g.astype(dtype)
    return _as_array(g) if isinstance(g, _Scalar) else g


def _may_be_shared(g: Array, node: Function, grads_out: list[Any] | None, grads_in: tuple[Any, ...]) -> bool:
    """Whether anything but this edge can hold the memory of `g`: a view, a gradient passed through, a saved
    array.
    """
    if g.base is not None:
        return True
    same = 0
    for other in grads_in:
        same += other is g
    for group in (grads_out or (), node.saved):
        for other in group:
            same += 2 * (other is g)
    return same > 1


def _add_to_leaf(totals: dict[Variable, Array], leaf: Variable, g: Array, shared: bool) -> None:
    """Adds to a leaf's sum, which is contiguous and belongs to that leaf alone, so that it may be changed in
    place.
    """
    if leaf in totals:
        totals[leaf] += g
    elif shared or not g.flags.c_contiguous:
        totals[leaf] = g.copy()
    else:
        totals[leaf] = g
