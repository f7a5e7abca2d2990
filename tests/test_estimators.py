"""What holds for every estimator: scikit-learn's conventions, files, seeds, and what bad input meets."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from estimator_cases import ARGUMENTS
from fastarch import estimators
from fastarch.estimators import CLASSES, RBM

pytest.importorskip("sklearn", minversion="1.6")  # the first with __sklearn_tags__
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks


def made(name, **more):
    return CLASSES[name](**{**ARGUMENTS.get(name, {}), **more})


with warnings.catch_warnings():
    # That an estimator does not inherit from scikit-learn is meant so.
    warnings.filterwarnings("ignore", message="Estimator .* does not inherit")
    every_check = estimator_checks.parametrize_with_checks([made(name) for name in CLASSES])


@every_check
def test_scikit_learn_accepts(estimator, check):
    check(estimator)


def data(name, samples=40, dtype=np.float64, seed=0):
    """X in [0, 1] and a y that the estimator of that name takes."""
    draw = np.random.default_rng(seed)
    x = draw.random((samples, 6)).astype(dtype)
    estimator = made(name)
    if is_regressor(estimator):
        return x, x @ np.arange(6.0)
    return x, (np.arange(samples) % 2 if is_classifier(estimator) else None)


def tried(name, X, y):
    """(the fitted estimator, nothing), or (None, why it refuses)."""
    try:
        return made(name, random_state=0).fit(X, y), ""
    except ValueError as error:
        return None, str(error)


METHODS = ("transform", "predict", "predict_proba", "decision_function", "score_samples")


def answers(estimator, x):
    """What an estimator says of x, through each method that it has."""
    found = {
        method: np.asarray(getattr(estimator, method)(x)) for method in METHODS if hasattr(estimator, method)
    }
    assert found
    return found


def assert_same(one, two):
    assert one.keys() == two.keys()
    for method in one:
        np.testing.assert_array_equal(one[method], two[method], err_msg=method)


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_gives_back_the_same_answers(name, tmp_path):
    x, y = data(name, dtype=np.float32)
    fitted = made(name, random_state=1).fit(x, y)
    fitted.save(tmp_path / "a.safetensors")
    for loaded in (
        estimators.load(tmp_path / "a.safetensors"),
        CLASSES[name].load(tmp_path / "a.safetensors"),
    ):
        assert type(loaded) is CLASSES[name]
        assert repr(loaded) == repr(fitted)
        assert_same(answers(loaded, x), answers(fitted, x))


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_seed_gives_the_same_bytes(name, tmp_path):
    x, y = data(name)
    for path in ("a", "b"):
        made(name, random_state=5).fit(x, y).save(tmp_path / path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    made(name, random_state=6).fit(x, y).save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("name", CLASSES)
def test_clone_and_changed_parameters(name):
    """A parameter changed after fit changes no answer until the next fit."""
    x, y = data(name)
    fitted = made(name, random_state=1).fit(x, y)
    before = answers(fitted, x)
    fresh = clone(fitted)
    assert not hasattr(fresh, "n_features_in_")
    assert_same(answers(fresh.fit(x, y), x), before)
    fitted.set_params(random_state=2)
    assert_same(answers(fitted, x), before)


@pytest.mark.parametrize("name", CLASSES)
def test_pipeline_and_grid_search(name):
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    x, y = data(name)
    pipeline = make_pipeline(MinMaxScaler(), made(name, random_state=0))
    grid = {f"{name.lower()}__random_state": [1, 2]}
    scoring = None if hasattr(pipeline, "score") else lambda estimator, x, y=None: 0.0
    search = GridSearchCV(pipeline, grid, cv=2, scoring=scoring, error_score="raise").fit(x, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert_same(answers(search.best_estimator_, x), answers(clone(search.best_estimator_).fit(x, y), x))


@pytest.mark.parametrize("name", CLASSES)
def test_nothing_finite_is_answered_with_nan(name):
    """Constant columns, one distinct sample, values far out and tiny ones: an answer, or a refusal that says
    what it minds."""
    x, y = data(name)
    inputs = {
        "constant columns": np.hstack([x[:, :3], np.ones((40, 3))]),
        "zeros": np.zeros((40, 6)),
        "one sample many times": np.repeat(x[:1], 40, axis=0),
        "large": 1e6 * x,
        "negative": -3 * x,
        "tiny": 1e-30 * x,
        "one feature": x[:, :1],
    }
    for what, X in inputs.items():
        fitted, refusal = tried(name, X, y)
        if fitted is None:
            assert refusal.startswith(f"[{name}."), what
            continue
        for method, answer in answers(fitted, X).items():
            if answer.dtype.kind == "f":
                assert np.isfinite(answer).all(), f"{method} of {what}"


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_few_samples(name, samples):
    x, y = data(name, samples)
    fitted, refusal = tried(name, x, y)
    if fitted is None:
        assert refusal.startswith(f"[{name}.")
        assert samples == 1 or "sample" in refusal
        return
    for answer in answers(fitted, x).values():
        assert len(answer) == samples


@pytest.mark.parametrize("name", CLASSES)
def test_what_cannot_be_is_refused_and_changes_nothing(name):
    x, y = data(name)
    fitted = made(name, random_state=0).fit(x, y)
    before = answers(fitted, x)
    wrong = {
        "infinity": np.where(x == x[3, 2], np.inf, x),
        "a text": np.full((40, 6), "a"),
        "three dimensions": x.reshape(40, 6, 1),
        "one dimension": x[:, 0],
        "no samples": x[:0],
        "no features": x[:, :0],
        "complex": x + 1j,
        "ragged": [[1.0, 2.0], [3.0]],
        "nothing": None,
    }
    if not fitted._allow_nan:
        wrong["NaN"] = np.where(x == x[3, 2], np.nan, x)
    for what, X in wrong.items():
        with pytest.raises((ValueError, TypeError)) as caught:
            made(name).fit(X, y)
        assert str(caught.value).startswith(f"[{name}.fit] "), what
        for method in METHODS:
            if hasattr(fitted, method):
                with pytest.raises((ValueError, TypeError)) as caught:
                    getattr(fitted, method)(X)
                assert str(caught.value).startswith(f"[{name}.{method}] "), what
    with pytest.raises(ValueError, match="X has 5 features"):
        answers(fitted, x[:, :5])
    if y is not None:
        for bad in (y[:-1], None, np.stack([y] * 3)):
            with pytest.raises(ValueError, match=rf"\[{name}.fit\] "):
                made(name).fit(x, bad)
        with pytest.raises(ValueError, match="NaN"):
            made(name).fit(x, np.where(np.arange(40) == 3, np.nan, y))
    assert_same(answers(fitted, x), before)


@pytest.mark.parametrize("name", CLASSES)
def test_a_fit_that_fails_leaves_everything_as_it_was(name):
    x, y = data(name)
    fitted = made(name, random_state=0).fit(x, y)
    before, n_features = answers(fitted, x), fitted.n_features_in_
    wider = np.hstack([x, x])
    wider[3, 9] = np.inf
    wrong_seed = {"random_state": "x"}
    for X, arguments in ((wider, {}), (wider[:, :9], wrong_seed)):
        with pytest.raises((ValueError, TypeError)):
            fitted.set_params(**arguments).fit(X, y)
        assert fitted.n_features_in_ == n_features
        assert_same(answers(fitted, x), before)
    fresh = made(name, **wrong_seed)
    with pytest.raises(TypeError, match="random_state is 'x'"):
        fresh.fit(x, y)
    for method in METHODS:
        if hasattr(fresh, method):
            with pytest.raises(NotFittedError):
                getattr(fresh, method)(x)


@pytest.mark.parametrize("name", CLASSES)
def test_layouts_and_read_only_memory(name):
    x, y = data(name)
    expected = answers(made(name, random_state=0).fit(x, y), x)
    frozen = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    frozen.flags.writeable = False
    assert_same(answers(made(name, random_state=0).fit(frozen, y), frozen), expected)


@pytest.mark.parametrize("name", [name for name in CLASSES if made(name)._sparse])
def test_sparse_is_dense(name):
    sparse = pytest.importorskip("scipy.sparse")
    x, y = data(name)
    x[x < 0.6] = 0
    x[[3, 7]] = 0  # rows with no entry at all
    left_out = getattr(CLASSES[name], "_fill", 0.0)  # a rating that is not stored is missing
    dense = np.where(x == 0, left_out, x)
    expected = answers(made(name, random_state=0).fit(dense, y), dense)
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        matrix = kind(x)
        got = answers(made(name, random_state=0).fit(matrix, y), matrix)
        for method in expected:
            np.testing.assert_allclose(got[method], expected[method], rtol=1e-6, atol=1e-9, err_msg=method)
    matrix = sparse.csr_array(x)
    matrix.data[0] = np.inf
    with pytest.raises(ValueError, match=rf"\[{name}.fit\] X contains infinity"):
        made(name).fit(matrix, y)


@pytest.mark.parametrize("name", [name for name in CLASSES if not made(name)._sparse])
def test_sparse_is_refused_where_it_is_not_taken(name):
    sparse = pytest.importorskip("scipy.sparse")
    x, y = data(name)
    with pytest.raises(TypeError, match=rf"\[{name}.fit\] X is a sparse matrix"):
        made(name).fit(sparse.csr_array(x), y)


@pytest.mark.parametrize("name", CLASSES)
def test_progress_is_shown_when_asked(name, capsys):
    x, y = data(name)
    fitted = made(name, random_state=0, verbose=1).fit(x, y)
    lines = [line for line in capsys.readouterr().err.splitlines() if "/" in line]
    assert len(lines) == len(fitted.history_)
    made(name, random_state=0).fit(x, y)
    assert not capsys.readouterr().err


def test_every_public_class_is_listed():
    public = {name for name in estimators.__all__ if isinstance(getattr(estimators, name), type)}
    learners = {name for name in public if issubclass(getattr(estimators, name), estimators.Estimator)}
    assert learners - {"Estimator"} == set(CLASSES)


FRAMES = (
    "check_dataframe_column_names_consistency",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_set_output_transform_polars",
)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        (name, check)
        for name in CLASSES
        for check in FRAMES
        if hasattr(CLASSES[name], "transform") or check == "check_dataframe_column_names_consistency"
    ],
)
def test_data_frames(name, check):
    """scikit-learn's checks that it runs on its own estimators only."""
    for library in ("pandas", "polars"):
        if library in check or (library == "pandas" and "dataframe" in check):
            pytest.importorskip(library)
    getattr(estimator_checks, check)(name, made(name))


def test_a_clone_keeps_the_output_that_was_set(tmp_path):
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).random((10, 4))
    cloned = clone(RBM(3, n_epochs=1).set_output(transform="pandas"))
    assert isinstance(cloned.fit_transform(x), pandas.DataFrame)
    cloned.save(tmp_path / "r")
    assert isinstance(RBM.load(tmp_path / "r").transform(x), pandas.DataFrame)
    assert isinstance(cloned.set_output(transform="default").transform(x), np.ndarray)
