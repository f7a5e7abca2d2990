"""The backends that the suites run on, and how arrays get there.

FASTARCH_TEST_BACKENDS="numpy,emulator" makes each named backend required: where one cannot run the session
fails at once. Without it every backend that can run here does, and the header says which do not and why.
"""

from __future__ import annotations

import os

# Before NumPy is loaded, as the commands do: OpenBLAS's threads wait for one another by spinning, and for the
# small products of the tests that takes minutes on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import fastarch as fa
from fastarch import backends

REQUIRED = "FASTARCH_TEST_BACKENDS"

# Families that a backend has no kernels of, and says so: on host arrays their generic code is the default.
LACKING: dict[str, tuple[str, ...]] = {"cpu": ()}

# The float dtypes by name; of the 16-bit ones bfloat16 is ml_dtypes'.
FLOATS = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
FLOATS["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


def dtypes_of(op: str) -> tuple[str, ...]:
    """The names of the float dtypes that a public operator takes."""
    return getattr(getattr(fa.ops, op), "dtypes", ("float32", "float64"))


# Marks a test of what CuPy's arrays cannot be: read-only, misaligned, big-endian, of a subclass.
on_host = pytest.mark.backends("numpy", "cpu", "emulator")


@dataclass(frozen=True)
class Backend:
    """A backend under test: its name and the module of its arrays (numpy or cupy)."""

    name: str
    xp: Any

    def __str__(self) -> str:
        return self.name

    def put(self, value: Any, layout: str = "contiguous") -> Any:
        """A copy of the array `value` where this backend works, in `layout`; anything else as it is."""
        return lay_out(self.xp, value, layout) if isinstance(value, np.ndarray) else value

    def host(self, value: Any) -> np.ndarray:
        """`value` as a NumPy array."""
        return np.asarray(value.get() if hasattr(value, "get") else value)

    def lacks(self, op: str) -> bool:
        """Whether this backend has no kernels for the operator `op`."""
        return any(op in fa.ops.OPERATORS[family] for family in LACKING.get(self.name, ()))

    def call(self, op: str, arguments: dict[str, Any]) -> Any:
        """The public operator `op` on this backend, on arguments that are there already."""
        with fa.backend(self.name):
            return getattr(fa.ops, op)(**arguments)


def lay_out(xp: Any, value: np.ndarray, layout: str) -> Any:
    """A copy of `value` as an array of module `xp` that lies in memory as `layout` says."""
    everywhere = (slice(None, None, 2),) * value.ndim + (...,)  # the dots keep a 0-d array an array
    backwards = (slice(None, None, -1),) * value.ndim + (...,)
    if layout == "sliced":
        filler = np.nan if value.dtype.kind == "f" else 77
        view = xp.full(tuple(2 * n for n in value.shape), filler, value.dtype)[everywhere]
        view[...] = xp.asarray(value)
        return view
    if layout == "transposed":
        return xp.array(value.T, order="C").T
    if layout == "reversed":
        return xp.array(value[backwards], order="C")[backwards]
    copy = xp.array(value, order="C")
    if layout == "readonly" and xp is np:
        copy.flags.writeable = False
    return copy


def seeded(name: str) -> np.random.Generator:
    """A generator of its own for each name, the same in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def _module_of(name: str) -> Any:
    if name != "cuda":
        return np
    import cupy

    return cupy


def _chosen() -> list[Backend]:
    named = os.environ.get(REQUIRED)
    names = [n.strip() for n in named.split(",") if n.strip()] if named else list(backends.available())
    for name in names:
        if name not in backends.NAMES:
            raise pytest.UsageError(
                f"{REQUIRED} names {name!r}, expected some of {', '.join(backends.NAMES)}"
            )
        reason = backends.reason_unusable(name)
        if reason:
            raise pytest.UsageError(f"{REQUIRED} requires backend {name!r}, which cannot run here: {reason}")
    return [Backend(name, _module_of(name)) for name in names]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backends(*names): the only ones that have what is tested")
    config.stash[_KEY] = _chosen()


_KEY = pytest.StashKey[list[Backend]]()
_COUNT = "random configurations"


def which_backends(config: pytest.Config) -> list[str]:
    """Lines that say which backends run and why the others do not."""
    running = [backend.name for backend in config.stash[_KEY]]
    lines = [f"fastarch {fa.__version__}; backends under test: {', '.join(running)}"]
    for name in backends.NAMES:
        if name not in running:
            reason = backends.reason_unusable(name) or f"not named in {REQUIRED}"
            lines.append(f"  not under test: {name}: {reason}")
    return lines


def pytest_report_header(config: pytest.Config) -> list[str]:
    return which_backends(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        running = metafunc.config.stash[_KEY]
        marker = metafunc.definition.get_closest_marker("backends")
        chosen = [backend for backend in running if marker is None or backend.name in marker.args]
        metafunc.parametrize("backend", chosen, ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of an operator on a backend that lacks it; test_operators.py tests its refusal."""
    left_out = [item for item in items if _asks_for_the_lacking(getattr(item, "callspec", None))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _asks_for_the_lacking(callspec: Any) -> bool:
    parameters = callspec.params if callspec else {}
    backend = parameters.get("backend")
    subjects = [parameters.get(name) for name in ("op", "case", "gradient")]
    ops = [subject if isinstance(subject, str) else getattr(subject, "op", None) for subject in subjects]
    ops += [row[0] for row in [parameters.get("row")] if isinstance(row, tuple)]
    return isinstance(backend, Backend) and any(op is not None and backend.lacks(op) for op in ops)


@pytest.fixture
def count_configurations(request: pytest.FixtureRequest) -> Callable[[str, int], None]:
    """Adds to a figure that the end of the session prints: so many random configurations were compared."""

    def count(what: str, number: int) -> None:
        request.node.user_properties.append((_COUNT, (what, number)))  # what other processes report, too

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.get_verbosity() < 0:  # -q leaves the header out, and this must not go unsaid
        for line in which_backends(config):
            terminalreporter.write_line(line)
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == _COUNT:
                what, number = value
                counts[what] += number
    for what, number in counts.items():
        terminalreporter.write_line(f"{number} {_COUNT}: {what}")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of its own for each test, the same in every run."""
    return seeded(request.node.name)
