"""Deep belief networks: exact likelihoods, networks that equal them, what pretraining is worth, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import fastarch as fa
from fastarch.estimators import DBN, RBM, DBNClassifier, DBNRegressor, partition
from fastarch.estimators.rows import Rows
from fastarch.estimators.stack import transpose


def binary(rng, n, d, p=0.4):
    return (rng.random((n, d)) < p).astype(np.float64)


def all_states(n):
    return np.concatenate(list(partition.states(n)))


def shaken(dbn, rng):
    """The same network with weights that matter, the ways up and down apart."""
    for machine in dbn.rbms_:
        for array in machine._learnt():
            array[...] = rng.normal(0, 0.7, array.shape)
    for w, bias in (*dbn.up_, *dbn.down_):
        w[...] = rng.normal(0, 0.7, w.shape)
        bias[...] = rng.normal(0, 0.7, bias.shape)
    return dbn


# Likelihood


def test_a_transposed_second_layer_leaves_the_likelihood_as_it_was(rng):
    x = binary(rng, 50, 6)
    one = DBN((4,), n_epochs=10, batch_size=10, random_state=0).fit(x)
    two = DBN((4, 6), start="transpose", n_epochs=10, batch_size=10, random_state=0)
    two.rbms_ = [one.rbms_[0], RBM(6, n_epochs=1, random_state=1)]
    two.rbms_[1].n_features_in_ = 4
    two.rbms_[1]._prepare(Rows(one.transform(x)), "fit")
    transpose(two.rbms_[0], two.rbms_[1])
    two.n_features_in_, two._seed_, two._offset_ = 6, 0, 0
    first = two.rbms_[0]
    two.up_, two.down_ = [[first.w_, first.b_hidden_]], [[first.w_, first.b_visible_]]
    v = all_states(6)
    np.testing.assert_allclose(two.log_likelihood(v), one.log_likelihood(v), atol=1e-12)
    np.testing.assert_allclose(one.log_likelihood(v), first.log_likelihood(v), atol=1e-12)


def test_start_transpose_is_what_fit_starts_from(rng):
    x = binary(rng, 30, 6)
    # At a rate of next to nothing the machines stay what they start as.
    dbn = DBN((4, 6, 4), start="transpose", n_epochs=3, learning_rate=1e-300, random_state=0).fit(x)
    np.testing.assert_array_equal(dbn.rbms_[1].w_, dbn.rbms_[0].w_.T)
    np.testing.assert_array_equal(dbn.rbms_[1].b_hidden_, dbn.rbms_[0].b_visible_)
    np.testing.assert_array_equal(dbn.rbms_[2].w_, dbn.rbms_[1].w_.T)
    other = DBN((4, 5), start="transpose", n_epochs=1, random_state=0).fit(x)  # sizes do not allow it
    assert other.rbms_[1].w_.shape == (4, 5)


@pytest.mark.parametrize("sizes", [(3,), (4, 3), (3, 4, 2)])
def test_log_likelihood_is_the_sum_over_all_hidden_states(rng, sizes):
    """By nested sums over the joint distribution, from the definition."""
    dbn = shaken(DBN(sizes, n_epochs=1, random_state=0).fit(binary(rng, 20, 5)), rng)
    v = all_states(5)
    top = dbn.rbms_[-1]
    joint = np.exp(-top.free_energy(all_states(len(top.b_visible_))))
    p = joint / joint.sum()
    for w, bias in reversed(dbn.down_):
        above, below = all_states(w.shape[1]), all_states(w.shape[0])
        mean = 1 / (1 + np.exp(-(above @ w.T + bias)))
        given = np.prod(np.where(below[:, None] == 1, mean[None], 1 - mean[None]), axis=2)
        p = given @ p
    np.testing.assert_allclose(np.exp(dbn.log_likelihood(v)), p, rtol=1e-9)
    assert p.sum() == pytest.approx(1)


def test_the_lower_bound_is_below_the_likelihood(rng):
    dbn = DBN((5, 4), n_epochs=20, batch_size=10, learning_rate=0.5, random_state=0).fit(binary(rng, 60, 6))
    v = all_states(6)
    exact, bound = dbn.log_likelihood(v), dbn.lower_bound(v, n_samples=400)
    gap = (exact - bound).mean()
    assert 0 < gap < 1
    assert (bound - exact).max() < 0.2  # an estimate of 400 samples
    assert np.array_equal(bound, dbn.lower_bound(v, n_samples=400))


def test_samples_follow_the_distribution(rng):
    dbn = shaken(DBN((4, 3), n_epochs=1, random_state=0).fit(binary(rng, 20, 4)), rng)
    expected = np.exp(dbn.log_likelihood(all_states(4)))
    drawn = dbn.sample(20000, steps=60)
    share = np.bincount((drawn @ (1 << np.arange(4))).astype(int), minlength=16) / len(drawn)
    assert len(drawn) * ((share - expected) ** 2 / expected).sum() < 44.3  # 15 degrees, one in 10,000
    means = dbn.sample(20000, steps=60, mean=True)
    np.testing.assert_allclose(means.mean(0), drawn.mean(0), atol=0.02)


def test_up_and_down_raises_the_likelihood(rng):
    x = np.repeat(binary(rng, 6, 8, 0.5), 40, 0)
    x = np.where(rng.random(x.shape) < 0.05, 1 - x, x)
    options = {"n_epochs": 20, "batch_size": 20, "learning_rate": 0.3, "random_state": 0}
    before = DBN((8, 8), **options).fit(x)
    after = DBN((8, 8), up_down_epochs=60, up_down_rate=0.1, **options).fit(x)
    assert after.log_likelihood(x).mean() > before.log_likelihood(x).mean() + 0.05
    assert len(after.history_) == 2 * 20 + 60
    assert not np.array_equal(after.up_[0][0], after.down_[0][0])


# The network


@pytest.mark.parametrize("up_down_epochs", [0, 2])
@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_exported_network_is_transform_bit_for_bit(rng, visible, dtype, up_down_epochs):
    x = rng.random((70, 12)).astype(dtype)
    dbn = DBN((9, 7, 5), visible=visible, n_epochs=2, up_down_epochs=up_down_epochs, random_state=0).fit(x)
    network = dbn.to_sequential()
    np.testing.assert_array_equal(network(fa.tensor(x)).data, dbn.transform(x))
    assert [m.activation for m in network] == ["sigmoid"] * 3
    network[0].weight.data[...] = 0  # a copy: the estimator keeps its own
    assert abs(dbn.rbms_[0].w_).max() > 0
    h = x
    for machine in dbn.rbms_:
        h = machine.transform(h)
    if not up_down_epochs:
        np.testing.assert_allclose(dbn.transform(x), h, atol=1e-5 if dtype == "float32" else 1e-12)


def test_the_exported_classifier_gives_the_logits(rng):
    x, y = rng.random((60, 8)), np.arange(60) % 3
    model = DBNClassifier((6, 5), n_epochs=1, fine_tune_epochs=3, random_state=0).fit(x, y)
    logits = model.to_sequential()(fa.tensor(x)).data
    np.testing.assert_array_equal(logits, model.decision_function(x))
    np.testing.assert_array_equal(model.classes_[logits.argmax(1)], model.predict(x))
    np.testing.assert_array_equal(model.to_sequential()[:-1](fa.tensor(x)).data, model.transform(x))
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)


def test_fine_tuning_learns_and_is_recorded(rng):
    x = rng.random((120, 10))
    y = np.where(x[:, :5].sum(1) > x[:, 5:].sum(1), "left", "right")
    model = DBNClassifier((20, 20), n_epochs=3, fine_tune_epochs=150, fine_tune_rate=0.01, random_state=0)
    assert model.fit(x, y).score(x, y) > 0.97
    layers = [record.get("layer") for record in model.history_]
    assert layers == [1] * 3 + [2] * 3 + [None] * 150
    assert model.history_[-1]["loss"] < 0.3 * model.history_[6]["loss"]


def test_regression_of_two_targets(rng):
    x = rng.normal(size=(200, 5))
    y = np.stack([x[:, 0] - x[:, 1], 100 + 10 * x[:, 2]], 1)
    model = DBNRegressor((30, 20), n_epochs=2, fine_tune_epochs=150, fine_tune_rate=0.01, random_state=0)
    assert model.fit(x, y).score(x, y) > 0.9
    assert model.predict(x).shape == (200, 2)
    single = model.fit(x, y[:, 0])
    assert single.predict(x).shape == (200,)
    constant = model.set_params(fine_tune_epochs=2).fit(x, np.full(200, 7.0))
    np.testing.assert_allclose(constant.predict(x), 7.0, atol=2)


def test_visible_units_are_chosen_by_the_data(rng):
    x = rng.random((40, 5))
    assert isinstance(DBN((3,), n_epochs=1).fit(x).rbms_[0], RBM)
    assert not isinstance(DBN((3,), n_epochs=1).fit(x * 2).rbms_[0], RBM)
    with pytest.warns(UserWarning, match="X ranges from"):
        DBN((3,), visible="bernoulli", n_epochs=1).fit(x * 2)
    gaussian = DBN((6, 4), n_epochs=3, random_state=0).fit(rng.normal(5, 3, (80, 5)))
    assert np.isfinite(gaussian.lower_bound(rng.normal(5, 3, (10, 5)))).all()
    assert gaussian.sample(300, 20).mean() == pytest.approx(5, abs=1)
    with pytest.raises(ValueError, match=r"\[DBN.log_likelihood\] expected Bernoulli visible units"):
        gaussian.log_likelihood(np.zeros((1, 5)))


def test_unlabelled_samples_take_part_in_pretraining_alone(rng):
    sparse = pytest.importorskip("scipy.sparse")
    x, more, y = binary(rng, 30, 6), binary(rng, 50, 6), np.arange(30) % 2
    model = DBNClassifier((5,), n_epochs=2, fine_tune_epochs=2, random_state=0)
    alone = model.fit(x, y).rbms_[0].w_.copy()
    together = model.fit(x, y, unlabelled=more).rbms_[0].w_.copy()
    assert not np.array_equal(alone, together)
    everything = RBM(5, n_epochs=2, random_state=1).fit(np.concatenate([x, more]))
    np.testing.assert_array_equal(together, everything.w_)
    of_sparse = model.fit(sparse.csr_matrix(x), y, unlabelled=sparse.csr_matrix(more))
    np.testing.assert_array_equal(of_sparse.rbms_[0].w_, together)
    with pytest.raises(ValueError, match=r"\[DBNClassifier.fit\] unlabelled has 5 features, X has 6"):
        model.fit(x, y, unlabelled=more[:, :5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_layer_sizes": ()}, r"hidden_layer_sizes is \(\), expected sizes"),
        ({"hidden_layer_sizes": 20}, "hidden_layer_sizes is 20"),
        ({"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes is 0"),
        ({"visible": "softmax"}, "visible is 'softmax'"),
        ({"start": "warm"}, "start is 'warm'"),
        ({"n_epochs": -1}, "n_epochs is -1"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"gaussian_rate": -1}, "gaussian_rate is -1"),
        ({"up_down_epochs": -1}, "up_down_epochs is -1"),
        ({"up_down_rate": 0}, "up_down_rate is 0"),
        ({"up_down_epochs": 1, "hidden_layer_sizes": (3,)}, "one layer alone has no way up and down"),
    ],
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=r"\[DBN.fit\] .*" + message):
        DBN(**options).fit(np.zeros((4, 3)))


def test_one_sample_constant_columns_and_no_pretraining(rng):
    for x in (np.zeros((1, 4)), np.ones((5, 4)), np.full((5, 4), 7.0)):
        dbn = DBN((4, 3), n_epochs=2, up_down_epochs=2, random_state=0).fit(x)
        for result in (dbn.transform(x), dbn.reconstruct(x), dbn.sample(2, 3), dbn.lower_bound(x)):
            assert np.isfinite(result).all()
    untrained = DBN((4, 3), n_epochs=0, random_state=0).fit(binary(rng, 5, 4))
    assert untrained.history_ == []
    assert untrained.rbms_[0].w_.std() == pytest.approx(0.5, rel=0.5)
    turned = DBN((4, 4, 4), start="transpose", n_epochs=0, random_state=0).fit(binary(rng, 5, 4))
    for below, above in zip(turned.rbms_, turned.rbms_[1:]):
        np.testing.assert_array_equal(above.w_, below.w_.T)  # scaled once, at the bottom
