"""Plans by trial: what is chosen, kept and shared, what no trial may touch. The emulator is told times."""

from __future__ import annotations

import contextvars
import json
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from fastarch import autotuning, backends

if backends.reason_unusable("emulator"):
    pytest.skip("what these tests vary, only the emulator lets them", allow_module_level=True)

M, IN, OUT = 20, 96, 72
THREADS = {"128x128x8": 256, "64x128x8": 128, "64x64x8": 128, "32x32x16": 64, "16x64x16": 64, "8x32x16": 32}


def grid_of(tile: str, slices: int) -> tuple[int, int]:
    """(blocks, threads of each) of a launch."""
    rows, columns = map(int, tile.split("x")[:2])
    return -(-M // rows) * -(-OUT // columns) * slices, THREADS[tile]


class Process:
    """What a process knows of plans, as if it had just begun."""

    def __init__(self, file: Path) -> None:
        self.module: Any = backends._loaded["emulator"]
        self.file = file
        random = np.random.default_rng(0)
        self.x, self.weight = (random.normal(size=s).astype(np.float32) for s in ((M, IN), (OUT, IN)))
        self.begin()

    def begin(self) -> None:
        self.module.forget_plans()
        self.module.forget_launch_times()
        self.module.set_multiprocessors(2)
        self.module.set_capturing(False)
        autotuning._read.clear()
        autotuning._warned.clear()

    def linear(self) -> np.ndarray:
        with fa.backend("emulator"):
            return fa.ops.linear(self.x, self.weight)

    def tuned(self) -> np.ndarray:
        with fa.autotune():
            return self.linear()

    def launches(self, call: Callable[[], Any]) -> int:
        before = self.module.launch_count()
        call()
        return self.module.launch_count() - before

    def choice(self) -> dict[str, Any]:
        (choice,) = self.module.tunings()
        return choice

    def make_fastest(self, tile: str, slices: int) -> None:
        self.module.set_launch_time(*grid_of(tile, slices), 1e-3)
        if slices > 1:  # then another launch adds them up
            self.module.set_launch_time(-(-M * OUT // 32), 256, 1e-3)

    def content(self) -> Any:
        return json.loads(self.file.read_text())


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    file = tmp_path / "cache" / "plans.json"
    monkeypatch.setenv("FASTARCH_AUTOTUNE_CACHE", str(file))
    made = Process(file)
    yield made
    made.begin()


def test_without_it_nothing_is_tried(process: Process) -> None:
    assert process.launches(process.linear) <= 2
    assert process.module.tunings() == []
    assert not process.file.exists()


def test_every_sensible_plan_is_tried_and_the_fastest_taken(process: Process) -> None:
    plain = process.linear()
    process.tuned()
    trials = process.choice()["trials"]
    plans = [(trial["tile"], trial["slices"]) for trial in trials]
    assert len(set(plans)) == len(plans) >= 8
    assert {tile for tile, _ in plans} <= set(THREADS)
    assert any(slices > 1 for _, slices in plans)
    least = min(trial["model_cycles"] for trial in trials)
    assert all(trial["model_cycles"] <= 4 * least for trial in trials)
    grids = [grid_of(*plan) for plan in plans]
    whole = [plan for plan in plans if plan[1] == 1]
    split = [plan for plan in plans if plan[1] > 1 and grids.count(grid_of(*plan)) == 1]
    for tile, slices in (whole[0], whole[-1], split[0], split[-1]):
        process.begin()
        process.file.unlink()
        process.make_fastest(tile, slices)
        found = process.tuned()
        chosen = process.choice()
        assert (chosen["tile"], chosen["slices"]) == (tile, slices)
        assert chosen["microseconds"] == pytest.approx(1e-3 if slices == 1 else 2e-3, rel=1e-3)
        np.testing.assert_allclose(found, plain, rtol=0, atol=1e-4)
        with fa.backend("emulator"), autotuning.forced_plan(tile, slices):
            np.testing.assert_array_equal(fa.ops.linear(process.x, process.weight), found)


def test_later_calls_take_the_plan_and_give_equal_bits(process: Process) -> None:
    process.make_fastest("64x64x8", 1)
    first = process.tuned()
    assert (process.choice()["tile"], process.choice()["slices"]) == ("64x64x8", 1)
    results = []
    assert process.launches(lambda: results.append(process.tuned())) == 1
    np.testing.assert_array_equal(first, results[0])
    process.module.set_launch_time(2, 64, 1e-6)  # what is chosen stays
    assert process.launches(process.tuned) == 1


def test_a_problem_is_more_than_its_shape(process: Process) -> None:
    """Types, alignment, row sums, geometry and the device: each is tried for itself."""
    random = np.random.default_rng(1)
    with fa.backend("emulator"), fa.autotune():
        for dtype in (np.float32, np.float64):
            x = random.normal(size=(5, 8)).astype(dtype)
            w, room = np.ones((4, 8), dtype), np.ones(33, dtype)
            process.module.linear_forward(x, w, None, np.empty((5, 4), dtype), 0)
            process.module.linear_forward(x, room[1:].reshape(4, 8), None, np.empty((5, 4), dtype), 0)
        assert len(process.module.tunings()) == 4
        image, filters = np.ones((1, 2, 6, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)
        for stride, padding in ((1, 0), (2, 2)):
            fa.ops.conv2d(image, filters, stride=stride, padding=padding)
        assert len(process.module.tunings()) == 6
        process.module.set_multiprocessors(3)
        fa.ops.conv2d(image, filters)
        with fa.precision("tf32"):
            fa.ops.conv2d(image, filters)
    found = [choice["problem"] for choice in process.module.tunings()]
    assert len(found) == 8
    assert sum("MmaTiles<float>" in problem for problem in found) == 1
    assert not any("::" in problem for problem in found)


def test_channels_last_problems_are_told_apart(process: Process) -> None:
    """By extents, window and stride, though the products' extents are alike."""
    cases = [
        ((6, 6), (3, 3), (1, 1), 0),
        ((6, 6), (3, 3), (2, 2), 2),
        ((4, 10), (3, 3), (1, 1), 0),
        ((4, 12), (1, 9), (1, 1), 0),
        ((9, 6), (3, 3), (2, 1), 0),
        ((6, 9), (3, 3), (1, 2), 0),
    ]
    random = np.random.default_rng(2)
    for image, window, stride, padding in cases:
        x = random.normal(size=(1, *image, 2)).astype(np.float32)
        weight = random.normal(size=(3, 2, *window)).astype(np.float32)
        options: dict[str, Any] = {"stride": stride, "padding": padding, "layout": "NHWC"}
        with fa.backend("emulator"):
            y = fa.ops.conv2d(x, weight, **options)
            plain = [y, *fa.ops.conv2d_backward(y, x, weight, **options)]
            with fa.autotune():
                tuned = [fa.ops.conv2d(x, weight, **options)]
                tuned += fa.ops.conv2d_backward(y, x, weight, **options)
        for ours, theirs in zip(tuned, plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
    found = [choice["problem"] for choice in process.module.tunings()]
    assert len(found) == 3 * len(cases)
    assert {problem.split(":")[0] for problem in found} == {
        "conv2d_forward",
        "conv2d_backward_input",
        "conv2d_backward_weight",
    }


def test_wgmma_plans_for_itself(process: Process) -> None:
    x = np.ones((64, 64), np.float16)
    before = process.module.set_wgmma(True)
    try:
        with fa.backend("emulator"), fa.autotune():
            count = process.module.wgmma_products()
            fa.ops.linear(x, x)
            assert process.module.wgmma_products() == count + 1
            assert process.module.tunings() == []
            with autotuning.forced_plan("1x2x3"), pytest.raises(ValueError, match="no tile 1x2x3"):
                fa.ops.linear(x, x)
            assert process.module.wgmma_products() == count + 1
    finally:
        process.module.set_wgmma(before)


def test_a_later_process_finds_it_in_the_file(process: Process) -> None:
    process.make_fastest("16x64x16", 1)
    first = process.tuned()
    ((device, plans),) = process.content()["plans"].items()
    assert device == (
        f"fastarch {fa.__version__}, emulator, compute capability 9.0, 2 multiprocessors, driver 13000, "
        "runtime 13000"
    )
    ((problem, plan),) = plans.items()
    kinds = "Product<float, true, true, false, MatrixResult<float> > on Tiles<float>"
    assert problem == f"linear_forward: {kinds}, 1 x 20 x 72 x 96, aligned aligned"
    assert (plan["tile"], plan["slices"]) == ("16x64x16", 1)
    process.begin()
    process.make_fastest("64x64x8", 1)
    results = []
    assert process.launches(lambda: results.append(process.tuned())) == 1
    np.testing.assert_array_equal(first, results[0])


@pytest.mark.parametrize("change", ["version", "device", "tile"])
def test_what_is_of_another_world_is_tried_anew(process: Process, change: str) -> None:
    process.tuned()
    content = process.content()
    ((device, plans),) = content["plans"].items()
    if change == "version":
        content["plans"] = {device.replace(fa.__version__, "0.0.1"): plans}
    elif change == "device":
        content["plans"] = {device.replace("emulator", "NVIDIA H200"): plans}
    else:
        next(iter(plans.values()))["tile"] = "48x48x48"
    process.file.write_text(json.dumps(content))
    process.begin()
    assert process.launches(process.tuned) > 2
    assert len(process.module.tunings()) == 1 + (change == "device")
    if change == "tile":
        assert "48x48x48" not in process.file.read_text()
    else:
        assert len(process.content()["plans"]) == 2  # another version's and device's plans stay


def test_what_another_process_has_written_meanwhile_stays(process: Process) -> None:
    with fa.autotune():
        pass  # the file is read here: it is not there
    other = {"tile": "8x32x16", "slices": 3, "microseconds": 1.5}
    process.file.parent.mkdir()
    process.file.write_text(json.dumps({"format": 1, "plans": {"another device": {"a problem": other}}}))
    process.tuned()
    content = process.content()["plans"]
    assert content.pop("another device") == {"a problem": other}
    ((device, plans),) = content.items()
    (problem,) = plans
    process.begin()
    with fa.autotune():
        process.module.forget_plans()
        process.file.write_text(json.dumps({"format": 1, "plans": {device: {problem: other}}}))
        process.linear()
    assert process.choice()["tile"] != "8x32x16" or process.choice()["slices"] != 3
    assert process.content()["plans"][device][problem] == other
    assert [p.name for p in process.file.parent.iterdir() if p.suffix != ".lock"] == ["plans.json"]


DAMAGED = {
    "empty": "",
    "cut": '{"format": 1, "plans": {"a": {',
    "no_object": "[]",
    "no_format": "{}",
    "no_plans": '{"format": 1}',
    "no_table": '{"format": 1, "plans": {"a": 3}}',
    "no_tile": '{"format": 1, "plans": {"a": {"b": {"slices": 1, "microseconds": 1}}}}',
    "slices": '{"format": 1, "plans": {"a": {"b": {"tile": "1x1x1", "slices": 0, "microseconds": 1}}}}',
    "infinite": '{"format": 1, "plans": {"a": {"b": {"tile": "1x1x1", "slices": 1, "microseconds": NaN}}}}',
    "huge": '{"format": 1, "plans": {"a": {"b": {"tile": "1x1x1", "slices": 1, "microseconds": 1%s}}}}'
    % ("0" * 400),
    "true": '{"format": true, "plans": {}}',
    "deep": "[" * 100_000,
    "bytes": "\ufffe\x00",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_said_to_be_and_written_anew(process: Process, name: str) -> None:
    process.file.parent.mkdir()
    process.file.write_text(DAMAGED[name], "utf-16" if name == "bytes" else "utf-8")
    with pytest.warns(RuntimeWarning, match=r"^\[autotune\] .*plans.json cannot be used \(.+\): plans are"):
        process.tuned()
    assert process.launches(process.tuned) <= 2
    assert len(process.content()["plans"]) == 1


def test_a_file_of_another_format_is_left_alone(process: Process) -> None:
    process.file.parent.mkdir()
    text = '{"format": 2, "trees": []}'
    process.file.write_text(text)
    with pytest.warns(RuntimeWarning) as caught:
        process.tuned()
    assert [str(w.message).split("plans.json ")[1] for w in caught] == [
        "cannot be used (its format is 2, expected 1): plans are chosen anew",
        "is left as it is (its format is 2, expected 1): what is chosen ends with the process",
    ]
    assert process.file.read_text() == text


def test_a_place_that_cannot_be_written(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    process.file.parent.write_text("no folder")
    with pytest.warns(RuntimeWarning, match=r"plans.json cannot be written \(.+\): what is chosen ends"):
        process.tuned()
    assert process.launches(process.tuned) <= 2


def test_without_a_home_nothing_is_kept(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTARCH_AUTOTUNE_CACHE", "~no-user-of-that-name/plans.json")
    assert autotuning.cache_file() is None
    assert fa.info().autotune == {"on": False, "file": None, "entries": 0}
    with pytest.warns(RuntimeWarning, match=r"^\[autotune\] the home directory is unknown") as caught:
        process.tuned()
    assert len(caught) == 1
    assert process.launches(process.tuned) <= 2
    assert len(process.module.tunings()) == 1


def test_a_block_that_cannot_be_entered_is_not(process: Process) -> None:
    """Where warnings are errors; and those in the middle of an operator do not stop it."""
    process.file.parent.write_text("no folder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=r"plans.json cannot be used"):
            process.tuned()
        assert not autotuning.current()
        assert process.launches(process.linear) <= 2
        assert process.module.tunings() == []
        process.tuned()
    assert len(process.module.tunings()) == 1
    assert not autotuning.current()


def test_nothing_is_tried_during_a_capture(process: Process) -> None:
    plain = process.linear()
    process.module.set_capturing(True)
    results = []
    assert process.launches(lambda: results.append(process.tuned())) <= 2
    np.testing.assert_array_equal(results[0], plain)
    assert process.module.tunings() == []
    process.module.set_capturing(False)
    process.make_fastest("64x64x8", 1)
    tuned = process.tuned()
    process.module.set_capturing(True)
    assert process.launches(lambda: results.append(process.tuned())) == 1
    np.testing.assert_array_equal(results[1], tuned)


def test_threads_try_once_and_choose_for_themselves(process: Process) -> None:
    results: list[np.ndarray] = []
    barrier = threading.Barrier(3)

    def work() -> None:
        barrier.wait()
        results.append(process.tuned())

    def bystander() -> None:
        barrier.wait()
        assert process.linear().shape == (M, OUT)

    before = process.module.launch_count()
    threads = [threading.Thread(target=target) for target in (work, work, bystander)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = process.choice()["trials"]
    most = sum(1 + (trial["slices"] > 1) for trial in trials) * 6 + 3 * 2
    assert process.module.launch_count() - before <= most  # the trials of one of them
    assert len(results) == 2
    np.testing.assert_array_equal(results[0], results[1])
    with fa.autotune():
        inside = []
        thread = threading.Thread(target=lambda: inside.append(autotuning.current()))
        thread.start()
        thread.join()
        assert inside == [False]
        assert contextvars.Context().run(autotuning.current)  # a thread's, as in the kernels


def test_what_happens_in_place_happens_once(process: Process) -> None:
    """Learning is no trial: a Boltzmann machine's update and a search that counts on its tile."""
    random = np.random.default_rng(3)
    x = random.integers(0, 2, (9, 12)).astype(np.float32)

    def learnt() -> list[np.ndarray]:
        machine = fa.estimators.RBM(n_components=7, n_epochs=2, batch_size=3, random_state=0)
        with fa.backend("emulator"):
            machine.fit(x)
            return [machine.components_, *fa.ops.som_bmu(x, x[:5])]

    plain = learnt()
    with fa.autotune():
        tuned = learnt()
    for ours, theirs in zip(tuned, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    tried = {choice["problem"].split(":")[0] for choice in process.module.tunings()}
    assert "rbm_half_step" in tried
    assert not tried & {"rbm_update", "som_bmu"}


def test_it_nests_and_ends(process: Process) -> None:
    assert not autotuning.current()
    with fa.autotune() as outer:
        assert autotuning.current()
        with fa.autotune(False):
            assert not autotuning.current()
            assert process.launches(process.linear) <= 2
            with outer:
                assert autotuning.current()
        assert autotuning.current()
    assert not autotuning.current()
    with pytest.raises(TypeError, match=r"\[autotune\] on is 'yes', expected a bool"):
        fa.autotune("yes")  # type: ignore[arg-type]


def test_info_tells(process: Process) -> None:
    assert fa.info().autotune == {"on": False, "file": str(process.file), "entries": 0}
    with fa.autotune():
        process.linear()
        assert fa.info().autotune == {"on": True, "file": str(process.file), "entries": 1}
    assert f"autotune: off, 1 plans in {process.file}" in str(fa.info())


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FASTARCH_AUTOTUNE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    home = tmp_path / ".cache" / "fastarch" / "autotune.json"
    assert autotuning.cache_file() == home
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/cache")
    assert autotuning.cache_file() == home
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert autotuning.cache_file() == tmp_path / "cache" / "fastarch" / "autotune.json"
    monkeypatch.setenv("FASTARCH_AUTOTUNE_CACHE", "~/mine.json")
    assert autotuning.cache_file() == tmp_path / "mine.json"


PROGRAM = """
import numpy as np, fastarch as fa
from fastarch import _emulator, backends
x = np.ones((20, 96), np.float32)
def call():
    before = _emulator.launch_count()
    fa.ops.linear(x, x[:9])
    return _emulator.launch_count() - before
with fa.backend("emulator"):
    print(call() > 2, call() <= 2)
print("autotune: on, 1 plans" in str(fa.info()))
"""


def test_the_environment_switches_it_on(tmp_path: Path) -> None:
    def run(value: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "FASTARCH_AUTOTUNE": value,
            "FASTARCH_AUTOTUNE_CACHE": str(tmp_path / "plans.json"),
        }
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    assert run("1").stdout.split() == ["True", "True", "True"]
    assert run("1").stdout.split() == ["False", "True", "True"]  # from the file
    assert "[autotune] FASTARCH_AUTOTUNE is 'yes', expected 0 or 1" in run("yes").stderr
