"""Arrays of every kind at the boundary of the operators, and how the compiled core sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import fastarch as fa
from cases import LAYOUTS
from conftest import Backend, lay_out, on_host, seeded
from fastarch import _core as core
from fastarch import backends

# How arrays are seen

DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64", "uint8", "bool")
SHAPES = ((), (1,), (0,), (7,), (2, 3), (3, 0, 2), (2, 3, 4, 5), (1, 1, 1, 1), (2,) * 8)


def in_numpy(tensor: Any) -> np.ndarray:
    """A PyTorch tensor as a NumPy array on the same memory."""
    if str(tensor.dtype) != "torch.bfloat16":
        return tensor.numpy()
    return tensor.view(sys.modules["torch"].int16).numpy().view(ml_dtypes.bfloat16)


def same_view(seen: dict[str, Any], array: np.ndarray) -> None:
    """What the core sees is what NumPy says."""
    assert seen["memory"] == "host"
    assert seen["dtype"] == str(array.dtype)
    assert seen["shape"] == array.shape
    assert seen["contiguous"] == array.flags.c_contiguous
    if array.size:
        assert seen["data"] == array.ctypes.data
        for size, stride, nbytes in zip(array.shape, seen["strides"], array.strides, strict=True):
            assert size == 1 or stride * array.itemsize == nbytes  # no step is taken along an axis of one


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_arrays_are_seen_in_place(dtype: str, shape: tuple[int, ...], layout: str) -> None:
    array = lay_out(np, np.ones(shape, dtype), layout)
    seen = core.describe(array)
    same_view(seen, array)
    assert seen["readonly"] == (not array.flags.writeable)


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """Any view that indexing, transposing and reversing make of an array, empty and 0-d ones too."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    view = array[draw(npst.basic_indices(shape, allow_ellipsis=True, allow_newaxis=True, max_dims=6))]
    return np.transpose(view, draw(st.permutations(range(view.ndim)))) if view.ndim else np.asarray(view)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(views())
def test_any_view_is_seen_as_numpy_sees_it(array: np.ndarray) -> None:
    same_view(core.describe(array), array)
    if array.dtype.kind == "f":
        with fa.backend("numpy"):
            np.testing.assert_array_equal(fa.ops.relu(array), array)  # none is negative


@pytest.mark.parametrize("axes", [(1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_empty_arrays_are_contiguous(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Whatever their strides: there is nothing to be out of order, and NumPy copies nothing to mend it."""
    array = np.zeros(shape, np.float32).transpose(axes)
    assert core.describe(array)["contiguous"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_tensors_are_seen_in_place(dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensor = torch.ones((4, 6), dtype=getattr(torch, dtype))
    for view in (tensor, tensor.T, tensor[::2, 1:], tensor[:, :1], tensor[:0]):
        same_view(core.describe(view), in_numpy(view))
        if view.numel():
            assert core.describe(view)["data"] == view.data_ptr()


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3, ">f2"),
        np.ones(3, ml_dtypes.float8_e4m3fn),
        np.ones(3, ml_dtypes.bfloat16).byteswap().view(np.dtype(ml_dtypes.bfloat16).newbyteorder()),
        np.ones(3, np.longdouble),
        np.ones(3, np.complex64),
        np.ones(3, np.int16),
        np.ones(3, np.uint32),
        np.ones(3, ">f4"),
        np.ones(3, ">i8"),
        np.array(["a", "b"]),
        np.array([None, 1], object),
        np.zeros(3, [("a", "f4"), ("b", "f4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
    ids=lambda a: str(a.dtype),
)
def test_other_dtypes_are_refused(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"^\[describe\] array "):
        core.describe(array)


@pytest.mark.parametrize("thing", [None, 1, 1.0, "text", [1.0], (1.0,), {}, object(), np.float32, len])
def test_what_is_no_array_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"^\[describe\] array is "):
        core.describe(thing)


def test_nine_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[describe\] array has 9 dimensions, expected at most 8"):
        core.describe(np.ones((1,) * 9, np.float32))


def test_strides_between_elements_are_refused() -> None:
    """A field of a packed record: 4-byte numbers 5 bytes apart."""
    records = np.zeros(3, np.dtype([("value", "f4"), ("flag", "u1")]))
    with pytest.raises(ValueError, match="stride"):
        core.describe(records["value"])


def test_seeing_an_array_keeps_no_reference() -> None:
    array = np.ones(3, np.float32)
    before = sys.getrefcount(array)
    for _ in range(10):
        core.describe(array)
    assert sys.getrefcount(array) == before


class Foreign:
    """An array of a library that speaks DLPack and nothing else, in the old way or the new."""

    def __init__(self, array: np.ndarray, versioned: bool) -> None:
        self.array, self.versioned = array, versioned

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, **arguments: Any) -> Any:
        if not self.versioned and "max_version" in arguments:
            raise TypeError("unexpected keyword argument 'max_version'")
        return self.array.__dlpack__(**arguments)


@on_host
@pytest.mark.parametrize("versioned", [True, False])
def test_arrays_of_dlpack_alone(versioned: bool, backend: Backend) -> None:
    """Their library cannot take arrays in, so the results are NumPy's."""
    array = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
    same_view(core.describe(Foreign(array, versioned)), array)
    y = backend.call("relu", {"x": Foreign(array, versioned)})
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, array.clip(0))


class Refusing:
    """An array whose library will not share it."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **arguments: Any) -> Any:
        raise BufferError("this array is not for sharing")


def test_a_refusal_to_share_is_passed_on(backend: Backend) -> None:
    for function in (core.describe, fa.ops.relu):
        with fa.backend(backend.name), pytest.raises(TypeError, match="this array is not for sharing"):
            function(Refusing())


# Every type through every kind of operator


def all_operators(x: Any, weight: Any) -> tuple:
    """One call of every kind: one output, several, none of some, integer outputs."""
    y = fa.ops.conv2d(x, weight, padding=1, activation="tanh")
    dx, dw, _ = fa.ops.conv2d_backward(y, x, weight, bias=False, padding=1)
    pooled, argmax = fa.ops.max_pool2d(y, 2)
    dy = fa.ops.max_pool2d_backward(pooled, argmax, tuple(y.shape), 2)
    rows = fa.ops.softmax(pooled.reshape(pooled.shape[0], -1))
    return y, dx, dw, pooled, argmax, dy, rows


def test_pytorch_in_pytorch_out(backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = seeded("pytorch")
    x, weight = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 3))
    device = "cuda" if backend.name == "cuda" else "cpu"
    with fa.backend(backend.name):
        want = all_operators(backend.put(x), backend.put(weight))
        got = all_operators(torch.tensor(x, device=device), torch.tensor(weight, device=device))
        strided = torch.tensor(x, device=device).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        again = all_operators(strided, torch.tensor(weight, device=device))
    for index, (array, tensor, other) in enumerate(zip(want, got, again, strict=True)):
        assert isinstance(tensor, torch.Tensor), index
        assert tensor.device.type == device
        np.testing.assert_array_equal(tensor.cpu().numpy(), backend.host(array), err_msg=str(index))
        np.testing.assert_array_equal(other.cpu().numpy(), backend.host(array), err_msg=str(index))


def test_pytorch_tensors_that_cannot_be_viewed(backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with fa.backend(backend.name):
        for tensor in (
            torch.ones(3, requires_grad=True),
            torch.ones(3, 3).to_sparse(),
            torch.ones(3, device="meta"),
            torch.ones(3, dtype=torch.complex64),
        ):
            with pytest.raises(TypeError, match=r"^\[relu\] x "):
                fa.ops.relu(tensor)


@on_host
def test_subclasses_of_arrays(backend: Backend) -> None:
    """A NumPy subclass is an array; what comes out is plain."""
    with fa.backend(backend.name):
        y = fa.ops.relu(np.array([[-1.0, 2.0]], np.float32).view(np.recarray))
    assert type(y) is np.ndarray
    assert y.tolist() == [[0.0, 2.0]]


@on_host
def test_misaligned_memory(backend: Backend) -> None:
    raw = np.zeros(4 * 7 + 1, np.uint8)
    x = raw[1:].view(np.float32)
    x[...] = np.arange(-3, 4)
    assert not x.flags.aligned
    with fa.backend(backend.name):
        assert fa.ops.relu(x).tolist() == [0, 0, 0, 0, 1, 2, 3]
        assert fa.ops.linear(x[None], x[None]).tolist() == [[28.0]]


def test_the_default_backend_is_the_first_that_can() -> None:
    """Host arrays take the compiled CPU kernels where they are, else the generic code; bits and all."""
    program = (
        "import sys, numpy as np, fastarch as fa; rng = np.random.default_rng(0);"
        "x, w = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 9, 9), (5, 4, 3, 3)));"
        "sys.stdout.buffer.write(fa.ops.conv2d(x, w).tobytes())"
    )
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 9, 9), (5, 4, 3, 3)))
    name = "cpu" if "cpu" in backends.available() else "numpy"
    environment = {k: v for k, v in os.environ.items() if k != "FASTARCH_BACKEND"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    with fa.backend(name):
        assert done.stdout == fa.ops.conv2d(x, weight).tobytes()


UNCOMPILED = """
import sys
for name in ("_core", "_cpu", "_cuda", "_emulator"):
    sys.modules["fastarch." + name] = None  # as if it were not in the build
import numpy as np, fastarch as fa
fa.manual_seed(1)
model = fa.models.lenet5()
x = fa.random.normal((4, 1, 32, 32))
loss = fa.nn.functional.cross_entropy(model(fa.tensor(x)), np.arange(4))
loss.backward()
print(repr(loss.item()), [repr(float(np.abs(p.grad).sum())) for p in model.parameters()])
print(fa.info())
"""


def test_nothing_compiled_is_needed() -> None:
    """The same losses and gradients, bit for bit, as the generic code beside the compiled modules."""
    outputs = []
    for program in (UNCOMPILED, UNCOMPILED[UNCOMPILED.index("import numpy") :]):
        environment = {**os.environ, "FASTARCH_BACKEND": "numpy"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0].splitlines()[0] == outputs[1].splitlines()[0]
    assert "fastarch._cuda is not in this build" in outputs[0]
