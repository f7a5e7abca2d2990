"""`fastarch train` and `predict` with estimators: what a run leaves, what is refused, what a signal does."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

import fastarch as fa
from command_line import command, fails, run, save_small_data
from fastarch import backends, estimators
from fastarch.cli import main
from fastarch.estimators import ESTIMATORS
from fastarch.train import features

# What keeps a run short.
QUICK: dict[str, list[str]] = {
    "rbm": ["--epochs", "4", "--model", "n_components=20"],
    "dbn": ["--epochs", "40", "--batch-size", "20", "--model", "hidden_layer_sizes=30,20"]
    + ["--model", "n_epochs=8", "--model", "fine_tune_rate=0.02"],
    "dsn": ["--epochs", "4", "--model", "n_hidden=20", "--model", "n_modules=2"],
    "som": ["--epochs", "3", "--model", "grid=4,5"],
    "tdsn": ["--epochs", "4", "--model", "n_hidden=5,4", "--model", "n_modules=2"],
}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "few.npz"
    save_small_data(path)
    return path


def train(name, small_data, folder, *more):
    return main(
        ["train", name, str(small_data), "--run-dir", str(folder), "--quiet", *QUICK.get(name, []), *more]
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_data):
    """A finished run folder of every estimator."""
    made = {}
    for name in ESTIMATORS:
        made[name] = tmp_path_factory.mktemp("runs") / name
        assert train(name, small_data, made[name]) == 0
    return made


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_run_folder_is_complete(name, runs):
    folder = runs[name]
    summary = json.loads((folder / "summary.json").read_text())
    files = {"config.json", "metrics.jsonl", "model.safetensors", "summary.json"}
    assert {entry.name for entry in folder.iterdir()} == files | set(summary["pictures"])
    assert summary["pictures"]
    assert summary["estimator"] == name
    assert summary["train_samples"] == 240
    assert summary["test_samples"] == 60
    assert not summary["interrupted"]
    assert summary["result"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == summary["rounds"] > 0
    fitted = estimators.load(folder / "model.safetensors")
    assert type(fitted) is ESTIMATORS[name].builder
    assert [{k: r[k] for k in h} for r, h in zip(records, fitted.history_)] == fitted.history_


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_files(name, runs, small_data, tmp_path):
    assert train(name, small_data, tmp_path / "again", "--seed", "0") == 0
    assert train(name, small_data, tmp_path / "other", "--seed", "1", "--no-plots") == 0
    first, again, other = (
        f / "model.safetensors" for f in (runs[name], tmp_path / "again", tmp_path / "other")
    )
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    for picture in summary["pictures"]:
        assert (runs[name] / picture).read_bytes() == (tmp_path / "again" / picture).read_bytes(), picture
    assert not list((tmp_path / "other").glob("*.png"))
    assert "pictures" not in json.loads((tmp_path / "other" / "summary.json").read_text())


@pytest.mark.parametrize("name", ESTIMATORS)
def test_predict(name, runs, small_data, capsys):
    assert main(["predict", str(runs[name]), str(small_data), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == 300
    assert answers[0]["input"] == f"{small_data}[0]"
    assert len(answers[0]) > 1
    assert main(["predict", str(runs[name] / "model.safetensors"), str(small_data)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 300
    if "class" in answers[0]:
        right = [fa.data.digits().classes[label] for label in fa.data.digits().y[:300]]
        assert np.mean([answer["class"] == label for answer, label in zip(answers, right)]) > 0.6
    if ESTIMATORS[name].supervised:
        assert len(answers[0]["top"]) == 3


@pytest.mark.parametrize("name", ESTIMATORS)
def test_predict_takes_a_picture_of_another_size(name, runs, tmp_path, capsys):
    pytest.importorskip("PIL")
    from PIL import Image

    Image.fromarray((fa.data.digits().x[0, 0] * 255).astype(np.uint8)).resize((40, 40)).save(
        tmp_path / "zero.png"
    )
    assert main(["predict", str(runs[name]), str(tmp_path / "zero.png")]) == 0
    assert str(tmp_path / "zero.png") in capsys.readouterr().out


def test_dark_ink_gets_a_hint(runs, tmp_path, capsys):
    zero = fa.data.digits().x[0, 0]
    np.save(tmp_path / "dark.npy", 1 - zero)
    assert main(["predict", str(runs["dsn"]), str(tmp_path / "dark.npy")]) == 0
    assert "looks inverted: try --invert" in capsys.readouterr().err
    np.save(tmp_path / "light.npy", zero)
    answers = []
    for arguments in (["light.npy"], ["dark.npy", "--invert"]):
        assert (
            main(["predict", str(runs["dsn"]), str(tmp_path / arguments[0]), *arguments[1:], "--json"]) == 0
        )
        printed = capsys.readouterr()
        assert not printed.err
        answers.append(json.loads(printed.out)[0]["probability"])
    assert answers[0] == pytest.approx(answers[1], rel=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_table_trains_and_predicts(name, tmp_path, capsys):
    """Features far from [0, 1], one of them constant."""
    draw = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = draw.normal(size=(90, 4)) * [1, 100, 0.01, 0] + 50 * np.eye(4)[y] * [1, 10, 0.1, 0] + [0, -300, 5, 7]
    lines = ["a,b,c,d,class"] + [",".join(map(str, row)) + f",kind{label}" for row, label in zip(x, y)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert train(name, tmp_path / "t.csv", tmp_path / "run") == 0
    assert "predict" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "t.csv"), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert len(answers) == 90
    if ESTIMATORS[name].supervised:
        assert np.mean([a["class"] == f"kind{label}" for a, label in zip(answers, y)]) > 0.9
    np.save(tmp_path / "wide.npy", np.zeros((2, 5)))
    assert "with 5 features, expected 4" in fails(capsys, "predict", tmp_path / "run", tmp_path / "wide.npy")
    assert "does not exist" in fails(capsys, "predict", tmp_path / "run", tmp_path / "none.csv")


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_line_of_result_or_json(name, runs, small_data, tmp_path, capsys):
    assert train(name, small_data, tmp_path / "a", "--no-plots") == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert " rounds, " in first
    assert second == f"{tmp_path / 'a'}: model.safetensors, summary.json"
    assert third == f"try it: fastarch predict {tmp_path / 'a'} PICTURE"
    assert train(name, small_data, tmp_path / "b", "--no-plots", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "b" / "summary.json").read_text())


@pytest.mark.parametrize("named", [name for name in backends.available() if name in ("numpy", "cpu")])
def test_the_backend_is_the_one_asked_for(named, small_data, tmp_path, capsys):
    assert train("dsn", small_data, tmp_path / "a", "--backend", named, "--no-plots", "--json") == 0
    assert json.loads(capsys.readouterr().out)["backend"] == named


def test_list_shows_them(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name, info in ESTIMATORS.items():
        assert info.description in text
        assert info.paper in text
        assert f"\n{name} " in text


def test_colour_pictures_in_folders(tmp_path, capsys):
    Image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for k, name in enumerate(("blue", "green", "red")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(8):
            x = draw.integers(0, 80, (9, 10 + i % 3, 3)).astype(np.uint8)
            x[..., 2 - k] += 150
            Image.fromarray(x).save(tmp_path / "data" / name / f"{i}.png")
    line = fails(capsys, "train", "dsn", tmp_path / "data", "--run-dir", tmp_path / "none")
    assert line.endswith("give a size to fit all to: --shape C,H,W")
    for name, info in ESTIMATORS.items():
        assert train(name, tmp_path / "data", tmp_path / name, "--shape", "3,8,8") == 0
        assert "weights.png" in capsys.readouterr().out or not name.endswith("dsn")
        assert main(["predict", str(tmp_path / name), str(tmp_path / "data/red/3.png"), "--json"]) == 0
        (answer,) = json.loads(capsys.readouterr().out)
        if info.supervised:
            assert answer["class"] == "red"


# What is refused


@pytest.mark.parametrize("name", ESTIMATORS)
def test_options_that_make_no_sense_are_refused(name, small_data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {
        "--schedule": "step",
        "--augment": "none",
        "--clip-norm": "1",
        "--checkpoint-every": "3",
        "--optimizer": "sgd",
        "--early-stop": "2",
        "--validation-split": "0.1",
        "--momentum": "0.5",
        "--weight-decay": "0.1",
        "--lr": "0.1",
        "--batch-size": "10",
        "--epochs": "3",
    }
    names = {"early_stop": "early_stopping"}
    for flag, value in given.items():
        option = flag[2:].replace("-", "_")
        if names.get(option, option) in ESTIMATORS[name].options:
            continue
        line = fails(capsys, "train", name, small_data, flag, value)
        assert f"{flag} does not apply to {name}, which takes " in line
    line = fails(capsys, "train", name, small_data, "--model", "zeal=3")
    assert f"{name} has no argument zeal; it takes " in line
    line = fails(capsys, "train", name, small_data, "--model", "random_state=3")
    assert "the seed is --seed" in line
    assert "cannot be resumed" in fails(capsys, "train", name, "--resume")
    assert "give one" in fails(capsys, "train", name, small_data, "--data", "digits")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_option_that_is_taken_reaches_its_argument(name):
    from fastarch.train import estimator_runs

    taken = ESTIMATORS[name].builder().get_params()
    for option, argument in ESTIMATORS[name].options.items():
        assert argument in taken
        asked = estimator_runs.settings(name, {option: 7})
        assert asked.arguments[argument] == 7
    assert set(ESTIMATORS[name].training) <= set(taken)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_run_folder_is_not_resumed_or_overwritten(name, runs, small_data, capsys):
    line = fails(capsys, "train", "--resume", runs[name])
    assert f"is a run of {name}, which cannot be resumed" in line
    line = fails(capsys, "train", name, small_data, "--run-dir", runs[name], "--quiet")
    assert "holds a run already" in line


def test_a_refused_argument_leaves_nothing_behind(small_data, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    for folder in ("a", "b"):
        arguments = ["--model", "solver=newton", "--run-dir", tmp_path / folder, "--quiet"]
        line = fails(capsys, "train", "dsn", small_data, *arguments)
        assert "[DSNClassifier.fit] solver is 'newton'" in line
    assert not (tmp_path / "a").exists()
    assert [entry.name for entry in (tmp_path / "b").iterdir()] == ["notes.txt"]


def test_data_without_classes(tmp_path, capsys):
    np.savez(tmp_path / "plain.npz", x=fa.data.digits().x[:40])
    for name, info in ESTIMATORS.items():
        arguments = ["train", name, tmp_path / "plain.npz", "--run-dir", tmp_path / name, "--quiet"]
        arguments += QUICK.get(name, [])
        if info.supervised:
            assert "has 0 classes, training needs at least 2" in fails(capsys, *arguments)
        else:
            assert main([*map(str, arguments)]) == 0
            capsys.readouterr()


def test_a_damaged_model_is_refused_in_a_sentence(runs, tmp_path, capsys):
    name = next(iter(runs))
    damaged = tmp_path / "m.safetensors"
    damaged.write_bytes((runs[name] / "model.safetensors").read_bytes()[:-7])
    np.save(tmp_path / "x.npy", np.zeros((8, 8)))
    assert "damaged" in fails(capsys, "predict", damaged, tmp_path / "x.npy")
    described = {"title": "t", "estimator": "zeal", "classes": [], "features": {}}
    fa.save({}, damaged, {"fastarch.model": json.dumps(described)})
    assert "holds 'zeal', expected one of" in fails(capsys, "predict", damaged, tmp_path / "x.npy")
    fa.save({}, damaged, {"fastarch.model": json.dumps({"estimator": name})})
    assert "cannot be read" in fails(capsys, "predict", damaged, tmp_path / "x.npy")


def test_a_model_without_its_weights_is_refused_in_a_sentence(runs, tmp_path, capsys):
    whole = runs["rbm"] / "model.safetensors"
    metadata = fa.io.load_metadata(whole)
    tree = json.loads(metadata["fastarch.estimator"])
    del tree["fitted"]["w_"]
    metadata["fastarch.estimator"] = json.dumps(tree)
    fa.save(fa.io.load(whole), tmp_path / "m.safetensors", metadata)
    np.save(tmp_path / "x.npy", np.zeros((8, 8)))
    said = fails(capsys, "predict", tmp_path / "m.safetensors", tmp_path / "x.npy")
    assert "damaged or incomplete" in said


# Ctrl-C


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_learnt(number, tmp_path):
    process = command("train", "dsn", "--epochs", 100000, "--model", "tol=0", "--no-plots", cwd=tmp_path)
    metrics = tmp_path / "runs" / "dsn-digits-1" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (
        metrics.is_file() and len(metrics.read_text().splitlines()) > 3
    ):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out == ""
    rounds = len(metrics.read_text().splitlines())
    said = f"stopped after {rounds} rounds; what was learnt until then is in runs/dsn-digits-1"
    assert err.splitlines()[-1] == said
    summary = json.loads((metrics.parent / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["rounds"] == rounds
    assert summary["test_accuracy"] > 0.5
    np.save(tmp_path / "x.npy", fa.data.digits().x[0, 0])
    code, out, _ = run("predict", "runs/dsn-digits-1", "x.npy", cwd=tmp_path)
    assert code == 0
    assert out.startswith("x.npy")


# Features


def table(x):
    return fa.data.Dataset(x.astype(np.float32), np.zeros(len(x), np.int64), ["a"], "t")


def test_unit_features():
    draw = np.random.default_rng(0)
    x = np.hstack([draw.normal(size=(20, 2)) * [1, 1e4] + 5, np.full((20, 1), 3.0)]).astype(np.float32)
    made = features.Features.fit(table(x), "unit")
    rows = made.rows(x)
    np.testing.assert_allclose(rows.min(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.max(axis=0), [1, 1, 0], atol=1e-5)
    again = features.Features.from_dict(json.loads(json.dumps(made.to_dict())))
    np.testing.assert_array_equal(again.rows(x), rows)
    inside = draw.random((20, 3)).astype(np.float32)
    np.testing.assert_array_equal(features.Features.fit(table(inside), "unit").rows(inside), inside)
    assert made.rows(x, "float64").dtype == np.float64


def test_standard_features_and_pictures():
    draw = np.random.default_rng(0)
    x = draw.normal(3, 2, size=(50, 3)).astype(np.float32)
    rows = features.Features.fit(table(x), "standard").rows(x, "float64")
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-6)
    pictures = draw.normal(size=(10, 1, 4, 4))
    made = features.Features.fit(table(pictures), "unit")
    assert made.pictures is not None
    assert len(made.offset) == 1  # all pixels alike
    rows = made.rows(pictures.astype(np.float32))
    assert rows.shape == (10, 16)
    assert (rows.min(), rows.max()) == (0, 1)
    with pytest.raises(ValueError, match="scaling is 'log'"):
        features.Features.fit(table(x), "log")
    with pytest.raises(ValueError, match="cannot be read"):
        features.Features.from_dict({"shape": [1]})
