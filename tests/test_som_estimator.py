"""The self-organizing map as an estimator: trainings, figures, labels, sparse and hostile data."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import fastarch as fa
from cases import som as definition
from fastarch.estimators import SOM
from fastarch.estimators.som import search, start

sparse = pytest.importorskip("scipy.sparse")


@pytest.fixture(scope="module")
def digits():
    data = fa.data.digits()
    return data.x.reshape(-1, 64), data.y


@pytest.fixture
def blobs(rng):
    """Three clusters of 60 samples in five dimensions, in random order, and their numbers."""
    y = rng.permutation(np.repeat([0, 1, 2], 60))
    return 6 * np.eye(3, 5)[y] + 0.3 * rng.standard_normal((180, 5)), y


def naive_error(x, codebook):
    return float(definition.som_bmu(x, codebook)[1].mean())


# Training


@pytest.mark.parametrize("algorithm", ["batch", "online"])
@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("toroidal", [False, True])
@pytest.mark.parametrize("neighborhood", ["gaussian", "bubble", "triangle", "mexican_hat"])
def test_every_kind_of_map_finds_clusters(algorithm, topology, toroidal, neighborhood, blobs):
    x, y = blobs
    radius = 1.5 if neighborhood == "mexican_hat" else None
    som = SOM((6, 7), topology=topology, toroidal=toroidal, algorithm=algorithm, neighborhood=neighborhood)
    som.set_params(radius=radius, n_epochs=12, random_state=3).fit(x)
    assert som.codebook_.shape == (42, 5)
    spread = float(np.linalg.norm(x - x.mean(axis=0), axis=1).mean())
    assert som.quantization_error_ < 0.35 * spread
    assert som.quantization_error_ == pytest.approx(naive_error(x, som.codebook_), rel=1e-9)
    assert (som.label(x, y).classify(x) == y).mean() == 1


@pytest.mark.parametrize("cooling", ["exponential", "linear", "asymptotic"])
def test_cooling_goes_from_the_first_to_the_last_value(cooling, blobs):
    som = SOM((5, 8), cooling=cooling, n_epochs=9, radius=5.0, final_radius=0.5).fit(blobs[0])
    radii = [record["radius"] for record in som.history_]
    assert radii[0] == pytest.approx(5)
    assert radii[-1] == pytest.approx(0.5)
    steps = np.diff(radii)
    assert (steps < 0).all()
    if cooling == "linear":
        np.testing.assert_allclose(steps, steps[0])
    elif cooling == "exponential":
        np.testing.assert_allclose(np.divide(radii[1:], radii[:-1]), radii[1] / radii[0])
    else:
        np.testing.assert_allclose(np.diff(1 / np.array(radii)), 1 / radii[1] - 1 / radii[0])
    assert [record["epoch"] for record in som.history_] == list(range(1, 10))


def test_the_batch_rule_has_no_learning_rate_to_cancel_out(blobs):
    """Where it took one, it would have to matter; it belongs to online training, where it does."""
    one, two = (SOM((4, 4), n_epochs=4, learning_rate=rate).fit(blobs[0]) for rate in (0.5, 0.05))
    np.testing.assert_array_equal(one.codebook_, two.codebook_)
    one, two = (
        SOM((4, 4), n_epochs=4, algorithm="online", learning_rate=rate, random_state=0).fit(blobs[0])
        for rate in (0.5, 0.05)
    )
    assert np.abs(one.codebook_ - two.codebook_).max() > 0.01


@pytest.mark.parametrize("algorithm", ["batch", "online"])
@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("f8", "f4")])
def test_partial_fit_goes_on_in_the_first_type(algorithm, dtypes, blobs):
    x, y = blobs
    first, second = (x.astype(dtype) for dtype in dtypes)
    som = SOM((4, 5), algorithm=algorithm, random_state=7).partial_fit(first).label(first, y)
    som.partial_fit(second)
    expected = SOM((4, 5), algorithm=algorithm, random_state=7).partial_fit(first)
    expected.partial_fit(second.astype(first.dtype))
    assert som.codebook_.dtype == first.dtype
    np.testing.assert_array_equal(som.codebook_, expected.codebook_)
    with pytest.raises(ValueError, match="the units have no labels yet"):
        som.classify(x)  # they moved


@pytest.mark.parametrize("algorithm", ["batch", "online"])
def test_partial_fits_are_one_fit(algorithm, blobs):
    x, _ = blobs
    options = {"algorithm": algorithm, "n_epochs": 5, "random_state": 7}
    whole, parts = SOM((4, 5), **options).fit(x), SOM((4, 5), **options)
    for _ in range(5):
        parts.partial_fit(x)
    np.testing.assert_array_equal(whole.codebook_, parts.codebook_)
    assert parts.history_ == whole.history_
    assert parts.n_epochs_ == 5
    parts.partial_fit(x[:20])  # stays cool
    assert parts.history_[-1]["radius"] == pytest.approx(whole.history_[-1]["radius"])


def test_an_online_epoch_is_the_naive_rule_in_that_order(blobs):
    x, _ = blobs
    som = SOM((3, 4), algorithm="online", n_epochs=2, random_state=5, init="sample", topology="hexagonal")
    som.fit(x)
    n = len(x)
    codebook = start.sample_codebook(x, 12, 5)
    for epoch in range(2):
        order = fa.random.permutation(n, 5, (1 << 32) + epoch)
        time = (epoch * n + np.arange(n)) / (2 * n - 1)
        rate, radius = 0.5 * (0.02 / 0.5) ** time, 2.0 * (0.7 / 2.0) ** time
        codebook, _ = definition.som_online_update(
            x[order], codebook, rate, radius, (3, 4), "gaussian", "hexagonal"
        )
    np.testing.assert_allclose(som.codebook_, codebook, rtol=1e-9)


def test_the_plane_along_the_principal_components(rng):
    """Each side of the map reaches one standard deviation: the root of the eigenvalue, not the eigenvalue."""
    x = rng.standard_normal((4000, 3)) * [5.0, 0.5, 2.0] + [10, -3, 7]
    som = SOM((5, 9), n_epochs=1)
    codebook = start.pca_codebook(x, som.grid, "rectangular", 0).reshape(5, 9, 3)
    _, lengths, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    deviations = lengths / math.sqrt(len(x))
    along, down = codebook[2, 8] - codebook[2, 0], codebook[4, 4] - codebook[0, 4]
    np.testing.assert_allclose(np.linalg.norm(along), 2 * deviations[0])
    np.testing.assert_allclose(np.linalg.norm(down), 2 * deviations[1])
    assert abs(along @ axes[0]) == pytest.approx(np.linalg.norm(along))
    assert abs(down @ axes[1]) == pytest.approx(np.linalg.norm(down))
    np.testing.assert_allclose(codebook[2, 4], x.mean(axis=0))


@pytest.mark.parametrize("shape", [(70, 60), (60, 70)])
def test_components_of_large_matrices(shape, rng, monkeypatch):
    monkeypatch.setattr(start, "_EXACT", 8)
    x = rng.standard_normal((shape[0], 2)) * [9, 5] @ rng.standard_normal((2, shape[1]))
    x += 0.1 * rng.standard_normal(shape)
    for given in (x, sparse.csr_matrix(x)):
        codebook = start.pca_codebook(given, (3, 3), "rectangular", 0)
        _, lengths, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        step = np.linalg.norm(codebook[5] - codebook[4]), np.linalg.norm(codebook[7] - codebook[4])
        np.testing.assert_allclose(np.sort(step)[::-1], lengths[:2] / math.sqrt(shape[0]), rtol=1e-6)


@pytest.mark.parametrize("init", ["random", "sample"])
def test_a_random_start_depends_on_the_seed_and_stays_within_the_data(init, blobs):
    x, _ = blobs
    draws = [
        getattr(start, f"{init}_codebook")(given, 300, seed)
        for given, seed in ((x, 1), (x, 1), (x, 2), (sparse.csr_matrix(x), 1))
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[3])
    assert (draws[0] != draws[2]).any()
    assert (draws[0] >= x.min(axis=0)).all()
    assert (draws[0] <= x.max(axis=0)).all()


def test_a_given_start_is_taken(blobs):
    x, _ = blobs
    codebook = np.arange(60.0).reshape(12, 5)
    som = SOM((3, 4), init=codebook, n_epochs=1, final_radius=1e-9).fit(x)
    found, _ = definition.som_bmu(x, codebook)
    for unit in range(12):
        want = x[found == unit].mean(axis=0) if (found == unit).any() else codebook[unit]
        np.testing.assert_allclose(som.codebook_[unit], want)
    with pytest.raises(ValueError, match=r"init has shape \(12, 4\), expected \(12, 5\)"):
        SOM((3, 4), init=codebook[:, :4]).fit(x)


# Figures of merit


def test_distances_are_the_definition(rng):
    x = rng.standard_normal((40, 7))
    som = SOM((4, 5), n_epochs=3).fit(x)
    x[5] = som.codebook_[3]
    far = som.transform(x)
    want = np.linalg.norm(x[:, None] - som.codebook_, axis=2)
    np.testing.assert_allclose(far, want, rtol=1e-12)
    assert far[5, 3] == 0
    np.testing.assert_array_equal(som.predict(x), want.argmin(axis=1))
    np.testing.assert_allclose(som.score_samples(x), -want.min(axis=1), rtol=1e-12)
    assert som.score(x) == -som.quantization_error(x)
    assert som.quantization_error(x) == pytest.approx(want.min(axis=1).mean())


@pytest.mark.parametrize("topology", ["rectangular", "hexagonal"])
@pytest.mark.parametrize("toroidal", [False, True])
def test_topographic_error_counts_pairs_that_are_no_neighbours(topology, toroidal, rng):
    x = rng.standard_normal((80, 3))
    som = SOM((4, 6), topology=topology, toroidal=toroidal, n_epochs=3, final_radius=0.3).fit(x)
    wrong = 0
    for row in x:
        first, second = np.argsort(np.linalg.norm(som.codebook_ - row, axis=1), kind="stable")[:2]
        d = definition.grid_distance(int(first), int(second), (4, 6), topology, toroidal)
        wrong += d > (1.001 if topology == "hexagonal" else 1.4143)
    assert som.topographic_error(x) == pytest.approx(wrong / 80)
    assert 0 < wrong < 80


def test_distances_between_units_wrap_around_a_torus():
    for topology in ("rectangular", "hexagonal"):
        for toroidal in (False, True):
            got = SOM((4, 5), topology=topology, toroidal=toroidal).unit_distances()
            want = [
                [definition.grid_distance(a, b, (4, 5), topology, toroidal) for b in range(20)]
                for a in range(20)
            ]
            np.testing.assert_allclose(got, want, atol=1e-12)


def test_the_map_as_pictures(blobs):
    x, y = blobs
    som = SOM((4, 7), n_epochs=4).fit(x)
    np.testing.assert_array_equal(som.component_planes()[3], som.codebook_[:, 3].reshape(4, 7))
    assert som.u_matrix().shape == (4, 7)
    hits = som.hit_map(x)
    assert hits.shape == (4, 7)
    assert hits.sum() == len(x)
    np.testing.assert_array_equal(np.bincount(som.labels_, minlength=28), hits.reshape(-1))
    som.label(x, np.array(["b", "a", "c"])[y])
    assert som.classes_.tolist() == ["a", "b", "c"]
    names = som.labels_map()
    assert ((names == -1) == (hits == 0)).all()
    assert set(som.classify(x)) == {"a", "b", "c"}


def test_majority_and_units_without_labels():
    codebook = np.array([[0.0], [1], [2], [3]])
    som = SOM((1, 4), init=codebook, final_radius=1e-9, n_epochs=1).fit(codebook)
    som.label([[0.1], [0.0], [-0.1], [2.9], [3.0]], [5, 7, 7, 9, 8])
    assert som.unit_labels_.tolist() == [1, -1, -1, 2]  # 7; none; none; 8 before 9
    assert som.unit_label_counts_.tolist() == [[1, 2, 0, 0], [0] * 4, [0] * 4, [0, 0, 1, 1]]
    assert som.classify([[0.9], [2.1], [1.4], [9.0]]).tolist() == [7, 8, 7, 8]
    with pytest.raises(ValueError, match=r"\[SOM.classify\] the units have no labels yet"):
        SOM((1, 4), n_epochs=1).fit(codebook).classify(codebook)


# Digits


def test_digits_are_laid_out_by_their_kind(digits):
    x, y = digits
    som = SOM((20, 20)).fit(x)
    assert som.quantization_error_ < 1.05
    assert som.topographic_error(x) < 0.08
    som.label(x[::2], y[::2])
    assert (som.classify(x[1::2]) == y[1::2]).mean() > 0.93


# Sparse data


@pytest.mark.parametrize("algorithm", ["batch", "online"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [12, 400])
def test_sparse_data_train_the_same_map(algorithm, dtype, features, rng):
    x = sparse.random(150, features, 0.03, "csr", rng=rng, dtype=dtype)
    x = x.multiply(np.arange(150)[:, None] % 9 > 0).tocsr().astype(dtype)
    x.eliminate_zeros()
    assert x.getnnz(axis=1).min() == 0  # rows without any entry
    options = {"algorithm": algorithm, "n_epochs": 3, "random_state": 1, "init": "sample"}
    dense, same = SOM((4, 4), **options).fit(x.toarray()), SOM((4, 4), **options).fit(x)
    tolerance = 1e-4 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(same.codebook_, dense.codebook_, rtol=tolerance, atol=tolerance)
    assert same.codebook_.dtype == dtype
    np.testing.assert_allclose(
        same.transform(x), dense.transform(x.toarray()), rtol=tolerance, atol=tolerance
    )
    np.testing.assert_array_equal(dense.predict(x), dense.predict(x.toarray()))
    assert dense.topographic_error(x) == dense.topographic_error(x.toarray())


def test_the_sparse_search_does_not_believe_rounding(rng):
    """Units that differ by less than float32 products can tell."""
    x = sparse.random(200, 500, 0.02, "csr", rng=rng, dtype=np.float32)
    w = np.repeat(x[:20].toarray(), 2, axis=0)
    w[1::2] += rng.standard_normal((20, 500)).astype(np.float32) * 1e-7
    index, distance = search.best_units(x, w)
    want = search.best_units(x.toarray(), w)
    np.testing.assert_array_equal(index, want[0])
    np.testing.assert_allclose(distance, want[1], rtol=1e-6)


# Hostile data


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_what_is_not_finite_is_refused(value, as_sparse):
    x = np.eye(6)
    x[2, 3] = value
    with pytest.raises(ValueError, match=r"\[SOM.fit\] X contains (NaN|infinity)"):
        SOM().fit(sparse.csr_matrix(x) if as_sparse else x)


@pytest.mark.parametrize("algorithm", ["batch", "online"])
@pytest.mark.parametrize("init", ["pca", "random", "sample"])
@pytest.mark.parametrize(
    "x",
    [
        np.ones((1, 3)),
        np.full((9, 4), 2.5),
        np.column_stack([np.arange(9.0), np.full(9, 7.0)]),
        np.arange(5.0)[:, None],
        1e30 * np.eye(5, dtype=np.float32),
        1e-30 * np.eye(5, dtype=np.float32),
        np.zeros((4, 2)),
    ],
    ids=["one sample", "all alike", "constant column", "one feature", "huge", "tiny", "zeros"],
)
def test_odd_data_give_a_finite_map(algorithm, init, x):
    som = SOM((3, 3), algorithm=algorithm, init=init, n_epochs=3, random_state=0).fit(x)
    assert np.isfinite(som.codebook_).all()
    assert som.codebook_.dtype == x.dtype
    assert abs(som.codebook_).max() <= 1.5 * abs(x).max()
    assert np.isfinite(som.transform(x)).all()
    if len(x) == 1:
        np.testing.assert_allclose(som.codebook_[som.labels_[0]], x[0])


def test_sums_that_overflow_are_an_error():
    x = np.full((4, 3), 1.5e308)
    x[0] = -1e308
    with pytest.raises(ValueError, match=r"\[SOM.fit\] the codebook is no longer finite in float64"):
        SOM((2, 2), init="sample", n_epochs=2, random_state=0).fit(x)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"grid": 5}, r"grid is 5, expected \(rows, columns\)"),
        ({"grid": (3, 0)}, "columns is 0"),
        ({"topology": "round"}, "topology is 'round'"),
        ({"toroidal": 1}, "toroidal is 1"),
        ({"grid": (3, 4), "topology": "hexagonal", "toroidal": True}, "grid has 3 rows, expected an even"),
        ({"algorithm": "sgd"}, "algorithm is 'sgd'"),
        ({"neighborhood": "cone"}, "neighborhood is 'cone'"),
        ({"n_epochs": 0}, "n_epochs is 0"),
        ({"radius": 0}, "radius is 0"),
        ({"final_radius": -1.0}, "final_radius is -1"),
        ({"learning_rate": np.nan}, "learning_rate is nan"),
        ({"cooling": "none"}, "cooling is 'none'"),
        ({"init": "zeros"}, "init is 'zeros'"),
        ({"init": None}, "init"),
    ],
)
def test_bad_parameters(options, match):
    for method in ("fit", "partial_fit"):
        with pytest.raises((ValueError, TypeError), match=rf"^\[SOM\.{method}\] .*{match}"):
            getattr(SOM(**options), method)(np.eye(4))


# As an object


def test_pickle_and_file_keep_labels_too(blobs, tmp_path):
    x, y = blobs
    som = SOM((4, 4), n_epochs=3, topology="hexagonal").fit(x).label(x, y)
    som.save(tmp_path / "som.safetensors")
    for copy in (pickle.loads(pickle.dumps(som)), SOM.load(tmp_path / "som.safetensors")):
        np.testing.assert_array_equal(copy.codebook_, som.codebook_)
        np.testing.assert_array_equal(copy.classify(x), som.classify(x))
        assert copy.grid == (4, 4)
        assert copy.topographic_error(x) == som.topographic_error(x)


def test_progress_tells_the_quantization_error(blobs, capsys):
    SOM((3, 3), n_epochs=2, verbose=1).fit(blobs[0])
    shown = capsys.readouterr().err
    assert "epoch 1/2" in shown
    assert "quantization error" in shown
