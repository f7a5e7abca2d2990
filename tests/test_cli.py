"""The command line, as a user meets it: what it prints where, its exit codes, and a whole training run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

import fastarch as fa
from command_line import command, fails, run, save_small_data, train_small
from fastarch.cli import main

HEAVY = {"matplotlib", "sklearn", "torch", "cupy", "scipy", "PIL"}
QUICK = ("--epochs", "2", "--batch-size", "32", "--no-plots")


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "few.npz"
    save_small_data(path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_data):
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    train_small(small_data, folder)
    return folder


# Looking


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fastarch {fa.__version__}\n"


def test_list(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "lenet5" in text
    assert "61,706" in text
    assert "1x32x32" in text
    assert main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(fa.models.MODELS) | set(fa.estimators.ESTIMATORS)
    for name in fa.models.MODELS:
        row = rows[name]
        model = fa.models.MODELS[name].builder()
        assert row["parameters"] == sum(parameter.data.size for parameter in model.parameters()), name
        assert row["paper"]


def test_info(capsys):
    assert main(["info", "--json"]) == 0
    information = json.loads(capsys.readouterr().out)
    assert information["versions"]["fastarch"] == fa.__version__
    assert set(information["backends"]) == {"numpy", "cpu", "cuda", "emulator"}
    assert main(["info"]) == 0
    assert fa.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["list"], ["info"], ["--version"], ["train", "--help"]])
def test_looking_imports_nothing_heavy(arguments):
    program = (
        "import sys; from fastarch.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print(*({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr.split() == []


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("3", "3")])
def test_blas_runs_on_one_thread_unless_told(given, expected):
    """The variable is there before NumPy is, which reads it once."""
    program = (
        "import os, sys; from fastarch.cli.parser import parse\n"
        "options = parse(['list', '--json']); assert 'numpy' not in sys.modules\n"
        "options.command(options); print(os.environ['OPENBLAS_NUM_THREADS'], file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment |= {"OPENBLAS_NUM_THREADS": given} if given else {}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stderr.split() == [expected]


def test_a_closed_pipe_is_no_error():
    process = command("list", "--json")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""


# Training


def test_train_fills_a_run_folder(tmp_path, small_data):
    code, out, err = run("train", "lenet5", small_data, "--epochs", 2, cwd=tmp_path)
    assert code == 0, err
    folder = tmp_path / "runs" / "lenet5-few-1"
    drawn = {"curves.png", "confusion.png", "filters.png", "mistakes.png"}
    files = {"config.json", "metrics.jsonl", "summary.json", "checkpoint.safetensors", "model.safetensors"}
    assert {entry.name for entry in folder.iterdir()} == files | drawn
    assert "test accuracy" in out
    assert "fastarch predict runs/lenet5-few-1" in out
    lines = err.splitlines()
    assert lines[0] == "LeNet-5 on few: 61,706 parameters; 216 training, 24 validation, 60 test samples"
    assert [line[:9] for line in lines[1:]] == ["epoch 1/2", "epoch 2/2"]
    config = json.loads((folder / "config.json").read_text())
    assert config["command"]["epochs"] == 2
    assert config["command"]["seed"] == 0
    assert config["preprocessing"]["native"] == [8, 8]
    assert config["classes"] == [str(i) for i in range(10)]


def test_json_is_all_there_is_on_standard_output(tmp_path, small_data):
    code, out, err = run("train", "lenet5", small_data, *QUICK, "--json", "--seed", 5, cwd=tmp_path)
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / summary["run_dir"] / "summary.json").read_text())
    assert summary["seed"] == 5
    assert 0 <= summary["test_accuracy"] <= 1
    assert summary["test_samples"] == 60
    assert "epoch 2/2" in err


def test_quiet(tmp_path, small_data, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "lenet5", str(small_data), *QUICK, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_without_matplotlib_training_finishes(tmp_path, small_data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "lenet5", str(small_data), "--epochs", "1", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "no pictures were drawn: pictures need matplotlib: pip install 'fastarch[demo]'\n"
    assert "summary.json" in printed.out
    assert "png" not in printed.out
    assert (tmp_path / "runs" / "lenet5-few-1" / "summary.json").is_file()


def test_options_reach_the_run(tmp_path, small_data):
    folder = tmp_path / "run"
    options = (
        "--optimizer sgd --lr 0.02 --momentum 0.5 --weight-decay 0 --schedule step --augment none --seed 3"
    )
    more = (
        "--clip-norm 1 --early-stop 1 --test-split 0 --validation-split 0.5 --dtype float64 --backend numpy"
    )
    model = "--model activation=tanh --model pooling=average --backend numpy --seed 3"
    arguments = [*options.split(), *more.split(), *model.split(), *QUICK, "--run-dir", str(folder), "--quiet"]
    assert main(["train", "lenet5", "--data", str(small_data), *arguments]) == 0
    config = json.loads((folder / "config.json").read_text())
    fit = config["fit"]
    assert fit["optimizer"]["name"] == "SGD"
    assert fit["optimizer"]["momentum"] == 0.5
    assert fit["optimizer"]["initial_lr"] == 0.02
    assert fit["schedule"]["name"] == "StepLR"
    assert fit["dtype"] == "float64"
    assert fit["backend"] == "numpy"
    assert (fit["clip_norm"], fit["early_stopping"], fit["seed"]) == (1.0, 1, 3)
    assert set(fit["datasets"]) == {"train", "validation"}
    assert fit["datasets"]["validation"]["samples"] == 150
    assert config["arguments"]["activation"] == "tanh"
    assert fa.load(folder / "model.safetensors")["conv1.weight"].dtype == np.float64
    assert "test_accuracy" not in json.loads((folder / "summary.json").read_text())


def test_every_optimizer_and_schedule_trains(tmp_path, small_data):
    from fastarch.train.settings import OPTIMIZERS, RATES, SCHEDULES

    recipe = fa.models.MODELS["lenet5"].training
    for i, optimizer in enumerate(OPTIMIZERS):
        schedule = SCHEDULES[i % len(SCHEDULES)]
        folder = tmp_path / optimizer
        options = ["--optimizer", optimizer, "--schedule", schedule]
        assert main(["train", "lenet5", str(small_data), *options, *QUICK, "--run-dir", str(folder)]) == 0
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert rows[1]["loss"] < rows[0]["loss"], optimizer
        assert (rows[1]["lr"] < rows[0]["lr"]) == (schedule != "constant")
        rate = recipe["lr"] if optimizer == recipe["optimizer"] else RATES[optimizer]["lr"]
        assert json.loads((folder / "config.json").read_text())["command"]["lr"] == rate


def test_csv_with_label_and_shape(tmp_path, capsys):
    digits = fa.data.digits()
    rows = ["digit," + ",".join(f"p{i}" for i in range(64))]
    rows += [f"{y}," + ",".join(f"{v:g}" for v in x.ravel()) for x, y in zip(digits.x[:200], digits.y[:200])]
    (tmp_path / "digits.csv").write_text("\n".join(rows) + "\n")
    options = ["--label", "digit", "--shape", "1,8,8", "--run-dir", str(tmp_path / "run")]
    assert main(["train", "lenet5", str(tmp_path / "digits.csv"), *options, *QUICK]) == 0
    assert "train_samples" in json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.slow
def test_lenet5_reads_digits(tmp_path):
    """The main job: one command, and at least 98.5 % on the test split."""
    code, out, err = run("train", "lenet5", "--json", cwd=tmp_path)
    assert code == 0, err
    summary = json.loads(out)
    assert summary["test_samples"] == 359
    assert summary["test_accuracy"] >= 0.985
    assert summary["test_loss"] < 0.1


# Stopping and going on


def begin(tmp_path, small_data, *options):
    """A run that has come to its first epoch's end."""
    process = command("train", "lenet5", small_data, "--epochs", 40, *options, cwd=tmp_path)
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert lines[1].startswith("epoch  1/40"), lines
    return process


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, small_data):
    folder = tmp_path_factory.mktemp("whole")
    assert run("train", "lenet5", small_data, "--epochs", 40, "--no-plots", cwd=folder)[0] == 0
    return folder / "runs" / "lenet5-few-1"


def test_ctrl_c_saves_and_the_printed_command_goes_on(tmp_path, small_data, whole_run):
    process = begin(tmp_path, small_data, "--no-plots")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("stopped after ")
    assert "Traceback" not in err
    words = shlex.split(last.split("go on with: ")[1])
    assert words == ["fastarch", "train", "--resume", "runs/lenet5-few-1"]
    code, out, err = run(*words[1:], "--no-plots", "--json", cwd=tmp_path)
    assert code == 0, err
    assert json.loads(out)["epochs"] == 40
    resumed = tmp_path / "runs" / "lenet5-few-1"
    assert (resumed / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


def test_kill_and_resume_the_latest(tmp_path, small_data, whole_run):
    process = begin(tmp_path, small_data, "--no-plots")
    process.kill()
    process.communicate()
    code, _, err = run("train", "--resume", "--no-plots", cwd=tmp_path)
    assert code == 0, err
    assert "epoch  1/40" not in err  # it went on, and did not begin again
    resumed = tmp_path / "runs" / "lenet5-few-1"
    assert (resumed / "model.safetensors").read_bytes() == (whole_run / "model.safetensors").read_bytes()


def test_resume_refuses_other_settings(trained, capsys):
    line = fails(capsys, "train", "--resume", trained, "--epochs", 13, "--seed", 0)
    assert "begun with other settings: epochs was 12, is now 13;" in line
    line = fails(capsys, "train", "alexnet", "--resume", trained)
    assert "architecture was lenet5, is now alexnet" in line


def test_resume_of_a_finished_run_says_so(trained, capsys):
    assert main(["train", "--resume", str(trained), "--epochs", "12"]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"{trained} has finished; there is nothing to resume\n"
    assert "test accuracy" in printed.out


def test_resume_finds_no_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no run in runs/ to resume" in fails(capsys, "train", "--resume")
    assert "there is no run of lenet5-digits in runs/" in fails(capsys, "train", "lenet5", "--resume")
    assert "nowhere does not exist" in fails(capsys, "train", "--resume", "nowhere")
    assert "is no run folder (it has no config.json)" in fails(capsys, "train", "--resume", tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "is not JSON" in fails(capsys, "train", "--resume", tmp_path)
    (tmp_path / "config.json").write_text('{"command": {"architecture": "lenet5", "warp": 9}}')
    assert "unknown warp; another version" in fails(capsys, "train", "--resume", tmp_path)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "name an architecture"),
        (["train", "alexnot"], "there is no architecture 'alexnot', expected one of lenet5"),
        (["train", "lenet5", "no-such-file.npz"], "no-such-file.npz: no such file"),
        (["train", "lenet5", "digits", "--data", "other"], "DATA is 'digits' and --data 'other'"),
        (["train", "lenet5", "--early-stop", "3", "--validation-split", "0"], "needs validation data"),
        (["train", "lenet5", "--augment", "storm"], "'storm', expected one of none"),
        (["train", "lenet5", "--model", "depth=3"], "it has no argument depth"),
        (["train", "lenet5", "--model", "activation=sine"], "got 'sine'"),
        (["train", "lenet5", "--backend", "cuda"], "'cuda' cannot run here"),
        (["predict", "nowhere", "x.png"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "cuda" in arguments and fa.backends.reason_unusable("cuda") is None:
        pytest.skip("there is a CUDA device")
    assert said in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []  # no empty run folder is left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "lenet5", "--epochs", "0"], "--epochs: got '0', expected a whole number of at least 1"),
        (["train", "lenet5", "--lr", "fast"], "--lr: got 'fast', expected a number above 0"),
        (["train", "lenet5", "--test-split", "1"], "--test-split: got '1', expected a number from 0"),
        (["train", "lenet5", "--seed", "-1"], "--seed: got '-1'"),
        (["train", "lenet5", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (["train", "lenet5", "--model", "tanh"], "--model: got 'tanh', expected NAME=VALUE"),
        (["train", "lenet5", "--shape", "1,x"], "--shape: got '1,x', expected sizes"),
        (["predict"], "RUN_OR_MODEL"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_options_are_named(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def test_a_used_run_folder_is_refused(trained, small_data, capsys):
    line = fails(capsys, "train", "lenet5", small_data, "--run-dir", trained, "--quiet")
    assert "holds a run already" in line


def test_divergence_is_code_1(tmp_path, small_data, capsys):
    arguments = ["--optimizer", "sgd", "--lr", "1e12", "--run-dir", tmp_path / "run", "--quiet"]
    line = fails(capsys, "train", "lenet5", small_data, *arguments, code=1)
    assert "epoch 1, step" in line
    assert "lower learning rate" in line


def test_debug_shows_the_traceback(monkeypatch):
    with pytest.raises(ValueError, match="no architecture"):
        main(["train", "alexnot", "--debug"])
    monkeypatch.setenv("FASTARCH_DEBUG", "1")
    with pytest.raises(ValueError, match="no architecture"):
        main(["train", "alexnot"])


def test_a_wrong_backend_in_the_environment_is_one_line():
    code, out, err = run("info", FASTARCH_BACKEND="gpu")
    assert (code, out) == (2, "")
    assert err == "fastarch: [backend] got 'gpu', expected one of numpy, cpu, cuda, emulator\n"
