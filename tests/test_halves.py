"""float16 and bfloat16: what NumPy and PyTorch make of them, kernels of their own and float32 in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastarch as fa
from conftest import FLOATS, Backend, seeded
from fastarch import backends, nn

HALVES = ("float16", "bfloat16")
EVERY = np.arange(2**16, dtype=np.uint16)


def emulator() -> Any:
    reason = backends.reason_unusable("emulator")
    if reason:
        pytest.skip(f"the emulator cannot run here: {reason}")
    return backends._loaded["emulator"]


@pytest.mark.parametrize("dtype", HALVES)
def test_every_16_bit_float_passes_through_a_kernel(dtype: str, backend: Backend) -> None:
    """float32 and back changes no bit but a NaN's: of subnormals, signed zeros and infinities neither."""
    x = EVERY.view(FLOATS[dtype])
    y = backend.host(backend.call("dropout", {"x": backend.put(x), "p": 0.0, "seed": 0, "offset": 0}))
    numbers = ~np.isnan(x.astype(np.float32))
    np.testing.assert_array_equal(y.view(np.uint16)[numbers], EVERY[numbers])
    assert np.isnan(y.astype(np.float32)[~numbers]).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_rounding_is_to_the_nearest_ties_to_even(dtype: str) -> None:
    """The emulator's conversion against NumPy's and ml_dtypes', on sums whose float32 value is known.

    A window of two numbers: their mean is exact in float32 and lies anywhere between two 16-bit floats.
    """
    emulator()
    rng = seeded(f"rounding {dtype}")
    bits = rng.integers(0, 2**16, (1, 1, 1, 200_000), dtype=np.uint16)
    neighbours = bits.copy()
    neighbours[..., 1::2] = bits[..., ::2] + rng.integers(-3, 4, bits[..., ::2].shape).astype(np.uint16)
    for values in (bits, neighbours):
        x = values.view(FLOATS[dtype])
        wide = x.astype(np.float32).reshape(-1, 2)
        with np.errstate(over="ignore", invalid="ignore"):
            want = ((wide[:, 0] + wide[:, 1]) / np.float32(2)).astype(FLOATS[dtype])
        with fa.backend("emulator"):
            got = fa.ops.avg_pool2d(x, (1, 2)).ravel()
        numbers = ~np.isnan(want.astype(np.float32))
        np.testing.assert_array_equal(got.view(np.uint16)[numbers], want.view(np.uint16)[numbers])
        np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), ~numbers)


@pytest.mark.parametrize("dtype", HALVES)
def test_overflow_is_infinite_and_quiet(dtype: str, backend: Backend) -> None:
    top = FLOATS[dtype].type(ml_dtypes.finfo(FLOATS[dtype]).max)
    x = np.array([top, -top], FLOATS[dtype])
    y = backend.host(backend.call("dropout", {"x": backend.put(x), "p": 0.01, "seed": 0, "offset": 0}))
    assert y.astype(np.float32).tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize("dtype", HALVES)
def test_pytorch_16_bit_floats_come_back_as_such(dtype: str, backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = seeded("halves").standard_normal((2, 3, 6, 6)).astype(np.float32)
    device = "cuda" if backend.name == "cuda" else "cpu"
    tensor = torch.tensor(x, device=device).to(getattr(torch, dtype))
    with fa.backend(backend.name):
        y, argmax = fa.ops.max_pool2d(tensor, 2)
        rows = fa.ops.softmax(tensor.reshape(6, -1))
    want, where = torch.nn.functional.max_pool2d(tensor.float(), 2, return_indices=True)
    assert y.dtype == tensor.dtype
    assert rows.dtype == tensor.dtype
    assert argmax.dtype == torch.uint8
    assert argmax.shape == where.shape
    assert torch.equal(y.float(), want)
    assert torch.allclose(rows.float(), torch.softmax(tensor.float().reshape(6, -1), -1), atol=2.0**-8)


def test_kernels_with_and_without_16_bit_floats() -> None:
    """What has a kernel takes it as it is; what has none gets float32 copies: one rounding either way."""
    kernels = emulator()._half_kernels
    assert {"activation_forward", "softmax_forward", "max_pool2d_backward", "dropout_forward"} <= kernels
    assert not backends.reason_unusable("cpu")
    assert backends._loaded["cpu"]._half_kernels == set()


NO_ML_DTYPES = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np, torch, fastarch as fa
x = np.array([[-1.0, 2.0]], np.float16)
print(fa.ops.relu(x).dtype, fa.ops.relu(torch.tensor(x)).dtype)
try:
    fa.ops.relu(torch.ones(3, dtype=torch.bfloat16))
except TypeError as error:
    print(error)
"""


def test_float16_needs_no_ml_dtypes() -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    done = subprocess.run([sys.executable, "-c", NO_ML_DTYPES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "float16 torch.float16"
    assert second.startswith("[relu] x is bfloat16, which NumPy has from ml_dtypes")


def small_model() -> Any:
    fa.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 5),
    )


@pytest.mark.parametrize("dtype", HALVES)
def test_a_model_of_16_bit_floats_learns(dtype: str, backend: Backend) -> None:
    """As PyTorch's `half()` does it, but for batch norms, which keep float32; the loss falls to a tenth."""
    model = small_model().to(dtype)
    if backend.name == "cuda":
        model.cuda()
    kinds = {name: str(value.dtype) for name, value in model.state_dict().items()}
    assert kinds["0.weight"] == kinds["4.bias"] == dtype
    assert kinds["1.weight"] == kinds["1.running_var"] == "float32"
    x = seeded("half model").standard_normal((16, 1, 8, 8)).astype(FLOATS[dtype])
    y = np.arange(16) % 5
    optimizer = fa.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    with fa.backend(backend.name):
        for _ in range(12):
            loss = nn.functional.cross_entropy(model(fa.tensor(backend.put(x))), backend.put(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.item()))
    assert loss.dtype == FLOATS[dtype]
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize("dtype", HALVES)
def test_16_bit_weights_are_saved_and_loaded(dtype: str, tmp_path: Path) -> None:
    model = small_model().to(dtype)
    fa.save(model, tmp_path / "model.safetensors")
    loaded = fa.load(tmp_path / "model.safetensors")
    for name, value in model.state_dict().items():
        assert loaded[name].dtype == value.dtype, name
        assert loaded[name].tobytes() == value.tobytes(), name
    torch_file = pytest.importorskip("safetensors.torch", reason="PyTorch is not installed")
    theirs = torch_file.load_file(tmp_path / "model.safetensors")
    assert str(theirs["0.weight"].dtype) == f"torch.{dtype}"
    torch_file.save_file(theirs, tmp_path / "theirs.safetensors")
    again = fa.load(small_model().to(dtype), tmp_path / "theirs.safetensors")
    for name, value in model.state_dict().items():
        assert again.state_dict()[name].tobytes() == value.tobytes(), name


def test_a_model_becomes_float32_again() -> None:
    model = small_model().to("bfloat16").to("float32")
    assert {str(value.dtype) for value in model.state_dict().values()} == {"float32", "int64"}
    with pytest.raises(ValueError, match=r"\[to\] got 'float8', expected 'cpu', 'cuda', float32"):
        model.to("float8")
    with pytest.raises(TypeError, match=r"\[to\] got int16"):
        model.to(np.int16)
