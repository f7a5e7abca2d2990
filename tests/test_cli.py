"""The command line, as a user meets it: what it prints where, its exit codes, and a whole training run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastarch as fa
from fastarch.cli import main

HEAVY = {"matplotlib", "sklearn", "torch", "cupy", "scipy", "PIL"}
QUICK = ("--epochs", "2", "--batch-size", "32", "--no-plots")


def command(*arguments, cwd=None, **environment):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastarch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(fa.__file__).parents[1]), **environment},
    )


def run(*arguments, **more):
    process = command(*arguments, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """300 of the digits in an .npz file."""
    digits = fa.data.digits()
    path = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(path, x=digits.x[:300], y=digits.y[:300])
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_data):
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    epochs = ("--epochs", "12", "--batch-size", "16")
    assert main(["train", "lenet5", str(small_data), *epochs, "--run-dir", str(folder), "--quiet"]) == 0
    return folder


def fails(capsys, *arguments, code=2):
    """Runs a command that must fail with one line on standard error and nothing else; returns the line."""
    assert main(list(map(str, arguments))) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("epoch ")]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("fastarch: ")
    return lines[0]


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
    assert set(rows) == set(fa.models.MODELS)
    for name, row in rows.items():
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


# Predicting


@pytest.fixture
def pictures(tmp_path):
    """Digits as a person might bring them: other sizes and colours, dark ink on light paper."""
    Image = pytest.importorskip("PIL.Image", reason="picture files need Pillow")
    digits = fa.data.digits()
    for i in range(12):
        light = np.kron(digits.x[i, 0], np.ones((12, 12)))
        dark = np.pad(1 - light, ((20, 30), (60, 25)), constant_values=1)
        Image.fromarray((255 * dark).astype(np.uint8)).convert("RGB").save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(12)], digits.y[:12]


def predict(capsys, *arguments):
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_predict_pictures(trained, pictures, capsys):
    files, truth = pictures
    answers, err = predict(capsys, trained, *files, "--invert")
    assert err == ""
    right = sum(answer["class"] == str(y) for answer, y in zip(answers, truth))
    assert right >= 11
    for answer, file in zip(answers, files):
        assert answer["input"] == str(file)
        assert len(answer["top"]) == 3
        assert answer["top"][0]["probability"] == answer["probability"]
        assert [e["probability"] for e in answer["top"]] == sorted(
            (e["probability"] for e in answer["top"]), reverse=True
        )


def test_predict_hints_at_inverted_pictures(trained, pictures, capsys):
    _, err = predict(capsys, trained, *pictures[0])
    assert err.startswith("hint: the model learnt from pictures with a dark background; ")
    assert "and 11 more looks inverted: try --invert" in err


def test_predict_text(trained, pictures, capsys):
    assert main(["predict", str(trained), *map(str, pictures[0][:2]), "--invert", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{pictures[0][0]}  ")
    assert lines[0].count("%") == 2


def test_predict_arrays(trained, tmp_path, capsys):
    digits = fa.data.digits()
    np.save(tmp_path / "many.npy", digits.x[:20])
    answers, _ = predict(capsys, trained, tmp_path / "many.npy")
    assert [answer["input"] for answer in answers[:2]] == [f"{tmp_path}/many.npy[{i}]" for i in (0, 1)]
    forms = {
        "plane": digits.x[3, 0],
        "channels_last": digits.x[3].transpose(1, 2, 0),
        "bytes": (255 * digits.x[3]).round().astype(np.uint8),
        "colour": np.repeat(digits.x[3], 3, axis=0),
        "double": digits.x[3].astype(np.float64),
    }
    for name, array in forms.items():
        np.savez(tmp_path / f"{name}.npz", x=array)
        again, _ = predict(capsys, trained, tmp_path / f"{name}.npz")
        assert len(again) == 1
        assert again[0]["probability"] == pytest.approx(answers[3]["probability"], abs=5e-3), name


def test_predict_is_what_the_model_was_tested_on(trained, small_data, capsys):
    """The model file alone gives the accuracy that training reported."""
    _, test = fa.data.train_test(small_data, 0.2, 0)
    np.save(small_data.parent / "test.npy", test.x)
    answers, _ = predict(capsys, trained / "model.safetensors", small_data.parent / "test.npy")
    accuracy = np.mean([answer["class"] == str(y) for answer, y in zip(answers, test.y)])
    assert accuracy == json.loads((trained / "summary.json").read_text())["test_accuracy"]


def broken_inputs(folder):
    """Files that cannot be predicted, and what should be said of each."""
    np.save(folder / "scale.npy", np.full((8, 8), 16.0))
    np.save(folder / "nan.npy", np.full((8, 8), np.nan))
    np.save(folder / "shape.npy", np.zeros(5))
    np.save(folder / "empty.npy", np.zeros((0, 8, 8)))
    np.save(folder / "text.npy", np.array([["a"]]))
    np.save(folder / "pickle.npy", np.array([[print]], dtype=object), allow_pickle=True)
    np.savez(folder / "names.npz", a=np.zeros((8, 8)), b=np.zeros((8, 8)))
    (folder / "torn.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (folder / "torn.npz").write_bytes(b"PK\x03\x04 no more")
    (folder / "words.png").write_text("no picture")
    with zipfile.ZipFile(folder / "other.npz", "w") as file:
        file.writestr("x", "no array")
    return {
        "scale.npy": "values from 16 to 16, expected bytes or 0 to 1",
        "nan.npy": "values from nan to nan",
        "shape.npy": "shape (5,)",
        "empty.npy": "shape (0, 8, 8)",
        "text.npy": "expected numbers",
        "pickle.npy": "cannot be read as an array",
        "names.npz": "it holds a, b; expected an array 'x'",
        "torn.npy": "cannot be read as an array",
        "torn.npz": "cannot be read as an array",
        "other.npz": "holds a file that is no array",
        "words.png": "not a picture",
        "absent.png": "does not exist",
        "": "is a folder",
    }


def test_broken_inputs_are_one_sentence_each(trained, tmp_path, capsys):
    for name, said in broken_inputs(tmp_path).items():
        line = fails(capsys, "predict", trained, tmp_path / name)
        assert said in line, name


def test_broken_models_are_one_sentence_each(trained, tmp_path, capsys):
    picture = tmp_path / "x.npy"
    np.save(picture, np.zeros((8, 8)))
    fa.save({"w": np.zeros(3)}, tmp_path / "bare.safetensors")
    assert "without saying which model" in fails(capsys, "predict", tmp_path / "bare.safetensors", picture)
    (tmp_path / "torn.safetensors").write_bytes((trained / "model.safetensors").read_bytes()[:5000])
    assert "is damaged" in fails(capsys, "predict", tmp_path / "torn.safetensors", picture)
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    assert "the run has not finished" in fails(capsys, "predict", begun, picture)
    assert "is no run folder" in fails(capsys, "predict", tmp_path, picture)
    weights = fa.load(trained / "model.safetensors")
    fa.save(weights, tmp_path / "odd.safetensors", {"fastarch.model": '{"architecture": "lenet5"}'})
    assert "cannot be read" in fails(capsys, "predict", tmp_path / "odd.safetensors", picture)
