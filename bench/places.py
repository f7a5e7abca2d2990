"""What the pytest-benchmark suites share: where they run, who takes part, one measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import peers
import pytest
from timing import Contender, relative_error

from fastarch import backends

PLACES = [peers.Place("host")] + ([] if backends.reason_unusable("cuda") else [peers.Place("cuda")])


def contenders_of(
    places: list[peers.Place], layouts: tuple[str, ...] = ("",)
) -> list[tuple[peers.Place, str]]:
    """(place, name of a contender) for everything that can run here; layouts: what they add to the name."""
    pairs = []
    for place in places:
        for layout in layouts:
            everyone = peers.ours(place, lambda: None, layout) + peers.theirs(place, lambda: None, layout)
            pairs += [(place, contender.name) for contender in everyone]
    return pairs


def measure(benchmark: Any, made: tuple[list[Contender], np.ndarray], name: str) -> None:
    """Times one contender on the host's clock, the device waited for; its error goes to the report."""
    contenders, reference = made
    run = next((c.run for c in contenders if c.name == name and c.refused is None), None)
    if run is None:
        pytest.skip(f"{name} does not take this problem")
    benchmark.extra_info["error"] = relative_error(run(), reference)

    def once() -> None:
        result = run()
        if type(result).__module__.startswith("cupy"):
            result.device.synchronize()
        elif type(result).__module__.startswith("torch") and result.is_cuda:
            peers.torch.cuda.synchronize()

    benchmark(once)
