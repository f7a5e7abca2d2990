"""cuDNN's recurrent layers through its C API, by ctypes: every algorithm by name, where PyTorch chooses one.

Numbers and argument lists are those of cudnn_adv.h 9.28; that library also took all descriptors that are set
here, on a machine without a GPU. What cuDNN refuses is an Unsupported with cuDNN's own words.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ALGORITHMS = {"standard": 0, "static": 1, "dynamic": 2, "small-h": 3}
MODES = {"rnn": 1, "lstm": 2, "gru": 3}  # rnn: tanh
GATES = {"rnn": 1, "lstm": 4, "gru": 3}  # in PyTorch's order: i, f, g, o and r, z, n
TYPES = {"float32": 0, "float16": 2, "bfloat16": 9}
FLOAT, DEFAULT_MATH, TENSOR_OP_MATH, FMA_MATH = 0, 0, 1, 3  # default: float32 may be computed in tf32
INFERENCE, TRAINING = 0, 1
DOUBLE_BIAS, UNIDIRECTIONAL, LINEAR_INPUT, PADDED_IO, SEQUENCE_MAJOR = 2, 0, 0, 1, 0
ADD = 0  # to the weights' gradients: cuDNN has no other way

_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
# What is called, with its arguments; all return a status.
SIGNATURES: dict[str, list[Any]] = {
    "cudnnCreate": [_POINTER],
    "cudnnDestroy": [_POINTER],
    "cudnnSetStream": [_POINTER, _POINTER],
    "cudnnCreateTensorDescriptor": [_POINTER],
    "cudnnDestroyTensorDescriptor": [_POINTER],
    "cudnnSetTensorNdDescriptor": [_POINTER, _INT, _INT, _POINTER, _POINTER],
    "cudnnGetTensorNdDescriptor": [_POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER],
    "cudnnCreateDropoutDescriptor": [_POINTER],
    "cudnnDestroyDropoutDescriptor": [_POINTER],
    "cudnnSetDropoutDescriptor": [_POINTER, _POINTER, ctypes.c_float, _POINTER, _SIZE, ctypes.c_ulonglong],
    "cudnnCreateRNNDataDescriptor": [_POINTER],
    "cudnnDestroyRNNDataDescriptor": [_POINTER],
    "cudnnSetRNNDataDescriptor": [_POINTER, *[_INT] * 5, _POINTER, _POINTER],
    "cudnnCreateRNNDescriptor": [_POINTER],
    "cudnnDestroyRNNDescriptor": [_POINTER],
    "cudnnSetRNNDescriptor_v8": [_POINTER, *[_INT] * 12, _POINTER, ctypes.c_uint32],
    "cudnnBuildRNNDynamic": [_POINTER, _POINTER, _INT],
    "cudnnGetRNNWeightSpaceSize": [_POINTER, _POINTER, _POINTER],
    "cudnnGetRNNWeightParams": [_POINTER, _POINTER, _INT, _SIZE, _POINTER, _INT, *[_POINTER] * 4],
    "cudnnGetRNNTempSpaceSizes": [_POINTER, _POINTER, _INT, _POINTER, _POINTER, _POINTER],
    "cudnnRNNForward": [_POINTER, _POINTER, _INT, *[_POINTER] * 11, *[_SIZE, _POINTER] * 3],
    "cudnnRNNBackwardData_v8": [*[_POINTER] * 16, *[_SIZE, _POINTER] * 3],
    "cudnnRNNBackwardWeights_v8": [_POINTER, _POINTER, _INT, *[_POINTER] * 7, *[_SIZE, _POINTER] * 3],
}


class Unsupported(Exception):
    """cuDNN does not compute this layer in this way; or there is no cuDNN."""


class Library:
    """The functions of cuDNN, which raise Unsupported for any status but success."""

    def __init__(self, library: Any) -> None:
        self.library = library
        library.cudnnGetErrorString.restype = ctypes.c_char_p
        library.cudnnGetErrorString.argtypes = [_INT]
        library.cudnnGetLastErrorString.restype = None
        library.cudnnGetLastErrorString.argtypes = [ctypes.c_char_p, _SIZE]
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _INT

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status == 0:
            return
        more = ctypes.create_string_buffer(512)
        self.library.cudnnGetLastErrorString(more, len(more))
        words = [self.library.cudnnGetErrorString(status).decode(), more.value.decode(errors="replace")]
        raise Unsupported(f"{name}: {': '.join(word.strip() for word in words if word.strip())}")

    def create(self, kind: str) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self(f"cudnnCreate{kind}", ctypes.byref(made))
        return made


def find() -> Library:
    """The cuDNN that PyTorch has loaded, that its wheel brings, or that the system has; else Unsupported."""
    names = ["libcudnn.so.9"]
    for package in ("nvidia.cudnn", "nvidia"):
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        folders = list(spec.submodule_search_locations or []) if spec else []
        names += [str(p) for folder in folders for p in Path(folder).glob("**/libcudnn.so.9")]
    for name in names:
        try:
            return Library(ctypes.CDLL(name))
        except (OSError, AttributeError):  # absent, or older than the functions
            continue
    raise Unsupported("libcudnn.so.9 is not installed")


@dataclass(frozen=True)
class Memory:
    """Where arrays lie: bytes of `n` zeros, a copy of a host array, an array's address, the stream."""

    zeros: Callable[[int], Any]
    put: Callable[[np.ndarray], Any]
    address: Callable[[Any], int]
    stream: int

    @staticmethod
    def of_device() -> Memory:
        import cupy

        return Memory(
            lambda n: cupy.zeros(n, np.uint8),
            cupy.asarray,
            lambda array: array.data.ptr,
            cupy.cuda.get_current_stream().ptr,
        )


class Layer:
    """One layer, one direction, x [T, N, H] -> y [T, N, H], from zero states; weights as PyTorch has them.

    math: "float32" (no tensor cores), "tf32", or for 16-bit types "tensor". All else as PyTorch asks for it:
    padded sequences of equal length, float32 sums. Buffers are made here, so that a call is cuDNN's alone.
    """

    def __init__(
        self, call: Library, memory: Memory, kind: str, dtype: np.dtype, shape: tuple[int, int, int],
        algorithm: str, math: str, weights: list[np.ndarray], training: bool,
    ) -> None:  # fmt: skip
        self.call, self.memory, self.kind, self.training = call, memory, kind, training
        (self.t, self.n, self.h), self.dtype = shape, np.dtype(dtype)
        self.type = TYPES[str(self.dtype)]
        self.made: list[tuple[str, ctypes.c_void_p]] = []
        try:
            self._describe(algorithm, math)
            self._place(weights)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Gives cuDNN's objects back."""
        while self.made:
            kind, it = self.made.pop()
            self.call(f"cudnnDestroy{kind}", it)

    def _create(self, kind: str) -> ctypes.c_void_p:
        it = self.call.create(kind)
        self.made.append((kind, it))
        return it

    def _describe(self, algorithm: str, math: str) -> None:
        call = self.call
        self.handle = self._create("")
        call("cudnnSetStream", self.handle, self.memory.stream)
        dropout = self._create("DropoutDescriptor")
        call("cudnnSetDropoutDescriptor", dropout, self.handle, 0.0, None, 0, 0)
        self.rnn = self._create("RNNDescriptor")
        math_type = {"float32": FMA_MATH, "tf32": DEFAULT_MATH, "tensor": TENSOR_OP_MATH}[math]
        kinds = (ALGORITHMS[algorithm], MODES[self.kind], DOUBLE_BIAS, UNIDIRECTIONAL, LINEAR_INPUT)
        sizes = (self.h, self.h, self.h, 1)  # features, units, projection to as many, layers
        call(
            "cudnnSetRNNDescriptor_v8",
            *(self.rnn, *kinds, self.type, FLOAT, math_type, *sizes, dropout, PADDED_IO),
        )
        if algorithm == "dynamic":
            call("cudnnBuildRNNDynamic", self.handle, self.rnn, self.n)
        self.data = self._create("RNNDataDescriptor")  # of x and of y
        lengths = (_INT * self.n)(*[self.t] * self.n)
        call(
            "cudnnSetRNNDataDescriptor",
            *(self.data, self.type, SEQUENCE_MAJOR, self.t, self.n, self.h, lengths, None),
        )
        self.state = self._create("TensorDescriptor")  # [layers, N, H]
        dims, strides = (_INT * 3)(1, self.n, self.h), (_INT * 3)(self.n * self.h, self.h, 1)
        call("cudnnSetTensorNdDescriptor", self.state, self.type, 3, dims, strides)
        work, reserve = ctypes.c_size_t(), ctypes.c_size_t()
        self.mode = TRAINING if self.training else INFERENCE
        call(
            "cudnnGetRNNTempSpaceSizes",
            *(self.handle, self.rnn, self.mode, self.data, ctypes.byref(work), ctypes.byref(reserve)),
        )
        self.work = self.memory.zeros(max(1, work.value))
        self.reserve = self.memory.zeros(max(1, reserve.value))
        self.work_size, self.reserve_size = work.value, reserve.value

    def _place(self, weights: list[np.ndarray]) -> None:
        """Copies w_ih, w_hh, b_ih, b_hh to where cuDNN wants them, gate by gate."""
        size = ctypes.c_size_t()
        self.call("cudnnGetRNNWeightSpaceSize", self.handle, self.rnn, ctypes.byref(size))
        self.size = size.value
        self.weights, self.gradients = (self.memory.zeros(self.size) for _ in range(2))
        base = self.memory.address(self.weights)
        host = np.zeros(self.size, np.uint8)
        gates, self.offsets = GATES[self.kind], []
        matrix, bias = self._create("TensorDescriptor"), self._create("TensorDescriptor")
        for number in range(2 * gates):  # those of the input, then the recurrent ones
            at, bias_at = ctypes.c_void_p(), ctypes.c_void_p()
            self.call(
                "cudnnGetRNNWeightParams",
                *(self.handle, self.rnn, 0, self.size, base, number),
                *(matrix, ctypes.byref(at), bias, ctypes.byref(bias_at)),
            )
            rows = slice(number % gates * self.h, (number % gates + 1) * self.h)
            recurrent = number >= gates
            self._expect(matrix, self.h * self.h)
            self._expect(bias, self.h)
            for source, address in ((weights[recurrent], at), (weights[2 + recurrent], bias_at)):
                offset, part = (address.value or 0) - base, np.ascontiguousarray(source[rows], self.dtype)
                if not 0 <= offset <= self.size - part.nbytes:
                    raise Unsupported("cudnnGetRNNWeightParams: a weight lies outside of the weight space")
                host[offset : offset + part.nbytes] = part.view(np.uint8).ravel()
            self.offsets.append((at.value or 0) - base)
        self.weights[...] = self.memory.put(host)

    def _expect(self, tensor: ctypes.c_void_p, elements: int) -> None:
        kind, count, dims, strides = _INT(), _INT(), (_INT * 3)(), (_INT * 3)()
        out = (ctypes.byref(kind), ctypes.byref(count), dims, strides)
        self.call("cudnnGetTensorNdDescriptor", tensor, 3, *out)
        if (kind.value, int(np.prod(dims[: count.value]))) != (self.type, elements):
            raise Unsupported(f"cudnnGetRNNWeightParams: type {kind.value}, dimensions {list(dims)}")

    def _spaces(self, weights: Any) -> tuple[Any, ...]:
        at = self.memory.address
        return (
            *(self.size, at(weights), self.work_size, at(self.work)),
            *(self.reserve_size, at(self.reserve) if self.reserve_size else None),
        )

    def forward(self, x: Any, y: Any) -> Any:
        """y of x, both of the layer's memory and type; final states are not asked for."""
        at = self.memory.address
        states = (self.state, None, None, self.state, None, None)
        self.call(
            "cudnnRNNForward",
            *(self.handle, self.rnn, self.mode, None, self.data, at(x), self.data, at(y), *states),
            *self._spaces(self.weights),
        )
        return y

    def backward(self, x: Any, y: Any, dy: Any, dx: Any) -> Any:
        """After a forward in training: dx, and the gradients of all weights; as bytes."""
        at = self.memory.address
        states = (self.state, None, None, None, self.state, None, None, None)
        self.call(
            "cudnnRNNBackwardData_v8",
            *(self.handle, self.rnn, None, self.data, at(y), at(dy), self.data, at(dx), *states),
            *self._spaces(self.weights),
        )
        self.gradients[...] = 0
        self.call(
            "cudnnRNNBackwardWeights_v8",
            *(self.handle, self.rnn, ADD, None, self.data, at(x), self.state, None, self.data, at(y)),
            *self._spaces(self.gradients),
        )
        return self.gradients

    def recurrent_gradient(self, to_host: Callable[[Any], np.ndarray]) -> np.ndarray:
        """dw_hh [gates * H, H] of the last backward."""
        host, size = to_host(self.gradients), self.h * self.h * self.dtype.itemsize
        recurrent = self.offsets[GATES[self.kind] :]
        return np.concatenate(
            [host[at : at + size].view(self.dtype).reshape(self.h, self.h) for at in recurrent]
        )


class Gradient:
    """dw_hh of a layer's last backward: fetched only where it is checked, not where it is timed."""

    def __init__(self, layer: Layer, to_host: Callable[[Any], np.ndarray]) -> None:
        self.layer, self.to_host = layer, to_host

    def get(self) -> np.ndarray:
        return self.layer.recurrent_gradient(self.to_host).astype(np.float64)


def ways(dtype: str, direction: str) -> list[tuple[str, str, bool]]:
    """(algorithm, math, training) of all that is measured; a forward also as inference."""
    maths = ("float32", "tf32") if dtype == "float32" else ("tensor",)
    trainings = (True, False) if direction == "forward" else (True,)
    return [(a, m, training) for a in ALGORITHMS for m in maths for training in trainings]


def name_of(algorithm: str, math: str, training: bool) -> str:
    parts = ["cudnn", algorithm, *(["tf32"] if math == "tf32" else []), *([] if training else ["inference"])]
    return " ".join(parts)


def pass_of(
    layer: Layer,
    direction: str,
    x: Any,
    dy: Any,
    buffers: tuple[Any, Any],
    to_host: Callable[[Any], np.ndarray],
) -> Callable[[], Any]:
    """One measured pass: y, or a forward and a backward and dw_hh."""
    y, dx = buffers
    if direction == "forward":
        return lambda: layer.forward(x, y)
    gradient = Gradient(layer, to_host)

    def both() -> Gradient:
        layer.forward(x, y)
        layer.backward(x, y, dy, dx)
        return gradient

    return both
