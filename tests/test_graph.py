"""Training steps as CUDA graphs: what is refused, on host arrays; what is captured and replayed, on a
stand-in for CuPy that keeps its arrays to itself and runs what it is told when a graph is launched.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from fastarch import nn

X, TARGET = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32), np.arange(5) % 4


def trainer(optimizer: Callable[..., Any], **more: Any) -> tuple[Any, Callable[..., Any], Any]:
    """A recurrent model and the step that trains it on one batch."""
    fa.manual_seed(1)
    layer, head = nn.LSTM(3, 8, **more), nn.Linear(8, 4)
    parameters = [*layer.parameters(), *head.parameters()]
    chosen = optimizer(parameters, lr=0.1)

    def step(x: Any, target: Any) -> Any:
        chosen.zero_grad()
        y, _ = layer(x)
        loss = nn.functional.cross_entropy(head(y[-1]), target)
        loss.backward()
        chosen.step()
        return loss

    return parameters, step, chosen


@pytest.mark.parametrize("optimizer", [fa.optim.SGD, fa.optim.RMSprop])
def test_on_host_arrays_it_is_the_step(optimizer: Any) -> None:
    plain, step, _ = trainer(optimizer)
    losses = [step(X, TARGET).item() for _ in range(4)]
    captured, step, _ = trainer(optimizer)
    graph = fa.cuda.graph(step)
    assert [graph(X, TARGET).item() for _ in range(4)] == losses
    assert losses[3] < losses[0]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(plain, captured, strict=True))


def reads(x: Any, _: Any) -> Any:
    loss = fa.tensor(x).sum()
    return loss if loss.item() > 0 else -loss


REFUSED: list[tuple[Any, str]] = [
    (trainer(fa.optim.Adam)[1], r"\[graph\] Adam counts its steps on the host"),
    (trainer(fa.optim.AdamW)[1], r"AdamW counts its steps"),
    (trainer(fa.optim.SGD, zoneout=0.5)[1], r"draws a random stream \(dropout, zoneout\)"),
    (trainer(fa.optim.SGD, num_layers=2, dropout=0.5)[1], "draws a random stream"),
    (reads, r"item\(\) reads a value on the host, which a replay of the step would not repeat"),
    (lambda x, _: fa.tensor(x).numpy(), "read on the host"),
    (lambda x, _: fa.tensor(x).tolist(), r"tolist\(\)"),
    (lambda x, _: 1 if fa.tensor(x).sum() else 2, "a condition reads a tensor"),
]


@pytest.mark.parametrize(("step", "match"), REFUSED, ids=[match for _, match in REFUSED])
def test_what_the_host_takes_part_in_is_refused_after_the_warm_up(step: Any, match: str) -> None:
    graph = fa.cuda.graph(step, warmup=2)
    for _ in range(2):
        graph(X, TARGET)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=match):
            graph(X, TARGET)
    assert fa.tensor(X).sum().item() != 0  # nothing is refused outside


INPUTS: list[tuple[tuple, type[Exception], str]] = [
    (
        (X[:, :4], TARGET[:4]),
        ValueError,
        r"input 0 has shape \(6, 4, 3\), expected \(6, 5, 3\) as in the first",
    ),
    (
        (X.astype(np.float64), TARGET),
        TypeError,
        "input 0 is an array of float64 in host memory, expected an array",
    ),
    ((fa.tensor(X), TARGET), TypeError, "input 0 is a tensor of float32 in"),
    (
        (fa.tensor(X, requires_grad=True), TARGET),
        TypeError,
        "input 0 is a tensor of float32 that requires a gradient in host memory, expected an array",
    ),
    ((X,), TypeError, "got 1 inputs, expected 2"),
    ((), TypeError, "called without inputs"),
    ((X, [1, 2]), TypeError, "input 1 is list, expected a tensor, NumPy or CuPy array"),
]


@pytest.mark.parametrize(("inputs", "error", "match"), INPUTS, ids=[match for *_, match in INPUTS])
def test_inputs_that_are_not_those_of_the_first_call(inputs: tuple, error: Any, match: str) -> None:
    graph = fa.cuda.graph(lambda x, target: x)
    graph(X, TARGET)
    with pytest.raises(error, match=rf"^\[graph\] .*{match}"):
        graph(*inputs)


@pytest.mark.parametrize("warmup", [0, -1, 1.0, True, None])
def test_bad_warmup(warmup: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[graph\] warmup is"):
        fa.cuda.graph(lambda x: x, warmup)


# A device that runs what it is told: at once, or while its stream is captured, when the graph is launched.


class Device(ModuleType):
    """A stand-in for CuPy, as far as graphs go."""

    def __init__(self) -> None:
        super().__init__("cupy")
        self.log: list[str] = []
        self.recording: list[Callable[[], None]] | None = None
        self.pools: list[Any] = [None]
        self.stream = self.default = self.new_stream(non_blocking=False)
        runtime = SimpleNamespace(CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}))
        self.cuda = SimpleNamespace(
            Stream=self.new_stream,
            MemoryPool=lambda: SimpleNamespace(malloc=object()),
            using_allocator=self.using_allocator,
            get_current_stream=lambda: self.stream,
            runtime=runtime,
        )
        device = self

        class ndarray:
            def __init__(self, host: np.ndarray) -> None:
                self._memory = host.copy()
                self.shape, self.dtype = host.shape, host.dtype
                self.device = SimpleNamespace(id=0)
                self.pool = device.pools[-1]

            def copy(self) -> Any:
                device.log.append("copy")
                return ndarray(self._memory)

            def __setitem__(self, _: Any, value: Any) -> None:
                device.run(lambda: np.copyto(self._memory, value._memory))

            def get(self) -> np.ndarray:
                if device.recording is not None:
                    raise runtime.CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
                return self._memory.copy()

        self.ndarray = ndarray

    def run(self, work: Callable[[], None]) -> None:
        """A launch on the current stream."""
        if self.recording is None:
            work()
        else:
            assert self.stream is not self.default, "work on a stream that is not captured"
            self.recording.append(work)

    @contextlib.contextmanager
    def using_allocator(self, malloc: Any) -> Iterator[None]:
        self.pools.append(malloc)
        yield
        self.pools.pop()

    def new_stream(self, non_blocking: bool) -> Any:
        device = self

        class Stream:
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


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setitem(sys.modules, "cupy", made)
    return made


def accumulate(device: Device, total: Any) -> Callable[[Any], Any]:
    """A step that adds its input to `total` and returns a new array with the sum's double."""

    def step(x: Any) -> Any:
        double = device.ndarray(np.zeros_like(total._memory))
        device.run(lambda: np.add(total._memory, x._memory, out=total._memory))
        device.run(lambda: np.multiply(total._memory, 2, out=double._memory))
        return double

    return step


def test_every_call_is_one_step(device: Device) -> None:
    total = device.ndarray(np.zeros(3))
    graph = fa.cuda.graph(accumulate(device, total))
    seen, outputs = [], []
    for value in (1.0, 10.0, 100.0, 1000.0):
        outputs.append(graph(device.ndarray(np.full(3, value))))
        seen.append(outputs[-1].get()[0])
    assert seen == [2.0, 22.0, 222.0, 2222.0]
    assert outputs[1] is outputs[2] is outputs[3]
    assert outputs[0].pool is None
    assert outputs[1].pool is not None  # memory that nobody else is given
    assert device.log == ["copy", "wait", "begin", "end", "launch", "launch", "launch"]


def test_tensors_stay_tensors_and_a_changed_setting_captures_anew(device: Device) -> None:
    parameter = nn.Parameter(np.ones(2, np.float32))
    parameter.grad = np.zeros(2, np.float32)
    optimizer = fa.optim.SGD([parameter], lr=0.5)
    kinds = []

    def step(x: Any) -> Any:
        kinds.append((type(x), x.requires_grad))
        optimizer.step()
        return x

    graph = fa.cuda.graph(step)
    x = fa.Tensor(device.ndarray(np.ones(2)), requires_grad=False)
    for _ in range(3):
        graph(x)
    assert kinds == [(fa.Tensor, False)] * 2  # the warm-up, and the capture
    optimizer.param_groups[0]["lr"] = 0.25
    for _ in range(2):
        graph(x)
    assert len(kinds) == 3
    assert device.log.count("begin") == 2
    assert device.log.count("launch") == 4


def test_a_step_that_waits_for_the_device(device: Device) -> None:
    """The error says why; the stream's capture is over, and the next call may try again."""
    total = device.ndarray(np.zeros(3))
    careful = accumulate(device, total)
    impatient = [True]

    def step(x: Any) -> Any:
        double = careful(x)
        return double.get() if impatient[0] else double

    graph, x = fa.cuda.graph(step), device.ndarray(np.ones(3))
    graph(x)
    with pytest.raises(RuntimeError, match=r"\[graph\] the step cannot be captured: cudaErrorStreamCapture"):
        graph(x)
    assert device.recording is None
    assert total.get()[0] == 1
    impatient[0] = False
    assert graph(x).get()[0] == 4


def test_inputs_in_two_places(device: Device) -> None:
    graph = fa.cuda.graph(lambda x, y: x)
    with pytest.raises(TypeError, match=r"the inputs lie in CUDA device 0, host memory, expected one place"):
        graph(device.ndarray(np.ones(2)), np.ones(2))


def test_a_capture_inside_a_capture() -> None:
    inner = fa.cuda.graph(lambda x: x)
    outer = fa.cuda.graph(inner)
    outer(X)
    with pytest.raises(RuntimeError, match="captures another one"):
        outer(X)


def replayable(optimizer: Any, parameter: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        parameter.grad = np.ones(2, np.float32)
        optimizer.step()
        return x

    return step


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (fa.optim.SGD, {"momentum": 0.9}),
        (fa.optim.RMSprop, {"momentum": 0.9}),
        (fa.optim.RMSprop, {"centered": True}),
    ],
)
def test_state_is_made_outside_a_capture(device: Device, kind: Any, change: dict[str, Any]) -> None:
    """A replay would take each gradient for the first one."""
    parameter = nn.Parameter(np.ones(2, np.float32))
    optimizer = kind([parameter], lr=0.5)
    step = replayable(optimizer, parameter)
    graph, x = fa.cuda.graph(step), device.ndarray(np.ones(2))
    graph(x)
    graph(x)
    optimizer.param_groups[0].update(change)
    with pytest.raises(RuntimeError, match=r"^\[graph\] \w+ sees the first gradient of a parameter"):
        graph(x)
    step(x)
    graph(x)
    assert device.log.count("launch") == 2


def test_a_loaded_state_captures_anew(device: Device) -> None:
    parameter = nn.Parameter(np.ones(2, np.float32))
    optimizer = fa.optim.SGD([parameter], lr=0.5, momentum=0.9)
    graph, x = fa.cuda.graph(replayable(optimizer, parameter)), device.ndarray(np.ones(2))
    for _ in range(2):
        graph(x)
    assert device.log.count("begin") == 1
    optimizer.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        graph(x)
    assert device.log.count("begin") == 2


@pytest.mark.parametrize("other", [lambda: fa.precision("tf32"), lambda: fa.conv_algorithm("winograd2")])
def test_another_arithmetic_captures_anew(device: Device, other: Callable[[], Any]) -> None:
    graph, x = fa.cuda.graph(accumulate(device, device.ndarray(np.zeros(3)))), device.ndarray(np.ones(3))
    for _ in range(3):
        graph(x)
    with other():
        graph(x)
        graph(x)
    assert device.log.count("begin") == 2
    graph(x)
    assert device.log.count("begin") == 3


def test_a_norm_read_on_the_host_is_refused() -> None:
    parameter = nn.Parameter(np.ones(2, np.float32))
    parameter.grad = np.ones(2, np.float32)
    graph = fa.cuda.graph(lambda x: fa.optim.clip_grad_norm_(parameter, 1.0, error_if_nonfinite=True))
    graph(X)
    with pytest.raises(RuntimeError, match=r"\[graph\] clip_grad_norm_ with error_if_nonfinite reads"):
        graph(X)
