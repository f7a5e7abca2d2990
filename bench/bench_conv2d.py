"""pytest-benchmark of convolution beside PyTorch: `pytest bench/bench_conv2d.py --benchmark-enable`."""

from __future__ import annotations

import peers
import pytest
from places import PLACES, contenders_of, measure


@pytest.mark.parametrize("direction", peers.PASSES)
@pytest.mark.parametrize("problem", peers.CONVOLUTIONS, ids=lambda p: p.name)
@pytest.mark.parametrize(("place", "contender"), contenders_of(PLACES, ("", " NHWC")))
def test_conv2d(benchmark, place, contender, problem, direction) -> None:
    benchmark.group = f"conv2d {problem.name} {direction}"
    measure(benchmark, peers.convolution_contenders(problem, direction, place), contender)
