"""Weights and checkpoints as safetensors files, and files that are never half-written.

A safetensors file holds named arrays and cannot hold code, so a file from a stranger is safe to open. Every
write goes to a temporary file in the same folder, reaches the disk, and then takes the target's name in one
step: whatever happens at whatever moment, the target is the old file or the new one.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import platform
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, overload

import numpy as np

from fastarch.arrays import bfloat16_dtype, is_half

__all__ = ["atomic_write", "load", "load_checkpoint", "load_metadata", "save", "save_checkpoint"]

_CHECKPOINT_KEY = "fastarch.checkpoint"
_serial = itertools.count()


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file that takes the name `path` once all of it is on the disk: ``with atomic_write(p) as f``.

    mode: "wb" or "w" (UTF-8 text). When the body raises, the temporary file goes and `path` stays as it was.
    Raises OSError where the folder is missing or cannot be written.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"[atomic_write] mode is {mode!r}, expected 'wb' or 'w'")
    target = Path(os.path.realpath(path))  # through a symbolic link, not over it
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder, expected the name of a file", str(path))
    if target.exists() and not target.is_file():  # renaming over /dev/null would replace the device
        raise OSError(errno.EINVAL, "a device, socket or pipe, expected the name of a file", str(path))
    _remove_leftovers(target)
    temporary = target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{next(_serial)}.tmp")
    try:
        with open(temporary, mode, encoding=None if mode == "wb" else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)  # the new name is on the disk too


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_leftovers(target: Path) -> None:
    """Deletes the temporary files that killed processes of this machine left beside `target`."""
    pattern = re.compile(re.escape(f".{target.name}.{_host()}-") + r"(\d+)-\d+\.tmp")
    for entry in os.scandir(target.parent):
        match = pattern.fullmatch(entry.name)
        if match and not _is_running(int(match[1])):
            Path(entry.path).unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's process, or not a process id at all: not ours to clean up after
    return True


def save(model: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Writes the weights of `model` (a Module, or a dict of name to array) to a safetensors file, atomically.

    metadata: text to keep in the file's header, read by `load_metadata`. Raises TypeError for what is not an
    array of floats, integers or booleans, and OSError where the file cannot be written.
    """
    state = model if isinstance(model, Mapping) else model.state_dict()
    _write("save", dict(state), path, dict(metadata or {}))


def save_checkpoint(path: str | os.PathLike[str], arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Writes `arrays` (bit for bit, any shape) and `meta` (anything JSON holds) to one file, atomically."""
    _write("save_checkpoint", dict(arrays), path, {_CHECKPOINT_KEY: json.dumps(dict(meta))})


def _write(who: str, arrays: dict[str, Any], path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(
                f"[{who}] metadata[{key!r}] is {type(text).__name__}, expected text under a text key"
            )
    host = {name: _host_array(who, name, value) for name, value in arrays.items()}
    # Written here rather than by the library, whose own temporary file would outlive a killed process and
    # whose in-memory form would double the memory. Wide types first, so that every array lies aligned.
    order = sorted(host, key=lambda name: (-host[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name in order:
        array = host[name]
        span = [position, position := position + array.nbytes]
        header[name] = {"dtype": _code(array.dtype), "shape": array.shape, "data_offsets": span}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with atomic_write(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in order:
            file.write(host[name].reshape(-1).view(np.uint8))


def _code(dtype: np.dtype) -> str:
    if is_half(dtype):
        return "F16" if dtype.kind == "f" else "BF16"
    return "BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}"


def _host_array(who: str, name: str, value: Any) -> np.ndarray:
    if not isinstance(name, str) or name == "__metadata__":  # the format keeps that name for itself
        raise TypeError(f"[{who}] an array's name is {name!r}, expected other text")
    if hasattr(value, "__cuda_array_interface__") and hasattr(value, "get"):
        value = value.get()  # CuPy: saving is one of the few places that may copy to the host
    array = np.asarray(value)
    if (array.dtype.kind not in "biuf" and not is_half(array.dtype)) or array.dtype.itemsize > 8:
        raise TypeError(f"[{who}] {name!r} has dtype {array.dtype}, expected floats, integers or booleans")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


@overload
def load(path_or_model: str | os.PathLike[str]) -> dict[str, np.ndarray]: ...
@overload
def load(path_or_model: Any, path: str | os.PathLike[str]) -> Any: ...
def load(path_or_model: Any, path: str | os.PathLike[str] | None = None) -> Any:
    """Reads a safetensors file: ``load(path)`` gives a dict of arrays, ``load(model, path)`` fills the model.

    Returns the dict, or the model. Raises FileNotFoundError, and ValueError when the file is damaged or when
    names or shapes differ from the model's; the model is then unchanged.
    """
    if path is None:
        return _read("load", path_or_model)[0]
    state, _ = _read("load", path)
    _compare(path, state, path_or_model.state_dict())
    path_or_model.load_state_dict(state)
    return path_or_model


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that `save` kept in the header of `path`, without reading the arrays."""
    return _read("load_metadata", path, arrays=False)[1]


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `save_checkpoint` wrote: (arrays, meta).

    Raises FileNotFoundError, and ValueError when the file is damaged or is no checkpoint.
    """
    arrays, metadata = _read("load_checkpoint", path)
    if _CHECKPOINT_KEY not in metadata:
        raise ValueError(
            f"[load_checkpoint] {path} holds weights only, expected a checkpoint of a training run"
        )
    try:
        return arrays, json.loads(metadata[_CHECKPOINT_KEY])
    except json.JSONDecodeError as error:
        raise ValueError(f"[load_checkpoint] {path}: its record of the run is not JSON ({error})") from None


def _read(
    who: str, path: str | os.PathLike[str], arrays: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"[{who}] got {type(path).__name__}, expected a path")
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, f"[{who}] no such file", str(path))
    if not file.is_file():
        raise ValueError(f"[{who}] {path} is a folder, expected a safetensors file")
    if file.stat().st_size == 0:  # an empty file cannot be mapped
        raise ValueError(f"[{who}] {path} is empty, expected a safetensors file")
    state: dict[str, np.ndarray] = {}
    try:
        with safe_open(file, framework="np") as handle:
            metadata = dict(handle.metadata() or {})
            for name in handle.keys() if arrays else ():
                kind = handle.get_slice(name).get_dtype()
                if kind.startswith("F8"):
                    raise ValueError(
                        f"[{who}] {path}: {name!r} is stored as {kind}, which NumPy lacks; expected F32"
                    )
                if kind == "BF16":
                    _check_bfloat16(who, path, name)
                state[name] = handle.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"[{who}] {path} is damaged or not a safetensors file ({error})") from None
    return state, metadata


def _check_bfloat16(who: str, path: str | os.PathLike[str], name: str) -> None:
    """Where ml_dtypes is missing the library's own error would say little."""
    try:
        bfloat16_dtype(who, f"{path}: {name!r}")
    except TypeError as error:
        raise ValueError(str(error)) from None


def _compare(path: str | os.PathLike[str], state: dict[str, np.ndarray], expected: Mapping[str, Any]) -> None:
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        parts = [f"lacks {_listed(missing)}"] if missing else []
        parts += [f"has {_listed(unknown)} that the model does not have"] if unknown else []
        raise ValueError(f"[load] {path} {' and '.join(parts)}")
    for name, array in expected.items():
        came, wanted = tuple(state[name].shape), tuple(array.shape)
        if came != wanted:
            raise ValueError(f"[load] {path}: {name!r} has shape {came}, the model expects {wanted}")


def _listed(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(repr(name) for name in names[:most]) + (f" and {rest} more" if rest > 0 else "")
