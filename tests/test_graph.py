"""Training steps as CUDA graphs: what is refused, on host arrays; what is captured and replayed, on a
stand-in for CuPy (device.py) whose kernels are the emulator's and run again when a graph is launched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from device import Device
from fastarch import backends, nn

X, TARGET = np.random.default_rng(0).standard_normal((6, 5, 3)).astype(np.float32), np.arange(5) % 4


class Convolutional(nn.Module):
    """In place of a recurrent layer."""

    directions = 1

    def __init__(self, features: int, channels: int) -> None:
        self.output_size = channels * 3 * features
        self.convolution = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels, activation="relu")

    def forward(self, x: Any) -> tuple[Any, None]:
        y = self.norm(self.convolution(fa.tensor(x).transpose(0, 1).unsqueeze(1)))
        y = nn.functional.max_pool2d(y, (2, 1))
        return y.reshape(1, len(y), self.output_size), None


class Loop(nn.Module):
    """A loop over single steps, in place of a recurrent layer."""

    directions = 1

    def __init__(self, features: int, units: int, cell: str) -> None:
        self.output_size = units
        self.cell = getattr(nn, cell)(features, units)

    def forward(self, x: Any) -> tuple[Any, None]:
        states: Any = None
        for step in x:
            states = self.cell(step, states)
        h = states[0] if isinstance(states, tuple) else states
        return h.reshape(1, *h.shape), None


def trainer(optimizer: Callable[..., Any], device: Any = "cpu", **more: Any) -> tuple[Any, Any, Any]:
    """A recurrent model and the step that trains it on one batch."""
    fa.manual_seed(1)
    kind = more.pop("kind", nn.LSTM)
    layer = kind(3, 8, **more).to(device)
    head = nn.Linear(layer.output_size * layer.directions, 4).to(device)
    parameters = [*layer.parameters(), *head.parameters()]
    chosen = optimizer(parameters)

    def step(x: Any, target: Any) -> Any:
        chosen.zero_grad()
        y, _ = layer(x)
        loss = nn.functional.cross_entropy(head(nn.functional.dropout(y[-1], 0.2)), target)
        loss.backward()
        fa.optim.clip_grad_norm_(parameters, 0.5)
        chosen.step()
        return loss

    return parameters, step, chosen


def with_options(name: str, **options: Any) -> Callable[[Any], Any]:
    return lambda parameters: getattr(fa.optim, name)(parameters, **options)


OPTIMIZERS = {
    "SGD": with_options("SGD", lr=0.1),
    "SGD with momentum": with_options("SGD", lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "Adam": with_options("Adam", lr=0.1),
    "Adam with amsgrad": with_options("Adam", lr=0.05, amsgrad=True, weight_decay=0.1),
    "AdamW": with_options("AdamW", lr=0.1, weight_decay=0.3),
    "RMSprop": with_options("RMSprop", lr=0.01),
    "RMSprop centred": with_options("RMSprop", lr=0.02, centered=True, momentum=0.5, weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_on_host_arrays_it_is_the_step(optimizer: str) -> None:
    plain, step, _ = trainer(OPTIMIZERS[optimizer], zoneout=0.2)
    losses = [step(X, TARGET).item() for _ in range(4)]
    state = fa.random.get_state()
    captured, step, _ = trainer(OPTIMIZERS[optimizer], zoneout=0.2)
    graph = fa.cuda.graph(step)
    assert [graph(X, TARGET).item() for _ in range(4)] == losses
    assert fa.random.get_state() == state
    assert all(np.array_equal(a.data, b.data) for a, b in zip(plain, captured, strict=True))


def reads(x: Any, _: Any) -> Any:
    loss = fa.tensor(x).sum()
    return loss if loss.item() > 0 else -loss


REFUSED: list[tuple[Any, str]] = [
    (reads, r"item\(\) reads a value on the host, which a replay of the step would not repeat"),
    (lambda x, _: fa.tensor(x).numpy(), "read on the host"),
    (lambda x, _: fa.tensor(x + fa.random.normal(x.shape)), "draws random numbers on the host"),
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


# On a device


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    made.install(monkeypatch)
    return made


def accumulate(device: Device, total: Any) -> Callable[[Any], Any]:
    """A step that adds its input to `total` and returns a new array with the sum's double."""

    def step(x: Any) -> Any:
        np.add(total, x, out=total)
        return total * 2

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


def parameter_on(device: Device) -> Any:
    parameter = nn.Parameter(np.ones(2, np.float32))
    parameter.data = device.asarray(parameter.data)
    return parameter


def replayable(device: Device, optimizer: Any, parameter: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        parameter.grad = device.ones(2, np.float32)
        optimizer.step()
        return x

    return step


def test_tensors_stay_tensors_and_a_changed_setting_captures_anew(device: Device) -> None:
    parameter = parameter_on(device)
    optimizer = fa.optim.SGD([parameter], lr=0.5)
    inner, kinds = replayable(device, optimizer, parameter), []

    def step(x: Any) -> Any:
        kinds.append((type(x), x.requires_grad))
        return inner(x)

    graph = fa.cuda.graph(step)
    x = fa.Tensor(device.ndarray(np.ones(2)), requires_grad=False)
    for _ in range(3):
        graph(x)
    assert kinds == [(fa.Tensor, False)] * 2  # the warm-up, and the capture
    optimizer.param_groups[0]["weight_decay"] = 0.25
    for _ in range(2):
        graph(x)
    assert len(kinds) == 3
    assert device.log.count("begin") == 2
    assert device.log.count("launch") == 4


@pytest.fixture
def equal_bits(device: Device) -> Callable[..., list[str]]:
    """Trains with and without a graph; the same bits, optimizer's state and random state? Returns the log."""

    def train(captured: bool, optimizer: Any, between: Any, calls: int, more: dict[str, Any]) -> Any:
        parameters, step, chosen = trainer(optimizer, "cuda", **more)
        run = fa.cuda.graph(step) if captured else step
        losses = []
        for index in range(calls):
            x = np.random.default_rng(index).standard_normal(X.shape).astype(np.float32)
            losses.append(run(device.asarray(x), device.asarray(TARGET)).item())
            between(index, chosen, step)
        return losses, [p.data.get() for p in parameters], chosen.state_dict(), fa.random.get_state()

    def compare(optimizer: Any, between: Any = lambda *_: None, calls: int = 5, **more: Any) -> list[str]:
        plain = train(False, optimizer, between, calls, more)
        device.log.clear()
        replayed = train(True, optimizer, between, calls, more)
        assert len(set(plain[0])) == calls  # something happened
        _assert_same(replayed, plain)
        return device.log

    if backends.reason_unusable("emulator") is not None:
        pytest.skip("without the emulator nothing is captured")
    return compare


def _assert_same(got: Any, want: Any) -> None:
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for name in want:
            _assert_same(got[name], want[name])
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for a, b in zip(got, want):
            _assert_same(a, b)
    elif isinstance(want, np.ndarray):
        np.testing.assert_array_equal(got, want)
    else:
        assert got == want


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_replays_have_the_bits_of_the_step(optimizer: str, equal_bits: Any) -> None:
    """With a learning rate that changes at every step, in one capture."""

    def decay(index: int, chosen: Any, _: Any) -> None:
        chosen.param_groups[0]["lr"] *= 0.7

    log = equal_bits(OPTIMIZERS[optimizer], decay)
    assert (log.count("begin"), log.count("launch")) == (1, 4)


def name_of_layer(layer: dict[str, Any]) -> str:
    return "-".join([layer["kind"].__name__, *list(layer)[1:]])


LAYERS: list[dict[str, Any]] = [
    {"kind": nn.LSTM, "zoneout": 0.3, "zoneout_cell": 0.2, "dropconnect": 0.4, "proj_size": 5},
    {"kind": nn.LSTM, "num_layers": 2, "dropout": 0.5, "layer_norm": True},
    {"kind": nn.GRU, "zoneout": 0.3, "bidirectional": True},
    {"kind": nn.GRU, "reset_before": True, "zoneout": 0.1},
    {"kind": nn.RNN, "dropconnect": 0.5, "zoneout": 0.3},
    {"kind": Convolutional},
]
CELLS = ("RNNCell", "LSTMCell", "GRUCell")


@pytest.mark.parametrize("layer", LAYERS, ids=name_of_layer)
def test_replays_draw_anew(layer: dict[str, Any], equal_bits: Any) -> None:
    log = equal_bits(OPTIMIZERS["Adam"], **layer)
    assert (log.count("begin"), log.count("launch")) == (1, 4)


@pytest.mark.parametrize("cell", CELLS)
def test_loops_over_single_steps(cell: str, equal_bits: Any) -> None:
    log = equal_bits(OPTIMIZERS["Adam"], kind=Loop, cell=cell)
    assert (log.count("begin"), log.count("launch")) == (1, 4)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop"])
def test_steps_beside_the_graph_count(optimizer: str, equal_bits: Any, device: Device) -> None:
    """A step outside, a loaded state and another seed between replays: the graph goes on from there."""

    def disturb(index: int, chosen: Any, step: Any) -> None:
        if index == 2:
            step(device.asarray(X), device.asarray(TARGET))
        elif index == 3:
            chosen.load_state_dict(chosen.state_dict())
        elif index == 4:
            fa.manual_seed(7)

    log = equal_bits(OPTIMIZERS[optimizer], disturb, calls=7)
    assert (log.count("begin"), log.count("launch")) == (3, 6)


def test_parameters_that_part_ways_are_captured_anew(device: Device) -> None:
    """Adam updates parameters of equally many steps in one call; a step of one of them alone ends that."""
    pair = [parameter_on(device), parameter_on(device)]
    optimizer = fa.optim.Adam(pair, lr=0.5)

    def step(x: Any) -> Any:
        for parameter in pair:
            parameter.grad = device.ones(2, np.float32)
        optimizer.step()
        return x

    graph, x = fa.cuda.graph(step), device.ndarray(np.ones(2))
    for _ in range(3):
        graph(x)
    pair[0].grad = None
    optimizer.step()
    graph(x)
    assert [optimizer.state[p]["step"] for p in pair] == [4, 5]
    assert device.log.count("begin") == 2
    graph(x)
    assert [optimizer.state[p]["step"] for p in pair] == [5, 6]
    assert device.log.count("begin") == 2


def test_a_failed_capture_counts_nothing(device: Device) -> None:
    parameter = parameter_on(device)
    optimizer = fa.optim.Adam([parameter])
    graph = fa.cuda.graph(lambda x: (replayable(device, optimizer, parameter)(x), dropped(x))[0].get())
    x = device.ndarray(np.ones(8, np.float32))
    graph(x)
    state = fa.random.get_state()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            graph(x)
    assert optimizer.state[parameter]["step"] == 1
    assert fa.random.get_state() == state


def dropped(x: Any) -> Any:
    return nn.functional.dropout(x, 0.5)


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
    parameter = parameter_on(device)
    optimizer = kind([parameter], lr=0.5)
    step = replayable(device, optimizer, parameter)
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
    parameter = parameter_on(device)
    optimizer = fa.optim.SGD([parameter], lr=0.5, momentum=0.9)
    graph, x = fa.cuda.graph(replayable(device, optimizer, parameter)), device.ndarray(np.ones(2))
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


def test_an_option_that_was_on_for_a_step_beside_the_graph(equal_bits: Any, device: Device) -> None:
    """The step makes more state; the replays after it go on with the same count and the same means."""

    def disturb(index: int, chosen: Any, step: Any) -> None:
        if index == 2:
            chosen.param_groups[0]["amsgrad"] = True
            step(device.asarray(X), device.asarray(TARGET))
            chosen.param_groups[0]["amsgrad"] = False

    log = equal_bits(OPTIMIZERS["Adam"], disturb)
    assert (log.count("begin"), log.count("launch")) == (1, 4)


def test_betas_changed_in_place_capture_anew(device: Device) -> None:
    parameter = parameter_on(device)
    optimizer = fa.optim.Adam([parameter], betas=[0.9, 0.999])  # type: ignore[arg-type]
    graph, x = fa.cuda.graph(replayable(device, optimizer, parameter)), device.ndarray(np.ones(2))
    for _ in range(2):
        graph(x)
    optimizer.param_groups[0]["betas"][0] = 0.5
    for _ in range(2):
        graph(x)
    assert device.log.count("begin") == 2


@pytest.mark.parametrize("kind", [fa.optim.Adam, fa.optim.RMSprop, fa.optim.SGD])
def test_a_replay_without_numbers_counts_nothing(device: Device, kind: Any) -> None:
    """Of two optimizers the second has a learning rate that is none."""
    pair = [parameter_on(device), parameter_on(device)]
    first, second = fa.optim.Adam(pair[:1]), kind(pair[1:])

    def step(x: Any) -> Any:
        y = dropped(x)
        for optimizer, parameter in zip((first, second), pair):
            replayable(device, optimizer, parameter)(x)
        return y

    graph, x = fa.cuda.graph(step), device.ndarray(np.ones(8, np.float32))
    for _ in range(3):
        graph(x)
    before = first.state_dict()["state"][0]["step"], second.state_dict()["state"], fa.random.get_state()
    second.param_groups[0]["lr"] = "fast"
    with pytest.raises((TypeError, ValueError)):
        graph(x)
    after = first.state_dict()["state"][0]["step"], second.state_dict()["state"], fa.random.get_state()
    _assert_same(after, before)
    assert before[0] == 3
    second.param_groups[0]["lr"] = 0.1
    graph(x)
    assert first.state_dict()["state"][0]["step"] == 4
    assert device.log.count("begin") == 1


@pytest.mark.parametrize("on_device", [False, True])
def test_sequences_of_several_lengths_are_refused(device: Device, on_device: bool) -> None:
    layer = nn.LSTM(3, 4).to("cuda" if on_device else "cpu")
    x = device.asarray(X) if on_device else X
    lengths = [6] * 5
    graph = fa.cuda.graph(lambda x: layer(x, lengths=lengths)[0])
    for _ in range(3):
        graph(x)  # of one length: nothing is packed
    lengths[2] = 3
    graph = fa.cuda.graph(lambda x: layer(x, lengths=lengths)[0])
    graph(x)
    with pytest.raises(RuntimeError, match=r"^\[graph\] sequences of several lengths are packed on the host"):
        graph(x)
