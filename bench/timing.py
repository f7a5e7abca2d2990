"""How the benchmarks measure: contenders interleaved, warmed up, medians, on the clock of the device."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastarch as fa


@dataclass
class Contender:
    """One way to compute a result: run() does it once and returns the arrays that are checked."""

    name: str
    run: Callable[[], Any]
    peer: bool = False  # the ratio is taken to the fastest of these
    refused: str | None = None  # why it does not compute this; then it is listed and not run


@dataclass
class Result:
    """One line of the table and of the JSON file."""

    suite: str
    problem: str
    contender: str
    median_us: float | None  # none where it was refused
    low_us: float | None  # first and third quartile
    high_us: float | None
    rounds: int
    ratio: float | None  # its median over the fastest peer's: below 1 is faster than the peer
    error: float | None  # largest difference to the float64 reference over the reference's largest value
    gflops: float | None
    refused: str | None = None
    gbytes: float | None = None  # its least bytes over its median, in GB/s

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class WallClock:
    """Seconds on the host."""

    def time(self, run: Callable[[], Any], repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        return (time.perf_counter() - start) / repeats


class DeviceClock:
    """Seconds between two CUDA events around the launches, on the stream that CuPy and PyTorch share."""

    def __init__(self) -> None:
        import cupy

        self.cuda = cupy.cuda

    def time(self, run: Callable[[], Any], repeats: int) -> float:
        start, end = self.cuda.Event(), self.cuda.Event()
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return self.cuda.get_elapsed_time(start, end) / 1e3 / repeats


def relative_error(got: Any, reference: np.ndarray) -> float:
    """The largest difference over the reference's largest value; infinite when anything is not finite."""
    array = np.asarray(
        got.get() if hasattr(got, "get") else got.double().cpu() if hasattr(got, "cpu") else got, np.float64
    )
    if array.shape != reference.shape or not np.isfinite(array).all():
        return float("inf")
    return float(np.abs(array - reference).max() / max(float(np.abs(reference).max()), 1e-30))


def compare(
    suite: str,
    problem: str,
    contenders: list[Contender],
    reference: np.ndarray | None,
    clock: WallClock | DeviceClock,
    seconds: float,
    flops: float | None = None,
    least_bytes: float | None = None,
) -> list[Result]:
    """Times the contenders in turn, again and again, for about `seconds` each, in rounds of 2 ms or more."""
    refusals = [
        Result(suite, problem, c.name, None, None, None, 0, None, None, None, c.refused)
        for c in contenders
        if c.refused is not None
    ]
    contenders = [contender for contender in contenders if contender.refused is None]
    if not contenders:
        return refusals
    errors, repeats = {}, {}
    for contender in contenders:
        output = contender.run()
        errors[contender.name] = None if reference is None else relative_error(output, reference)
        clock.time(contender.run, 2)
        repeats[contender.name] = max(1, round(2e-3 / max(clock.time(contender.run, 2), 1e-7)))
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    begin = time.perf_counter()
    while True:
        for contender in contenders:
            samples[contender.name].append(clock.time(contender.run, repeats[contender.name]))
        rounds = len(samples[contenders[0].name])
        if rounds >= 7 and (time.perf_counter() - begin > seconds * len(contenders) or rounds >= 1000):
            break
    medians = {name: statistics.median(times) for name, times in samples.items()}
    peers = [medians[contender.name] for contender in contenders if contender.peer]
    results = []
    for contender in contenders:
        median = medians[contender.name]
        low, _, high = statistics.quantiles(samples[contender.name], n=4)
        results.append(
            Result(
                suite,
                problem,
                contender.name,
                median * 1e6,
                low * 1e6,
                high * 1e6,
                rounds,
                median / min(peers) if peers else None,
                errors[contender.name],
                flops / median / 1e9 if flops else None,
                gbytes=least_bytes / median / 1e9 if least_bytes else None,
            )
        )
    return results + refusals


HEADER = f"{'problem':<42} {'contender':<30} {'median':>11} {'ratio':>7} {'Gflop/s':>9} {'error':>9}"


def line(result: Result) -> str:
    """A row under HEADER. The ratio is to the fastest peer: 1.00x is as fast, 2.00x takes twice as long."""
    if result.median_us is None:
        return f"{result.problem:<42} {result.contender:<30} refused: {result.refused}"
    unit, scale = ("us", 1) if result.median_us < 1e4 else ("ms", 1e-3)
    ratio = "" if result.ratio is None else f"{result.ratio:.2f}x"
    rate = "" if result.gflops is None else f"{result.gflops:.1f}"
    rate = rate if result.gbytes is None else f"{result.gbytes:.0f} GB/s"
    error = "" if result.error is None else f"{result.error:.1e}"
    time_text = f"{result.median_us * scale:.1f} {unit}"
    return f"{result.problem:<42} {result.contender:<30} {time_text:>11} {ratio:>7} {rate:>9} {error:>9}"


def environment() -> dict[str, Any]:
    """What a figure depends on: device, driver, commit, versions, threads."""
    root = Path(__file__).resolve().parent.parent
    changes = _output(["git", "-C", str(root), "status", "--porcelain"])
    information = {
        "commit": _output(["git", "-C", str(root), "rev-parse", "HEAD"]),
        "clean": None if changes is None else not changes,  # None: nobody knows
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fastarch": fa.__version__,
        "load": os.getloadavg(),
        "device": _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]),
        "driver": _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]),
    }
    try:
        import torch
    except ImportError:
        information["torch"] = None
    else:
        information["torch"] = torch.__version__
        information["torch_threads"] = torch.get_num_threads()
        information["cudnn"] = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return information


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [row.split(":", 1)[1].strip() for row in text.splitlines() if row.startswith("model name")]
    return names[0] if names else platform.machine()
