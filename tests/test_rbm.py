"""Restricted Boltzmann machines as estimators: what they learn, exactly, and what bad input meets."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest

import fastarch as fa
from fastarch.estimators import RBM, GaussianRBM
from fastarch.estimators.partition import states


def bars_and_stripes(size):
    """Every picture whose rows are all alike, or whose columns are: [patterns, size^2]."""
    lines = [np.array(s) for s in itertools.product((0, 1), repeat=size)]
    pictures = [np.tile(s, (size, 1)) for s in lines] + [np.tile(s[:, None], (1, size)) for s in lines]
    return np.unique([p.ravel() for p in pictures], axis=0).astype(np.float64)


def binary(rng, n, d, p=0.4):
    return (rng.random((n, d)) < p).astype(np.float64)


def all_states(n):
    return np.concatenate(list(states(n)))


# What it learns


def test_persistent_chains_learn_bars_and_stripes():
    """Within 0.3 nat of the best, -ln 14 a pattern, by the exact likelihood."""
    x = bars_and_stripes(3)
    assert len(x) == 14
    model = RBM(
        8,
        persistent=True,
        n_chains=200,
        centring=True,
        learning_rate=0.2,
        final_learning_rate=0.005,
        batch_size=14,
        n_epochs=2500,
        random_state=1,
    ).fit(x)
    mean = model.log_likelihood(x).mean()
    assert -math.log(14) - 0.3 < mean <= -math.log(14)


def test_the_likelihood_is_a_distribution_and_rises(rng):
    x = binary(rng, 60, 6) * [1, 1, 1, 0, 1, 0]
    x[:, 3] = x[:, 0]
    model = RBM(4, n_epochs=1, learning_rate=0.5, batch_size=10, random_state=0).fit(x)
    before = model.log_likelihood(x).mean()
    model.set_params(n_epochs=60).fit(x)
    assert np.exp(model.log_likelihood(all_states(6))).sum() == pytest.approx(1)
    assert model.log_likelihood(x).mean() > before + 0.3


def test_samples_follow_the_distribution(rng):
    model = RBM(3, n_epochs=40, learning_rate=0.5, random_state=0).fit(bars_and_stripes(2))
    expected = np.exp(model.log_likelihood(all_states(4)))
    drawn = model.sample(20000, steps=100)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    share = np.bincount((drawn @ (1 << np.arange(4))).astype(int), minlength=16) / len(drawn)
    chi_square = len(drawn) * ((share - expected) ** 2 / expected).sum()
    assert chi_square < 44.3  # 15 degrees of freedom, one in 10,000
    further = model.gibbs(drawn, steps=2)
    assert not np.array_equal(further, drawn)
    share = np.bincount((further @ (1 << np.arange(4))).astype(int), minlength=16) / len(drawn)
    assert len(drawn) * ((share - expected) ** 2 / expected).sum() < 44.3


def test_features_are_those_of_the_layers_bit_for_bit(rng):
    x = rng.random((30, 12)).astype(np.float32)
    for hidden, activation in (("bernoulli", "sigmoid"), ("relu", "relu")):
        model = RBM(7, hidden=hidden, learning_rate=0.01, n_epochs=2, random_state=0).fit(x)
        layer = fa.nn.Linear(12, 7, activation=activation)
        layer.load_state_dict({"weight": model.components_, "bias": model.intercept_hidden_})
        np.testing.assert_array_equal(model.transform(x), layer(fa.tensor(x)).data)


# The parts of a step


def one_step(x, **options):
    options = {"momentum": 0.0, "batch_size": len(x), **options}
    return RBM(3, n_epochs=1, random_state=5, **options).fit(x)


def start_of(x, **options):
    """A machine that has learnt next to nothing."""
    return one_step(x, **{**options, "learning_rate": 1e-300})


def test_a_step_is_the_rate_times_the_operators_gradient(rng):
    x = binary(rng, 8, 5)
    before, after = start_of(x), one_step(x, learning_rate=0.5)
    order = fa.random.permutation(8, 5, 1)
    arguments = (before.w_, before.b_visible_, before.b_hidden_)
    *gradients, _ = fa.ops.rbm_cd(x[order], *arguments, k=1, seed=5, offset=2)
    for array, start, gradient in zip(after._learnt(), before._learnt(), gradients):
        np.testing.assert_allclose(array - start, 0.5 * gradient, atol=1e-14)


def test_decay_shrinks_weights_and_never_biases(rng):
    x = binary(rng, 8, 5)
    plain, decayed = one_step(x), one_step(x, weight_decay=0.1)
    np.testing.assert_array_equal(plain.b_visible_, decayed.b_visible_)
    np.testing.assert_array_equal(plain.b_hidden_, decayed.b_hidden_)
    np.testing.assert_allclose(plain.w_ - decayed.w_, 0.2 * 0.1 * start_of(x).w_, atol=1e-15)


def test_a_centred_step_is_the_gradient_of_the_centred_machine(rng):
    x = binary(rng, 8, 5)
    before, plain, centred = start_of(x), one_step(x), one_step(x, centring=True)
    dw, dbv, dbh = ((a - b) / 0.2 for a, b in zip(plain._learnt(), before._learnt()))
    mu, lam = centred._centres_
    dw = dw - np.outer(mu, dbh) - np.outer(dbv, lam)
    expected = dw, dbv - dw @ lam, dbh - mu @ dw
    for array, start, gradient in zip(centred._learnt(), before._learnt(), expected):
        np.testing.assert_allclose((array - start) / 0.2, gradient, atol=1e-12)
    assert (mu > 0.1).all()
    assert (lam > 0.4).all()


def test_momentum_carries_steps_over(rng):
    x = binary(rng, 8, 5)
    still = one_step(x, learning_rate=0.5, momentum=0.9)
    v = still._velocity_[0].copy()
    np.testing.assert_allclose(still.w_ - start_of(x).w_, v, atol=1e-15)
    still.learning_rate = 1e-300
    moved = still.w_.copy()
    still.partial_fit(x)
    np.testing.assert_allclose(still.w_ - moved, 0.9 * v, atol=1e-15)


def test_rates_run_straight_to_the_last_epoch(rng):
    from fastarch.estimators.contrastive import _ramp

    assert [_ramp(0.4, 0.1, i, 4) for i in range(4)] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [_ramp(0.4, None, i, 4) for i in range(4)] == [0.4] * 4
    assert _ramp(0.4, 0.1, 0, 1) == 0.4


def test_a_sparsity_target_is_reached(rng):
    x = binary(rng, 300, 20)
    free = RBM(10, n_epochs=10, random_state=0).fit(x)
    sparse = RBM(10, n_epochs=20, batch_size=10, sparsity_target=0.1, sparsity_cost=1.0, random_state=0).fit(
        x
    )
    assert sparse.transform(x).mean() == pytest.approx(0.1, abs=0.02)
    assert free.transform(x).mean() > 0.2


def test_the_short_last_batch_counts_its_own_samples(rng):
    """The second of two batches has one sample: its step is that sample's gradient, not a fifth of it."""
    x = binary(rng, 6, 4)
    first = one_step(x, batch_size=5, learning_rate=1e-300)
    both = one_step(x, batch_size=5, learning_rate=0.5)
    order = fa.random.permutation(6, 5, 1)
    state = [array.copy() for array in first._learnt()]
    for offset, rows in ((2, order[:5]), (3, order[5:])):
        gradients = fa.ops.rbm_cd(x[rows], *state, k=1, seed=5, offset=offset)[:3]
        state = [array + 0.5 * gradient for array, gradient in zip(state, gradients)]
    for array, expected in zip(both._learnt(), state):
        np.testing.assert_allclose(array, expected, atol=1e-14)


def test_partial_fit_goes_on_where_it_stopped(rng):
    x = binary(rng, 40, 6)
    whole = RBM(4, batch_size=10, persistent=True, random_state=0).partial_fit(x)
    parts = RBM(4, batch_size=10, persistent=True, random_state=0)
    for start in range(0, 40, 10):
        parts.partial_fit(x[start : start + 10])
    assert len(parts.history_) == 4
    assert len(whole.history_) == 1
    # Two batches in one call are two calls: the biases, the chains and the random numbers go on.
    again = RBM(4, batch_size=10, persistent=True, random_state=0).partial_fit(x[:10]).partial_fit(x[10:])
    for array, expected in zip(again._learnt(), parts._learnt()):
        np.testing.assert_array_equal(array, expected)
    with pytest.raises(ValueError, match="7 features"):
        parts.partial_fit(binary(rng, 10, 7))


# Kinds of data


def test_sparse_rows_are_dense_rows(rng):
    sparse = pytest.importorskip("scipy.sparse")
    x = binary(rng, 70, 9, 0.2)
    x[[3, 69]] = 0  # empty rows
    options = {"n_epochs": 3, "batch_size": 16, "random_state": 0}
    a, b = RBM(5, **options).fit(x), RBM(5, **options).fit(sparse.csr_matrix(x))
    np.testing.assert_array_equal(a.w_, b.w_)
    for method in ("transform", "score_samples", "free_energy", "reconstruct"):
        of_sparse = getattr(b, method)(sparse.coo_array(x))
        np.testing.assert_array_equal(getattr(a, method)(x), of_sparse)
        assert np.isfinite(of_sparse).all()
    split = sparse.csr_matrix(x / 2)  # every value as two halves of itself
    double = sparse.csr_matrix(
        (np.repeat(split.data, 2), np.repeat(split.indices, 2), split.indptr * 2), split.shape
    )
    np.testing.assert_allclose(RBM(5, **options).fit(double).w_, a.w_, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [RBM, GaussianRBM])
@pytest.mark.parametrize("columns", [slice(2, 3), slice(None)])
def test_columns_without_a_value_give_no_warning(kind, columns, rng):
    x = rng.random((12, 4))
    x[:, columns] = np.nan
    model = kind(3, n_epochs=2, allow_missing=True, random_state=0).fit(x)
    np.testing.assert_array_equal(model.visible_mean_[columns], 0.5 if kind is RBM else 0)
    assert np.isfinite(model.reconstruct(x)).all()


def test_missing_values_are_absent(rng):
    """A column that is always missing teaches nothing; one that mirrors another is filled in from it."""
    x = binary(rng, 400, 6, 0.5)
    x[:, 1] = x[:, 0]
    x[:, 5] = np.nan
    hole = rng.random(400) < 0.3
    x[hole, 1] = np.nan
    model = RBM(8, allow_missing=True, n_epochs=60, batch_size=20, learning_rate=0.3, random_state=0).fit(x)
    start = RBM(8, allow_missing=True, n_epochs=1, learning_rate=1e-300, random_state=0).fit(x)
    np.testing.assert_array_equal(model.w_[5], start.w_[5])
    assert model.b_visible_[5] == start.b_visible_[5] == 0
    filled = model.reconstruct(x)
    assert np.isfinite(filled).all()
    assert ((filled[hole, 1] > 0.5) == (x[hole, 0] > 0.5)).mean() > 0.95
    assert np.isfinite(model.score_samples(x)).all()
    with pytest.raises(ValueError, match=r"\[RBM.log_likelihood\] X has missing values"):
        model.log_likelihood(x)
    for kind in (RBM, GaussianRBM):
        with pytest.raises(
            ValueError, match=rf"\[{kind.__name__}.fit\] .* expected False with allow_missing"
        ):
            kind(allow_missing=True, persistent=True).fit(x)
    with pytest.raises(ValueError, match="NaN"):
        RBM(8).fit(x)


def test_without_missing_values_allowing_them_changes_nothing(rng):
    x = binary(rng, 30, 5)
    a, b = (RBM(3, allow_missing=flag, n_epochs=2, random_state=0).fit(x) for flag in (False, True))
    np.testing.assert_array_equal(a.w_, b.w_)


def test_values_outside_are_clipped_with_a_warning(rng):
    x = binary(rng, 30, 4)
    with pytest.warns(UserWarning, match=r"\[RBM.fit\] X ranges from -3 to 1, a binary unit from 0 to 1"):
        model = RBM(3, n_epochs=2, random_state=0).fit(np.where(x == 0, -3.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = RBM(3, n_epochs=2, random_state=0).fit(x)
        RBM(3, n_epochs=1).fit(x * (1 + 1e-9))  # rounding is no reason to warn
    np.testing.assert_array_equal(model.w_, same.w_)
    np.testing.assert_array_equal(model.transform(x * 5 - 2), model.transform(x))


@pytest.mark.parametrize("kind", [RBM, GaussianRBM])
@pytest.mark.parametrize("centring", [False, True])
@pytest.mark.parametrize("persistent", [False, True])
def test_constant_columns_and_one_sample_give_finite_results(rng, kind, centring, persistent):
    x = rng.random((20, 4))
    x[:, 1], x[:, 2] = 0, 1
    for data in (
        x,
        x[:1],
        np.zeros((5, 3)),
        np.full((5, 3), 1e6 if kind is GaussianRBM else 1.0),
    ):
        model = kind(3, centring=centring, persistent=persistent, n_epochs=3, random_state=0).fit(data)
        for result in (model.transform(data), model.score_samples(data), model.reconstruct(data), model.w_):
            assert np.isfinite(result).all()
        assert np.isfinite(model.sample(3, 5)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components is 0, expected at least 1"),
        ({"hidden": "softmax"}, "hidden is 'softmax', expected 'bernoulli', 'relu'"),
        ({"k": 0}, "k is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"final_momentum": -0.1}, "final_momentum is -0.1"),
        ({"final_learning_rate": -1}, "final_learning_rate is -1"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"sparsity_target": 1.0}, "sparsity_target is 1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"n_epochs": 0}, "n_epochs is 0"),
        ({"n_chains": 0}, "n_chains is 0"),
        ({"persistent": 1}, "persistent is 1"),
        ({"random_state": -1}, "random_state is -1"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=r"\[RBM.fit\] " + message):
        RBM(**options).fit(np.zeros((4, 3)))


def test_other_refusals(rng):
    x = binary(rng, 10, 4)
    with pytest.raises(TypeError, match=r"\[RBM.fit\] dtype is 'float16'"):
        RBM(dtype="float16").fit(x)
    model = RBM(3, n_epochs=1).fit(x)
    with pytest.raises(ValueError, match=r"inverse_transform\] H has shape \(2, 4\), expected \[N, 3\]"):
        model.inverse_transform(np.zeros((2, 4)))
    for method in ("transform", "score_samples", "sample", "ais", "log_partition", "inverse_transform"):
        arguments = () if method in ("sample", "ais", "log_partition") else (x,)
        with pytest.raises(ValueError, match="not fitted"):
            getattr(RBM(3), method)(*arguments)
    with pytest.raises(ValueError, match="hidden units are relu"):
        RBM(3, hidden="relu", n_epochs=1, learning_rate=0.01).fit(x).ais()


def test_the_type_of_the_data_stays_and_can_be_chosen(rng):
    x = binary(rng, 20, 4)
    assert RBM(3, n_epochs=1).fit(x).w_.dtype == np.float64
    assert RBM(3, n_epochs=1).fit(x.astype(np.float32)).transform(x[:2].astype("f4")).dtype == np.float32
    chosen = RBM(3, n_epochs=1, dtype="float32").fit(x)
    assert chosen.w_.dtype == np.float32


def test_every_backend_learns_the_same(rng, backend):
    x = rng.random((25, 6)).astype(np.float32)
    options = {"n_epochs": 2, "batch_size": 10, "random_state": 3}
    for kind, more in ((RBM, {"persistent": True}), (RBM, {"hidden": "relu"}), (GaussianRBM, {})):
        with fa.backend("numpy"):
            model = kind(4, learning_rate=0.01, **options, **more).fit(x)
        with fa.backend(backend.name):
            other = kind(4, learning_rate=0.01, **options, **more).fit(x)
            np.testing.assert_allclose(other.transform(x), model.transform(x), atol=1e-5)
        np.testing.assert_allclose(model.w_, other.w_, atol=1e-5)


def test_the_global_seed_decides_without_one(rng):
    x = binary(rng, 20, 4)

    def weights(seed):
        fa.manual_seed(seed)
        return RBM(3, n_epochs=1).fit(x).w_

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_ais_of_an_estimator_agrees_with_its_exact_partition(rng):
    model = RBM(6, n_epochs=30, learning_rate=0.5, batch_size=10, random_state=0).fit(binary(rng, 50, 10))
    exact, estimate = model.log_partition(), model.ais(n_chains=200, betas=300)
    assert estimate.low <= exact <= estimate.high
    assert estimate.high - estimate.low < 0.2
    assert model.ais(n_chains=200, betas=300) == estimate
    assert model.ais(n_chains=200, betas=300, seed=9) != estimate


# Gaussian units


def test_a_gaussian_density_integrates_to_one(rng):
    x = np.concatenate([rng.normal(-3, 0.5, (100, 1)), rng.normal(5, 0.8, (100, 1))])
    model = GaussianRBM(4, n_epochs=40, learning_rate=0.05, batch_size=20, random_state=0).fit(x)
    grid = np.linspace(-40, 40, 8001)[:, None]
    assert np.exp(model.score_samples(grid)).sum() * 0.01 == pytest.approx(1, abs=1e-6)


def test_variances_are_learnt(rng):
    """Clusters 2 apart, of deviations 0.3 and 1: the units' come out, and the density is nearly the best."""
    centre = rng.integers(0, 2, (600, 1)) * 2.0
    x = centre + rng.normal(size=(600, 2)) * [0.3, 1.0]
    options = {"n_epochs": 60, "learning_rate": 0.05, "final_learning_rate": 0.001, "batch_size": 20}
    learnt = GaussianRBM(4, variance_rate=1.0, smallest_deviation=0.01, random_state=0, **options).fit(x)
    fixed = GaussianRBM(4, learn_variance=False, random_state=0, **options).fit(x)
    deviations = learnt._deviation() * learnt.scale_
    assert deviations[0] == pytest.approx(0.3, rel=0.1)
    assert deviations[1] == pytest.approx(1.0, rel=0.1)
    assert learnt.score(x) > fixed.score(x) + 0.5
    entropy = math.log(2) + np.log([0.3, 1.0]).sum() + 2 * 0.5 * math.log(2 * math.pi * math.e)
    assert learnt.score(x) == pytest.approx(-entropy, abs=0.2)


def test_gaussian_samples_have_noise_and_the_datas_place(rng):
    x = rng.normal([3.0, -200.0], [0.01, 50.0], (500, 2))
    model = GaussianRBM(3, n_epochs=5, random_state=0).fit(x)
    drawn = model.sample(4000, steps=20)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=3 * x.std(0).max() / 50)
    np.testing.assert_allclose(drawn.std(0), x.std(0), rtol=0.15)
    means = model.sample(4000, steps=20, mean=True)
    assert (means.std(0) < 0.5 * drawn.std(0)).all()


def test_the_variances_gradient_is_that_of_the_energy(rng):
    """By differences, on a machine whose phases are given."""
    x = rng.normal(size=(30, 3))
    model = GaussianRBM(2, n_epochs=3, batch_size=30, random_state=0).fit(x)
    model.w_[...] = rng.normal(size=model.w_.shape)
    model.log_variance_[...] = rng.normal(-0.5, 0.2, 3)

    def energy(z, h, log_variance):
        s2 = np.exp(log_variance)
        e = (
            ((z - model.b_visible_) ** 2 / (2 * s2)).sum(1)
            - ((z / s2) @ model.w_ * h).sum(1)
            - h @ model.b_hidden_
        )
        return e.mean()

    s = model._deviation()
    v, vk = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    h0, hk = rng.random((30, 2)), rng.random((30, 2))
    before = model.log_variance_.copy()
    expected = np.zeros(3)
    for i in range(3):
        e = np.eye(3)[i] * 1e-5
        rise = [energy(u * s, h, before + e) - energy(u * s, h, before - e) for u, h in ((v, h0), (vk, hk))]
        expected[i] = -(rise[0] - rise[1]) / 2e-5
    model.set_params(learning_rate=1.0, variance_rate=1.0, momentum=0.0)
    model._velocity_ = None
    model._ascend_from(v, h0, vk, hk, 1e-3, 0.0)
    np.testing.assert_allclose((model.log_variance_ - before) / 1e-3, expected, rtol=1e-6)


def test_gaussian_missing_values_are_filled_in(rng):
    x = rng.normal(size=(400, 1)) + rng.normal(size=(400, 4)) * 0.3
    hole = rng.random(400) < 0.2
    x[hole, 2] = np.nan
    model = GaussianRBM(10, allow_missing=True, n_epochs=40, batch_size=20, random_state=0).fit(x)
    filled = model.reconstruct(x)
    assert np.corrcoef(filled[hole, 2], x[hole][:, [0, 1, 3]].mean(1))[0, 1] > 0.85
