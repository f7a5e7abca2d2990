"""The machine for ratings: what it predicts of ratings it never saw, and how missing ones come in."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from fastarch.estimators import RatingRBM


def ratings(rng, users=300, items=30, known=0.5):
    """(all ratings 1 to 5 of a low-rank taste, those that are known)."""
    taste = rng.normal(size=(users, 2)) @ rng.normal(size=(2, items))
    full = np.clip(np.round(3.3 + 0.8 * taste + 0.3 * rng.normal(size=taste.shape)), 1, 5)
    return full, rng.random(full.shape) < known


def rmse(a, b):
    return math.sqrt(((a - b) ** 2).mean())


def test_withheld_ratings_are_predicted(rng):
    full, known = ratings(rng)
    held = known & (rng.random(known.shape) < 0.2)
    seen = np.where(known & ~held, full, np.nan)
    model = RatingRBM(40, n_epochs=40, random_state=0).fit(seen)
    predicted = model.predict_ratings(seen)
    assert predicted.shape == full.shape
    assert predicted.min() >= 1
    assert predicted.max() <= 5
    of_item = np.broadcast_to(np.nanmean(seen, 0), full.shape)
    assert rmse(predicted[held], full[held]) < 0.7 * rmse(of_item[held], full[held])
    p = model.rating_probabilities(seen)
    np.testing.assert_allclose(p.sum(2), 1, rtol=1e-6)
    np.testing.assert_allclose(p @ model.levels_, predicted, rtol=1e-6)
    np.testing.assert_array_equal(model.levels_, [1, 2, 3, 4, 5])


def test_sparse_entries_that_are_not_stored_are_missing(rng):
    sparse = pytest.importorskip("scipy.sparse")
    full, known = ratings(rng, 40, 8)
    full[full == 1] = 0  # a rating of zero that is stored is a rating
    known[5] = False  # a user without ratings
    rows, columns = np.nonzero(known)
    matrix = sparse.csr_matrix((full[rows, columns], (rows, columns)), shape=full.shape)
    assert matrix.nnz == known.sum()
    dense = np.where(known, full, np.nan)
    a, b = (RatingRBM(5, n_epochs=3, random_state=0).fit(x) for x in (dense, matrix))
    np.testing.assert_array_equal(a.levels_, [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(a.w_, b.w_)
    np.testing.assert_array_equal(a.predict_ratings(dense), b.predict_ratings(matrix))
    np.testing.assert_array_equal(a.score_samples(dense), b.score_samples(matrix))
    assert a.score_samples(dense)[5] == 0


def test_an_item_that_nobody_rated_learns_nothing(rng):
    full, known = ratings(rng, 50, 6)
    x = np.where(known, full, np.nan)
    x[:, 2] = np.nan
    model = RatingRBM(4, n_epochs=3, weight_decay=0.0, random_state=0).fit(x)
    start = RatingRBM(4, n_epochs=1, weight_decay=0.0, learning_rate=1e-300, random_state=0).fit(x)
    np.testing.assert_array_equal(model.w_[10:15], start.w_[10:15])
    assert np.isfinite(model.predict_ratings(x)).all()


def test_what_was_rated_tells_of_what_was_liked(rng):
    """Users rate what they like, and where all their ratings are withheld, `rated` still tells it."""
    kind = rng.integers(0, 2, 300)
    likes = np.where(np.arange(12) % 2 == kind[:, None], 5.0, 1.0)
    rated = rng.random(likes.shape) < np.where(likes == 5, 0.8, 0.2)
    x = np.where(rated, likes, np.nan)
    x[::3] = np.nan  # rated, and withheld
    model = RatingRBM(10, conditional=True, n_epochs=40, random_state=0).fit(x, rated=rated)
    hidden = np.arange(300) % 3 == 0
    told = model.predict_ratings(x, rated=rated)
    untold = model.predict_ratings(x)
    assert rmse(told[hidden], likes[hidden]) < 0.7 * rmse(untold[hidden], likes[hidden])
    assert model.transform(x, rated=rated).shape == (300, 10)
    assert set(np.unique(model.sample(5, 10))) <= {1.0, 5.0}
    everything = np.exp(model.log_likelihood(likes[:1], log_z=model.log_partition()))
    assert 0 < everything[0] < 1


@pytest.mark.parametrize("conditional", [False, True])
def test_the_likelihood_is_a_distribution(rng, conditional):
    full = rng.integers(1, 4, (60, 4)).astype(float)
    model = RatingRBM(3, conditional=conditional, n_epochs=10, random_state=0).fit(full)
    states = np.stack(np.meshgrid(*[[1.0, 2.0, 3.0]] * 4), -1).reshape(-1, 4)
    assert np.exp(model.log_likelihood(states)).sum() == pytest.approx(1)
    estimate = model.ais(n_chains=50, betas=200)
    assert estimate.low <= model.log_partition() <= estimate.high


def test_many_levels_become_few_evenly_spaced_ones(rng):
    x = rng.uniform(-10, 10, (50, 4))
    x[0, 0], x[0, 1] = -10, 10
    with pytest.warns(UserWarning, match=r"\[RatingRBM.fit\] X has more than max_levels=5 different ratings"):
        model = RatingRBM(3, max_levels=5, n_epochs=2, random_state=0).fit(x)
    np.testing.assert_allclose(model.levels_, [-10, -5, 0, 5, 10])
    near, far = np.array([[-7.6, -7.4, 2.4, 99.0]]), np.array([[-10.0, -5.0, 0.0, 10.0]])
    np.testing.assert_array_equal(model.transform(near), model.transform(far))


def test_adversarial_ratings(rng):
    with pytest.raises(ValueError, match=r"\[RatingRBM.fit\] X holds no rating"):
        RatingRBM(3).fit(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="infinity"):
        RatingRBM(3).fit(np.array([[1.0, np.inf]]))
    with pytest.raises(ValueError, match=r"\[RatingRBM.fit\] rated is for conditional=True"):
        RatingRBM(3).fit(np.ones((4, 3)), rated=np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\[RatingRBM.fit\] rated has shape \(4, 2\), expected \(4, 3\)"):
        RatingRBM(3, conditional=True).fit(np.ones((4, 3)), rated=np.ones((4, 2)))
    with pytest.raises(ValueError, match="max_levels is 1"):
        RatingRBM(3, max_levels=1).fit(np.ones((4, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alike = RatingRBM(3, n_epochs=2).fit(np.full((4, 3), 4.0))
        np.testing.assert_array_equal(alike.predict_ratings(np.full((1, 3), np.nan)), 4)
        one = RatingRBM(3, n_epochs=2).fit(np.array([[1.0, np.nan, 5.0]]))
        assert np.isfinite(one.predict_ratings(np.full((2, 3), np.nan))).all()


def test_a_first_partial_fit_that_fails_leaves_it_unfitted(rng):
    full, _ = ratings(rng, 20, 5)
    model = RatingRBM(4, random_state=0)
    with pytest.raises(ValueError, match="X holds no rating"):
        model.partial_fit(np.full((20, 5), np.nan))
    assert not hasattr(model, "n_features_in_")
    model.partial_fit(full)
    expected = RatingRBM(4, random_state=0).partial_fit(full)
    np.testing.assert_array_equal(model.w_, expected.w_)


def test_partial_fit_keeps_the_levels(rng):
    full, known = ratings(rng, 60, 6)
    x = np.where(known, full, np.nan)
    model = RatingRBM(4, random_state=0).partial_fit(x[:30])
    model.partial_fit(np.where(np.isnan(x[30:]), np.nan, 3.0))
    np.testing.assert_array_equal(model.levels_, np.unique(x[:30][known[:30]]))
