"""One training step of LeNet-5 on 64 images, by fastarch and by PyTorch; and the peak memory of such steps.

`python bench/lenet.py CONTENDER` runs steps in a process of its own and prints its peak memory as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, 1, 32, 32), np.float32), rng.integers(0, 10, BATCH)


def fastarch_step(backend: str) -> Callable[[], Any]:
    """A function that does one step on a backend and returns the loss, a fastarch Tensor."""
    import fastarch as fa

    x, y = batch()
    fa.manual_seed(0)
    chosen = fa.backend(backend)
    model = fa.models.lenet5()
    if backend == "cuda":
        import cupy

        model.to("cuda")
        x, y = cupy.asarray(x), cupy.asarray(y)
    optimizer = fa.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Any:
        with chosen:
            loss = fa.nn.functional.cross_entropy(model(fa.tensor(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss

    return step


def torch_step(device: str) -> Callable[[], Any]:
    """The same step by PyTorch."""
    import torch
    from torch import nn

    x, y = (torch.from_numpy(a).to(device) for a in batch())
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Any:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def step_of(contender: str) -> Callable[[], Any]:
    """contender: "fastarch numpy" (or another backend), "torch cpu" or "torch cuda"."""
    library, where = contender.split()
    return fastarch_step(where) if library == "fastarch" else torch_step(where)


def peak_memory(contender: str) -> dict[str, float]:
    """Peak resident memory in MiB of a process that does twenty steps, and what the imports alone took."""
    command = [sys.executable, str(Path(__file__)), *contender.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


def peak_so_far() -> float:
    """This process's peak resident memory in MiB; getrusage would tell the parent's, which exec inherits."""
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith("VmHWM:"):
            return int(row.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux alone")


def main(contender: str) -> None:
    if contender.startswith("torch"):
        import torch  # noqa: F401
    else:
        import fastarch.models
        import fastarch.optim  # noqa: F401
    imported = peak_so_far()
    step = step_of(contender)
    for _ in range(10):
        step()
    start = time.perf_counter()
    for _ in range(10):
        step()
    seconds = (time.perf_counter() - start) / 10
    print(json.dumps({"peak_mib": peak_so_far(), "imports_mib": imported, "step_ms": 1e3 * seconds}))


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
