"""fastarch predict: pictures and arrays as people bring them, and what is said of the unreadable."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

import fastarch as fa
from command_line import fails, save_small_data, train_small
from fastarch.cli import main
from fastarch.train.preprocessing import Preprocessing


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


# Preprocessing


def drawing(height, width, box, ground=0.0, ink=1.0):
    picture = np.full((1, height, width), ground, np.float32)
    picture[0, box[0] : box[1], box[2] : box[3]] = ink
    return picture


def known(extent=0.5, native=(8, 8), size=(16, 16), channels=1):
    return Preprocessing(channels, size, native, (0.1,) * channels, (0.3,) * channels, 0.0, extent)


def test_measured_on_the_training_pictures():
    digits = fa.data.digits()
    measured = Preprocessing.fit(digits, (1, 32, 32))
    assert (measured.channels, measured.size, measured.native) == (1, (32, 32), (8, 8))
    assert measured.background == 0.0
    assert measured.extent == 1.0  # the digits touch the edges
    resized = measured.normalize()(measured.resize(digits.x))
    assert resized.shape == (1797, 1, 32, 32)
    assert abs(resized.mean()) < 1e-3
    assert abs(resized.std() - 1) < 1e-3
    assert Preprocessing.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured


@pytest.mark.parametrize("box", [(10, 50, 20, 40), (0, 200, 0, 100), (150, 190, 5, 25)])
def test_drawings_are_framed_as_in_training(box):
    """Wherever it was drawn and how large, it lies in the middle and takes the usual share of the frame."""
    framed = known(extent=0.5).adapt(drawing(200, 300, box))
    assert framed.shape == (1, 1, 16, 16)
    rows, columns = (np.flatnonzero(framed[0, 0].max(axis=axis) > 0.5) for axis in (1, 0))
    height = rows[-1] - rows[0] + 1
    assert height == pytest.approx(8, abs=1)
    assert columns[-1] - columns[0] + 1 == pytest.approx(height / 2, abs=2)
    assert (rows[0] + rows[-1]) / 2 == pytest.approx(7.5, abs=1)
    assert (columns[0] + columns[-1]) / 2 == pytest.approx(7.5, abs=1)


def test_a_picture_like_the_training_data_is_left_as_it_is():
    picture = np.random.default_rng(0).random((1, 8, 8), np.float32)
    assert np.array_equal(known().adapt(picture), fa.data.fit_images(picture[None], 16))
    assert np.array_equal(
        known().adapt(np.kron(picture, np.ones((1, 2, 2), np.float32)))[0, 0, :2, :2].std(), 0
    )


def test_whole_inverted_blank_and_colour():
    picture = drawing(40, 80, (10, 30, 10, 30))
    whole = known().adapt(picture, whole=True)
    assert whole[0, 0, :3].max() == 0  # filled up above and below
    assert np.array_equal(known().adapt(1 - picture, invert=True), known().adapt(picture))
    assert known().adapt(np.ones((1, 30, 50), np.float32)).std() < 1e-6  # nothing is drawn
    colour = np.repeat(picture, 3, axis=0)
    assert np.allclose(known().adapt(colour), known().adapt(picture), atol=1e-6)
    photograph = known(extent=None, channels=3).adapt(
        np.random.default_rng(0).random((3, 30, 90), np.float32)
    )
    assert photograph.shape == (1, 3, 16, 16)
    assert photograph.std() > 0


def test_inverted_pictures_are_noticed():
    light_on_dark = drawing(40, 40, (10, 30, 10, 30))
    assert not known().looks_inverted(light_on_dark)
    assert known().looks_inverted(1 - light_on_dark)
    assert known().looks_inverted((255 * (1 - light_on_dark)).astype(np.uint8))


@pytest.mark.parametrize("change", [{"size": [3]}, {"mean": None}, {"extent": "large"}, {"native": "ab"}])
def test_damaged_preprocessing_is_one_sentence(change):
    with pytest.raises(ValueError, match="preprocessing cannot be read"):
        Preprocessing.from_dict({**known().to_dict(), **change})
