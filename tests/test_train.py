"""fit and its parts: what is computed, recorded, shown and refused."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastarch as fa
from fastarch import nn, optim
from fastarch.nn import functional as F
from fastarch.train import checkpoint, evaluation
from fastarch.train.folder import RunFolder, differences
from fastarch.train.interrupt import Interrupts
from fastarch.train.progress import Progress, clock

# What fit computes


def blobs(n=200, seed=0):
    """Two clouds of points, easy to tell apart."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, n)
    x = (random.normal(size=(n, 6)) + 2.5 * y[:, None]).astype(np.float32)
    return x, y


def small_model(seed=0, dtype=np.float32):
    fa.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8, activation="tanh"), nn.Linear(8, 2)).to(dtype)


def fit(model, train, validation=None, lr=0.1, **more):
    more = {"epochs": 2, "batch_size": 32, "progress": False, "pictures": False, **more}
    more.setdefault("optimizer", optim.SGD(model.parameters(), lr=lr, momentum=0.9))
    return fa.train.fit(model, train, validation, **more)


def test_fit_is_the_plain_loop():
    """Without a folder, a schedule or anything else, fit is: batches, loss, gradient, step."""
    x, y = blobs()
    model, losses = small_model(), []
    fit(model, (x, y), seed=5, callbacks=[lambda step: losses.append(step.loss)])
    plain = small_model()
    optimizer = optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    loader = fa.data.Loader(evaluation.Arrays(x, y), 32, shuffle=True, seed=5)
    expected = []
    for epoch in range(2):
        for bx, by in loader.epoch(epoch):
            loss = F.cross_entropy(plain(fa.tensor(bx)), by)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
    assert losses == expected
    for name, value in plain.state_dict().items():
        assert np.array_equal(value, model.state_dict()[name]), name


def test_history_and_summary():
    x, y = blobs()
    history = fit(small_model(), (x, y), blobs(60, 1), epochs=4, test=blobs(90, 2))
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4]
    for row in history.epochs:
        assert {"loss", "accuracy", "validation_loss", "validation_accuracy", "lr", "seconds"} <= set(row)
        assert row["samples_per_second"] > 0
    summary = history.summary
    assert summary["epochs"] == 4
    assert summary["test_accuracy"] > 0.95
    assert summary["test_samples"] == 90
    assert summary["accuracy"] == history.epochs[-1]["accuracy"]
    assert summary["parameters"] == 74
    assert summary["versions"]["numpy"] == np.__version__
    json.dumps(summary)


def test_figures_of_an_epoch_are_means_over_samples():
    """The last batch is smaller and must not count as much as the others."""
    x, y = blobs(70)
    steps = []
    history = fit(small_model(), (x, y), epochs=1, lr=0.0, callbacks=[steps.append])
    figures, logits = fa.train.evaluate(small_model(), (x, y))
    assert len(steps) == 3
    assert history.epochs[0]["loss"] == pytest.approx(figures["loss"], rel=1e-6)
    assert history.epochs[0]["accuracy"] == pytest.approx(figures["accuracy"])
    assert figures["accuracy"] == np.mean(logits.argmax(1) == y)


def test_regression_and_float64():
    x = np.random.default_rng(0).normal(size=(64, 6))
    y = x[:, :2] * 2 - 1
    model = small_model(dtype=np.float64)
    history = fit(model, (x, y), epochs=60, lr=0.05, loss=F.mse_loss)
    assert history.epochs[-1]["loss"] < 0.1 * history.epochs[0]["loss"]
    assert "accuracy" not in history.epochs[0]
    assert model.state_dict()["0.weight"].dtype == np.float64


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_schedule(every):
    x, y = blobs(96)  # 3 steps an epoch
    model = small_model()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    history = fit(model, (x, y), epochs=3, optimizer=optimizer, schedule=schedule, schedule_every=every)
    # The rate of an epoch's last step.
    expected = [0.5**2, 0.5**5, 0.5**8] if every == "step" else [1.0, 0.5, 0.25]
    assert [row["lr"] for row in history.epochs] == pytest.approx(expected)


def test_clip_norm_bounds_the_step():
    x, y = blobs()
    model = small_model()
    before = model.state_dict()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    fit(model, (100 * x, y), epochs=1, batch_size=200, optimizer=optimizer, clip_norm=1e-3)
    moved = math.sqrt(sum(((model.state_dict()[name] - value) ** 2).sum() for name, value in before.items()))
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_early_stopping_brings_the_best_back(tmp_path):
    x, y = blobs(64)
    validation = blobs(64, 1)[0], 1 - blobs(64, 1)[1]  # the opposite: learning makes it worse
    model = small_model()
    history = fit(model, (x, y), validation, epochs=50, early_stopping=3, run_dir=tmp_path / "run")
    losses = [row["validation_loss"] for row in history.epochs]
    best = int(np.argmin(losses))
    assert history.summary["stopped_early"] is True
    assert history.summary["best_epoch"] == best + 1
    assert len(losses) == best + 1 + 3
    assert fa.train.evaluate(model, validation)[0]["loss"] == losses[best]
    saved = fa.load(small_model(1), tmp_path / "run" / "model.safetensors")
    assert fa.train.evaluate(saved, validation)[0]["loss"] == losses[best]


def test_a_resumed_run_remembers_the_best(tmp_path):
    x, y = blobs(64)
    validation = blobs(64, 1)[0], 1 - blobs(64, 1)[1]

    def train(name, callbacks=()):
        more = {"epochs": 50, "early_stopping": 3, "run_dir": tmp_path / name, "resume": True}
        return fit(small_model(), (x, y), validation, callbacks=callbacks, **more)

    def crash(step):
        if step.epoch == 3:
            raise RuntimeError("a fault of the caller's")

    assert train("undisturbed").summary["best_epoch"] == 1
    with pytest.raises(RuntimeError, match="a fault"):
        train("crashed", [crash])
    assert train("crashed").summary["best_epoch"] == 1
    files = [tmp_path / name / "model.safetensors" for name in ("crashed", "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_diverging_says_where_and_keeps_the_checkpoint(tmp_path):
    x, _ = blobs()
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    with pytest.raises(fa.train.Diverged, match=r"epoch 1, step \d of 7.*clip_norm") as error:
        fit(model, (x, x[:, :2]), lr=1e6, loss=F.mse_loss, run_dir=tmp_path / "run")
    assert error.value.epoch == 1
    assert 1 < error.value.step <= 7
    state = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    assert all(np.isfinite(value).all() for value in state["model"].values())
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_nan_in_the_data_is_found_at_its_step():
    x, y = blobs(96)
    x[:] = 0
    x[np.arange(96) == 95] = np.nan
    steps = []
    with pytest.raises(fa.train.Diverged, match="the loss became nan") as error:
        fit(small_model(), (x, y), callbacks=[steps.append])
    assert (error.value.epoch, error.value.step) == (1, len(steps) + 1)


def test_the_random_state_outside_is_left_alone():
    fa.manual_seed(7)
    before = fa.random.get_state()
    x, y = blobs(64)
    model = small_model()
    fa.random.set_state(before)
    fit(model, (x, y))
    assert fa.random.get_state() == before


def test_dropout_draws_from_the_step_not_from_what_ran_before():
    x, y = blobs(64)

    def train(disturb):
        fa.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        fit(model, (x, y), callbacks=[lambda step: disturb()])
        return model.state_dict()

    quiet = train(lambda: None)
    disturbed = train(lambda: fa.random.uniform(10))
    assert all(np.array_equal(quiet[name], disturbed[name]) for name in quiet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs is 0, expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"early_stopping": 3}, "needs validation data"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0, expected a number above 0"),
        ({"schedule_every": "day"}, "schedule_every is 'day'"),
        ({"seed": -1}, "seed is -1"),
        ({"resume": True}, "needs the run_dir"),
        ({"backend": "tpu"}, "got 'tpu', expected one of numpy"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=r"\[(fit|backend)\]") as error:
        fit(small_model(), blobs(64), **arguments)
    assert message in str(error.value)


def test_bad_data():
    x, y = blobs(64)
    with pytest.raises(TypeError, match="train_data is ndarray, expected a Dataset or a pair"):
        fit(small_model(), x)
    with pytest.raises(ValueError, match=r"train_data .* expected equal lengths"):
        fit(small_model(), (x, y[:-1]))
    with pytest.raises(ValueError, match="validation 'arrays' is empty"):
        fit(small_model(), (x, y), (x[:0], y[:0]))


# The parts


def test_checkpoints_hold_trees_bit_for_bit(tmp_path):
    state = {
        "arrays": {0: {"a": np.array([np.nan, -0.0, 1e-45], np.float32)}, 3: {"n": 7}},
        "list": [1, 2.5, None, True, "text", [np.arange(3, dtype=np.int64)]],
        "float": 0.1 + 0.2,
        "empty": {},
    }
    checkpoint.save(tmp_path / "c.safetensors", state)
    back = checkpoint.load(tmp_path / "c.safetensors")
    assert back["arrays"][0]["a"].tobytes() == state["arrays"][0]["a"].tobytes()
    assert back["arrays"][3] == {"n": 7}
    assert back["list"][:5] == state["list"][:5]
    assert np.array_equal(back["list"][5][0], np.arange(3))
    assert back["float"] == 0.1 + 0.2
    assert back["empty"] == {}
    with pytest.raises(TypeError, match="'a/b' is set"):
        checkpoint.save(tmp_path / "c.safetensors", {"a": {"b": {1}}})


def test_new_folders_never_collide(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        folders = list(threads.map(lambda _: RunFolder.new(tmp_path, "lenet5 my/data").path.name, range(16)))
    assert sorted(folders, key=lambda name: int(name.rsplit("-", 1)[1])) == [
        f"lenet5-my-data-{i}" for i in range(1, 17)
    ]


def test_differences_names_what_changed():
    before = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": "x"}
    assert differences(before, before) == []
    assert differences(before, {"a": 1, "b": {"c": [1, 3], "d": None}, "new": 0}) == [
        "b.c was [1, 2], is now [1, 3]",
        "gone was x, is now null",
        "new was null, is now 0",
    ]


def test_interrupts_note_the_first_and_obey_the_second():
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore Ctrl-C
    try:
        with Interrupts() as interrupts:
            assert interrupts.received is None
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupts.received == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outer)


def test_fit_in_a_thread_leaves_signals_alone():
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(fit, small_model(), blobs(64)).result().summary["epochs"] == 2


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


RECORD = {"loss": 0.25, "accuracy": 0.9, "lr": 1e-3, "samples_per_second": 1234.5, "elapsed": 61.2}


@pytest.mark.parametrize("columns", [62, 75, 120])
def test_progress_on_a_terminal_is_one_line(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    progress = Progress(2, 3, stream=screen)
    for epoch in (1, 2):
        for step in (1, 2, 3):
            progress.step(epoch, step, {"loss": 0.5, "accuracy": 0.25}, 1000.0)
        progress.epoch(epoch, {**RECORD, "validation_loss": 0.125})
    progress.close()
    text = screen.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    lines = [line.replace("\x1b[K", "") for line in text.strip().split("\r")]
    assert all(len(line) < columns for line in lines)
    steps = [line for line in lines if line.endswith(" left")]
    assert len(steps) >= 2
    assert all("loss 0.5000  acc 25" in line for line in steps)
    assert ("val loss" in steps[-1]) == (columns == 120)  # where there is room
    assert ("━" in steps[-1]) == (columns > 62)


def test_progress_elsewhere_is_a_line_an_epoch(capsys):
    progress = Progress(10, 3)
    progress.step(1, 1, {"loss": 0.5}, 1000.0)
    progress.epoch(1, {**RECORD, "validation_loss": 0.125, "validation_accuracy": 0.96})
    progress.close()
    assert capsys.readouterr().err == (
        "epoch  1/10  loss 0.2500  acc 90.00 %  val loss 0.1250  val acc 96.00 %  lr 0.001  1,234/s  1:01\n"
    )


def test_progress_that_is_off_says_nothing(capsys):
    x, y = blobs(64)
    fit(small_model(), (x, y), progress=False)
    assert capsys.readouterr() == ("", "")


def test_clock():
    assert [clock(s) for s in (0, 7.4, 59.9, 754, 3600 * 30 + 61)] == [
        "0:00",
        "0:07",
        "1:00",
        "12:34",
        "30:01:01",
    ]


def test_the_latest_run_is_found_under_the_name_that_new_gave_it(tmp_path):
    folder = RunFolder.new(tmp_path, "lenet5-my data (2)")
    folder.begin({})
    assert RunFolder.latest(tmp_path, "lenet5-my data (2)").path == folder.path


def test_fit_makes_an_optimizer_where_none_is_given():
    x, y = np.zeros((4, 3), np.float32), np.arange(4) % 2
    history = fa.train.fit(nn.Linear(3, 2), (x, y), epochs=1, progress=False)
    assert len(history.epochs) == 1
