"""What is for devices alone: a whole training step as one CUDA graph."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from fastarch import algorithms, arrays, precisions
from fastarch.autograd import Variable
from fastarch.backends import implementation
from fastarch.capturing import Capture
from fastarch.tensors import Tensor

Step = Callable[..., Any]


def graph(step: Step, warmup: int = 1) -> Graph:
    """`step` with its launches captured once in a CUDA graph and replayed at each call, as one launch.

    step: a function of arrays or tensors that does the same to memory of the same place at each call: the
    forward, the backward and the optimizer's step of a batch, say; it returns tensors or arrays. warmup: the
    calls that run it as it is before it is captured (at least 1), in which optimizers and layers make what
    they keep. Every call is one step, the first ones too.

        step = fa.cuda.graph(train_on_batch)
        for x, target in batches:       # device arrays, always of the same shapes
            loss = step(x, target)      # the same tensor each time, overwritten by the next call

    Inputs are copied to where the step was captured with them. Learning rates, the numbers of steps that an
    optimizer has made and the random streams of dropout and zoneout go on as if the step ran: the host counts
    them, and a small launch before each replay puts them where the kernels read them, so that replays have
    the bits of a step that is not captured, an optimizer's state_dict() and fastarch.random's state are those
    after it, and a schedule may change the rate at each step. When another setting of an optimizer has
    changed, its state was loaded, or the precision, the algorithm of convolutions or the random seed is
    another, the step is captured anew.
    Whatever else the step depends on stays as it was at the capture: train() or eval(), which parameters are
    learned. With host arrays nothing is captured: the step runs as it is, and what a capture would refuse is
    refused.

    Raises ValueError for a warmup below 1, and when called: TypeError for inputs that are no arrays, lie in
    several places or have changed their types or requires_grad, ValueError for other shapes than before, and
    RuntimeError, after the warm-up, for a step that the host takes part in: reading a value (item(), float(),
    if loss < 1), drawing random numbers for itself, making an optimizer's state, packing sequences of several
    `lengths` for a recurrent layer, waiting for the device.
    """
    return Graph(step, warmup)


class Graph:
    """A captured step; see `graph`."""

    def __init__(self, step: Step, warmup: int = 1) -> None:
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 1:
            raise ValueError(f"[graph] warmup is {warmup!r}, expected an int of at least 1")
        self._step = step
        self._warm_calls = warmup
        self._form: list[tuple[Any, ...]] | None = None
        self._captured: _Captured | None = None

    def __call__(self, *inputs: Any) -> Any:
        """One step on `inputs`; what `step` returns, the same objects at every replay."""
        form = [_form_of(index, value) for index, value in enumerate(inputs)]
        self._check(form)
        on_device = form[0][-1] != "host"
        if self._warm_calls > 0:
            self._warm_calls -= 1
            return self._step(*inputs)
        if not on_device:
            with Capture():  # nothing is replayed: numbers stay the host's
                return self._step(*inputs)
        if self._captured is None or self._captured.capture.is_stale():
            self._captured = _Captured(self._step, inputs)
        return self._captured.replay(inputs)

    def _check(self, form: list[tuple[Any, ...]]) -> None:
        if not form:
            raise TypeError("[graph] the step was called without inputs, expected the arrays of a batch")
        places = {place for *_, place in form}
        if len(places) > 1:
            raise TypeError(
                f"[graph] the inputs lie in {', '.join(sorted(places))} memory, expected one place"
            )
        if self._form is None:
            self._form = form
        if len(form) != len(self._form):
            raise TypeError(
                f"[graph] got {len(form)} inputs, expected {len(self._form)} as in the first call"
            )
        for index, (now, before) in enumerate(zip(form, self._form)):
            if now[0] != before[0]:
                raise ValueError(
                    f"[graph] input {index} has shape {now[0]}, expected {before[0]} as in the first call: "
                    "make a graph for each shape"
                )
            if now != before:
                raise TypeError(
                    f"[graph] input {index} is {_describe(now)}, expected {_describe(before)} "
                    "as in the first call"
                )


class _Captured:
    """A CUDA graph with the memory that it works in: its inputs, its outputs and a pool of its own."""

    def __init__(self, step: Step, inputs: tuple[Any, ...]) -> None:
        cupy = sys.modules["cupy"]
        self.capture = Capture(lambda count: cupy.empty(count, np.int64))
        # What the step allocates stays its own: nobody else may be given memory that a replay writes to.
        self._pool = cupy.cuda.MemoryPool()
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._static = [_array(value).copy() for value in inputs]
        caller = cupy.cuda.get_current_stream()
        self._stream.wait_event(caller.record())
        with cupy.cuda.using_allocator(self._pool.malloc), self._stream, self.capture:
            self.capture.note(precisions.current)
            self.capture.note(algorithms.current)
            self._stream.begin_capture()
            try:
                self.outputs = step(*map(_like, inputs, self._static))
            except BaseException as error:
                self._abandon()
                if isinstance(error, RuntimeError) and str(error).startswith("[graph]"):
                    raise
                raise RuntimeError(
                    f"[graph] the step cannot be captured: {error}. It must not wait for the device or move "
                    "data to the host and back, and its first call must have made all that it keeps"
                ) from error
            self._graph = self._stream.end_capture()

    def _abandon(self) -> None:
        """Ends the capture of a stream that may have been spoilt by what went wrong: CUDA's error about that
        says less than the one on its way.
        """
        cupy = sys.modules["cupy"]
        with suppress(cupy.cuda.runtime.CUDARuntimeError):
            self._stream.end_capture()

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        cupy = sys.modules["cupy"]
        for static, value in zip(self._static, inputs):
            static[...] = _array(value)
        for memory, words in self.capture.fed():
            _send(words, memory)
        self._graph.launch(stream=cupy.cuda.get_current_stream())
        return self.outputs


def _send(words: np.ndarray, memory: Any) -> None:
    """Puts words of the host into memory of a device, in the order of the current stream, without waiting."""
    module = implementation("store_words", True)
    if module is None:  # CuPy alone
        memory.set(words)
    else:
        module.store_words(memory, words, stream=arrays.stream_pointer())


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Variable) else value


def _like(value: Any, array: Any) -> Any:
    """`array` as what the caller gave: a tensor or an array."""
    return Tensor(array, value.requires_grad) if isinstance(value, Variable) else array


def _form_of(index: int, value: Any) -> tuple[Any, ...]:
    """(shape, dtype, whether a tensor, whether that requires a gradient, place) of an input."""
    array = _array(value)
    try:
        module = arrays.namespace(array)
    except TypeError:
        name = type(value).__name__
        raise TypeError(f"[graph] input {index} is {name}, expected a tensor, NumPy or CuPy array") from None
    place = "host" if module is np else f"CUDA device {array.device.id}"
    is_tensor = isinstance(value, Variable)
    return array.shape, str(array.dtype), is_tensor, is_tensor and value.requires_grad, place


def _describe(form: tuple[Any, ...]) -> str:
    _, dtype, is_tensor, requires_grad, place = form
    kind = "a tensor" if is_tensor else "an array"
    return f"{kind} of {dtype}{' that requires a gradient' * requires_grad} in {place} memory"
