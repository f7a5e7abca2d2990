"""The examples run as they stand, and what they print is true."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


def deep_stacking(figures: dict) -> None:
    errors = [figures[f"error {depth}"] for depth in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert figures["test 4"] > figures["test 1"] > 0.93
    assert figures["tuned"] > 0.96


def adding_problem(figures: dict) -> None:
    assert figures["LSTM"] < 0.02
    assert figures["RNN"] > 0.12


def map_of_digits(figures: dict) -> None:
    assert figures["topographic error"] < 0.1  # of random colours on a map
    assert figures["purity"] > 0.75  # of ten regions found without labels
    drawn = {path.name for path in Path("som-pictures").iterdir()}
    assert drawn == {"colours.png", "u_matrix.png", "codebook.png", "regions.png"}


def few_labels(figures: dict) -> None:
    assert figures["better"] == figures["seeds"] == 1
    assert figures["pretrained"] > 0.86


def features_of_digits(figures: dict) -> None:
    assert figures["features"] > figures["pixels"] + 0.08
    assert figures["features"] > 0.88


def recommendation(figures: dict) -> None:
    assert figures["machine"] < 0.7 * figures["mean"]
    assert figures["recommended"] > figures["unseen"] + 0.5


# What must be true of the figures that an example's main() returns; an example without a check fails.
CHECKS: dict[str, Callable[[dict], None]] = {
    "deep_stacking": deep_stacking,
    "features_of_digits": features_of_digits,
    "adding_problem": adding_problem,
    "few_labels": few_labels,
    "map_of_digits": map_of_digits,
    "recommendation": recommendation,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)  # pictures and files land here
    specification = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert path.stem in CHECKS, f"{path.name} has no check in test_examples.py"
    CHECKS[path.stem](module.main())
    assert capsys.readouterr().out
