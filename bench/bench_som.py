"""Self-organizing maps beside MiniSom (pip install minisom): `python bench/bench_som.py [--json out.json]`.

Digits on a map of 20 x 20 units. Time: one epoch of batch training (search, totals, new codebook) and one of
online training, beside MiniSom's train_batch over as many samples; in turn, warmed up, median of the rounds.
Quality: quantization and topographic error after as many epochs each, measured by one function for all, and
for MiniSom the best of several radii and starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import environment

import fastarch as fa
from fastarch import backends
from fastarch.estimators import SOM

try:
    from minisom import MiniSom
except ImportError:
    sys.exit("bench_som.py needs MiniSom: pip install minisom")

GRID, RADIUS, RATE = (20, 20), 3.0, 0.5


# From smooth maps (few pairs of best units apart) to close ones (small distances).
_FAST: dict[str, Any] = {"algorithm": "online", "final_learning_rate": 0.05}
OURS: tuple[dict[str, Any], ...] = (
    {},
    *({"radius": 3.0, "final_radius": radius} for radius in (0.2, 0.25, 0.4, 0.5, 0.7, 1.0)),
    {"init": "sample"},
    {"init": "random"},
    {"algorithm": "online"},
    *(_FAST | {"radius": 1.5, "final_radius": radius} for radius in (0.15, 0.2, 0.3, 0.4, 0.5)),
)


def batch_epoch(x: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """One epoch of batch training by the public operators."""
    index, _ = fa.ops.som_bmu(x, codebook)
    return fa.ops.som_batch_update(codebook, fa.ops.som_totals(x, index, len(codebook)), GRID, RADIUS)


def online_epoch(x: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """One epoch of the online rule, as MiniSom's train_batch: the samples in their order."""
    rate, radius = np.full(len(x), RATE, x.dtype), np.full(len(x), RADIUS, x.dtype)
    return fa.ops.som_online_update(x, codebook, rate, radius, GRID)[0]


def minisom(x: np.ndarray, radius: float, start: str, seed: int = 0) -> Any:
    """A MiniSom before its training."""
    som = MiniSom(*GRID, x.shape[1], sigma=radius, learning_rate=RATE, random_seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if start == "pca":
            som.pca_weights_init(x)
        elif start == "sample":
            som.random_weights_init(x)
    return som


def contenders(x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Everything that trains one epoch."""
    wide = x.astype(np.float64)
    codebook = SOM(GRID, n_epochs=3, init="sample", random_state=0).fit(x).codebook_
    peer = minisom(wide, RADIUS, "sample")
    runs: dict[str, Callable[[], Any]] = {"MiniSom train_batch": lambda: peer.train_batch(wide, len(wide))}
    for name in ("numpy", "cpu"):
        if backends.reason_unusable(name):
            continue
        for kind, epoch in (("batch", batch_epoch), ("online", online_epoch)):
            for dtype in (np.float32, np.float64):

                def run(name: str = name, epoch: Any = epoch, dtype: Any = dtype) -> Any:
                    with fa.backend(name):
                        return epoch(x.astype(dtype), codebook.astype(dtype))

                runs[f"fastarch {name} {kind} {np.dtype(dtype).name}"] = run
    return runs


def times(x: np.ndarray, rounds: int) -> list[dict[str, Any]]:
    """Each contender's epoch, in turn: medians by the clock and of the process's own time, which other
    processes disturb less, and how often that fits into MiniSom's."""
    runs = contenders(x)
    clocks: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "process": time.process_time}
    samples: dict[tuple[str, str], list[float]] = {(name, clock): [] for name in runs for clock in clocks}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = {clock: read() for clock, read in clocks.items()}
            run()
            if turn:  # the first warms up
                for clock, read in clocks.items():
                    samples[name, clock].append(read() - begin[clock])
    median = {key: statistics.median(found) for key, found in samples.items()}
    peer = "MiniSom train_batch"
    results = []
    for name in runs:
        row: dict[str, Any] = {"contender": name, "rounds": rounds}
        for clock in clocks:
            row[f"{clock}_ms"] = 1e3 * median[name, clock]
            row[f"{clock}_times_faster"] = median[peer, clock] / median[name, clock]
        results.append(row)
        shown = [f"{row[f'{c}_ms']:9.2f} ms {c} ({row[f'{c}_times_faster']:6.1f} x)" for c in clocks]
        print(f"{name:<32} {'  '.join(shown)}", flush=True)
    return results


def errors(x: np.ndarray, codebook: np.ndarray) -> tuple[float, float]:
    """Quantization and topographic error (neighbours: the 8 around a unit), from all distances in float64."""
    square = ((x[:, None].astype(np.float64) - codebook.astype(np.float64)) ** 2).sum(axis=2)
    first, second = np.argsort(square, axis=1, kind="stable")[:, :2].T
    rows, columns = np.divmod(first, GRID[1]), np.divmod(second, GRID[1])
    apart = np.maximum(abs(rows[0] - columns[0]), abs(rows[1] - columns[1])) > 1
    return float(np.sqrt(square.min(axis=1)).mean()), float(apart.mean())


def quality(x: np.ndarray, epochs: int) -> list[dict[str, Any]]:
    """Both errors after `epochs` epochs of each."""
    wide, results = x.astype(np.float64), []

    def keep(name: str, codebook: np.ndarray, seconds: float) -> None:
        quantization, topographic = errors(x, codebook)
        row = {"contender": name, "epochs": epochs, "seconds": seconds}
        results.append(row | {"quantization_error": quantization, "topographic_error": topographic})
        print(f"{name:<44} QE {quantization:.4f}  TE {topographic:.4f}  {seconds:8.3f} s", flush=True)

    for start in ("pca", "sample", "random"):
        for radius in (1.0, 1.5, 3.0, 6.0, 10.0):
            som = minisom(wide, radius, start)
            begin = time.perf_counter()
            som.train_batch(wide, epochs * len(wide))
            seconds = time.perf_counter() - begin
            keep(
                f"MiniSom radius {radius:g} start {start}", som.get_weights().reshape(-1, x.shape[1]), seconds
            )
    theirs = list(results)
    for options in OURS:
        begin = time.perf_counter()
        ours = SOM(GRID, n_epochs=epochs, random_state=0, **options).fit(x)
        seconds = time.perf_counter() - begin
        shown = " ".join(f"{key} {value}" for key, value in options.items()) or "as it comes"
        keep(f"fastarch {shown}", ours.codebook_, seconds)
    both = ("quantization_error", "topographic_error")
    for row in theirs:
        row["no_worse"] = [
            other["contender"]
            for other in results[len(theirs) :]
            if all(other[error] <= row[error] for error in both)
        ]
        print(
            f"{row['contender']:<30} matched or beaten in both by {len(row['no_worse'])} of ours", flush=True
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=10, help="of each training whose errors are compared")
    options = parser.parse_args()
    x = fa.data.digits().x.reshape(-1, 64)
    from importlib.metadata import version

    out = {"environment": environment() | {"minisom": version("minisom")}}
    print("one epoch over 1797 digits, 20 x 20 units")
    out["times"] = times(x, options.rounds)
    print(f"\nerrors after {options.epochs} epochs")
    out["quality"] = quality(x, options.epochs)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
