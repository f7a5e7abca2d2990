"""Which implementations of the operators exist, and which one runs.

Four backends share one meaning: ``numpy`` (array-generic Python, needs nothing compiled), ``cpu`` (compiled),
``cuda`` (compiled, device arrays) and ``emulator`` (the CUDA kernels compiled for the host, for tests and
debugging). By default host arrays take ``cpu`` where a compiled kernel exists and ``numpy`` otherwise, device
arrays take ``cuda``. Naming a backend never falls back: it works, or says why not.
"""

from __future__ import annotations

import importlib
import os
from contextvars import ContextVar
from types import ModuleType, TracebackType

from fastarch import autotuning

NAMES = ("numpy", "cpu", "cuda", "emulator")

_MOST_THREADS = 4096  # csrc/core/thread_pool.cpp

_MODULES = {"cpu": "fastarch._cpu", "cuda": "fastarch._cuda", "emulator": "fastarch._emulator"}
_loaded: dict[str, ModuleType | None] = {"numpy": None}
_reasons: dict[str, str] = {}
_implementations: dict[tuple[str | None, str, bool], ModuleType | None] = {}


def _check_name(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"[backend] got {name!r}, expected one of {', '.join(NAMES)}")
    return name


def _from_environment() -> str | None:
    name = os.environ.get("FASTARCH_BACKEND")
    return _check_name(name) if name else None


def _check_threads() -> None:
    """The compiled kernels read the variable for themselves, and could not say what is wrong with it."""
    text = os.environ.get("FASTARCH_NUM_THREADS")
    if text and not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_THREADS):
        raise ValueError(
            f"[threads] FASTARCH_NUM_THREADS is {text!r}, expected a whole number from 1 to {_MOST_THREADS}"
        )


_check_threads()
_default = _from_environment()
_selected: ContextVar[str | None] = ContextVar("fastarch_backend", default=_default)
# What was in force around the open `with` blocks: of this thread, as one object may serve several of them.
_outer: ContextVar[tuple[str | None, ...]] = ContextVar("fastarch_outer_backends", default=())


def reason_unusable(name: str) -> str | None:
    """Why backend `name` cannot run here, or None when it can."""
    _check_name(name)
    if name not in _loaded and name not in _reasons:
        try:
            module = importlib.import_module(_MODULES[name])
        except ModuleNotFoundError:
            _reasons[name] = f"{_MODULES[name]} is not in this build"
        except ImportError as error:
            _reasons[name] = f"{_MODULES[name]} does not load ({error})"
        else:
            reason = _cuda_reason(module) if name == "cuda" else None
            if reason:
                _reasons[name] = reason
            else:
                autotuning.install(module)
                _loaded[name] = module
    return _reasons.get(name)


def _cuda_reason(module: ModuleType) -> str | None:
    error = module.device_error()
    if error:
        return error
    try:
        importlib.import_module("cupy")
    except ImportError as error:
        return f"CuPy holds the device arrays and does not import ({error}); pip install 'fastarch[cuda13]'"
    return None


def available() -> tuple[str, ...]:
    """The names of the backends that can run here."""
    return tuple(name for name in NAMES if reason_unusable(name) is None)


def current() -> str | None:
    """The backend that was named by `backend(...)` or FASTARCH_BACKEND, or None for the default choice."""
    return _selected.get()


class backend:
    """Runs the operators on one backend: ``with fa.backend("numpy"): ...``.

    name: "numpy", "cpu", "cuda" or "emulator". Raises ValueError for another name and RuntimeError, with the
    reason, when the backend cannot run here. The environment variable FASTARCH_BACKEND does the same for a
    whole process.
    """

    def __init__(self, name: str) -> None:
        reason = reason_unusable(name)
        if reason:
            raise RuntimeError(f"[backend] {name!r} cannot run here: {reason}")
        self.name = name

    def __enter__(self) -> backend:
        _outer.set((*_outer.get(), _selected.get()))
        _selected.set(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        *outer, before = _outer.get()
        _outer.set(tuple(outer))
        _selected.set(before)


def implementation(kernel: str, on_device: bool) -> ModuleType | None:
    """The compiled module that runs `kernel` (a name such as "conv2d_forward"), or None for the generic code.

    Raises RuntimeError when a backend was named that cannot run, lacks the kernel or takes other arrays.
    """
    key = (_selected.get(), kernel, on_device)
    if key not in _implementations:
        _implementations[key] = _choose(*key)
    return _implementations[key]


def _choose(name: str | None, kernel: str, on_device: bool) -> ModuleType | None:
    if name is None:
        candidate = "cuda" if on_device else "cpu"
        usable = reason_unusable(candidate) is None
        module = _loaded[candidate] if usable else None
        return module if hasattr(module, kernel) else None
    reason = reason_unusable(name)
    if reason:
        raise RuntimeError(f"[backend] {name!r} cannot run here: {reason}")
    if name == "numpy":
        return None
    if on_device != (name == "cuda"):
        came, takes = ("device", "host") if on_device else ("host", "device (CuPy)")
        raise RuntimeError(f"[{kernel}] backend {name!r} takes {takes} arrays, got {came} arrays")
    module = _loaded[name]
    if not hasattr(module, kernel):
        raise RuntimeError(f"[{kernel}] backend {name!r} has no such kernel in this build")
    return module
