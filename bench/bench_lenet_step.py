"""pytest-benchmark of a LeNet-5 training step: `pytest bench/bench_lenet_step.py --benchmark-enable`.

The peak memory of ten steps in a process of their own is in the extra information of the JSON report.
"""

from __future__ import annotations

import lenet
import peers
import pytest
from places import PLACES

STEPS = [f"fastarch {name}" for place in PLACES for name in place.backends]
if peers.torch is not None:
    STEPS += ["torch cuda" if place.device == "cuda" else "torch cpu" for place in PLACES]


@pytest.mark.parametrize("contender", STEPS)
def test_lenet_step(benchmark, contender) -> None:
    benchmark.group = f"LeNet-5 step of {lenet.BATCH}"
    benchmark.extra_info.update(lenet.peak_memory(contender))
    step = lenet.step_of(contender)
    benchmark(lambda: float(step().item()))
