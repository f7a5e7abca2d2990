"""How matrix products of the CUDA kernels are cut up, into tiles and slices: by a model or by trial.

By default a model of the time decides: convolutions, linear layers and whatever else is a product at heart
take the plan that it finds fastest. Under `autotune` the first product of each problem (operator, types,
shape, geometry, alignment; device, driver, version) runs every plan within four times the best estimate on
its own operands, six times each, and takes the fastest from then on. Products by wgmma (FASTARCH_WGMMA) plan
for themselves: no trial reaches them.

What was chosen is kept in a file for later processes: autotune.json in $XDG_CACHE_HOME/fastarch, by default
~/.cache/fastarch, or the file that FASTARCH_AUTOTUNE_CACHE names. Several processes may share it; what is in
it already stays. Where there is neither of them and the home directory is unknown, nothing is kept.

Equal calls give equal bits, with one exception: another plan may sum in another order. So a result may change
when autotuning is switched on or off, or the file is deleted, within rounding. From the first call on, and in
every later process that finds the file, the plan is the same.
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import fastarch

FORMAT = 1
Plans = dict[str, dict[str, dict[str, Any]]]  # by device and problem


def _from_environment() -> bool:
    text = os.environ.get("FASTARCH_AUTOTUNE") or "0"
    if text not in ("0", "1"):
        raise ValueError(f"[autotune] FASTARCH_AUTOTUNE is {text!r}, expected 0 or 1")
    return text == "1"


_default = _from_environment()


class _Thread(threading.local):
    """What this thread has said, as the compiled modules keep it: by thread."""

    selected: bool | None = None
    forced: tuple[str, int] = ("", 1)

    def __init__(self) -> None:  # once in each thread
        self.outer: list[bool | None] = []  # `selected` around the open autotune blocks


_thread = _Thread()
_modules: list[ModuleType] = []  # those compiled ones that choose plans
_read: set[tuple[str, Path]] = set()  # which of them know what is in which file
_warned: set[str] = set()
_lock = threading.RLock()


def current() -> bool:
    """Whether products of this thread choose their plans by trial."""
    return _default if _thread.selected is None else _thread.selected


class autotune:
    """Chooses the plans of CUDA matrix products by trial: ``with fa.autotune(): ...``.

    on: False switches it off again inside of such a block, or where FASTARCH_AUTOTUNE=1 has switched it on
    for the process. It holds for the thread that enters it. One limit: a backend that another thread loads
    for the first time while the block is open hears of it at the next block that this thread enters. The
    first call of each problem takes the time of its trials; under fa.cuda.graph these happen in the warm-up,
    never during a capture, which takes a plan that is known or the model's. Updates in place and
    best-matching units take the model's always, and products by wgmma their own. See this module for where
    choices are kept and what becomes of equal bits. Raises TypeError where on is no bool.
    """

    def __init__(self, on: bool = True) -> None:
        if not isinstance(on, bool):
            raise TypeError(f"[autotune] on is {on!r}, expected a bool")
        self.on = on

    def __enter__(self) -> autotune:
        _thread.outer.append(_thread.selected)
        _select(self.on)
        try:
            _remember_files()
        except BaseException:  # then the block is not entered, and nobody leaves it
            _select(_thread.outer.pop())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _select(_thread.outer.pop())
        _remember_files()


@contextmanager
def forced_plan(tile: str, slices: int = 1) -> Iterator[None]:
    """Has products of this thread take one plan, for profiling: ``with forced_plan("64x64x8", 4): ...``.

    tile: rows, columns and depth of one of the tiles in cuda/gemm; slices: about how many to cut the sum
    into. An operator whose products have no such tile raises a ValueError that lists its tiles;
    best-matching units take no notice. No product is taken by wgmma, which has other tiles.
    """
    before = _thread.forced
    try:
        _force(tile, slices)
        yield
    finally:
        _force(*before)


def _force(tile: str, slices: int) -> None:
    _thread.forced = tile, slices
    for module in _modules:
        module.force_plan(tile, slices)


def install(module: ModuleType) -> None:
    """Lets a compiled module that has just been loaded choose as it shall, and keeps what it chooses."""
    if not hasattr(module, "on_tuned"):
        return
    module.set_autotune_default(_default)
    module.on_tuned(_keep)
    module.force_plan(*_thread.forced)
    module.set_autotune(_number(_thread.selected))
    if _default or current():
        _remember_file(module)
    with _lock:
        _modules.append(module)


def _number(selected: bool | None) -> int:
    return -1 if selected is None else int(selected)


def _select(on: bool | None) -> None:
    _thread.selected = on
    for module in _modules:
        module.set_autotune(_number(on))


def _remember_files() -> None:
    if current():
        for module in _modules:
            _remember_file(module)


def state() -> dict[str, Any]:
    """Whether it is on, the file or None, and how many plans this version finds in it."""
    file = cache_file()
    if file is None:
        return {"on": current(), "file": None, "entries": 0}
    with suppress(OSError, ValueError):
        found = _load(file)
        own = [plans for device, plans in found.items() if device.startswith(_version())]
        return {"on": current(), "file": str(file), "entries": sum(map(len, own))}
    return {"on": current(), "file": str(file), "entries": 0}


def cache_file() -> Path | None:
    """Where choices are kept: FASTARCH_AUTOTUNE_CACHE, or autotune.json in the user's cache directory.

    None where that is below a home directory that is unknown: nothing is kept.
    """
    named = os.environ.get("FASTARCH_AUTOTUNE_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or ".")  # the standard: a relative path counts as none
    try:
        if named:
            return Path(named).expanduser()
        if not cache.is_absolute():
            cache = Path("~/.cache").expanduser()
    except RuntimeError:
        return None
    return cache / "fastarch" / "autotune.json"


def _version() -> str:
    return f"fastarch {fastarch.__version__}, "


class _Foreign(ValueError):
    """A file of another format, which is not ours to overwrite."""


def _load(file: Path) -> Plans:
    """What is in the file, if there is one; ValueError says why it is not what it should be."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(content, dict) or type(content.get("format")) is not int:  # a bool is an int
        raise ValueError("it names no format")
    if content["format"] != FORMAT:
        raise _Foreign(f"its format is {content['format']}, expected {FORMAT}")
    plans = content.get("plans")
    if not isinstance(plans, dict) or not all(isinstance(of_device, dict) for of_device in plans.values()):
        raise ValueError("it has no plans")
    for of_device in plans.values():
        for problem, plan in of_device.items():
            if not _is_plan(plan):
                raise ValueError(f"the plan of {problem!r} is {plan!r}")
    return plans


def _is_plan(plan: Any) -> bool:
    if not isinstance(plan, dict):
        return False
    tile, slices, time = (plan.get(name) for name in ("tile", "slices", "microseconds"))
    is_time = isinstance(time, (int, float)) and not isinstance(time, bool) and 0 <= time < 2**63
    is_count = isinstance(slices, int) and not isinstance(slices, bool) and 1 <= slices < 2**31
    return isinstance(tile, str) and tile != "" and is_count and is_time


def _warn(text: str) -> None:
    """Once for each text: a file stays as it is however often it is looked at."""
    if text not in _warned:
        _warned.add(text)
        warnings.warn(f"[autotune] {text}", RuntimeWarning, stacklevel=2)


def _remember_file(module: ModuleType) -> None:
    """Tells the module what the file knows, once."""
    file = cache_file()
    if file is None:
        _warn("the home directory is unknown: what is chosen ends with the process")
        return
    with _lock:
        if (module.__name__, file) in _read:
            return
        _read.add((module.__name__, file))
        try:
            found = _load(file)
        except (OSError, ValueError) as error:
            _warn(f"{file} cannot be used ({error}): plans are chosen anew")
            return
        for device, plans in found.items():
            if device.startswith(_version()):
                for problem, plan in plans.items():
                    arguments = plan["tile"], plan["slices"], plan["microseconds"]
                    module.remember_plan(device.removeprefix(_version()), problem, *arguments)


def _keep(choice: dict[str, Any]) -> None:
    """Adds a choice to what the file has by now.

    Runs in the middle of an operator, on any thread, so that it never raises: it warns, or where warnings are
    errors says nothing.
    """
    file = cache_file()
    if file is None:  # a warning has been given where it was to be read
        return
    with suppress(Warning):
        try:
            _add(file, choice)
        except _Foreign as error:
            _warn(f"{file} is left as it is ({error}): what is chosen ends with the process")
        except Exception as error:
            _warn(f"{file} cannot be written ({error}): what is chosen ends with the process")


def _add(file: Path, choice: dict[str, Any]) -> None:
    plan = {name: choice[name] for name in ("tile", "slices", "microseconds")}
    file.parent.mkdir(parents=True, exist_ok=True)
    with _lock, _locked(file):
        try:
            plans = _load(file)
        except _Foreign:
            raise
        except ValueError:  # a warning has been given where it was to be read
            plans = {}
        known = plans.setdefault(_version() + choice["device"], {})
        before = known.get(choice["problem"])
        # Another process may have been faster. Or its tile is none of today's, and the plan no use.
        if before is None or before["tile"] not in [trial["tile"] for trial in choice["trials"]]:
            known[choice["problem"]] = plan
        _write(file, json.dumps({"format": FORMAT, "plans": plans}, indent=1, sort_keys=True))


def _write(file: Path, text: str) -> None:
    """All or nothing: readers see the old file or the new one."""
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        part.write_text(text + "\n", "utf-8")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """One process at a time reads and writes, so that none loses what another has just added."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(file.with_name(f"{file.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
