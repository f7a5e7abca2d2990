"""RBM features beside scikit-learn's BernoulliRBM: `python bench/bench_rbm.py [--seeds N] [--json out.json]`.

scikit-learn's own example: digits, each also shifted by a pixel in four directions, a machine of 100 hidden
units trained for 10 epochs, its features into logistic regression. Every seed has a split of its own (a fifth
for the test, views of one digit on either side, as in the example). All contenders train in turn, on the same
rows, in float32; the first seed warms up and its times do not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from timing import environment

import fastarch as fa
from fastarch import backends
from fastarch.estimators import RBM

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import BernoulliRBM
except ImportError:
    sys.exit("bench_rbm.py needs scikit-learn: pip install scikit-learn")

HIDDEN, EPOCHS = 100, 10


def nudged_digits() -> tuple[np.ndarray, np.ndarray]:
    """[8985, 64] float32 in [0, 1], every column scaled by itself as in the example, and labels."""
    digits = fa.data.digits()
    wide = np.pad(digits.x[:, 0], ((0, 0), (1, 1), (1, 1)))
    moves = [(1, 1), (1, 0), (1, 2), (0, 1), (2, 1)]
    x = np.concatenate([wide[:, i : i + 8, j : j + 8].reshape(-1, 64) for i, j in moves])
    low, high = x.min(0), x.max(0)
    return (x - low) / np.where(high > low, high - low, 1), np.tile(digits.y, 5)


def machines(seed: int) -> dict[str, Callable[[np.ndarray], Any]]:
    """Everything that trains a machine: by name, from rows to a fitted transformer."""

    def theirs(x: np.ndarray) -> Any:
        return BernoulliRBM(HIDDEN, learning_rate=0.06, n_iter=EPOCHS, random_state=seed).fit(x)

    runs: dict[str, Callable[[np.ndarray], Any]] = {"scikit-learn BernoulliRBM": theirs}
    for backend in ("numpy", "cpu"):
        if backends.reason_unusable(backend):
            continue

        def ours(x: np.ndarray, backend: str = backend) -> Any:
            with fa.backend(backend):
                return RBM(HIDDEN, n_epochs=EPOCHS, random_state=seed).fit(x)

        try:
            ours(np.zeros((2, 3), np.float32))
        except RuntimeError as error:
            if seed == 0:
                print(f"fastarch {backend} is left out: {error}")
            continue
        runs[f"fastarch RBM, {backend}"] = ours
    return runs


def classified(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, C: float) -> float:
    model = LogisticRegression(C=C, max_iter=300)
    return float(model.fit(x, y).score(x_test, y_test))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: at least 2, the first warms up")
    x, y = nudged_digits()
    accuracies: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        order = np.random.default_rng(seed).permutation(len(x))
        test, train = order[: len(x) // 5], order[len(x) // 5 :]
        parts = y[train], y[test]
        accuracy = classified(x[train], parts[0], x[test], parts[1], 100.0)
        accuracies.setdefault("pixels", []).append(accuracy)
        shown = [f"seed {seed}: pixels {100 * accuracy:.2f} %"]
        for name, fit in machines(seed).items():
            begin = time.perf_counter()
            machine = fit(x[train])
            elapsed = time.perf_counter() - begin
            features = machine.transform(x[train]), machine.transform(x[test])
            accuracy = classified(features[0], parts[0], features[1], parts[1], 6000.0)
            accuracies.setdefault(name, []).append(accuracy)
            seconds.setdefault(name, []).append(elapsed)
            shown.append(f"{name} {100 * accuracy:.2f} % in {elapsed:.2f} s")
        print(", ".join(shown), flush=True)
    peer = statistics.median(seconds["scikit-learn BernoulliRBM"][1:])
    rows = []
    for name, found in accuracies.items():
        row: dict[str, Any] = {"contender": name, "accuracies": found, "accuracy": statistics.mean(found)}
        text = f"{name:<28} {100 * row['accuracy']:6.2f} % on average"
        if name in seconds:
            row["median_s"] = statistics.median(seconds[name][1:])
            row["ratio"] = row["median_s"] / peer
            text += f"  {row['median_s']:6.2f} s, {row['ratio']:.2f} of scikit-learn's"
        rows.append(row)
        print(text)
    if options.json:
        options.json.write_text(json.dumps({"environment": environment(), "digits": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
