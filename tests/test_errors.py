"""Bad calls: every operator on every backend answers with the documented exception, never with a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import cases
import fastarch as fa
from conftest import FLOATS, Backend, dtypes_of, on_host
from fastarch import backends

HUGE = 2**31 - 1  # the largest size an operator takes; two of them are more bytes than there are addresses


def floats(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


X, WEIGHT, BIAS = floats(2, 4, 6, 5), floats(6, 2, 3, 2), floats(6)
POOLED = {"kernel_size": 2, "stride": 2}

# A valid call of every operator. The rows below replace one argument or two.
VALID: dict[str, dict[str, Any]] = {
    **cases.VALID,
    "conv2d": {"x": X, "weight": WEIGHT, "bias": BIAS, "groups": 2},
    "conv2d_backward": {"dy": floats(2, 6, 4, 4), "x": X, "weight": WEIGHT, "groups": 2},
    "linear": {"x": floats(3, 4), "weight": floats(5, 4), "bias": floats(5)},
    "linear_backward": {"dy": floats(3, 5), "x": floats(3, 4), "weight": floats(5, 4)},
    "max_pool2d": {"x": X, **POOLED},
    "max_pool2d_backward": {
        "dy": floats(2, 4, 3, 2),
        "argmax": np.zeros((2, 4, 3, 2), np.uint8),
        "input_shape": X.shape,
        **POOLED,
    },
    "avg_pool2d": {"x": X, **POOLED},
    "avg_pool2d_backward": {"dy": floats(2, 4, 3, 2), "input_shape": X.shape, **POOLED},
    "adaptive_avg_pool2d": {"x": X, "output_size": (3, 2)},
    "adaptive_avg_pool2d_backward": {"dy": floats(2, 4, 3, 2), "input_shape": X.shape},
    "softmax": {"x": floats(3, 4)},
    "softmax_backward": {"dy": floats(3, 4), "y": floats(3, 4)},
    "log_softmax": {"x": floats(3, 4)},
    "log_softmax_backward": {"dy": floats(3, 4), "y": floats(3, 4)},
    "cross_entropy": {"logits": floats(3, 4), "target": np.array([0, 3, 1])},
    "cross_entropy_backward": {
        "dloss": floats(3),
        "probs": floats(3, 4),
        "target": np.array([0, 3, 1]),
    },
    "dropout": {"x": floats(3, 4), "p": 0.5, "seed": 1, "offset": 2},
    "dropout_backward": {"dy": floats(3, 4), "p": 0.5, "seed": 1, "offset": 2},
    **{name: {"x": floats(3, 4)} for name in ("relu", "tanh", "sigmoid")},
    **{f"{name}_backward": {"dy": floats(3, 4), "y": floats(3, 4)} for name in ("relu", "tanh", "sigmoid")},
}
OPTIONAL = cases.OPTIONAL | {("conv2d", "bias"), ("linear", "bias")}


Row = tuple[str, dict[str, Any], type[Exception], str]

CONVOLUTION: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": floats(2, 6, 6, 5)}, ValueError, r"x has 6 channels, weight expects 4 \(groups=2\)"),
    ({"groups": 3}, ValueError, "groups"),
    ({"groups": 0}, ValueError, "groups"),
    ({"groups": -2}, ValueError, "groups"),
    ({"groups": 2**62}, ValueError, "groups"),
    ({"groups": 2.0}, TypeError, "groups"),
    ({"groups": True}, TypeError, "groups"),
    ({"groups": None}, TypeError, "groups"),
    ({"weight": floats(5, 2, 3, 2)}, ValueError, "groups"),
    ({"weight": floats(6, 2, 7, 2)}, ValueError, r"reaches over \(7, 2\)"),
    ({"dilation": 3}, ValueError, r"reaches over \(7, 4\)"),
    ({"dilation": 0}, ValueError, "dilation"),
    ({"dilation": (1, -1)}, ValueError, "dilation"),
    ({"dilation": 2**40}, ValueError, "dilation"),
    ({"stride": 0}, ValueError, "stride"),
    ({"stride": (1, 0)}, ValueError, "stride"),
    ({"stride": -1}, ValueError, "stride"),
    ({"stride": 2**62}, ValueError, "stride"),
    ({"stride": 2**200}, ValueError, "stride"),
    ({"stride": 1.5}, TypeError, "stride"),
    ({"stride": "2"}, TypeError, "stride"),
    ({"stride": (1, 2, 3)}, ValueError, "stride"),
    ({"stride": ()}, ValueError, "stride"),
    ({"stride": True}, TypeError, "stride"),
    ({"stride": None}, TypeError, "stride"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": 2**40}, ValueError, "padding"),
    ({"padding": 2**62}, ValueError, "padding"),
    ({"padding": (0, 0.5)}, TypeError, "padding"),
    ({"padding": np.inf}, TypeError, "padding"),
    ({"padding": "full"}, ValueError, "padding is 'full'"),
    ({"padding": "same", "stride": 2}, ValueError, "padding 'same' with stride"),
    ({"padding": ((1, 0), (1,))}, ValueError, "padding has 1 numbers"),
    ({"padding": ((1, 0), (0, -1))}, ValueError, "padding"),
    ({"padding": ((1, 0), (0, 1), (1, 1))}, ValueError, "padding has 3 entries"),
    ({"padding": ((1, 0), None)}, TypeError, "padding"),
]
LAYOUT_TAKERS = [
    f"{op}{way}"
    for op in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "batch_norm")
    for way in ("", "_backward")
] + ["local_response_norm", "local_response_norm_backward", "conv2d", "conv2d_backward"]
POOLING: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"kernel_size": 0}, ValueError, "kernel_size"),
    ({"kernel_size": -2}, ValueError, "kernel_size"),
    ({"kernel_size": 2**62}, ValueError, "kernel_size"),
    ({"kernel_size": 10**9}, ValueError, "1000000000"),
    ({"kernel_size": 2.0}, TypeError, "kernel_size"),
    ({"kernel_size": None}, TypeError, "kernel_size"),
    ({"kernel_size": (1, 2, 3)}, ValueError, "kernel_size"),
    ({"stride": 0}, ValueError, "stride"),
    ({"stride": (2, -1)}, ValueError, "stride"),
    ({"stride": 2**62}, ValueError, "stride"),
    ({"stride": "2"}, TypeError, "stride"),
    ({"padding": -1}, ValueError, "padding"),
    ({"padding": 2}, ValueError, "padding"),  # more than half the kernel, as in PyTorch
    ({"padding": 2**40}, ValueError, "padding"),
]

BAD: list[Row] = [
    *cases.BAD,
    *(("conv2d", *row) for row in CONVOLUTION),
    *(("conv2d_backward", *row) for row in CONVOLUTION),
    *(("conv2d_max_pool", *row) for row in CONVOLUTION),
    *(("conv2d_max_pool_backward", *row) for row in CONVOLUTION),
    ("conv2d", {"bias": floats(5)}, ValueError, "bias"),
    ("conv2d", {"bias": floats(6, 1)}, ValueError, "bias"),
    ("conv2d", {"residual": floats(2, 6, 4, 3)}, ValueError, "residual has shape"),
    ("conv2d", {"residual": floats(2, 6, 4, 4, dtype=np.float64)}, TypeError, "residual has dtype float64"),
    ("conv2d", {"activation": "gelu"}, ValueError, "activation is 'gelu'"),
    ("conv2d", {"activation": 1}, ValueError, "activation"),
    ("conv2d", {"activation": ["relu"]}, ValueError, "activation"),
    ("conv2d", {"padding": HUGE}, MemoryError, "cannot be allocated"),
    ("conv2d", {"x": floats(2, 0, 6, 5), "weight": floats(6, 0, 3, 2)}, ValueError, "zero"),
    ("conv2d", {"weight": floats(6, 2, 0, 2)}, ValueError, "weight"),
    ("conv2d", {"x": floats(2, 4, 0, 5)}, ValueError, r"\b0\b"),
    ("conv2d_backward", {"dy": floats(2, 6, 4, 3)}, ValueError, "dy has shape"),
    ("conv2d_backward", {"dy": floats(1, 6, 4, 4)}, ValueError, "dy has shape"),
    ("linear", {"x": floats(3, 5)}, ValueError, "x has shape"),
    ("linear", {"bias": floats(4)}, ValueError, "bias has shape"),
    ("linear", {"activation": "softmax"}, ValueError, "activation"),
    ("linear_backward", {"dy": floats(3, 4)}, ValueError, "dy has shape"),
    ("linear_backward", {"dy": floats(2, 5)}, ValueError, "dy has shape"),
    *((op, *row) for op in ("max_pool2d", "avg_pool2d") for row in POOLING),
    *((op, *row) for op in ("max_pool2d_backward", "avg_pool2d_backward") for row in POOLING),
    *(
        (op, {"layout": layout}, ValueError, "layout")
        for op in LAYOUT_TAKERS
        for layout in ("nhwc", "NCWH", None, 1, ["NHWC"])
    ),
    ("max_pool2d_backward", {"layout": "NHWC"}, ValueError, "dy has shape"),
    ("conv2d", {"layout": "NHWC"}, ValueError, "in layout NHWC"),
    ("conv2d", {"groups": 1}, ValueError, "in layout NCHW"),
    ("conv2d", {"x": floats(2, 5, 4), "layout": "NHWC"}, ValueError, r"\[N, H, W, C\]"),
    ("conv2d_backward", {"layout": "NHWC"}, ValueError, "in layout NHWC"),
    (
        "conv2d_backward",
        {"x": floats(2, 6, 5, 4), "layout": "NHWC"},
        ValueError,
        r"dy has shape .* in layout NHWC",
    ),
    ("adaptive_avg_pool2d_backward", {"layout": "NHWC"}, ValueError, "dy has shape"),
    ("batch_norm", {"layout": "NHWC"}, ValueError, r"running_mean has shape|weight has shape"),
    ("max_pool2d", {"dilation": 0}, ValueError, "dilation"),
    ("max_pool2d", {"dilation": 2**40}, ValueError, "dilation"),
    ("max_pool2d", {"dilation": 6}, ValueError, "does not fit"),
    ("max_pool2d", {"ceil_mode": 1}, TypeError, "ceil_mode"),
    ("max_pool2d", {"x": floats(2, 4, 0, 5)}, ValueError, r"\b0\b"),
    ("max_pool2d_backward", {"dilation": 0}, ValueError, "dilation"),
    ("max_pool2d_backward", {"argmax": np.zeros((2, 4, 3, 2), np.int32)}, TypeError, "argmax"),
    ("max_pool2d_backward", {"argmax": floats(2, 4, 3, 2)}, TypeError, "argmax"),
    ("max_pool2d_backward", {"argmax": np.zeros((2, 4, 3, 1), np.uint8)}, ValueError, "argmax"),
    ("avg_pool2d", {"ceil_mode": None}, TypeError, "ceil_mode"),
    ("avg_pool2d", {"count_include_pad": "no"}, TypeError, "count_include_pad"),
    ("avg_pool2d", {"x": floats(2, 4, 6, 0)}, ValueError, r"\b0\b"),
    ("avg_pool2d_backward", {"count_include_pad": 0}, TypeError, "count_include_pad"),
    *(
        (op, {"input_shape": shape}, error, "input_shape")
        for op in ("max_pool2d_backward", "avg_pool2d_backward", "adaptive_avg_pool2d_backward")
        for shape, error in [
            ((4, 6, 5), ValueError),
            ((2, 4, -6, 5), ValueError),
            (7, TypeError),
            ("abcd", TypeError),
            ((2, 4, 6.0, 5), TypeError),
        ]
    ),
    *(
        (op, {"input_shape": shape}, ValueError, "dy has shape")
        for op in ("max_pool2d_backward", "avg_pool2d_backward")
        for shape in [(3, 4, 6, 5), (2, 3, 6, 5), (2, 4, 60, 5), (2**62, 4, 6, 5), (2, 4, HUGE, HUGE)]
    ),
    ("adaptive_avg_pool2d_backward", {"input_shape": (3, 4, 6, 5)}, ValueError, "dy has shape"),
    ("adaptive_avg_pool2d_backward", {"input_shape": (2, 4, HUGE, HUGE)}, MemoryError, "cannot be allocated"),
    ("adaptive_avg_pool2d_backward", {"input_shape": (2, 4, 0, 5)}, ValueError, r"\b0\b"),
    ("adaptive_avg_pool2d", {"output_size": -1}, ValueError, "output_size"),
    ("adaptive_avg_pool2d", {"output_size": 2**62}, ValueError, "output_size"),
    ("adaptive_avg_pool2d", {"output_size": HUGE}, MemoryError, "cannot be allocated"),
    ("adaptive_avg_pool2d", {"output_size": 1.0}, TypeError, "output_size"),
    ("adaptive_avg_pool2d", {"output_size": (1, 2, 3)}, ValueError, "output_size"),
    ("adaptive_avg_pool2d", {"x": floats(2, 4, 0, 5)}, ValueError, r"\b0\b"),
    *(
        (op, {"axis": axis}, error, "axis")
        for op in ("softmax", "softmax_backward", "log_softmax", "log_softmax_backward")
        for axis, error in [
            (2, ValueError),
            (-3, ValueError),
            (2**62, ValueError),
            (0.0, TypeError),
            ("0", TypeError),
        ]
    ),
    *((op, {"x": floats()}, ValueError, "axis") for op in ("softmax", "log_softmax")),
    ("cross_entropy", {"target": np.array([0, 3])}, ValueError, "target has shape"),
    ("cross_entropy", {"target": np.array([[0], [3], [1]])}, ValueError, "target has shape"),
    ("cross_entropy", {"target": floats(3)}, TypeError, "target has dtype float32"),
    ("cross_entropy", {"target": np.array([True, False, True])}, TypeError, "target has dtype bool"),
    ("cross_entropy", {"ignore_index": 1.0}, TypeError, "ignore_index"),
    ("cross_entropy_backward", {"target": np.array([0, 3])}, ValueError, "target has shape"),
    ("cross_entropy_backward", {"dloss": floats(2)}, ValueError, "dloss has shape"),
    ("cross_entropy_backward", {"dloss": floats(3, 1)}, ValueError, "dloss has shape"),
    ("cross_entropy_backward", {"ignore_index": None}, TypeError, "ignore_index"),
    *(
        (op, changes, error, match)
        for op in ("dropout", "dropout_backward")
        for changes, error, match in [
            ({"p": -0.1}, ValueError, "p is -0.1"),
            ({"p": 1.0001}, ValueError, "p is 1.0001"),
            ({"p": float("nan")}, ValueError, "p is nan"),
            ({"p": "half"}, TypeError, "p is 'half'"),
            ({"p": None}, TypeError, "p is None"),
            ({"seed": -1}, ValueError, "seed"),
            ({"seed": 2**64}, ValueError, "seed"),
            ({"seed": 1.0}, TypeError, "seed"),
            ({"offset": -1}, ValueError, "offset"),
            ({"offset": 2**64}, ValueError, "offset"),
            ({"offset": None}, TypeError, "offset"),
        ]
    ),
    *(
        (f"{op}_backward", {"dy": floats(4, 3)}, ValueError, "dy has shape")
        for op in ("relu", "tanh", "sigmoid", "softmax", "log_softmax")
    ),
]

# Only on the host are targets looked at: on a device that would wait for it, and the row's loss is NaN.
BAD_TARGETS = [np.array([0, 4, 1]), np.array([0, -1, 1]), np.array([0, 2**62, 1]), np.array([-(2**63), 0, 1])]


def name_of(row: Row) -> str:
    """The same in every process: no address of a function."""

    def text(value: Any) -> str:
        if isinstance(value, FunctionType):
            return value.__qualname__
        return str(value.shape) if isinstance(value, np.ndarray) else repr(value)

    return f"{row[0]}({','.join(f'{name}={text(value)}' for name, value in row[1].items())})"


def call(backend: Backend, op: str, changes: dict[str, Any]) -> Any:
    arguments = {
        name: value(backend) if isinstance(value, FunctionType) else backend.put(value)
        for name, value in (VALID[op] | changes).items()
    }
    return backend.call(op, arguments)


PUBLIC = [name for family in fa.ops.OPERATORS.values() for name in family]


@pytest.mark.parametrize("op", PUBLIC)
def test_the_valid_call_is_valid(op: str, backend: Backend) -> None:
    """What the rows below change one thing of; so an operator without rows is found out here."""
    call(backend, op, {})


@pytest.mark.parametrize("row", BAD, ids=name_of)
def test_bad_argument(row: Row, backend: Backend) -> None:
    refused(backend, *row)


@pytest.mark.parametrize("target", BAD_TARGETS, ids=str)
@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_backward"])
def test_target_out_of_range(op: str, target: np.ndarray, backend: Backend) -> None:
    if backend.name == "cuda":
        outputs = call(backend, op, {"target": target})
        if op == "cross_entropy":
            assert np.isnan(backend.host(outputs[0])).tolist() == [not 0 <= t < 4 for t in target]
    else:
        with pytest.raises(ValueError, match=rf"^\[{op}\] target holds class"):
            call(backend, op, {"target": target})


def array_arguments(op: str) -> list[str]:
    return [name for name, value in VALID[op].items() if isinstance(value, np.ndarray)]


def float_arguments(op: str) -> list[str]:
    return [name for name in array_arguments(op) if VALID[op][name].dtype.kind == "f"]


def refused(backend: Backend, op: str, changes: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match) as raised:
        call(backend, op, changes)
    assert type(raised.value) is error
    assert str(raised.value).startswith(f"[{op}] "), raised.value


@on_host
@pytest.mark.parametrize("dtype", [">f4", "longdouble"])
@pytest.mark.parametrize("op", PUBLIC)
def test_dtype_of_numpy_alone(op: str, dtype: str, backend: Backend) -> None:
    test_wrong_dtype_of_each_array(op, dtype, backend)


@pytest.mark.parametrize("dtype", ["int16", "int32", "complex64", "bool"])
@pytest.mark.parametrize("op", PUBLIC)
def test_wrong_dtype_of_each_array(op: str, dtype: str, backend: Backend) -> None:
    for name in float_arguments(op):
        refused(backend, op, {name: VALID[op][name].astype(dtype)}, TypeError, f"{name} has dtype")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", PUBLIC)
def test_16_bit_floats_where_none_fit(op: str, dtype: str, backend: Backend) -> None:
    taken = dtype in dtypes_of(op)
    for name in float_arguments(op) if not taken or len(float_arguments(op)) > 1 else []:
        refused(backend, op, {name: VALID[op][name].astype(FLOATS[dtype])}, TypeError, "has dtype .*float")


@pytest.mark.parametrize("op", [op for op in PUBLIC if len(float_arguments(op)) > 1])
def test_float_arrays_of_two_dtypes(op: str, backend: Backend) -> None:
    for name in float_arguments(op):
        refused(backend, op, {name: VALID[op][name].astype(np.float64)}, TypeError, "has dtype")


@pytest.mark.parametrize("op", PUBLIC)
def test_what_is_no_array(op: str, backend: Backend) -> None:
    for name in array_arguments(op):
        for value in (None, 1.0, "text", [[1.0, 2.0]], object(), np.float32(1)):
            if value is not None or (op, name) not in OPTIONAL:
                refused(backend, op, {name: value}, TypeError, f"{name} is")


ANY_SHAPE = {
    "local_response_norm",
    "relu",
    "tanh",
    "sigmoid",
    "dropout",
    "dropout_backward",
    "softmax",
    "log_softmax",
}


@pytest.mark.parametrize("op", [op for op in PUBLIC if op not in ANY_SHAPE])
def test_wrong_number_of_axes(op: str, backend: Backend) -> None:
    """An axis too many and one too few, where the number is given."""
    for name in array_arguments(op):
        if (op, name) != ("linear", "x"):  # [..., I]
            value = VALID[op][name]
            refused(backend, op, {name: value[None]}, ValueError, "has shape")
            refused(backend, op, {name: value[0, ...]}, ValueError, "has shape")


@pytest.mark.parametrize("op", PUBLIC)
def test_missing_and_unknown_arguments(op: str, backend: Backend) -> None:
    with pytest.raises(TypeError):
        backend.call(op, {})
    with pytest.raises(TypeError):
        call(backend, op, {"nonsense": 1})


@on_host
def test_masked_arrays_are_refused(backend: Backend) -> None:
    with fa.backend(backend.name), pytest.raises(TypeError, match=r"^\[relu\] x is a masked array"):
        fa.ops.relu(np.ma.masked_less(floats(3), 2.0))


@pytest.mark.backends("cpu", "emulator")
def test_bindings_refuse_hostile_calls(backend: Backend) -> None:
    """Every kernel of a compiled module, called directly with wrong arguments, in a process of its own.

    A crash there fails this test with the call that did it.
    """
    program = Path(__file__).with_name("hostile_calls.py")
    command = [sys.executable, "-X", "faulthandler", str(program), backend.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    last = done.stdout.strip().splitlines()[-1:] or ["nothing"]
    assert done.returncode == 0, f"exit {done.returncode} after {last[0]}\n{done.stderr[-3000:]}"


def test_unknown_backend() -> None:
    with pytest.raises(
        ValueError, match=r"^\[backend\] got 'gpu', expected one of numpy, cpu, cuda, emulator"
    ):
        fa.backend("gpu")


@pytest.mark.parametrize("name", backends.NAMES)
def test_naming_a_backend_never_falls_back(name: str) -> None:
    """It works, or says why not."""
    reason = backends.reason_unusable(name)
    if reason:
        with pytest.raises(RuntimeError, match=rf"^\[backend\] '{name}' cannot run here") as raised:
            fa.backend(name)
        assert reason in str(raised.value)
    else:
        with fa.backend(name):
            assert backends.current() == name
    assert backends.current() is None or backends.current() in backends.NAMES


@pytest.mark.backends("cuda")
def test_a_host_array_on_the_cuda_backend_is_refused(backend: Backend) -> None:
    """No hidden copy between host and device."""
    with fa.backend("cuda"), pytest.raises(RuntimeError, match=r"takes device .* got host"):
        fa.ops.relu(floats(3))


@pytest.mark.backends("cuda")
@pytest.mark.parametrize("name", ["numpy", "cpu", "emulator"])
def test_a_device_array_on_a_host_backend(name: str, backend: Backend) -> None:
    """The generic code computes where the arrays are; the compiled host kernels refuse."""
    if name == "numpy":
        with fa.backend(name):
            assert type(fa.ops.relu(backend.put(floats(3)))) is backend.xp.ndarray
    elif backends.reason_unusable(name) is None:
        with fa.backend(name), pytest.raises(RuntimeError, match=r"takes host .* got device"):
            fa.ops.relu(backend.put(floats(3)))


def test_a_required_backend_that_cannot_run_fails_the_session() -> None:
    """FASTARCH_TEST_BACKENDS is what automation relies on: it must not run fewer backends than it names."""
    missing = [name for name in backends.NAMES if backends.reason_unusable(name)] + ["nonsense"]
    for name in missing:
        environment = {**os.environ, "FASTARCH_TEST_BACKENDS": f"numpy,{name}"}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-q",
            str(Path(__file__).parent / "cases"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
        assert name in done.stdout + done.stderr


@pytest.mark.parametrize("wrong", [2**63, 2**64 - 1, 2**64 - 100])
def test_unsigned_numbers_do_not_wrap(wrong: int) -> None:
    """-1 and -100 have a meaning; what is beyond 64 bits with a sign has not."""
    numbers = np.array([0, wrong], np.uint64)
    with pytest.raises(ValueError, match=r"^\[cross_entropy\] target holds class"):
        fa.ops.cross_entropy(np.ones((2, 3), "f"), numbers)
    with pytest.raises(ValueError, match=r"^\[\w+\] index holds"):
        fa.ops.som_totals(np.ones((2, 3), "f"), numbers, 4)


@pytest.mark.parametrize("shape", [(1, 2, 3, 0, 4), (1, 2, 3, 4, 0)])
def test_empty_planes_are_padded_or_told(shape: tuple[int, ...]) -> None:
    with fa.backend("numpy"), pytest.raises(ValueError, match=r"^\[conv3d\]|^\[conv2d\]"):
        fa.ops.conv3d(np.ones(shape, "f"), np.ones((2, 2, 1, 1, 1), "f"))
    with fa.backend("numpy"):
        y = fa.ops.conv3d(np.ones(shape, "f"), np.ones((2, 2, 1, 1, 1), "f"), padding=1)
    assert y.shape == (1, 2, *(size + 2 for size in shape[2:]))
    assert not y.any()
