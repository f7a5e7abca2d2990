"""Deep stacking networks: what stacks of modules come to, on real data too."""

from __future__ import annotations

import numpy as np
import pytest

import fastarch as fa
from dsn_definition import naive_features, naive_output
from fastarch import backends, data, random
from fastarch.estimators import DSNClassifier, DSNRegressor, TDSNClassifier, TDSNRegressor
from fastarch.estimators.dsn import module, training
from fastarch.estimators.dsn.module import Chunks

WHOLE = Chunks(10**9)


def digits():
    training, test = data.split(data.digits(), 0.2, 0)
    return (
        *(part.x.reshape(len(part.x), -1).astype(np.float32) for part in (training, test)),
        training.y,
        test.y,
    )


CLASSIFIERS = [DSNClassifier, TDSNClassifier]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_digits(kind):
    x, x_test, y, y_test = digits()
    assert x.max() == 1.0
    fitted = kind(random_state=0).fit(x, y)
    assert fitted.score(x_test, y_test) >= 0.96
    first, second, third = fitted.errors_
    assert first > second > third
    assert fitted.weights_[0][0].dtype == np.float32
    stages = [np.argmax(p, axis=1) for p in fitted._predictions(x)]
    mistakes = [float((stage != y).mean()) for stage in stages]
    assert mistakes[0] >= mistakes[1] >= mistakes[2]
    assert mistakes[0] > 0 or mistakes[2] == 0


@pytest.mark.parametrize("kind", [DSNRegressor, TDSNRegressor])
def test_diabetes(kind):
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_diabetes(return_X_y=True)
    order = random.permutation(len(x), 0, 0)
    train, test = order[:350], order[350:]
    fitted = kind(random_state=0).fit(x[train], y[train])
    assert fitted.score(x[test], y[test]) > 0.4
    assert fitted.predict(x[test]).shape == (92,)


def blobs(samples=150, classes=3, dtype=np.float64):
    draw = np.random.default_rng(1)
    y = draw.integers(0, classes, samples)
    x = draw.normal(size=(samples, 4)) + 2 * np.eye(4)[y]
    return x.astype(dtype), y


SMALL = {"n_modules": 3, "n_hidden": 8, "n_epochs": 15, "random_state": 3}


@pytest.mark.parametrize(
    "solver",
    [
        {"solver": "gradient"},
        {"solver": "lbfgs"},
        {"solver": "momentum"},
        {"solver": "adam"},
        {"solver": "adam", "batch_size": 40},
        {"solver": "momentum", "batch_size": 40, "momentum": 0.5},
    ],
)
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_every_solver_lowers_the_error(kind, solver):
    x, y = blobs()
    small = {**SMALL, "n_hidden": 3} if kind is TDSNClassifier and "batch_size" in solver else SMALL
    fitted = kind(**small, **solver).fit(x, y)
    assert fitted.errors_[2] < fitted.errors_[0]
    begun = kind(**{**small, "n_epochs": 1, "n_modules": 1, **solver}).fit(x, y)
    assert fitted.errors_[0] < begun.errors_[0]
    if solver["solver"] in ("gradient", "lbfgs"):
        assert fitted.errors_ == sorted(fitted.errors_, reverse=True)
        for m in range(3):
            losses = [r["loss"] for r in fitted.history_[15 * m : 15 * m + 15]]
            assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("solver", ["momentum", "adam"])
def test_the_weights_of_the_lowest_loss_are_kept(solver):
    x, y = blobs()
    options = {**SMALL, "n_modules": 1, "n_epochs": 12, "solver": solver, "random_state": 0}
    fitted = DSNClassifier(**options).fit(x, y)
    losses = [r["loss"] for r in fitted.history_]
    chunks, ridge = fitted._chunks(), fitted._recipe().ridge
    loss, _, _ = module.objective(x, np.eye(3)[y], fitted.weights_[0], ridge, chunks)
    assert loss / len(x) == pytest.approx(min(losses), rel=1e-12)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_modules_are_trained_alone(kind):
    """What stands above changes nothing below: a deeper stack begins with the shallower one."""
    x, y = blobs()
    deep, shallow = kind(**SMALL).fit(x, y), kind(**{**SMALL, "n_modules": 2}).fit(x, y)
    for m in range(2):
        for a, b in zip(deep.weights_[m], shallow.weights_[m]):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(deep.outputs_[m], shallow.outputs_[m])
    assert deep.weights_[2][0].shape[1] == 4 + 2 * 3
    assert deep.errors_[:2] == shallow.errors_


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_output_weights_solve_the_whole_data(kind):
    x, y = blobs()
    fitted = kind(**SMALL, output="linear").fit(x, y)
    f = naive_features(x, fitted.weights_[0])
    np.testing.assert_allclose(fitted.outputs_[0], naive_output(f, np.eye(3)[y], 0.1), rtol=1e-6, atol=1e-7)
    # The constant unit carries no ridge and one-hot rows sum to one: so do the predictions.
    np.testing.assert_allclose(fitted.decision_function(x).sum(axis=1), 1, atol=1e-9)
    assert (fitted.predict(x) == fitted.decision_function(x).argmax(axis=1)).all()
    assert not hasattr(fitted, "predict_proba")
    with pytest.raises(
        AttributeError, match=r"predict_proba\] there are no probabilities with output='linear'"
    ):
        fitted.predict_proba(x)


@pytest.mark.parametrize("kind", [*CLASSIFIERS, DSNRegressor, TDSNRegressor])
@pytest.mark.parametrize("tuned", [0, 12])
def test_the_network_is_the_stack(kind, tuned):
    x, y = blobs()
    target = np.stack([x[:, 0] * 30 + 5, np.sin(x[:, 1])], axis=1)
    regression = kind in (DSNRegressor, TDSNRegressor)
    fitted = kind(**SMALL, fine_tune_epochs=tuned, early_stopping=False).fit(x, target if regression else y)
    expected = fitted.predict(x) if regression else fitted.decision_function(x)
    with fa.no_grad():
        got = fitted.to_module()(x).data
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    targets = (target - target.mean(0)) / target.std(0) if regression else np.eye(3)[y]
    errors = [((said - targets) ** 2).sum() / len(x) for said in fitted._predictions(x)]
    np.testing.assert_allclose(fitted.errors_, errors, rtol=1e-9)
    if tuned:
        losses = [r["loss"] for r in fitted.history_[-tuned:]]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_fine_tuning_lowers_the_loss_of_the_whole(kind):
    x, y = blobs()
    loss = []
    for epochs in (0, 30):
        fitted = kind(**SMALL, output="linear", fine_tune_epochs=epochs, fine_tune_rate=0.01).fit(x, y)
        loss.append(float(((fitted.decision_function(x) - np.eye(3)[y]) ** 2).sum()))
    assert loss[1] < 0.97 * loss[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_seed_decides(dtype):
    x, y = blobs(dtype=dtype)
    before = random.get_state()
    arguments = {**SMALL, "solver": "adam", "batch_size": 32, "fine_tune_epochs": 2}
    one, two = (DSNClassifier(**arguments).fit(x, y) for _ in range(2))
    other = DSNClassifier(**{**arguments, "random_state": 4}).fit(x, y)
    assert random.get_state() == before
    np.testing.assert_array_equal(one.decision_function(x), two.decision_function(x))
    assert (one.decision_function(x) != other.decision_function(x)).any()
    assert one.decision_function(x).dtype == dtype
    parallel = DSNClassifier(**arguments, chunk_size=20, n_jobs=3).fit(x, y)
    serial = DSNClassifier(**arguments, chunk_size=20, n_jobs=1).fit(x, y)
    np.testing.assert_array_equal(parallel.decision_function(x), serial.decision_function(x))


def test_backends_agree():
    x, y = blobs()
    with fa.backend("numpy"):
        expected = DSNClassifier(**SMALL).fit(x, y).decision_function(x)
    for name in backends.available():
        if name not in ("numpy", "cuda"):
            with fa.backend(name):
                arguments = {**SMALL, "n_modules": 1, "n_epochs": 3} if name == "emulator" else SMALL
                got = DSNClassifier(**arguments).fit(x, y).decision_function(x)
            if arguments != SMALL:
                with fa.backend("numpy"):
                    expected = DSNClassifier(**arguments).fit(x, y).decision_function(x)
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_the_scale_of_the_inputs_does_not_matter():
    x, y = blobs()
    small, large = (DSNClassifier(**SMALL).fit(x * scale, y) for scale in (1, 1024.0))
    assert large.errors_[0] < 1.5 * small.errors_[0]
    assert large.score(x * 1024.0, y) > 0.8
    assert (
        DSNClassifier(**SMALL).fit(np.zeros((10, 3)), [0, 1] * 5).score(np.zeros((4, 3)), [0, 1, 0, 1]) == 0.5
    )


def test_early_stopping_keeps_what_does_best_on_held_out_samples():
    draw = np.random.default_rng(0)
    x, noise = draw.normal(size=(80, 5)), draw.normal(size=80)
    stopped = DSNRegressor(5, 40, solver="lbfgs", random_state=0).fit(x, noise)
    through = DSNRegressor(5, 40, solver="lbfgs", early_stopping=False, random_state=0).fit(x, noise)
    assert stopped.n_modules_ < 5 == through.n_modules_
    assert len(stopped.history_) < len(through.history_)
    assert stopped.held_errors_ == sorted(stopped.held_errors_, reverse=True)
    assert len(stopped.held_errors_) == stopped.n_modules_ == len(stopped.weights_)
    best = min(r["validation_loss"] for r in stopped.history_)
    assert stopped.held_errors_[-1] == pytest.approx(best, rel=1e-9)
    fresh, values = draw.normal(size=(500, 5)), draw.normal(size=500)
    assert stopped.score(fresh, values) > through.score(fresh, values)


def test_two_classes_and_text():
    x, y = blobs(classes=2)
    fitted = DSNClassifier(**SMALL).fit(x, np.array(["no", "yes"])[y])
    scores = fitted.decision_function(x)
    assert scores.shape == (150,)
    assert (fitted.predict(x) == np.where(scores > 0, "yes", "no")).all()
    probability = fitted.predict_proba(x)
    np.testing.assert_allclose(np.log(probability), fitted.predict_log_proba(x), rtol=1e-9)
    np.testing.assert_allclose(np.log(probability[:, 1] / probability[:, 0]), scores, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_modules": 0}, ValueError, r"\[DSNClassifier.fit\] n_modules is 0, expected at least 1"),
        ({"n_hidden": [5, 6]}, ValueError, "n_hidden has 2 entries, expected a number or one for each of 3"),
        ({"n_hidden": [5, 6, 0]}, ValueError, "n_hidden is 0"),
        ({"n_hidden": 2.5}, TypeError, "n_hidden is 2.5"),
        ({"ridge": -1}, ValueError, "ridge is -1, expected at least 0"),
        ({"solver": "newton"}, ValueError, "solver is 'newton', expected 'lbfgs', 'gradient'"),
        ({"batch_size": 10}, ValueError, "batch_size is 10, but the line search of solver 'gradient'"),
        (
            {"batch_size": 21, "solver": "adam", "n_hidden": 10},
            ValueError,
            "batch_size is 21, expected None or at least 22: twice the 11 features",
        ),
        ({"momentum": 1.0}, ValueError, "momentum is 1.0, expected at least 0 and below 1"),
        ({"learning_rate": 0}, ValueError, "learning_rate is 0, expected above 0"),
        ({"output": "sigmoid"}, ValueError, "output is 'sigmoid', expected 'softmax', 'linear'"),
        ({"init": "zeros"}, ValueError, "init is 'zeros'"),
        ({"early_stopping": "yes"}, ValueError, "early_stopping is 'yes'"),
        ({"validation_fraction": 1.0}, ValueError, "validation_fraction is 1.0"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
        ({"fine_tune_epochs": -1}, ValueError, "fine_tune_epochs is -1"),
        ({"random_state": "x"}, TypeError, "random_state is 'x'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, error, message):
    x, y = blobs()
    with pytest.raises(error, match=message):
        DSNClassifier(**{"n_modules": 3, **arguments}).fit(x, y)


def test_the_sizes_of_a_tensor_module():
    x, y = blobs()
    fitted = TDSNClassifier(2, (5, 3), n_epochs=2, random_state=0).fit(x, y)
    assert [a.shape for a in fitted.weights_[1]] == [(5, 7), (5,), (3, 7), (3,)]
    assert fitted.outputs_[0].shape == (6 * 4, 3)
    with pytest.raises(ValueError, match="expected a number or a pair"):
        TDSNClassifier(2, (5, 3, 1)).fit(x, y)


def test_one_step_of_training_may_be_the_last(monkeypatch):
    """A watcher that asks for the end gets a whole estimator of the modules that are there."""
    x, y = blobs()
    with fa.estimators.watched(lambda record: record["epoch"] == 20):
        fitted = DSNClassifier(**SMALL).fit(x, y)
    assert len(fitted.history_) == 20
    assert fitted.n_modules_ == len(fitted.weights_) == 2
    assert fitted.score(x, y) > 0.8


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_boltzmann_machine_may_give_the_start(kind):
    x, _, y, _ = digits()
    arguments = {"n_modules": 1, "n_hidden": 30, "n_epochs": 1, "random_state": 0}
    from_rbm = kind(**arguments, init="rbm", rbm_epochs=3).fit(x[:300], y[:300])
    again = kind(**arguments, init="rbm", rbm_epochs=3).fit(x[:300], y[:300])
    np.testing.assert_array_equal(from_rbm.weights_[0][0], again.weights_[0][0])
    assert from_rbm.weights_[0][0].shape == (30, 64)
    assert from_rbm.score(x[:300], y[:300]) > 0.7


def test_the_scaling_for_the_boltzmann_machine_goes_into_the_weights():
    """Hidden units see the machine's input, whatever the scale of x; a constant feature does no harm."""
    draw = np.random.default_rng(0)
    unit = draw.random((60, 4))
    unit[:, 3], unit[0], unit[1] = 0, 0, 1
    unit[:, 3] = 0
    x = unit * [100.0, 0.01, 1.0, 1.0] + [5.0, -3.0, 0.0, 7.0]
    weight, bias = training.rbm_start(x, (6,), 5, 1)
    machine = fa.estimators.RBM(6, n_epochs=5, learning_rate=0.1, random_state=1).fit(unit)
    np.testing.assert_allclose(module.hidden(x, [weight, bias])[0], machine.transform(unit), rtol=1e-6)


def test_without_ridge_float32_is_solved_to_its_own_accuracy():
    """Units that repeat one another leave directions that only rounding errors fill: they are left out."""
    x, y = blobs(dtype=np.float32)
    weight, bias = training.random_start(x, (30,), 0)
    twice = [np.vstack([weight, weight]), np.append(bias, bias)]
    u = module.best_output(x, np.eye(3, dtype=np.float32)[y], twice, 0.0, WHOLE)
    assert abs(u).max() < 1e3
    predicted = module.predict(x, twice, u.astype(np.float32), WHOLE)
    assert (predicted.argmax(axis=1) == y).mean() > 0.8


def test_where_nothing_can_be_learnt_the_run_still_ends(tmp_path):
    from fastarch.estimators.dsn.info import DSN
    from fastarch.estimators.info import Part

    x, y = np.zeros((20, 4), np.float32), np.arange(20) % 2
    fitted = DSNClassifier(2, 5).fit(x, y)
    part = Part(x, y, ("a", "b"), (1, 2, 2))
    made = DSN.report(fitted, {"training": part, "test": part}, tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == set(made.pictures)
    assert made.figures["accuracy"] == 0.5
