"""Modules: parameters with a forward pass, found by looking at a module's own attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from fastarch.arrays import bfloat16_dtype, is_float, is_half
from fastarch.autograd import Array
from fastarch.tensors import Tensor, tensor

Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A tensor that a module learns; setting one as a module's attribute makes it a parameter of that module.

    data: a floating-point array; it is copied when it cannot be changed in place (read-only or not
    contiguous).
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        array = tensor(data).data
        if not is_float(array.dtype):
            raise TypeError(f"[Parameter] expected floating-point numbers, got {array.dtype}")
        if not array.flags.c_contiguous or (isinstance(array, np.ndarray) and not array.flags.writeable):
            array = array.copy()
        super().__init__(array, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class LoadResult(NamedTuple):
    """What `load_state_dict(strict=False)` did not use or did not find."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """The base class of layers and models: set parameters and modules as attributes, write `forward`, call
    the module.

    The keys of `state_dict` are attribute paths ("conv1.weight"), in the order in which the attributes were
    set.
    """

    training: bool = True
    _buffers: Mapping[str, bool] = {}  # name -> whether it is part of the state dict
    _keeps_float32 = False  # whether its own parameters and buffers stay float32 beside 16-bit ones

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"[{type(self).__name__}] a module needs a method forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # ---- what it is made of

    def register_buffer(self, name: str, array: Array, persistent: bool = True) -> None:
        """Keeps a plain array that is not learned (running statistics) as attribute `name`, and in the state
        dict.
        """
        if name in vars(self):
            raise ValueError(f"[{type(self).__name__}] attribute {name!r} exists already")
        self._buffers = {**self._buffers, name: persistent}
        setattr(self, name, array)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def children(self) -> Iterator[Module]:
        for _, module in self.named_children():
            yield module

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under the name `prefix`) and all below it, each once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, module in self.named_children():
            yield from module._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their state-dict keys; one that is shared comes once, under its first name."""
        seen: set[int] = set()
        for name, value in self._state():
            if isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        for path, module in self.named_modules():
            for name in module._buffers:
                yield f"{path}.{name}" if path else name, getattr(module, name)

    def buffers(self) -> Iterator[Array]:
        for _, array in self.named_buffers():
            yield array

    def _state(self) -> Iterator[tuple[str, Parameter | Array]]:
        """Parameters, then persistent buffers, of every module in turn; shared ones under each of their
        names.
        """
        for path, module in self._walk("", None):
            prefix = f"{path}." if path else ""
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield prefix + name, value
            for name, persistent in module._buffers.items():
                if persistent:
                    yield prefix + name, getattr(module, name)

    # ---- its state

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter and persistent buffer, on the host, under PyTorch's keys."""
        return {
            name: _host_copy(value.data if isinstance(value, Parameter) else value)
            for name, value in self._state()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copies weights into this module: all of them, or on an error none.

        state_dict: keys as in `state_dict()`, any kind of array. Raises ValueError for a wrong shape and,
        when `strict`, for missing or unexpected keys; TypeError for values that are not numbers.
        """
        own = dict(self._state())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        faults = []
        if strict and missing:
            faults.append(f"missing keys: {', '.join(missing)}")
        if strict and unexpected:
            faults.append(f"unexpected keys: {', '.join(unexpected)}")
        incoming: dict[str, Array] = {}
        for name, value in own.items():
            if name in state_dict:
                try:
                    array = tensor(state_dict[name]).data
                except TypeError as error:
                    raise TypeError(f"[load_state_dict] {name}: {error}") from error
                if array.shape != value.shape:
                    faults.append(f"{name} has shape {array.shape}, the model expects {value.shape}")
                incoming[name] = array
        if faults:
            raise ValueError(f"[load_state_dict] {type(self).__name__}: " + "; ".join(faults))
        for name, array in incoming.items():
            value = own[name]
            if isinstance(value, Parameter):
                _copy_into(value.data, array)
                value.mark_changed()
            else:
                _copy_into(value, array)
        return LoadResult(missing, unexpected)

    # ---- changing it

    def train(self: Self, mode: bool = True) -> Self:
        """Switches this module and all below it to training (dropout on) or, with False, to evaluation."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Says whether the parameters below are learned; False freezes them."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forgets the gradients: each `grad` becomes None."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self: Self, function: Any) -> Self:
        """Calls `function(module)` for every module below and for this one last; initialisers are applied
        this way.
        """
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self: Self, target: Any) -> Self:
        """Moves parameters, gradients and buffers: to "cpu" (NumPy), to "cuda" (CuPy), or to a floating-point
        type, float32, float64, float16 or bfloat16 (from ml_dtypes).

        Layers that take statistics, such as batch norms, keep float32 where the others get 16 bits. Raises
        RuntimeError when CuPy or a device is missing, ValueError for another name, TypeError for another
        type.
        """
        narrow = _mover(target)
        wide = _mover(np.float32) if _is_half_type(target) else narrow
        for module in self.modules():
            convert = wide if module._keeps_float32 else narrow
            for value in vars(module).values():
                if isinstance(value, Parameter):
                    value.data = convert(value.data)
                    value.mark_changed()
                    if value.grad is not None:
                        value.grad = convert(value.grad)
            for name in module._buffers:
                setattr(module, name, convert(getattr(module, name)))
        return self

    def cpu(self: Self) -> Self:
        return self.to("cpu")

    def cuda(self: Self) -> Self:
        return self.to("cuda")

    def float(self: Self) -> Self:
        return self.to(np.float32)

    def double(self: Self) -> Self:
        return self.to(np.float64)

    # ---- how it looks

    def multiply_adds(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> int:
        """Multiplications followed by an addition that one call takes, for the shapes of its input and
        output.
        """
        return 0

    def summary(self, input_shape: tuple[int, ...]) -> str:
        """A table of the layers: output shape, parameters, multiply-adds; for one input of `input_shape` (no
        batch).
        """
        from fastarch.nn.summary import summary

        return summary(self, input_shape)

    def extra_repr(self) -> str:
        """The arguments shown in the module's repr."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, module in self.named_children():
            lines.append(f"({name}): {module!r}".replace("\n", "\n  "))
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _host_copy(array: Array) -> np.ndarray:
    return array.copy() if isinstance(array, np.ndarray) else array.get()


def _copy_into(destination: Array, source: Array) -> None:
    if isinstance(destination, np.ndarray):
        destination[...] = source if isinstance(source, np.ndarray) else source.get()
    elif isinstance(source, np.ndarray):
        destination.set(np.ascontiguousarray(source, dtype=destination.dtype).reshape(destination.shape))
    else:
        destination[...] = source


def _mover(target: Any) -> Any:
    if target == "cpu":
        return lambda array: array if isinstance(array, np.ndarray) else array.get()
    if target == "cuda":
        from fastarch import backends

        reason = backends.reason_unusable("cuda")
        if reason:
            raise RuntimeError(f"[to] cannot move to 'cuda': {reason}")
        import cupy

        return cupy.asarray
    if isinstance(target, str) and target not in _TYPES:
        raise ValueError(f"[to] got {target!r}, expected 'cpu', 'cuda', {', '.join(_TYPES)}")
    dtype = _dtype_of(target)
    if str(dtype) not in _TYPES:
        raise TypeError(f"[to] got {dtype}, expected {', '.join(_TYPES)}")
    return lambda array: array.astype(dtype, copy=False) if is_float(array.dtype) else array


_TYPES = ("float32", "float64", "float16", "bfloat16")


def _dtype_of(target: Any) -> np.dtype:
    return bfloat16_dtype("to", "the type") if target == "bfloat16" else np.dtype(target)


def _is_half_type(target: Any) -> bool:
    return not (isinstance(target, str) and target in ("cpu", "cuda")) and is_half(_dtype_of(target))
