"""Kernels beside other threads: the interpreter is released, and results depend on no number of threads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend, on_host, seeded
from fastarch import algorithms, autograd, backends, precisions


@pytest.mark.backends("cpu", "emulator")
def test_kernels_release_the_interpreter(backend: Backend) -> None:
    """Another thread runs while a compiled kernel does, though Python would not switch to it by itself."""
    x, weight = np.ones((2, 8, 40, 40), np.float32), np.ones((8, 8, 3, 3), np.float32)
    ticks, stop = [0], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks[0] += 1
            time.sleep(1e-4)  # gives the interpreter back at once

    interval, start = sys.getswitchinterval(), time.monotonic()
    thread = threading.Thread(target=tick)
    try:
        sys.setswitchinterval(60.0)  # from here on only a kernel lets the other thread run
        thread.start()
        before = ticks[0]
        with fa.backend(backend.name):
            while ticks[0] == before and time.monotonic() < start + 20:
                fa.ops.conv2d(x, weight)
        during = ticks[0] - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert during > 0


def test_operators_from_several_threads(backend: Backend) -> None:
    """The answers of four threads at once are those of one; the choice of backend is each thread's own."""
    rng = seeded("threads")
    inputs = [backend.put(rng.standard_normal((2, 3, 9, 8)).astype(np.float32)) for _ in range(4)]
    weight = backend.put(rng.standard_normal((4, 3, 3, 3)).astype(np.float32))
    want = [backend.host(backend.call("conv2d", {"x": x, "weight": weight})) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(3):
            got = backend.host(backend.call("conv2d", {"x": inputs[index], "weight": weight}))
            if got.tobytes() != want[index].tobytes():
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


DIGEST = """
import hashlib, numpy as np, fastarch as fa
rng = np.random.default_rng(0)
x = rng.standard_normal((5, 6, 19, 17)).astype(np.float32)
w = rng.standard_normal((10, 3, 3, 3)).astype(np.float32)
out = []
y = fa.ops.conv2d(x, w, padding=1, groups=2, activation="tanh"); out.append(y)
out += [g for g in fa.ops.conv2d_backward(y, x, w, padding=1, groups=2)]
p, a = fa.ops.max_pool2d(y, 3, 2, 1); out += [p, a, fa.ops.max_pool2d_backward(p, a, y.shape, 3, 2, 1)]
out += [fa.ops.avg_pool2d(y, 2), fa.ops.dropout(y, 0.4, 3, 1), fa.ops.softmax(y)]
z = fa.ops.linear(y, rng.standard_normal((31, 17)).astype(np.float32)); out.append(z)
out += fa.ops.cross_entropy(z.reshape(-1, 31)[:100], np.arange(100) % 31)
out.append(fa.random.philox(100_003, 1, 2))
print(hashlib.sha256(b"".join(o.tobytes() for o in out)).hexdigest())
"""


@on_host
def test_results_do_not_depend_on_the_number_of_threads(backend: Backend) -> None:
    digests = set()
    for count in ("1", "2", "3", "7"):
        environment = {**os.environ, "FASTARCH_NUM_THREADS": count, "FASTARCH_BACKEND": backend.name}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], capture_output=True, text=True, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert len(digests) == 1
    assert len(next(iter(digests))) == len(hashlib.sha256().hexdigest())


SCARCE = """
import resource, numpy as np, fastarch as fa
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # room for some 200 stacks
print(fa.random.philox(10**6, 1, 2)[-1])
"""


def test_fewer_threads_than_wanted_are_enough() -> None:
    """Where the system grants no more threads the ones that there are do the work."""
    environment = {**os.environ, "FASTARCH_NUM_THREADS": "1000", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == fa.random.philox(10**6, 1, 2)[-1]


@pytest.mark.parametrize("count", ["abc", "0", "-1", "1.5", "4097", " 2"])
def test_a_thread_count_that_is_none_is_told(count: str) -> None:
    environment = {**os.environ, "FASTARCH_NUM_THREADS": count}
    done = subprocess.run(
        [sys.executable, "-c", "import fastarch.ops"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert (
        line
        == f"ValueError: [threads] FASTARCH_NUM_THREADS is {count!r}, expected a whole number from 1 to 4096"
    )


SCOPES: list[tuple[Callable[[], Any], Callable[[], Any]]] = [
    (lambda: fa.precision("tf32"), precisions.current),
    (lambda: fa.conv_algorithm("winograd2"), algorithms.current),
    (lambda: fa.backend("numpy"), backends.current),
    (fa.no_grad, autograd.is_grad_enabled),
]


@pytest.mark.parametrize(
    ("make", "current"), SCOPES, ids=["precision", "conv_algorithm", "backend", "no_grad"]
)
def test_one_scope_in_two_threads(make: Callable[[], Any], current: Callable[[], Any]) -> None:
    """Each thread leaves it to what was in force there, though the other one entered in between."""
    scope, outside = make(), current()
    entered, left = threading.Event(), threading.Event()
    seen: list[Any] = []

    def other() -> None:
        seen.append(current())
        with scope:
            seen.append(current())
            entered.set()
            left.wait(20)
        seen.append(current())

    thread = threading.Thread(target=other)
    with scope:
        inside = current()
        with scope:
            thread.start()
            assert entered.wait(20)
        assert current() == inside
    assert current() == outside != inside
    left.set()
    thread.join()
    assert seen[1] == inside
    assert seen[2] == seen[0]
    assert current() == outside
