"""Long memory: of 150 numbers two are marked, and an LSTM learns to add them; a plain network does not.

The adding problem of Hochreiter and Schmidhuber (1997). Needs nothing but fastarch:
python examples/adding_problem.py
"""

from __future__ import annotations

import numpy as np

import fastarch as fa
from fastarch import nn

STEPS, BATCH, UNITS = 150, 32, 16


def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x [T, N, 2]: numbers in [0, 1), and marks at one place of each half; the sums of the marked [N]."""
    values, marks = rng.random((STEPS, BATCH)), np.zeros((STEPS, BATCH))
    for half in (0, 1):
        marks[rng.integers(half * STEPS // 2, (half + 1) * STEPS // 2, BATCH), np.arange(BATCH)] = 1
    return np.stack([values, marks], 2).astype(np.float32), (values * marks).sum(0).astype(np.float32)


def error_of(layer: nn.Module, batches: int) -> float:
    """The mean squared error over the last 20 batches of a training."""
    rng, head = np.random.default_rng(0), nn.Linear(UNITS, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = fa.optim.Adam(parameters, lr=0.02)
    errors = []
    for _ in range(batches):
        x, total = batch(rng)
        y, _ = layer(x)
        loss = nn.functional.mse_loss(head(y[-1]).reshape(BATCH), total)
        optimizer.zero_grad()
        loss.backward()
        fa.optim.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        errors.append(loss.item())
    return float(np.mean(errors[-20:]))


def main() -> dict[str, float]:
    """Trains both; always to answer 1 has an error of 1/6."""
    fa.manual_seed(1)
    lstm = nn.LSTM(2, UNITS, forget_bias=5.0)  # at first little is forgotten ...
    lstm.bias_ih_l0.data[:UNITS] = -2.0  # ... and little added (Tallec and Ollivier 2018)
    lstm.bias_hh_l0.data[:UNITS] = -2.0
    figures = {"LSTM": error_of(lstm, 450), "RNN": error_of(nn.RNN(2, UNITS), 450)}
    for name, error in figures.items():
        print(f"{name}: mean squared error {error:.4f} (1/6 = 0.1667 is no memory at all)")
    return figures


if __name__ == "__main__":
    main()
