"""The example of self-organizing maps runs, draws, and comes to what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "som_clusters.py"


def test_clusters_and_colours(tmp_path):
    pytest.importorskip("matplotlib", reason="the example draws")
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(tmp_path / "out")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    percent = [float(line.split(" %")[0].split()[-1]) for line in done.stdout.splitlines()[:2]]
    assert percent[0] < 10  # pairs of best units apart
    assert percent[1] > 75  # purity of ten regions found without labels
    drawn = {path.name for path in (tmp_path / "out").iterdir()}
    assert drawn == {"colours.png", "u_matrix.png", "codebook.png", "regions.png"}
