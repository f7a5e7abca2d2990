"""Run folders whose files are well formed but another program's: one sentence each, and nothing is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastarch as fa
from command_line import fails, save_small_data
from fastarch import io
from fastarch.cli import main
from fastarch.train import checkpoint
from fastarch.train.folder import CHECKPOINT, SUMMARY


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small finished run."""
    folder = tmp_path_factory.mktemp("foreign")
    save_small_data(folder / "data.npz")
    options = ["--epochs", "1", "--run-dir", str(folder / "run"), "--quiet", "--no-plots"]
    assert main(["train", "lenet5", str(folder / "data.npz"), *options]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    "summary",
    [{}, {"epochs": "many"}, {"epochs": 1, "samples_per_second": None, "seconds": 1.0, "backend": "cpu"}],
)
def test_a_summary_of_something_else(summary, finished, capsys):
    before = (finished / SUMMARY).read_text()
    try:
        (finished / SUMMARY).write_text(json.dumps(summary))
        assert "is not the summary of a training run" in fails(
            capsys, "train", "--resume", finished, "--quiet"
        )
    finally:
        (finished / SUMMARY).write_text(before)


STATES = {
    "empty": {"format": 1},
    "position": {"format": 1, "position": {"epoch": 1, "moon": "full"}},
    "sums": {"format": 1, "position": {"epoch": 0, "sums": {"moons": 3}}},
}


@pytest.mark.parametrize("name", STATES)
def test_a_checkpoint_of_something_else(name, finished, capsys):
    checkpoint_before = (finished / CHECKPOINT).read_bytes()
    summary_before = (finished / SUMMARY).read_text()
    try:
        checkpoint.save(finished / CHECKPOINT, STATES[name])
        (finished / SUMMARY).unlink()
        line = fails(capsys, "train", "--resume", finished, "--quiet")
        assert "the checkpoint is not that of a training run of this version" in line
    finally:
        (finished / CHECKPOINT).write_bytes(checkpoint_before)
        (finished / SUMMARY).write_text(summary_before)


@pytest.mark.parametrize("meta", [{"a": {"$array": "missing"}}, {"a": {"$pairs": 3}}, {"a": {"$pairs": [1]}}])
def test_a_checkpoint_whose_parts_do_not_fit(meta, tmp_path):
    io.save_checkpoint(tmp_path / "state", {"x": np.zeros(2)}, meta)
    with pytest.raises(ValueError, match=r"\[load_checkpoint\] .* does not fit together"):
        checkpoint.load(tmp_path / "state")


def test_a_checkpoint_that_is_a_list(tmp_path):
    text = {"fastarch.checkpoint": "[1, 2]"}
    fa.save({"x": np.zeros(2)}, tmp_path / "state", metadata=text)
    with pytest.raises(ValueError, match="holds list, expected a run's state"):
        checkpoint.load(tmp_path / "state")
