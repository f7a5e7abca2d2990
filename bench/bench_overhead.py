"""pytest-benchmark of the Python layer alone: `pytest bench/bench_overhead.py --benchmark-enable`."""

from __future__ import annotations

import overhead
import pytest


@pytest.mark.parametrize("name", overhead.calls())
def test_overhead(benchmark, name) -> None:
    benchmark.group = "the Python layer of a call"
    run = overhead.calls()[name]
    with overhead.empty_kernels():
        benchmark(run)
