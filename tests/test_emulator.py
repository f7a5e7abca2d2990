"""The emulator: planted faults are caught, and correct kernels pass under every order of their threads.

The programs in ``tests/emulator`` are built twice: with the address and undefined-behaviour sanitizers; and
with preemption at every memory access, and the portable context switch, which nothing else would test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*sorted((ROOT / "cuda/emulator").glob("*.cpp")), ROOT / "cuda/tuning.cu"]
PROGRAMS = sorted((ROOT / "tests/emulator").glob("*.cpp"))
# Options for the emulator, for the programs (that is, the kernels) in addition, and for the linker.
BUILDS = {
    "sanitized": (
        ["-fsanitize=address"],
        ["-fsanitize=undefined", "-fno-sanitize-recover=all"],
        ["-fsanitize=address,undefined"],
    ),
    "preempted": (["-DFASTARCH_FIBER_UCONTEXT"], ["-fsanitize=thread"], []),
}

# How each planted fault shows in each build: a part of the text that the program ends with.
EVERYWHERE = {
    "abandoned_box": "it exited as the last of its block, but",
    "abandoned_copy": "it exited, but 1 of its asynchronous copies have not been waited for",
    "abandoned_product": "of its warpgroup's products have not been waited for",
    "absent_warp": "of its warpgroup ha",
    "block_order": "wrong result for",
    "deadlock": "deadlock: every thread waits or has exited; thread (0, 0, 0) of block (0, 0, 0) waits in",
    "divergent_barrier": "barrier not reached by all threads: it calls __syncthreads at planted_faults.cpp:",
    "double_free": "which is no device buffer, or freed already",
    "early_copy": "wrong result for",
    "early_release": "wrong result for",
    "early_exit": "barrier not reached by all threads: it",
    "leaked_buffer": "[leaked_buffer] leaked 2 device buffers (512 bytes)",
    "left_cluster": "of the cluster have exited, and its memory with them",
    "livelock": "no thread has passed a barrier or exited for 10000 scheduling points",
    "missing_barrier": "wrong result for",
    "missing_cluster_barrier": "wrong result for",
    "missing_copy_wait": "wrong result for 50 of 50 seeds",
    "missing_product_fence": "its sums were written, and no fence_products() since",
    "missing_product_wait": "wrong result for 50 of 50 seeds",
    "misaligned_operand": "does not start where a pattern of the swizzle does",
    "missing_warp_barrier": "wrong result for",
    "partial_warp": "needs all 32 lanes of a warp, but only 0xfffff are there",
    "shuffle_mask": "reads from lane 1, which has exited or does not exist",
    "shuffle_mismatch": "warp operation not reached by all lanes of its mask",
    "unannounced_bytes": "deadlock: every thread waits or has exited",
    "uninitialised_buffer": "wrong result for 50 of 50 seeds",
    "uninitialised_shared": "wrong result for 50 of 50 seeds",
    "unrounded_operand": "operand 0.1 is not rounded to tf32",
    "wrong_parity": "deadlock: every thread waits or has exited",
}
FAULTS = {
    "sanitized": EVERYWHERE
    | {
        "buffer_overrun": "AddressSanitizer: use-after-poison",
        "dynamic_shared_overrun": "AddressSanitizer: use-after-poison",
        "global_overrun": "AddressSanitizer: heap-buffer-overflow",
        "shared_index": "index 64 out of bounds for type 'float [64]'",
        "shared_overrun": "AddressSanitizer: use-after-poison",
    },
    # Without the sanitizer only writes between variables and buffers are seen, once the block or buffer ends.
    "preempted": EVERYWHERE
    | {
        "buffer_overrun": "device buffer of 4000 bytes written out of bounds, 0 bytes behind its end",
        "dynamic_shared_overrun": "shared memory written out of bounds",
        "lost_update": "wrong result for",
        "shared_overrun": "shared memory written out of bounds",
    },
}
FAULT_NAMES = set().union(*FAULTS.values())
OPERATIONS = {
    "captures": ["buffers", "cooperative", "refusals", "replays"],
    "launches": [
        "empty_buffer",
        "grid_shapes",
        "host_threads",
        "launch_limits",
        "recovery",
        "seeds",
        "shared_memory_is_never_taken_back",
        "shared_memory_limits",
    ],
    "matrices": [
        "asynchronous_copies",
        "matrices_from_shared_memory",
        "misaligned_addresses",
        "products",
        "sums_are_chopped",
        "tf32_rounds_to_nearest",
    ],
    "multiply": ["elements_past_32_bits", "positions_past_32_bits", "split", "whole"],
    "semantics": [
        "atomics",
        "barrier_votes",
        "clusters",
        "divergent_grid_barrier",
        "fresh_shared_memory",
        "grid_barrier",
        "indices",
        "intrinsics",
        "max_passes_nan_on",
        "partial_masks",
        "reductions",
        "short_warps",
        "shuffles",
        "votes",
    ],
    "warpgroups": [
        "barriers_in_phases",
        "boxes",
        "named_barriers",
        "refusals",
        "warpgroup_products",
    ],
    "wgmma": ["pieces", "what_it_takes"],
    "wgmma_pixels": ["convolutions", "convolutions_in_slices", "what_pixels_it_leaves"],
}


@dataclass(frozen=True)
class Programs:
    """The test programs, compiled as `build` says."""

    build: str
    folder: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "FASTARCH_EMULATOR_SEED": ""}
        command = [str(self.folder / program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module", params=list(BUILDS))
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    assert compiler, "the tests of the emulator need a C++ compiler (g++, or the one that CXX names)"
    folder = tmp_path_factory.mktemp(request.param)
    flags = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-pthread"]
    flags += [f"-I{ROOT / part}" for part in ("cuda/emulator/include", "csrc", "cuda")]
    general, of_programs, of_linker = BUILDS[request.param]
    flags += general

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        extra = of_programs if source in PROGRAMS else []
        subprocess.run([compiler, *flags, *extra, "-x", "c++", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        library = [*pool.map(compile_one, SOURCES)]
        for target in pool.map(compile_one, PROGRAMS):
            linked = ["-pthread", *of_linker, target, *library, "-o", target.with_suffix("")]
            subprocess.run([compiler, *linked], check=True)
    return Programs(request.param, folder)


def test_no_test_of_the_programs_is_left_out(programs: Programs) -> None:
    listed = programs.run("planted_faults").stdout.split()
    assert {name for name in listed if not name.endswith("_fixed")} == FAULT_NAMES
    for program, tests in OPERATIONS.items():
        assert programs.run(program).stdout.split() == tests


@pytest.mark.parametrize("fault", sorted(FAULT_NAMES))
def test_planted_fault(programs: Programs, fault: str) -> None:
    expected = FAULTS[programs.build].get(fault)
    if expected is not None:
        caught = programs.run("planted_faults", fault)
        assert caught.returncode != 0
        assert expected in caught.stderr
        if "AddressSanitizer" in expected:
            assert "planted_faults.cpp:" in caught.stderr  # the report names the line
    correct = programs.run("planted_faults", f"{fault}_fixed")
    assert (correct.returncode, correct.stderr) == (0, "")


@pytest.mark.parametrize(("program", "test"), [(p, t) for p, tests in OPERATIONS.items() for t in tests])
def test_operation(programs: Programs, program: str, test: str) -> None:
    result = programs.run(program, test)
    assert (result.returncode, result.stderr) == (0, "")


class TestModule:
    """The compiled module that the suites run on."""

    @pytest.fixture
    def module(self):
        from fastarch import _emulator

        yield _emulator
        _emulator.set_multiprocessors(2)

    def test_result_does_not_depend_on_the_order(self, module) -> None:
        x = np.random.default_rng(0).normal(size=(37, 91)).astype(np.float32)
        results = []
        for seed in range(5):
            module.set_seed(seed)
            for multiprocessors in (1, 132):
                module.set_multiprocessors(multiprocessors)
                y = np.empty_like(x)
                module.softmax_forward(x, y)
                results.append(y)
        assert all(np.array_equal(results[0], y) for y in results)
        np.testing.assert_allclose(results[0].sum(axis=1), 1, rtol=1e-6)

    def test_several_host_threads(self, module) -> None:
        x = np.linspace(-3, 3, 5000)
        results = [np.empty_like(x) for _ in range(4)]

        def work(y: np.ndarray) -> None:
            for _ in range(10):
                module.activation_forward(x, y, 2)

        threads = [threading.Thread(target=work, args=(y,)) for y in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for y in results:
            np.testing.assert_allclose(y, np.tanh(x), rtol=1e-14)

    def test_an_error_leaves_the_module_usable(self, module) -> None:
        x, y = np.ones(3), np.zeros(4)
        with pytest.raises(ValueError, match="x has shape"):
            module.activation_forward(x, y, 1)
        module.activation_forward(x, x, 1)

    def test_documentation_survives_the_leak_check(self, module) -> None:
        assert "kind" in module.activation_forward.__doc__
