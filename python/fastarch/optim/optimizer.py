"""What the optimizers share: parameter groups, state, and updates in place over blocks that stay in cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from fastarch.arrays import namespace, on_device, stream_pointer
from fastarch.autograd import Array
from fastarch.backends import implementation
from fastarch.capturing import Numbers, feed, note, refuse
from fastarch.tensors import Tensor

# Elements of a parameter updated at a time on the host: its block, the gradient's, the state's and the
# scratch arrays (float32: 128 KiB each) stay in the second-level cache through the dozen passes that an
# update is. Adam on 8 million float32 parameters, one core: 49 ms in such blocks, 80 ms in one piece.
BLOCK = 1 << 15


class Optimizer:
    """The base class: a subclass names its hyper-parameters in `defaults` and writes `_update`.

    params: an iterable of parameters, or of dicts {"params": [...], "lr": ...} whose other entries take the
    place of the defaults. `param_groups` is the list of these dicts, complete, as in PyTorch; changing an
    entry takes effect at the next step. Raises ValueError for no parameters, a parameter given twice, an
    unknown or impossible hyper-parameter or a tensor computed from others, and TypeError for anything that is
    not a tensor.
    """

    _loads = 0  # how often the state was replaced by another one's

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._scratch: dict[tuple[Any, int], Array] = {}
        if isinstance(params, (Tensor, Mapping)):
            raise TypeError(
                f"[{self._name}] params must be a list of parameters or groups, got a {type(params).__name__}"
            )
        groups = list(params)
        if not groups:
            raise ValueError(f"[{self._name}] got no parameters")
        if not isinstance(groups[0], Mapping):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds a group {"params": ..., hyper-parameters}; what it leaves out comes from the defaults."""
        if not isinstance(group, Mapping) or "params" not in group:
            raise TypeError(f"[{self._name}] a group must be a dict with 'params', got {group!r}")
        unknown = set(group) - set(self.defaults) - {"params", "name", "initial_lr"}
        if unknown:
            known = ", ".join(self.defaults)
            raise ValueError(
                f"[{self._name}] unknown {', '.join(sorted(map(str, unknown)))} in a group; known: {known}"
            )
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"[{self._name}] expected parameters, got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(
                    f"[{self._name}] a parameter of shape {p.shape} was computed from others, "
                    "only leaves are learned"
                )
            if id(p) in seen:
                raise ValueError(f"[{self._name}] a parameter of shape {p.shape} was given twice")
            seen.add(id(p))
        complete = {**self.defaults, **group, "params": params}
        self._check(complete)
        self.param_groups.append(complete)

    def _check(self, group: dict[str, Any]) -> None:
        """Raises ValueError for impossible hyper-parameters."""
        for name in ("lr", "eps", "weight_decay", "momentum"):
            if name in group and not group[name] >= 0:
                raise ValueError(f"[{self._name}] {name} must be at least 0, got {group[name]}")

    def zero_grad(self) -> None:
        """Forgets the gradients: each `grad` becomes None."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Updates every parameter that has a gradient, in place; the others, and their state, stay as they
        are.
        """
        note(lambda: (self._loads, self._settings()))
        for group in self.param_groups:
            together: dict[Any, list[tuple[Tensor, dict[str, Any]]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self._state_of(p, group)
                module = self._compiled(p)
                if module is None:
                    self._update(p, group, state)
                else:
                    key = self._together(p, group, state)
                    together.setdefault((module, place(p.data), p.data.dtype, key), []).append((p, state))
                p.mark_changed()
            for (module, _, _, key), batch in together.items():
                with _on_device_of(batch[0][0].data):
                    self._update_together(module, batch, group, key)

    _kernel: ClassVar[str | None] = None  # the compiled update of many parameters at once, if there is one

    def _compiled(self, p: Tensor) -> ModuleType | None:
        """The module whose kernel updates this parameter together with others, or None if there is none."""
        data, grad = p.data, p.grad
        if self._kernel is None or grad is None:
            return None
        if not (data.dtype.char in "fd" and data.dtype.isnative and grad.dtype == data.dtype):
            return None
        if type(grad) is not type(data) or not (data.flags.c_contiguous and grad.flags.c_contiguous):
            return None
        return implementation(self._kernel, on_device(data))

    def _together(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """What parameters updated in one call must have in common, beside type, place and group."""
        return None

    def _update_together(
        self, module: ModuleType, batch: list[tuple[Tensor, dict[str, Any]]], group: dict[str, Any], key: Any
    ) -> None:
        """Updates these parameters by the kernel `_kernel` of `module`; `key` is what `_together` gave."""
        raise TypeError(f"[{self._name}] an optimizer with a kernel needs a method _update_together")

    def _fed(self, p: Tensor, count: int, numbers: Numbers, undo: Callable[[], None]) -> Sequence[Any]:
        """What `numbers` returns, for an update by array operations; while a step is captured, arrays of no
        dimensions and of p's type, which get it before each replay. undo: as of `feed`.
        """
        words = feed(count, numbers, p.data.dtype, undo)
        return numbers() if words is None else [words[index, ...] for index in range(count)]

    def _settings(self) -> list[dict[str, Any]]:
        """The hyper-parameters of every group, but for the learning rate: every replay is given it anew.
        Copies, so that a change in place is one.
        """
        return [
            {name: _copied(value) for name, value in group.items() if name not in ("params", "lr")}
            for group in self.param_groups
        ]

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """What is remembered of each parameter: "step", which is a count, and arrays of the parameter's
        shape.
        """
        return ()

    def _new_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter before its first update."""
        return {name: 0 if name == "step" else np.zeros_like(p.data) for name in self._state_names(group)}

    def _state_of(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        """The state of a parameter that is about to be updated, made at its first update."""
        state = self.state.get(p, {})
        if any(name not in state for name in self._state_names(group)):  # an option may be on since then
            self._refuse_first()
            new = self._new_state(p, group)
            state = self.state.setdefault(p, state)  # the same dict: a captured step counts in it
            for name, value in new.items():
                state.setdefault(name, value)
        return state

    def _refuse_first(self) -> None:
        refuse(
            f"{self._name} sees the first gradient of a parameter, or its first with these options (run one "
            "step outside the graph before)"
        )

    def _update(self, p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        raise TypeError(f"[{self._name}] an optimizer needs a method _update")

    def _blocks(self, p: Tensor, scratch: int, *state: Array | None) -> Iterator[tuple[Array, ...]]:
        """Flat views of (parameter, gradient, state arrays, scratch arrays), block by block; one block on a
        device.
        """
        data = p.data
        if not data.flags.c_contiguous:  # its flat view would be a copy, and the update lost
            raise ValueError(
                f"[{self._name}] a parameter of shape {data.shape} is not contiguous, so it cannot be "
                "updated in place; make it an nn.Parameter, which copies such an array"
            )
        arrays = [array if array is None else array.reshape(-1) for array in (data, p.grad, *state)]
        n = data.size
        step = min(n, BLOCK) if isinstance(data, np.ndarray) else n
        buffers = [self._buffer(data, step, index) for index in range(scratch)]
        if n <= step:
            yield *arrays, *[buffer[:n] for buffer in buffers]
            return
        for start in range(0, n, step):
            part = slice(start, start + step)
            length = min(step, n - start)
            yield (
                *[array if array is None else array[part] for array in arrays],
                *[b[:length] for b in buffers],
            )

    def _buffer(self, like: Array, size: int, index: int) -> Array:
        """Scratch memory that all parameters of a type share; a block on the host, the largest parameter on a
        device.
        """
        key = (
            (like.dtype.char, index)
            if isinstance(like, np.ndarray)
            else (f"device {like.device.id} {like.dtype.char}", index)
        )
        buffer = self._scratch.get(key)
        if buffer is None or buffer.size < size:
            buffer = self._scratch[key] = namespace(like).empty(size, like.dtype)
        return buffer

    # ---- saving

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: {...}}, "param_groups": [...]} as in PyTorch: parameters are numbered in the
        order of the groups.

        Arrays are copies on the host; everything else is plain numbers, strings and lists.
        """
        numbers = {id(p): i for i, p in enumerate(self._parameters())}
        groups = [
            {**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups
        ]
        return {
            "state": {
                numbers[id(p)]: {name: _to_host(value) for name, value in state.items()}
                for p, state in self._complete_states()
            },
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave, for an optimizer of the same groups; on an error nothing
        changes.

        Raises ValueError when groups, hyper-parameters, state names or shapes do not match.
        """
        groups, states = state_dict["param_groups"], state_dict["state"]
        came = [len(group["params"]) for group in groups]
        own = [len(group["params"]) for group in self.param_groups]
        if came != own:
            raise ValueError(
                f"[{self._name}] the state is for groups of {came} parameters, this optimizer has {own}"
            )
        loaded_groups = []
        for group, mine in zip(groups, self.param_groups):
            missing = set(self.defaults) - set(group)
            unknown = set(group) - set(self.defaults) - {"params", "name", "initial_lr"}
            if missing or unknown:
                names = ", ".join(sorted(missing | unknown))
                raise ValueError(
                    f"[{self._name}] the state is another optimizer's: {names} missing or unknown"
                )
            # JSON has no tuples; betas must come back as one
            values = {
                name: tuple(value) if isinstance(value, list) else value for name, value in group.items()
            }
            complete = {**values, "params": mine["params"]}
            self._check(complete)
            loaded_groups.append(complete)
        by_number = dict(enumerate(self._parameters()))
        group_of = {id(p): group for group in loaded_groups for p in group["params"]}
        loaded = {}
        for key, state in states.items():
            number = int(key)
            if number not in by_number:
                raise ValueError(
                    f"[{self._name}] the state has parameter {number}, this optimizer has {len(by_number)}"
                )
            p = by_number[number]
            loaded[p] = self._loaded_state(number, p, group_of[id(p)], state)
        self.state = loaded
        self._loads += 1
        for mine, complete in zip(self.param_groups, loaded_groups):
            mine.clear()
            mine.update(complete)

    def _complete_states(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        """The states by the options of now, which may have changed since the last step."""
        for group in self.param_groups:
            names = self._state_names(group)
            for p in group["params"]:
                if names and p in self.state:
                    state = {**self._new_state(p, group), **self.state[p]}
                    yield p, {name: state[name] for name in names}

    def _loaded_state(
        self, number: int, p: Tensor, group: dict[str, Any], state: Mapping[str, Any]
    ) -> dict[str, Any]:
        expected = self._state_names(group)
        if set(state) != set(expected):
            names = ", ".join(sorted(set(state) ^ set(expected)))
            raise ValueError(
                f"[{self._name}] the state of parameter {number} lacks or should not have {names}"
            )
        result: dict[str, Any] = {}
        for name in expected:
            value = state[name]
            if name == "step":
                result[name] = int(value)
            elif value is None:
                result[name] = None
            else:
                result[name] = array = namespace(p.data).array(value, p.dtype, order="C")
                if array.shape != p.shape:
                    raise ValueError(
                        f"[{self._name}] {name} of parameter {number} has shape {array.shape}, "
                        f"the parameter {p.shape}"
                    )
        return result

    def _parameters(self) -> Iterator[Tensor]:
        for group in self.param_groups:
            yield from group["params"]

    def __repr__(self) -> str:
        lines = [f"{self._name} ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([*lines, ")"])


def stream_of(data: Array) -> dict[str, int]:
    """The keyword by which a kernel learns on which stream to run; none on the host."""
    return {"stream": stream_pointer()} if on_device(data) else {}


def place(data: Array) -> int:
    """The number of an array's device; -1 is the host."""
    return data.device.id if on_device(data) else -1


def nothing() -> None:
    """Takes back what numbers counted that count nothing."""


def _copied(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return tuple(value) if isinstance(value, list) else value


def _on_device_of(data: Array) -> Any:
    return data.device if on_device(data) else nullcontext()


def _to_host(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.get() if hasattr(value, "get") else value
