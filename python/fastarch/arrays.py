"""Arrays of other libraries, used in place: NumPy, CuPy, PyTorch, JAX, anything that speaks DLPack.

The operators compute on NumPy arrays (host) and CuPy arrays (CUDA device). Every other array is viewed as one
of the two without copying, and what is computed is handed back as the type that came in. Nothing moves
between host and device on its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # NumPy or CuPy inside the operators; at their boundary anything with __dlpack__
Restore = Callable[[Array], Array]

# Device types of the DLPack standard whose memory NumPy or CuPy can view.
_HOST_DEVICES = (1, 3)  # CPU, pinned CPU memory
_CUDA_DEVICES = (2, 13)  # CUDA, managed CUDA memory


def namespace(x: Array) -> ModuleType:
    """The module whose functions compute on the native array `x`: numpy or cupy."""
    if isinstance(x, np.ndarray):
        return np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    raise TypeError(f"[namespace] x is {_type_name(x)}, expected a NumPy or CuPy array")


def on_device(x: Array) -> bool:
    """Whether the native array `x` lies in device memory."""
    return not isinstance(x, np.ndarray)


_FLOAT16 = np.dtype(np.float16)


def is_half(dtype: Any) -> bool:
    """Whether `dtype` is a 16-bit float: NumPy's float16, or bfloat16 as ml_dtypes registers it."""
    if dtype is _FLOAT16:
        return True
    return dtype.itemsize == 2 and dtype.type.__name__ in ("float16", "bfloat16") and bool(dtype.isnative)


def is_float(dtype: Any) -> bool:
    """Whether `dtype` is a float; NumPy's own test, `kind == "f"`, does not know bfloat16."""
    return dtype.kind == "f" or is_half(dtype)


def adopt(x: Array, operator: str = "adopt", name: str = "x") -> tuple[Array, Restore]:
    """`x` as a NumPy or CuPy array on the same memory, and the function that turns a result into x's type.

    NumPy and CuPy arrays come back as they are; PyTorch, JAX and other arrays with __dlpack__ are viewed
    without a copy. An array whose library cannot import DLPack gets NumPy or CuPy results. Raises TypeError,
    naming `operator` and `name`, for anything else, and for a PyTorch tensor that requires grad.
    """
    if isinstance(x, np.ndarray):
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"[{operator}] {name} is a masked array, expected a plain one: fill it first")
        return (x if type(x) is np.ndarray else x.view(np.ndarray)), as_is
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return x, as_is
    if any(base.__module__ == "fastarch.tensors" for base in type(x).__mro__):
        raise TypeError(
            f"[{operator}] {name} is a fastarch Tensor, expected an array: pass {name}.data, "
            "or call fastarch.nn.functional, which records gradients"
        )
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return _adopt_torch(x, torch, operator, name)
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return _adopt_dlpack(x, operator, name)
    raise TypeError(
        f"[{operator}] {name} is {_type_name(x)}, "
        "expected an array (NumPy, CuPy, or anything with __dlpack__)"
    )


def as_is(x: Array) -> Array:
    """`x`: how a native array is handed back."""
    return x


def _type_name(x: object) -> str:
    if x is None:
        return "None"
    kind = type(x)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _cupy(operator: str, name: str) -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise TypeError(
            f"[{operator}] {name} lies in CUDA memory, which needs CuPy ({error}); "
            "pip install 'fastarch[cuda13]'"
        ) from error
    return cupy


def _adopt_torch(x: Array, torch: ModuleType, operator: str, name: str) -> tuple[Array, Restore]:
    if x.requires_grad:
        raise TypeError(
            f"[{operator}] {name} requires grad, which fastarch would not record: pass {name}.detach() "
            "and call the operator's backward yourself"
        )
    if x.device.type not in ("cpu", "cuda"):
        raise TypeError(f"[{operator}] {name} is a torch.Tensor on device '{x.device}', expected cpu or cuda")
    cupy = _cupy(operator, name) if x.device.type == "cuda" else None
    bfloat16 = bfloat16_dtype(operator, name) if x.dtype == torch.bfloat16 else None
    try:
        if bfloat16 is not None:
            return _adopt_torch_bfloat16(x, torch, cupy, bfloat16)
        if cupy is None:
            return x.numpy(), torch.from_numpy
        return cupy.from_dlpack(x), torch.from_dlpack
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"[{operator}] {name} is a torch.Tensor ({x.dtype}, {x.layout}) that cannot be viewed: {error}"
        ) from error


def _adopt_torch_bfloat16(
    x: Array, torch: ModuleType, cupy: ModuleType | None, bfloat16: np.dtype
) -> tuple[Array, Restore]:
    """bfloat16 travels as the integers of its bits: NumPy's is a dtype that no protocol knows."""
    bits = x.view(torch.int16)
    native = bits.numpy() if cupy is None else cupy.from_dlpack(bits)

    def restore(y: Array) -> Array:
        import_bits = torch.from_numpy if cupy is None else torch.from_dlpack
        return import_bits(y.view(np.int16)).view(torch.bfloat16) if y.dtype == bfloat16 else import_bits(y)

    return native.view(bfloat16), restore


def bfloat16_dtype(operator: str, name: str) -> np.dtype:
    """NumPy's bfloat16, which ml_dtypes brings. Raises TypeError, naming both, where that is missing."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise TypeError(
            f"[{operator}] {name} is bfloat16, which NumPy has from ml_dtypes ({error}); "
            "pip install 'fastarch[bfloat16]'"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)


def _adopt_dlpack(x: Array, operator: str, name: str) -> tuple[Array, Restore]:
    device = int(x.__dlpack_device__()[0])
    if device not in _HOST_DEVICES + _CUDA_DEVICES:
        raise TypeError(
            f"[{operator}] {name} lies on DLPack device type {device}, expected host or CUDA memory"
        )
    library = np if device in _HOST_DEVICES else _cupy(operator, name)
    try:
        native = library.from_dlpack(x)
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        raise TypeError(
            f"[{operator}] {name} ({_type_name(x)}) cannot be viewed through DLPack: {error}"
        ) from error
    return native, _importer(x) or as_is


def _importer(x: Array) -> Restore | None:
    """How the library of `x` takes in a DLPack array: the array API standard's from_dlpack, or JAX's own."""
    if hasattr(x, "__array_namespace__"):
        importer = getattr(x.__array_namespace__(), "from_dlpack", None)
        if importer is not None:
            return importer
    root = sys.modules.get(type(x).__module__.partition(".")[0])
    for module in (
        sys.modules.get("jax.dlpack") if getattr(root, "__name__", "").startswith("jax") else None,
        root,
    ):
        importer = getattr(module, "from_dlpack", None)
        if importer is not None:
            return importer
    return None


def stream_pointer() -> int:
    """The address of CuPy's current stream: where kernels on device arrays are launched."""
    cupy = sys.modules["cupy"]
    return int(cupy.cuda.get_current_stream().ptr)


@contextmanager
def _cupy_on_torch_stream(cupy: ModuleType, torch: ModuleType, device: int) -> Iterator[None]:
    with (
        cupy.cuda.Device(device),
        cupy.cuda.ExternalStream(torch.cuda.current_stream(device).cuda_stream, device),
    ):
        yield


def caller_stream(x: Array, operator: str, name: str) -> Any:
    """A context in which CuPy works on the device of `x`, foreign or native, and on its caller's current
    stream: PyTorch's when `x` is a CUDA tensor, otherwise CuPy's own. Does nothing for host arrays."""
    if isinstance(x, np.ndarray):
        return nullcontext()
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        if x.device.type != "cuda":
            return nullcontext()
        return _cupy_on_torch_stream(_cupy(operator, name), torch, x.device.index)
    if hasattr(x, "__dlpack_device__"):
        device, index = x.__dlpack_device__()
        if device in _CUDA_DEVICES:
            return _cupy(operator, name).cuda.Device(int(index))
    return nullcontext()
