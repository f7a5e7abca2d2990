"""How long `import fastarch` takes in a fresh process: `python bench/import_time.py`.

`import fastarch` itself loads next to nothing; NumPy and the rest come with the first use of what needs them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

_PROGRAM = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def measure(rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of `import numpy`, `import fastarch` and `import fastarch.models`, interleaved."""
    times: dict[str, list[float]] = {"numpy": [], "fastarch": [], "fastarch.models": []}
    for _ in range(rounds):
        for name, seconds in times.items():
            command = [sys.executable, "-c", _PROGRAM.format(name)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds.append(1e3 * float(done.stdout))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


if __name__ == "__main__":
    for name, milliseconds in measure().items():
        print(f"import {name:<18} {milliseconds:7.1f} ms")
