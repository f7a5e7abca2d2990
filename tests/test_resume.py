"""No way of stopping a run changes its weights: killed at any moment and resumed, they are the same bits."""

from __future__ import annotations

import json
import random as python_random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import killed_run

SCRIPT = Path(killed_run.__file__)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_script(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def weights(folder):
    return (Path(folder) / "model.safetensors").read_bytes()


def metrics(folder):
    """What was recorded of the epochs, without the times."""
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "samples_per_second", "elapsed")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, _, err = run_script(folder)
    assert code == 0, err
    return folder


# Every moment that matters. The files, in order: config, the first checkpoint, then as they come.
POINTS = [
    *(f"step:{n}" for n in (1, 2, 5, 7, 15)),
    *(f"metrics:{n}" for n in (1, 3)),
    *(f"{kind}:{n}" for n in (1, 2, 3, 5, 8) for kind in ("write", "before", "after")),
    *(f"write:{n}" for n in (10, 11, 12)),  # checkpoint, model, summary at the end
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed(point, undisturbed, tmp_path):
    code, _, err = run_script(tmp_path / "run", point)
    assert code == -signal.SIGKILL, f"{point} was not reached: {err}"
    code, _, err = run_script(tmp_path / "run")
    assert code == 0, err
    assert weights(tmp_path / "run") == weights(undisturbed)
    assert metrics(tmp_path / "run") == metrics(undisturbed)
    left = {entry.name for entry in (tmp_path / "run").iterdir()}
    assert left == {entry.name for entry in undisturbed.iterdir()}


def test_killed_again_and_again(undisturbed, tmp_path):
    for nth in (3, 2, 4):
        assert run_script(tmp_path / "run", f"step:{nth}")[0] == -signal.SIGKILL
    assert run_script(tmp_path / "run")[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed)


def test_killed_from_outside_at_random_moments(undisturbed, tmp_path):
    moments = python_random.Random(0)
    for attempt in range(3):
        process = start(tmp_path / "run", "slow")
        process.stdout.readline()  # the first step is done
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, attempt
    assert run_script(tmp_path / "run")[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number, undisturbed, tmp_path):
    process = start(tmp_path / "run", "slow")
    assert process.stdout.readline().split() == ["1", "1"]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "stopped after 0 of 3 epochs" in err
    assert "resume=True goes on" in err
    assert "Traceback" not in err
    assert len(out.splitlines()) <= 2  # it did not go on
    assert run_script(tmp_path / "run")[0] == 0
    assert weights(tmp_path / "run") == weights(undisturbed)


def test_same_seed_same_bytes_other_seed_others(undisturbed, tmp_path):
    killed_run.run(tmp_path / "same")
    assert weights(tmp_path / "same") == weights(undisturbed)  # in another process, too
    killed_run.run(tmp_path / "other", seed=1)
    assert weights(tmp_path / "other") != weights(undisturbed)


def test_a_finished_run_is_not_trained_again(undisturbed):
    steps = []
    before = weights(undisturbed), (undisturbed / "summary.json").stat().st_mtime_ns
    history = killed_run.run(undisturbed, callbacks=[steps.append])
    assert not steps
    assert history.summary == json.loads((undisturbed / "summary.json").read_text())
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert (weights(undisturbed), (undisturbed / "summary.json").stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "fit.batch_size was 32, is now 16"),
        ({"epochs": 4}, "fit.epochs was 3, is now 4"),
        ({"clip_norm": None}, "fit.clip_norm was 5.0, is now null"),
        ({"augment": None}, "fit.first_batch was"),
        ({"seed": 3}, "fit.seed was 0, is now 3"),
        ({"config": {"note": "x"}}, "note was null, is now x"),
        ({"validation": None, "early_stopping": None}, "fit.early_stopping was 2, is now null"),
    ],
)
def test_a_changed_run_is_not_resumed(changes, message, undisturbed):
    before = {entry.name: entry.read_bytes() for entry in undisturbed.iterdir()}
    if "validation" in changes:
        changes.pop("validation")
    with pytest.raises(ValueError, match="cannot be resumed") as error:
        killed_run.run(undisturbed, **changes)
    assert message in str(error.value)
    assert {entry.name: entry.read_bytes() for entry in undisturbed.iterdir()} == before


def test_a_run_is_not_overwritten(undisturbed):
    with pytest.raises(FileExistsError, match="holds a run already"):
        killed_run.run(undisturbed, resume=False)


def test_a_damaged_checkpoint_is_named(undisturbed, tmp_path):
    assert run_script(tmp_path / "run", "step:7")[0] == -signal.SIGKILL
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is damaged"):
        killed_run.run(tmp_path / "run")


def test_every_backend_trains_reproducibly(backend, tmp_path):
    """The same seed gives the same bytes, stopped in between or not, and the backend is recorded."""

    def stop(step):
        if step.epoch == 2 and step.step == 1:
            raise RuntimeError("stopped")

    options = {"epochs": 2, "backend": backend.name}
    whole = killed_run.run(tmp_path / "whole", **options)
    with pytest.raises(RuntimeError, match="stopped"):
        killed_run.run(tmp_path / "stopped", callbacks=[stop], **options)
    killed_run.run(tmp_path / "stopped", **options)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert whole.summary["backend"] == backend.name
    other = "numpy" if backend.name != "numpy" else None
    with pytest.raises(ValueError, match=r"fit\.backend was"):
        killed_run.run(tmp_path / "whole", epochs=2, backend=other)
