"""Steps whose losses are read later, several at once, as on a device: the same record of the same run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastarch as fa
from fastarch import nn, optim
from fastarch.train import engine, evaluation


def data():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, 150)
    return (rng.normal(size=(150, 4)) + y[:, None]).astype(np.float32), y


def train(folder, monkeypatch, every, checkpoint_every=None, lr=0.1, targets=None):
    """A run that reads its steps `every` so many, and the metrics that it recorded."""
    original = engine.Run.__init__

    def patched(self, *arguments):
        original(self, *arguments)
        self._read_every = every

    monkeypatch.setattr(engine.Run, "__init__", patched)
    fa.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8, activation="tanh"), nn.Linear(8, 3))
    x, y = data()
    history = fa.train.fit(
        model,
        (x, y if targets is None else targets),
        optimizer=optim.SGD(model.parameters(), lr=lr),
        loss=nn.CrossEntropyLoss() if targets is None else nn.MSELoss(),
        epochs=2,
        batch_size=16,
        run_dir=folder,
        checkpoint_every=checkpoint_every,
        progress=False,
        pictures=False,
    )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "samples_per_second", "elapsed")
    figures = [{name: value for name, value in row.items() if name not in timed} for row in rows]
    return history, figures, model.state_dict()


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize("every", [3, 16, 1000])
def test_the_record_is_the_same(every, regression, tmp_path, monkeypatch):
    targets = np.random.default_rng(4).normal(size=(150, 3)).astype(np.float32) if regression else None
    _, want, weights = train(tmp_path / "one", monkeypatch, 1, 4, targets=targets)
    _, got, others = train(tmp_path / "several", monkeypatch, every, 4, targets=targets)
    assert got == want
    for name, array in weights.items():
        np.testing.assert_array_equal(others[name], array)


def test_reading_is_rare(tmp_path, monkeypatch):
    """Ten steps an epoch, read four at a time and at its end: three readings instead of ten."""
    sizes = []
    figures = evaluation.figures

    def counting(pairs):
        sizes.append(len(pairs))
        return figures(pairs)

    monkeypatch.setattr(evaluation, "figures", counting)
    train(tmp_path / "run", monkeypatch, 4)
    assert sizes == [4, 4, 2] * 2


def test_a_divergence_names_its_step_and_not_the_last(tmp_path, monkeypatch):
    targets = np.ones((150, 3), np.float32)
    with pytest.raises(engine.Diverged) as immediate:
        train(tmp_path / "one", monkeypatch, 1, lr=1e10, targets=targets)
    with pytest.raises(engine.Diverged) as late:
        train(tmp_path / "several", monkeypatch, 5, lr=1e10, targets=targets)
    assert (late.value.epoch, late.value.step) == (immediate.value.epoch, immediate.value.step)
