"""A stand-in for CuPy on the emulator: a device whose streams can be captured, and its graphs replayed.

Arrays keep their memory to themselves: what NumPy would take from them, or give to them, in passing is an
error here, as with CuPy. An operation runs at once; while the stream is captured it is recorded instead, and
what it would have made is NaN or nonsense until a graph is launched. Kernels are the emulator's, whose own
capture of a stream keeps their launches with the values of the arguments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastarch import backends

_VIEWS = ("reshape", "transpose", "squeeze", "swapaxes", "ravel")
_COPIES = ("astype", "sum", "mean", "max", "min", "dot", "argmax", "repeat", "take", "clip", "cumsum")
_SEEN = ("shape", "dtype", "ndim", "size", "itemsize", "nbytes", "strides", "flags")


class _Place(contextlib.nullcontext):
    """The device with number 0, which is always the current one."""

    id = 0


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of the stand-in's device."""

    _device_of: Any = None  # the Device whose arrays these are

    def __init__(self, memory: np.ndarray, base: ndarray | None = None) -> None:
        self._memory, self.base = memory, base
        self.device = _Place()
        self.pool = self._device_of.pools[-1]

    def __getattr__(self, name: str) -> Any:
        if name in _SEEN:
            return getattr(self._memory, name)
        if name in _VIEWS:
            return lambda *args, **kwargs: self._view(getattr(self._memory, name)(*args, **kwargs))
        if name in _COPIES:
            return lambda *args, **kwargs: self._device_of.compute(
                lambda memory, *rest, **more: getattr(memory, name)(*rest, **more), (self, *args), kwargs
            )
        raise AttributeError(f"the stand-in for CuPy has no ndarray.{name}")

    def _view(self, memory: np.ndarray) -> ndarray:
        assert np.shares_memory(memory, self._memory) or not memory.size, "a copy, expected a view"
        return type(self)(memory, self if self.base is None else self.base)

    @property
    def T(self) -> ndarray:
        return self._view(self._memory.T)

    def view(self, dtype: Any) -> ndarray:
        return self._view(self._memory.view(dtype))

    def copy(self, order: str = "C") -> ndarray:
        self._device_of.log.append("copy")
        return self._device_of.compute(np.array, (self,), {"order": order})

    def fill(self, value: Any) -> None:
        self[...] = value

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, index: Any) -> ndarray:
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, (ndarray, list, np.ndarray)) for part in parts):
            return self._device_of.compute(lambda memory, *at: memory[at], (self, *parts), {})
        if not any(part is ... for part in parts):
            index = (*parts, ...)  # of no dimensions at the least, as CuPy's
        return self._view(self._memory[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        parts = index if isinstance(index, tuple) else (index,)

        def work(memory: np.ndarray, new: Any, *at: Any) -> None:
            memory[at] = new

        self._device_of.run(work, (self, value, *parts))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        function = getattr(ufunc, method)
        if method == "at":
            return self._device_of.run(function, inputs)
        if out is None:
            return self._device_of.compute(function, inputs, kwargs)
        (target,) = out
        self._device_of.run(lambda to, *given: function(*given, out=to, **kwargs), (target, *inputs))
        return target

    def __array_function__(self, function: Any, types: Any, args: tuple, kwargs: dict) -> Any:
        return self._device_of.call(function, args, kwargs)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("implicit conversion to a NumPy array, which CuPy does not do")

    def get(self) -> np.ndarray:
        self._device_of.wait()
        return self._memory.copy()

    def set(self, host: np.ndarray) -> None:
        self._device_of.run(lambda memory, values: np.copyto(memory, values), (self,), host.copy())

    def item(self) -> Any:
        return self.get().item()

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())


class Device(ModuleType):
    """The module: NumPy's functions on the arrays above, streams, pools and graphs."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.log: list[str] = []
        self.recording: list[Callable[[], None]] | None = None
        self.pools: list[Any] = [None]
        self._streams = 0
        self.stream = self.default = self.new_stream(non_blocking=False)
        runtime = SimpleNamespace(CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}))
        self.cuda = SimpleNamespace(
            Stream=self.new_stream,
            MemoryPool=lambda: SimpleNamespace(malloc=object()),
            using_allocator=self.using_allocator,
            get_current_stream=lambda: self.stream,
            runtime=runtime,
        )
        self.ndarray = type("ndarray", (ndarray,), {"_device_of": self})
        self.kernels = Kernels(self)

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function
        return lambda *args, **kwargs: self.call(function, args, kwargs)

    def asarray(self, host: Any, dtype: Any = None, order: str = "C") -> Any:
        if isinstance(host, ndarray):
            return host
        self.wait()  # a graph would hold the host's memory, not what lies in it
        return self.ndarray(np.array(host, dtype, order=order))

    array = asarray

    def empty(self, shape: Any, dtype: Any = np.float64) -> Any:
        made = np.empty(shape, dtype)
        made.view(np.uint8 if made.ndim else made.dtype)[...] = 0xFF if made.ndim else 0  # NaN, or nonsense
        return self.ndarray(made)

    def call(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A function of NumPy: of views what it gives, of new arrays what it computes."""
        if function in (np.empty_like,):
            return self.empty(args[0].shape, args[0].dtype)
        if function in (np.broadcast_to, np.moveaxis):
            return args[0]._view(function(_inside(args[0]), *args[1:], **kwargs))
        if function in (np.broadcast_shapes, np.result_type):
            return function(*args, **kwargs)
        return self.compute(function, args, kwargs)

    def compute(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A new array of what `function` gives."""
        _strict(args)
        _strict(tuple(kwargs.values()))
        made = np.array(function(*_inside(args), **_inside(kwargs)))
        result = self.ndarray(made)
        if self.recording is not None:
            if made.dtype.kind == "f":
                made[...] = np.nan
            self.run(lambda to, *given: np.copyto(to, function(*given, **_inside(kwargs))), (result, *args))
        return result

    def run(self, work: Callable[..., None], args: tuple = (), *host: Any) -> None:
        """A launch on the current stream."""
        _strict(args)
        if self.recording is None:
            work(*_inside(args), *host)
        else:
            assert self.stream is not self.default, "work on a stream that is not captured"
            self.recording.append(lambda: work(*_inside(args), *host))

    def wait(self) -> None:
        if self.recording is not None:
            raise self.cuda.runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported")

    @contextlib.contextmanager
    def using_allocator(self, malloc: Any) -> Iterator[None]:
        self.pools.append(malloc)
        yield
        self.pools.pop()

    def new_stream(self, non_blocking: bool) -> Any:
        device = self
        device._streams += 1

        class Stream:
            ptr = device._streams

            def __enter__(self) -> None:
                self.outer, device.stream = device.stream, self

            def __exit__(self, *_: object) -> None:
                device.stream = self.outer

            def record(self) -> str:
                return "event"

            def wait_event(self, event: Any) -> None:
                device.log.append("wait")

            def begin_capture(self) -> None:
                device.log.append("begin")
                device.recording = []

            def end_capture(self) -> Any:
                device.log.append("end")
                work, device.recording = device.recording, None

                def launch(stream: Any) -> None:
                    assert stream is device.default
                    device.log.append("launch")
                    for call in work or ():
                        call()

                return SimpleNamespace(launch=launch)

        return Stream()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As the CuPy of this process, with the emulator as its compiled kernels where there is one."""
        import sys

        monkeypatch.setitem(sys.modules, "cupy", self)
        monkeypatch.setattr(backends, "_implementations", {})
        monkeypatch.setattr(backends, "_reasons", {**backends._reasons})
        if backends.reason_unusable("emulator") is None:
            backends._reasons.pop("cuda", None)
            monkeypatch.setitem(backends._loaded, "cuda", self.kernels)
        else:
            backends._reasons["cuda"] = "there is no emulator"


class Kernels(ModuleType):
    """The emulator's kernels on the device's arrays; each call on a captured stream is a graph of its own."""

    def __init__(self, device: Device) -> None:
        super().__init__("fastarch._cuda")
        self._device = device
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        from fastarch import _emulator

        kernel = getattr(_emulator, name)
        if not callable(kernel):
            return kernel
        device = self._device

        def call(*args: Any, stream: int, **kwargs: Any) -> None:
            self.called.append(name)
            assert stream == device.stream.ptr
            if name != "store_words":  # which takes words of the host
                _strict(args)

            if device.recording is None:
                kernel(*_inside(args), **_inside(kwargs), stream=stream)
                return
            assert device.stream is not device.default
            _emulator.begin_capture(stream)
            try:
                kernel(*_inside(args), **_inside(kwargs), stream=stream)
            finally:
                graph = _emulator.end_capture(stream)
            kept = (args, kwargs)  # the memory that the graph works on
            device.recording.append(lambda: (_emulator.launch_graph(graph), kept))

        return call


def _inside(value: Any) -> Any:
    """The memory of the arrays in `value`."""
    if isinstance(value, ndarray):
        return value._memory
    if isinstance(value, (tuple, list)):
        return type(value)(map(_inside, value))
    if isinstance(value, dict):
        return {name: _inside(item) for name, item in value.items()}
    return value


def _strict(args: Any) -> None:
    """Nothing of the host's memory among the operands but numbers."""
    for value in args:
        if isinstance(value, (tuple, list)):
            _strict(value)
        assert not isinstance(value, np.ndarray) or value.ndim == 0, "an array of the host on the device"
