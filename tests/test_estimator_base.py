"""What the base of the estimators promises, shown on the smallest learners that one can write with it."""

from __future__ import annotations

import copy
import json
import pickle
import warnings

import numpy as np
import pytest

import fastarch as fa
from fastarch import backends, estimators, random
from fastarch.estimators.base import Estimator
from fastarch.estimators.mixins import Classifier, Clusterer, Regressor, Transformer
from fastarch.estimators.validation import check_choice, check_count, check_number

pytest.importorskip("sklearn", minversion="1.6")  # the first with __sklearn_tags__
from sklearn.utils.estimator_checks import parametrize_with_checks


class Centre(Transformer, Estimator):
    """Subtracts the mean."""

    def __init__(self, scale=1.0, inner=None, random_state=None, verbose=0):
        self.scale = scale
        self.inner = inner
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        check_number("Centre.fit", "scale", self.scale, 0, open_low=True)
        x, _ = self._input(X, "fit", reset=True)
        with self._epochs(2) as rounds:
            for _ in rounds:
                rounds.record(loss=float(abs(x).mean()))
        self.mean_ = x.mean(axis=0)
        return self

    @property
    def _n_features_out(self):
        return self.n_features_in_

    def transform(self, X):
        x, back = self._input(X, "transform")
        return self._framed(back((x - self.mean_.astype(x.dtype)) * x.dtype.type(self.scale)), X)


class Nearest(Classifier, Estimator):
    """The class of the nearest mean."""

    def fit(self, X, y):
        x, _ = self._input(X, "fit", reset=True)
        index = self._encode(y, "fit", len(x))
        self.means_ = np.stack([x[index == k].mean(axis=0) for k in range(len(self.classes_))])
        return self

    def predict(self, X):
        x, _ = self._input(X, "predict")
        return self.classes_[((x[:, None] - self.means_) ** 2).sum(axis=2).argmin(axis=1)]


class Line(Regressor, Estimator):
    """Least squares."""

    _multi_output = True

    def fit(self, X, y):
        x, _ = self._input(X, "fit", reset=True)
        target = self._targets(y, "fit", x)
        x = np.hstack([x, np.ones_like(x[:, :1])])
        self.coef_ = np.linalg.lstsq(x, target, rcond=None)[0]
        return self

    def predict(self, X):
        x, _ = self._input(X, "predict")
        return self._as_targets(x @ self.coef_[:-1] + self.coef_[-1])


class Halves(Clusterer, Estimator):
    """Two clusters: below and above the mean of the first feature."""

    def fit(self, X, y=None):
        x, _ = self._input(X, "fit", reset=True)
        self.mean_ = x[:, 0].mean(keepdims=True)
        self.labels_ = (x[:, 0] > self.mean_).astype(np.int64)
        return self

    def predict(self, X):
        x, _ = self._input(X, "predict")
        return (x[:, 0] > self.mean_).astype(np.int64)


with warnings.catch_warnings():
    # That an estimator does not inherit from scikit-learn is meant so.
    warnings.filterwarnings("ignore", message="Estimator .* does not inherit")
    every_check = parametrize_with_checks([Centre(), Nearest(), Line(), Halves()])


@every_check
def test_scikit_learn_accepts_what_is_written_with_the_base(estimator, check):
    check(estimator)


X = np.random.default_rng(0).normal(size=(20, 3))


def test_what_is_learnt_survives_a_file_bit_for_bit(tmp_path):
    state = np.random.RandomState(3)
    before = Centre(scale=2.5, inner=Centre(random_state=7), random_state=state).fit(X.astype(np.float32))
    before.odd_ = {"a": (1, float("nan"), np.float32(2.0), None, [True]), "t": np.array(["x", "yz"])}
    before.objects_ = np.array(["x", 3, None], dtype=object)
    before.generator_ = np.random.default_rng(5)
    before.kind_ = np.dtype(np.float32)
    before.save(tmp_path / "c.safetensors", {"note": "hello"})
    after = Centre.load(tmp_path / "c.safetensors")
    assert after.get_params().keys() == before.get_params().keys()
    assert after.scale == 2.5
    assert after.inner.random_state == 7
    assert after.random_state.randint(1000) == state.randint(1000)
    assert after.mean_.dtype == np.float32
    np.testing.assert_array_equal(after.transform(X), before.transform(X))
    one, nan, two, none, flags = after.odd_["a"]
    assert (one, none, flags) == (1, None, [True])
    assert nan != nan
    assert type(two) is np.float32
    assert after.odd_["t"].tolist() == ["x", "yz"]
    assert after.objects_.tolist() == ["x", 3, None]
    assert after.generator_.integers(1000) == before.generator_.integers(1000)
    assert after.kind_ == np.float32
    assert after.history_ == before.history_
    assert fa.io.load_metadata(tmp_path / "c.safetensors")["note"] == "hello"
    before.save(tmp_path / "again.safetensors")
    before.save(tmp_path / "c.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def tampered(tmp_path, change):
    Centre().fit(X).save(tmp_path / "c.safetensors")
    tree = json.loads(fa.io.load_metadata(tmp_path / "c.safetensors")["fastarch.estimator"])
    change(tree)
    arrays = fa.io.load(tmp_path / "c.safetensors")
    fa.save(arrays, tmp_path / "c.safetensors", {"fastarch.estimator": json.dumps(tree)})
    return tmp_path / "c.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"class": "Popen"}), "holds 'Popen', expected Centre"),
        (lambda t: t.update({"format": 9}), "format 9"),
        (lambda t: t["params"].update(zeal=1), "no parameter zeal"),
        (lambda t: t["fitted"].update(fit=1), "no attribute that fit sets"),
        (lambda t: t["fitted"].update(__class__=1), "no attribute that fit sets"),
        (lambda t: t["fitted"].update(mean_={"$array": "missing"}), "missing"),
        (lambda t: t["fitted"].update(mean_={"$call": "os.system"}), "unknown entry"),
        (
            lambda t: t["fitted"].update(g_={"$generator": {"$dict": {"bit_generator": "seed"}}}),
            "unknown entry",
        ),
        (lambda t: t.pop("params"), "cannot be read"),
        (lambda t: t["fitted"].update(mean_={"$text": ["a"], "shape": [2], "dtype": "U1"}), "cannot be read"),
        (lambda t: t["fitted"].update(k_={}), "an entry has no key, expected one such as"),
        (lambda t: t["fitted"].update(k_={"$scalar": "|u1", "value": 300}), "cannot be read"),
        (lambda t: t["fitted"].update(k_={"$scalar": "<f8", "value": 10**400}), "cannot be read"),
        (lambda t: t["fitted"].update(k_={"$dtype": "(1,2"}), "cannot be read"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Centre.load(tampered(tmp_path, change))


def test_weights_are_no_estimator(tmp_path):
    fa.save({"a": np.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="holds no estimator"):
        estimators.load(tmp_path / "w.safetensors")
    with pytest.raises(TypeError, match=r"Centre.inner is function, which a file"):
        Centre(inner=lambda: 0).fit(X).save(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_parameters():
    nested = Centre(inner=Centre(scale=3.0))
    assert nested.get_params()["inner__scale"] == 3.0
    assert nested.set_params(inner__scale=4.0, scale=2.0).inner.scale == 4.0
    assert repr(nested) == "Centre(scale=2.0, inner=Centre(scale=4.0))"
    assert repr(Centre(scale=np.float64(1.0))) == "Centre(scale=np.float64(1.0))"
    with pytest.raises(
        ValueError, match=r"\[Centre.set_params\] there is no parameter 'zeal', expected one of scale"
    ):
        nested.set_params(zeal=1)
    with pytest.raises(ValueError, match="no parameter 'scale__deep'"):
        nested.set_params(scale__deep=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_count("A.fit", "n", 2.0), TypeError, r"\[A.fit\] n is 2.0, expected a whole number"),
        (lambda: check_count("A.fit", "n", True), TypeError, "n is True"),
        (lambda: check_count("A.fit", "n", 0), ValueError, "n is 0, expected at least 1"),
        (lambda: check_count("A.fit", "n", 7, 1, 5), ValueError, "expected 1 to 5"),
        (lambda: check_number("A.fit", "c", "1"), TypeError, "expected a number"),
        (lambda: check_number("A.fit", "c", float("nan")), ValueError, "expected a finite number"),
        (lambda: check_number("A.fit", "c", 0, 0, open_low=True), ValueError, "above 0"),
        (lambda: check_number("A.fit", "c", 1, 0, 1, open_high=True), ValueError, "at least 0 and below 1"),
        (lambda: check_choice("A.fit", "k", 1, ("a", True)), ValueError, "k is 1, expected 'a', True"),
    ],
)
def test_parameters_out_of_range_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_parameters_in_range_come_back_plain():
    assert check_count("A.fit", "n", np.int32(3)) == 3
    assert check_number("A.fit", "c", np.float32(0.5), 0, 1) == 0.5
    assert check_choice("A.fit", "k", True, ("a", True)) is True


@pytest.mark.parametrize("state", [0, 2**64 - 1, np.int64(5)])
def test_a_seed_is_itself(state):
    assert Centre(random_state=state)._seed() == int(state)


def test_seeds_from_generators_and_the_global_stream():
    assert (
        Centre(random_state=np.random.RandomState(1))._seed()
        == Centre(random_state=np.random.RandomState(1))._seed()
    )
    generator = np.random.default_rng(1)
    assert Centre(random_state=generator)._seed() != Centre(random_state=generator)._seed()
    fa.manual_seed(3)
    first, second = Centre()._seed(), Centre()._seed()
    fa.manual_seed(3)
    assert first == Centre()._seed() != second
    with pytest.raises(ValueError, match=r"\[Centre.fit\] random_state is -1"):
        Centre(random_state=-1)._seed()
    with pytest.raises(TypeError, match="random_state is 'x'"):
        Centre(random_state="x")._seed()


def test_a_named_stream_leaves_the_global_one_alone():
    before = random.get_state()
    a, b = random.uniform(5, stream=(1, 2)), random.normal(5, stream=(1, 2))
    assert random.get_state() == before
    fa.manual_seed(1)
    random.next_offset(), random.next_offset()
    np.testing.assert_array_equal(random.uniform(5), a)
    np.testing.assert_array_equal(random.normal(5, stream=(1, 2)), b)


def test_pickled_and_copied():
    fitted = Centre(random_state=1).fit(X)
    for other in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(other.transform(X), fitted.transform(X))


def test_a_pipeline_and_a_grid_search():
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    y = np.repeat(["left", "right"], 10)
    pipeline = make_pipeline(Centre(), Nearest())
    search = GridSearchCV(pipeline, {"centre__scale": [1.0, 2.0]}, cv=3).fit(
        X + (y == "left")[:, None] * 9, y
    )
    assert search.best_score_ == 1.0
    assert "Centre" in repr(search)
    assert "Nearest" in pipeline._repr_html_()


def test_watchers_see_records_and_may_stop():
    seen = []
    with estimators.watched(lambda record: seen.append(record) or len(seen) == 1):
        fitted = Centre().fit(X)
    assert len(seen) == len(fitted.history_) == 1
    assert seen[0]["title"] == "Centre"
    assert fitted.history_[0]["epoch"] == 1
    assert seen[0].keys() - fitted.history_[0].keys() == {"title", "seconds"}
    assert len(Centre().fit(X).history_) == 2


def test_verbose_prints_a_line_a_round(capsys):
    Centre(verbose=1).fit(X)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "loss 0." in lines[0]
    Centre().fit(X)
    assert not capsys.readouterr().err


class Table:
    """Named columns around a matrix, as a data frame has them."""

    def __init__(self, values, columns):
        self.values, self.columns = np.asarray(values), columns

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_feature_names():
    fitted = Centre().fit(Table(X, ["a", "b", "c"]))
    assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="X does not have valid feature names, but Centre was"):
        fitted.transform(X)
    for columns, message in (
        (["c", "b", "a"], "must be in the same order"),
        (["a", "b", "d"], "unseen at fit time:\n- d\n"),
        (["a", "b", "d"], "now missing:\n- c\n"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.transform(Table(X, columns))
    assert not hasattr(fitted.fit(X), "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but Centre was fitted without"):
        fitted.transform(Table(X, ["a", "b", "c"]))
    with pytest.raises(TypeError, match="named by text and by something else"):
        Centre().fit(Table(X, ["a", 1, "c"]))
    assert not hasattr(Centre().fit(Table(X, [0, 1, 2])), "feature_names_in_")


def test_float32_and_torch_come_out_as_they_went_in():
    torch = pytest.importorskip("torch")
    fitted = Centre().fit(X)
    assert fitted.transform(X.astype(np.float32)).dtype == np.float32
    out = fitted.transform(torch.from_numpy(X))
    assert isinstance(out, torch.Tensor)
    np.testing.assert_array_equal(out.numpy(), fitted.transform(X))


def test_scores():
    from sklearn.metrics import accuracy_score, r2_score

    y = X @ np.array([1.0, 2.0, -1.0]) + np.random.default_rng(1).normal(size=20)
    weight = np.arange(20.0)
    line = Line().fit(X, y)
    assert line.score(X, y) == pytest.approx(r2_score(y, line.predict(X)))
    assert line.score(X, y, weight) == pytest.approx(r2_score(y, line.predict(X), sample_weight=weight))
    label = (y > 0).astype(int)
    nearest = Nearest().fit(X, label)
    expected = accuracy_score(label, nearest.predict(X), sample_weight=weight)
    assert nearest.score(X, label, weight) == pytest.approx(expected)
    two = np.stack([y, np.ones(20)], axis=1)
    assert line.fit(X, two).score(X, two) == pytest.approx(r2_score(two, line.predict(X)), abs=1e-6)


def test_labels_of_every_kind():
    for labels in (["b", "a"] * 10, np.array(["b", "a"] * 10, object), [True, False] * 10, [3, -1] * 10):
        fitted = Nearest().fit(X, labels)
        assert set(fitted.predict(X).tolist()) <= set(labels)
    for labels, error, message in (
        ([1.5, 2.0] * 10, ValueError, "continuous"),
        ([np.nan, 2.0] * 10, ValueError, "NaN"),
        (np.array(["a", 2] * 10, object), TypeError, "mixes text"),
        ([1] * 20, ValueError, r"y has 1 class \(1\)"),
        (None, ValueError, "requires y"),
        ([[1, 2]] * 20, ValueError, "expected one label"),
        ([1, 2], ValueError, "y has 2 samples, X has 20"),
    ):
        with pytest.raises(error, match=message):
            Nearest().fit(X, labels)


def test_pictures_and_sparse_matrices_where_they_are_taken():
    sparse = pytest.importorskip("scipy.sparse")
    pictures = X.reshape(5, 1, 4, 3)
    taker = Centre()
    x, _ = taker._input(pictures, "fit", reset=True, dims=(2, 4))
    assert x.shape == (5, 1, 4, 3)
    assert taker.n_features_in_ == 12
    with pytest.raises(ValueError, match=r"X has shape \(5, 4, 3\), expected 2 dimensions \[N, D\] or 4"):
        taker._input(pictures[:, 0], "fit", reset=True, dims=(2, 4))
    with pytest.raises(ValueError, match="X has 6 features, but Centre is expecting 12"):
        taker._input(pictures[..., :2, :], "transform", dims=(2, 4))
    taker._sparse = True
    twice = sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [2, 2, 0])), shape=(2, 12))
    came, _ = taker._input(twice, "transform")
    assert came.toarray()[0, 2] == 3
    assert came.has_sorted_indices


def test_what_is_learnt_moves_to_a_device_or_says_why_not():
    fitted = Centre().fit(X)
    assert fitted.to("cpu") is fitted
    with pytest.raises(ValueError, match=r"\[Centre.to\] device is 'tpu', expected 'cpu' or 'cuda'"):
        fitted.to("tpu")
    if "cuda" not in backends.available():
        with pytest.raises(RuntimeError, match=r"\[Centre.to\] 'cuda' cannot be used here: "):
            fitted.to("cuda")


def test_warnings_point_at_the_caller():
    fitted = Centre().fit(Table(X, ["a", "b", "c"]))
    with pytest.warns(UserWarning, match="valid feature names") as caught:
        fitted.transform(X)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="column-vector") as caught:
        Nearest().fit(X, np.arange(20)[:, None] % 2)
    assert caught[0].filename == __file__


def test_ctrl_c_leaves_the_estimator_as_it_was():
    fitted = Centre().fit(X)
    expected = fitted.transform(X)

    def interrupt(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), estimators.watched(interrupt):
        fitted.fit(X[:, :2])
    np.testing.assert_array_equal(fitted.transform(X), expected)
