"""Recurrent sequences beside PyTorch: `pytest bench/bench_recurrent.py --benchmark-enable`, or as a table of
interleaved medians, `python bench/bench_recurrent.py [WORD ...]`, of the problems whose names have all words.
"""

from __future__ import annotations

import sys

import pytest
import recurrent
from places import PLACES, measure
from timing import HEADER, DeviceClock, WallClock, compare, line

PROBLEMS = {"host": recurrent.HOST, "cuda": recurrent.DEVICE}
SUITE = [
    (place, problem, name)
    for place in PLACES
    for problem in PROBLEMS[place.device]
    for name in recurrent.names(place)
]


@pytest.mark.parametrize("direction", recurrent.DIRECTIONS)
@pytest.mark.parametrize(
    ("place", "problem", "contender"), SUITE, ids=lambda part: getattr(part, "name", None)
)
def test_recurrent(benchmark, place, problem, contender, direction) -> None:
    benchmark.group = f"{problem.name} {direction}"
    measure(benchmark, recurrent.contenders(problem, direction, place), contender)


def main() -> None:
    print(HEADER)
    for place in PLACES:
        clock = DeviceClock() if place.device == "cuda" else WallClock()
        for problem in PROBLEMS[place.device]:
            if not all(word in problem.name.split() for word in sys.argv[1:]):
                continue
            for direction in recurrent.DIRECTIONS:
                entries, reference = recurrent.contenders(problem, direction, place)
                name, flops = f"{problem.name} {direction}", problem.flops(direction)
                for result in compare("recurrent", name, entries, reference, clock, 1.0, flops):
                    print(line(result), flush=True)


if __name__ == "__main__":
    main()
