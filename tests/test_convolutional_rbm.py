"""The convolutional machine: its blocks and energies against sums over all states, and what it learns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import fastarch as fa
from fastarch.estimators import ConvolutionalRBM
from fastarch.estimators.partition import states


def tiny(rng, shape=(1, 4, 3), filters=2, kernel=2, pool=2, **options):
    """A machine with weights that matter."""
    options = {"n_epochs": 1, "random_state": 0, **options}
    model = ConvolutionalRBM(filters, image_shape=shape, kernel_size=kernel, pool_size=pool, **options)
    model.fit((rng.random((6, math.prod(shape))) < 0.5).astype(float))
    model.w_[...] = rng.normal(size=model.w_.shape)
    model.b_hidden_[...] = rng.normal(size=filters)
    return model


def block_states(model):
    """All hidden configurations [K, P, Q], by their blocks: at most one unit of each is on."""
    P, Q = model._places()
    p, q = model._pool()
    corners = [(k, i, j) for k in range(len(model.b_hidden_)) for i in range(0, P, p) for j in range(0, Q, q)]
    units = [None, *itertools.product(range(p), range(q))]
    for choice in itertools.product(units, repeat=len(corners)):
        h = np.zeros((len(model.b_hidden_), P, Q))
        for (k, i, j), unit in zip(corners, choice):
            if unit is not None:
                h[k, i + unit[0], j + unit[1]] = 1
        yield h


def minus_energy(model, v, h):
    """From the definition, by loops. v [C, H, W], h [K, P, Q]."""
    total = (model.b_visible_[:, None, None] * v).sum()
    R, S = model.w_.shape[2:]
    for k, i, j in np.argwhere(h):
        total += model.b_hidden_[k] + (model.w_[k] * v[:, i : i + R, j : j + S]).sum()
    return total


@pytest.mark.parametrize("shape", [(1, 4, 3), (2, 3, 3), (1, 4, 4)])
def test_blocks_and_energies_are_sums_over_states(rng, shape):
    """(1, 4, 4) leaves a row and a column of hidden units outside of whole blocks."""
    model = tiny(rng, shape)
    for x in (rng.random((3, math.prod(shape))) < 0.5).astype(float):
        v = x.reshape(shape)
        hidden = list(block_states(model))
        weights = np.exp([minus_energy(model, v, h) for h in hidden])
        assert model.free_energy(x[None])[0] == pytest.approx(-math.log(weights.sum()), rel=1e-12)
        expected = np.tensordot(weights / weights.sum(), np.array(hidden), 1)
        came = model._hidden(v[None])[0][0]
        np.testing.assert_allclose(came, expected, atol=1e-12)
        p, q = model._pool()
        pooled = came.reshape(came.shape[0], came.shape[1] // p, p, came.shape[2] // q, q).sum((2, 4))
        np.testing.assert_allclose(model.transform(x[None])[0], pooled.ravel(), atol=1e-12)


def test_log_partition_is_the_sum_over_joint_states(rng):
    model = tiny(rng, (1, 3, 3))
    pictures = np.concatenate(list(states(9)))
    total = sum(
        math.exp(minus_energy(model, x.reshape(1, 3, 3), h)) for x in pictures for h in block_states(model)
    )
    assert model.log_partition() == pytest.approx(math.log(total), rel=1e-12)
    log_p = -model.free_energy(pictures) - model.log_partition()
    index, x = np.arange(512), pictures
    expected = np.zeros(512)
    for pixel in range(9):
        expected -= np.logaddexp(0, log_p[index ^ (1 << pixel)] - log_p)
    np.testing.assert_allclose(model.pseudo_likelihood(x), expected, rtol=1e-9)
    drawn = model.pseudo_likelihood(np.repeat(x[77:78], 4000, 0), n_units=1)
    assert abs(drawn.mean() - expected[77]) < 4 * drawn.std() / math.sqrt(4000)


def test_samples_follow_the_distribution(rng):
    model = tiny(rng, (1, 2, 3), filters=1, pool=1)
    model.w_ *= 0.7
    pictures = np.concatenate(list(states(6)))
    expected = np.exp(-model.free_energy(pictures) - model.log_partition())
    drawn = model.sample(20000, steps=60)
    share = np.bincount((drawn @ (1 << np.arange(6))).astype(int), minlength=64) / len(drawn)
    assert len(drawn) * ((share - expected) ** 2 / expected).sum() < 111.1  # 63 degrees, one in 10,000
    p, h = model._hidden(np.repeat(pictures[11].reshape(1, 1, 2, 3), 5000, 0), sampled=True)
    np.testing.assert_allclose(h.mean(0), p[0], atol=4 * 0.5 / math.sqrt(5000))


def test_at_most_one_unit_of_a_block_is_on(rng):
    model = tiny(rng, (1, 8, 8), kernel=3)
    v = (rng.random((20, 1, 8, 8)) < 0.5).astype(float)
    p, h = model._hidden(v, sampled=True)
    assert p.shape == h.shape == (20, 2, 6, 6)
    count = h.reshape(20, 2, 3, 2, 3, 2).sum((3, 5))
    assert set(np.unique(count)) == {0.0, 1.0}


def test_a_step_follows_the_likelihood(rng):
    """The exact gradient of the data's part, by differences of the free energy."""
    model = tiny(rng, (1, 4, 4), kernel=2, pool=2)
    x = (rng.random((5, 16)) < 0.5).astype(float)
    v = x.reshape(5, 1, 4, 4)
    came = model._correlate(model._hidden(v)[0], v) / 5
    expected = np.zeros_like(model.w_)
    for index in np.ndindex(model.w_.shape):
        kept = model.w_[index]
        sides = []
        for move in (1e-5, -1e-5):
            model.w_[index] = kept + move
            sides.append(-model.free_energy(x).mean())
        model.w_[index] = kept
        expected[index] = (sides[0] - sides[1]) / 2e-5
    np.testing.assert_allclose(came, expected, atol=1e-8)


def test_it_learns_and_finds_edges_wherever_they_are(rng):
    """Bars at random places: the pseudo-likelihood rises, and a shifted picture has shifted features."""
    x = np.zeros((200, 8, 8))
    for picture, place, upright in zip(x, rng.integers(0, 8, 200), rng.random(200) < 0.5):
        if upright:
            picture[:, place] = 1
        else:
            picture[place] = 1
    x = x.reshape(200, 64)
    model = ConvolutionalRBM(4, kernel_size=3, pool_size=2, n_epochs=15, learning_rate=1.0, random_state=0)
    start = model.set_params(n_epochs=1, learning_rate=1e-9).fit(x).score(x)
    model.set_params(n_epochs=15, learning_rate=1.0).fit(x)
    assert model.score(x) > start + 3
    assert model.history_[-1]["reconstruction_error"] < model.history_[0]["reconstruction_error"]
    picture = np.zeros((8, 8))
    picture[2:5, 2:5] = 1
    shifted = np.roll(picture, 2, 1)
    a, b = model.transform(np.stack([picture.ravel(), shifted.ravel()])).reshape(2, 4, 3, 3)
    np.testing.assert_allclose(a[:, :, :-1], b[:, :, 1:], atol=1e-12)


def test_sparsity_target_persistent_chains_and_gaussian_pixels(rng):
    x = fa.data.digits().x.reshape(-1, 64)[:300]
    sparse = ConvolutionalRBM(
        6, kernel_size=3, persistent=True, sparsity_target=0.05, n_epochs=8, learning_rate=0.5, random_state=0
    ).fit(x)
    assert sparse.history_[-1]["hidden_activity"] == pytest.approx(0.05, abs=0.02)
    gaussian = ConvolutionalRBM(6, kernel_size=3, visible="gaussian", learning_rate=0.1, random_state=0).fit(
        x * 9
    )
    assert gaussian.history_[-1]["reconstruction_error"] < gaussian.history_[0]["reconstruction_error"]
    assert np.isfinite(gaussian.sample(2, 5)).all()
    np.testing.assert_allclose(gaussian.reconstruct(x * 9).mean(), (x * 9).mean(), rtol=0.1)
    with pytest.raises(ValueError, match="visible units are gaussian"):
        gaussian.score_samples(x * 9)


def test_shapes_are_settled(rng):
    x = (rng.random((7, 30)) < 0.5).astype(float)
    row = ConvolutionalRBM(2, n_epochs=1).fit(x)
    assert row.image_shape_ == (1, 1, 30)
    assert row.w_.shape == (2, 1, 1, 5)
    assert row.transform(x).shape == (7, 2 * 13)
    colour = ConvolutionalRBM(2, image_shape=(3, 5, 2), kernel_size=(2, 1), pool_size=2, n_epochs=1).fit(x)
    assert colour.w_.shape == (2, 3, 2, 1)
    assert colour.transform(x).shape == (7, 2 * 2 * 1)
    one = ConvolutionalRBM(2, image_shape=(5, 6), n_epochs=1).fit(x[:1])
    assert np.isfinite(one.transform(x)).all()
    assert len(one.get_feature_names_out()) == one.transform(x).shape[1]


def test_pictures_may_come_as_such(rng):
    x = (rng.random((9, 2, 5, 4)) < 0.5).astype(float)
    options = {"kernel_size": 2, "n_epochs": 2, "random_state": 0}
    of_pictures = ConvolutionalRBM(3, **options).fit(x)
    of_rows = ConvolutionalRBM(3, image_shape=(2, 5, 4), **options).fit(x.reshape(9, -1))
    assert of_pictures.image_shape_ == of_rows.image_shape_ == (2, 5, 4)
    np.testing.assert_array_equal(of_pictures.transform(x), of_rows.transform(x.reshape(9, -1)))
    with pytest.raises(ValueError, match=r"transform\] X has pictures of \(2, 4, 5\), expected \(2, 5, 4\)"):
        of_pictures.transform(x.transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match=r"fit\] X has pictures of \(2, 5, 4\), expected \(2, 4, 5\)"):
        ConvolutionalRBM(3, image_shape=(2, 4, 5)).fit(x)
    again = of_pictures.fit(x.reshape(9, 40)[:, :36])  # a fit forgets the shape of an earlier one
    assert again.image_shape_ == (1, 6, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (5, 5)}, r"X has 30 features, expected 25 of \(5, 5\) pictures"),
        ({"image_shape": 30}, r"image_shape is 30, expected \(H, W\) or \(C, H, W\)"),
        ({"image_shape": (0, 30)}, "image_shape is 0"),
        ({"kernel_size": (1, 2, 3)}, r"kernel_size is \(1, 2, 3\), expected one number or two"),
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"pool_size": 0}, "pool_size is 0"),
        ({"visible": "softmax"}, "visible is 'softmax'"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=r"\[ConvolutionalRBM.fit\] " + message):
        ConvolutionalRBM(2, **options).fit(np.zeros((3, 30)))


def test_constant_pictures_and_values_outside(rng):
    for value in (0.0, 1.0):
        model = ConvolutionalRBM(2, n_epochs=2, random_state=0).fit(np.full((4, 16), value))
        assert np.isfinite(model.transform(np.zeros((1, 16)))).all()
        assert np.isfinite(model.score_samples(np.full((4, 16), value))).all()
    with pytest.warns(UserWarning, match=r"\[ConvolutionalRBM.fit\] X ranges from 0 to 255"):
        ConvolutionalRBM(2, n_epochs=1).fit(np.array([[0.0, 255.0, 3.0, 7.0]]))
    far = ConvolutionalRBM(2, n_epochs=1, visible="gaussian").fit(1e6 + 0.1 * rng.standard_normal((50, 16)))
    assert far.scale_[0] == pytest.approx(0.1, rel=0.1)
    flat = ConvolutionalRBM(2, n_epochs=1, visible="gaussian").fit(np.full((3, 9), 7.0))
    assert np.isfinite(flat.reconstruct(np.full((3, 9), 7.0))).all()
