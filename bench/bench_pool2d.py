"""pytest-benchmark of pooling beside PyTorch: `pytest bench/bench_pool2d.py --benchmark-enable`."""

from __future__ import annotations

import peers
import pytest
from places import PLACES, contenders_of, measure


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("problem", peers.POOLINGS, ids=lambda p: p.name)
@pytest.mark.parametrize(("place", "contender"), contenders_of(PLACES))
def test_pool2d(benchmark, place, contender, problem, direction) -> None:
    benchmark.group = f"pool2d {problem.name} {direction}"
    measure(benchmark, peers.pooling_contenders(problem, direction, place), contender)
