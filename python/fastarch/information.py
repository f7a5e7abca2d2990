"""What this installation can do, and why not where it cannot: fa.info()."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

import fastarch
from fastarch import autotuning, backends

_COMPILED = ("_core", "_cpu", "_cuda", "_emulator")


@dataclass(frozen=True)
class Information:
    """Versions, compiled modules, backends and devices; str() is for reading, to_dict() for JSON."""

    versions: dict[str, str | None]
    platform: str
    threads: int
    compiled: dict[str, bool]
    backends: dict[str, dict[str, Any]]  # name: {usable, reason}; reason is None when usable
    backend: str | None  # the one that was named, None for the default choice
    devices: list[dict[str, Any]]
    autotune: dict[str, Any]  # on; file or None; entries: the plans this version finds there

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, strings and numbers."""
        return asdict(self)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items() if version)
        compiled = ", ".join(name for name, there in self.compiled.items() if there) or "nothing"
        lines = [versions, f"platform: {self.platform}, {self.threads} threads", f"compiled: {compiled}"]
        for name, state in self.backends.items():
            lines.append(f"backend {name}: " + ("usable" if state["usable"] else f"off: {state['reason']}"))
        chosen = self.backend or "default (host arrays: cpu or numpy, device arrays: cuda)"
        lines.append(f"chosen: {chosen}")
        tuned = self.autotune
        lines.append(
            f"autotune: {'on' if tuned['on'] else 'off'}, "
            f"{tuned['entries']} plans in {tuned['file'] or 'no file'}"
        )
        for device in self.devices:
            lines.append("device " + ", ".join(f"{key} {value}" for key, value in device.items()))
        return "\n".join(lines)

    __repr__ = __str__


def info() -> Information:
    """What is installed, what is compiled, which backends can run here or why not, and the CUDA devices."""
    return Information(
        versions={
            "fastarch": fastarch.__version__,
            "Python": platform.python_version(),
            "NumPy": np.__version__,
            "CuPy": _cupy_version(),
            **_cuda_versions(),
        },
        platform=platform.platform(),
        threads=_threads(),
        compiled={name: importlib.util.find_spec(f"fastarch.{name}") is not None for name in _COMPILED},
        backends={name: _state(name) for name in backends.NAMES},
        backend=backends.current(),
        devices=_devices(),
        autotune=autotuning.state(),
    )


def _state(name: str) -> dict[str, Any]:
    reason = backends.reason_unusable(name)
    return {"usable": reason is None, "reason": reason}


def _cupy_version() -> str | None:
    """CuPy's version without importing it, which takes a second."""
    if importlib.util.find_spec("cupy") is None:
        return None
    for package in metadata.packages_distributions().get("cupy", []):
        return metadata.version(package)
    return "unknown"


def _threads() -> int:
    try:
        return int(importlib.import_module("fastarch._core").thread_count())
    except ImportError:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cuda_module() -> ModuleType | None:
    """The compiled CUDA part: it imports, and answers, where there is no driver too."""
    try:
        return importlib.import_module("fastarch._cuda")
    except ImportError:  # backends.reason_unusable("cuda") tells the reader why
        return None


def _cuda_versions() -> dict[str, str | None]:
    cuda = _cuda_module()
    if cuda is None:
        return {"CUDA runtime": None, "CUDA driver": None}
    numbers = {"CUDA runtime": cuda.runtime_version(), "CUDA driver": cuda.driver_version()}
    return {name: f"{n // 1000}.{n % 1000 // 10}" if n else None for name, n in numbers.items()}


def _devices() -> list[dict[str, Any]]:
    """The CUDA devices that this process sees, also when CuPy is missing and the backend is off."""
    cuda = _cuda_module()
    if cuda is None or cuda.device_error():
        return []
    return [dict(device) for device in cuda.devices()]
