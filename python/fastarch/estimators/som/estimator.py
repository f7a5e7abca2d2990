"""Self-organizing map: an estimator that lays data out on a grid of units, similar samples close together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastarch import ops, random
from fastarch.arrays import Array
from fastarch.estimators import validation
from fastarch.estimators.base import Estimator, array_module
from fastarch.estimators.mixins import Clusterer, Transformer
from fastarch.estimators.som import esom, search, start
from fastarch.estimators.validation import is_sparse
from fastarch.ops.som import NEIGHBORHOODS, TOPOLOGIES

Self = TypeVar("Self", bound="SOM")

_COOLINGS = ("exponential", "linear", "asymptotic")
_STARTS = ("pca", "random", "sample")
_STEP_ROWS = 1024  # of an online pass between two looks at the progress
_ORDER = 1 << 32  # the first Philox offset of the orders of samples; those below start the codebook


class SOM(Transformer, Clusterer, Estimator):
    """Self-organizing map. Kohonen, "Self-organized formation of topologically correct feature maps" (1982).

    grid: (rows, columns) of the map. topology: "rectangular" or "hexagonal"; toroidal: whether opposite edges
    meet. algorithm: "batch", where every epoch makes each unit the mean of the data around it, or "online",
    Kohonen's rule in random order. neighborhood: "gaussian", "bubble", "triangle" or "mexican_hat" (see
    fa.ops.som_batch_update), whose negative weights push units away, but never out of the range of X's
    features. radius: of the first epoch, on the grid, half the map's longer side when None;
    final_radius: of the last one. learning_rate, final_learning_rate: of online training. cooling: how both
    get from the first to the last value, "exponential", "linear" or "asymptotic" (as 1 / t).
    init: "pca" (a plane along the two largest components), "random" (anywhere in the data's range), "sample",
    or an array [M, D].

    Learnt: codebook_ [M, D], units row by row; labels_ [N], the unit of each sample of fit; history_;
    quantization_error_; n_epochs_, the rounds so far. Takes dense arrays and CSR matrices.
    """

    _sparse = True

    def __init__(
        self,
        grid: tuple[int, int] = (10, 10),
        *,
        topology: str = "rectangular",
        toroidal: bool = False,
        algorithm: str = "batch",
        neighborhood: str = "gaussian",
        n_epochs: int = 30,
        radius: float | None = None,
        final_radius: float = 0.7,
        learning_rate: float = 0.5,
        final_learning_rate: float = 0.02,
        cooling: str = "exponential",
        init: Any = "pca",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.grid = grid
        self.topology = topology
        self.toroidal = toroidal
        self.algorithm = algorithm
        self.neighborhood = neighborhood
        self.n_epochs = n_epochs
        self.radius = radius
        self.final_radius = final_radius
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.cooling = cooling
        self.init = init
        self.random_state = random_state
        self.verbose = verbose

    # Training

    def fit(self: Self, X: Any, y: Any = None) -> Self:
        """Trains a new map on X [N, D]. y is ignored; `label` takes the labels of a trained map."""
        self._check_parameters("fit")
        x, _ = self._input(X, "fit", reset=True)
        self._start(x, "fit")
        self._train(x, "fit", self.n_epochs)
        self._finish(x)
        return self

    def partial_fit(self: Self, X: Any, y: Any = None) -> Self:
        """Trains one epoch on X [N, D]: the first call starts the map, the following ones go on with it.

        The n-th call cools as the n-th epoch of fit, and from n_epochs on stays there, so that n_epochs calls
        with the same X are one fit. On a stream use algorithm="online": a batch epoch keeps nothing of the
        data before.
        """
        self._check_parameters("partial_fit")
        first = not self.__sklearn_is_fitted__()
        x, _ = self._input(X, "partial_fit", reset=first)
        if first:
            self._start(x, "partial_fit")
        else:
            x = x.astype(self.codebook_.dtype, copy=False)
            self._forget_labels()
        self._train(x, "partial_fit", 1, go_on=not first)
        self._finish(x)
        return self

    def _check_parameters(self, method: str) -> None:
        who = f"{self._name}.{method}"
        grid = self.grid
        if not isinstance(grid, (tuple, list)) or len(grid) != 2:
            raise ValueError(f"[{who}] grid is {grid!r}, expected (rows, columns)")
        rows = validation.check_count(who, "grid's number of rows", grid[0])
        validation.check_count(who, "grid's number of columns", grid[1])
        validation.check_choice(who, "topology", self.topology, tuple(TOPOLOGIES))
        validation.check_choice(who, "toroidal", self.toroidal, (False, True))
        if self.toroidal and self.topology == "hexagonal" and rows % 2:
            raise ValueError(
                f"[{who}] grid has {rows} rows, expected an even number where a hexagonal map is toroidal"
            )
        validation.check_choice(who, "algorithm", self.algorithm, ("batch", "online"))
        validation.check_choice(who, "neighborhood", self.neighborhood, tuple(NEIGHBORHOODS))
        validation.check_count(who, "n_epochs", self.n_epochs)
        if self.radius is not None:
            validation.check_number(who, "radius", self.radius, 0, open_low=True)
        for name in ("final_radius", "learning_rate", "final_learning_rate"):
            validation.check_number(who, name, getattr(self, name), 0, open_low=True)
        validation.check_choice(who, "cooling", self.cooling, _COOLINGS)
        if isinstance(self.init, str):
            validation.check_choice(who, "init", self.init, _STARTS)

    def _start(self, x: Array, method: str) -> None:
        """The codebook before the first epoch."""
        rows, columns = (int(size) for size in self.grid)
        units = rows * columns
        self._seed_ = self._seed(method)
        self.n_epochs_ = 0
        xp = array_module(x)
        self._forget_labels()
        if not isinstance(self.init, str):
            who, wanted = f"{self._name}.{method}", (units, x.shape[1])
            if np.shape(self.init) != wanted:
                raise ValueError(f"[{who}] init has shape {np.shape(self.init)}, expected {wanted}")
            given, _ = validation.features(self.init, who)
            self.codebook_ = xp.asarray(given).astype(x.dtype)
        elif self.init == "pca":
            self.codebook_ = start.pca_codebook(x, (rows, columns), self.topology, self._seed_)
        else:
            draw = start.random_codebook if self.init == "random" else start.sample_codebook
            self.codebook_ = draw(x, units, self._seed_)

    def _train(self, x: Array, method: str, epochs: int, go_on: bool = False) -> None:
        step = self._batch_epoch if self.algorithm == "batch" else self._online_epoch
        with self._epochs(epochs, go_on=go_on) as rounds:
            for _ in rounds:
                codebook, error, radius = step(x, rounds)
                if not bool(array_module(x).isfinite(codebook).all()):
                    raise ValueError(
                        f"[{self._name}.{method}] the codebook is no longer finite in {x.dtype}, "
                        "expected values whose sums stay finite: scale X"
                    )
                self.codebook_ = codebook
                self.n_epochs_ += 1
                rounds.record(quantization_error=error, radius=radius)

    def _batch_epoch(self, x: Array, rounds: Any) -> tuple[Array, float, float]:
        radius = self._cooled(self._first_radius(), self.final_radius, self._time(self.n_epochs))
        index, distance = search.best_units(x, self.codebook_)
        found = search.totals(x, index, len(self.codebook_))
        codebook = ops.som_batch_update(
            self.codebook_, found, self.grid, radius, self.neighborhood, self.topology, self.toroidal
        )
        return self._kept_in_range(codebook, x), float(distance.mean(dtype=np.float64)), radius

    def _online_epoch(self, x: Array, rounds: Any) -> tuple[Array, float, float]:
        xp = array_module(x)
        n = x.shape[0]
        order = random.permutation(n, self._seed_, _ORDER + self.n_epochs_)
        # Each sample has its own moment, the last one of the last epoch the end.
        moments = np.minimum((self.n_epochs_ * n + np.arange(n)) / max(1, self.n_epochs * n - 1), 1)
        radius = self._cooled(self._first_radius(), self.final_radius, moments)
        rate = self._cooled(self.learning_rate, self.final_learning_rate, moments)
        codebook, total = self.codebook_, 0.0
        for first in range(0, n, _STEP_ROWS):
            part = slice(first, min(n, first + _STEP_ROWS))
            chosen = x[xp.asarray(order[part])]
            samples = chosen.toarray() if is_sparse(x) else chosen
            before = codebook
            codebook, index = ops.som_online_update(
                samples,
                before,
                xp.asarray(rate[part], dtype=x.dtype),
                xp.asarray(radius[part], dtype=x.dtype),
                self.grid,
                self.neighborhood,
                self.topology,
                self.toroidal,
            )
            codebook = self._kept_in_range(codebook, x)
            gap = samples - before[index]
            total += float(xp.sqrt(xp.einsum("nd,nd->n", gap, gap)).sum(dtype=np.float64))
            rounds.step(part.stop, n)
        return codebook, total / n, float(radius[-1])

    def _kept_in_range(self, codebook: Array, x: Array) -> Array:
        """The codebook within the range of x's features, where weights may be negative.

        What is pushed away only ever moves on, ever faster, and never wins again.
        """
        if self.neighborhood != "mexican_hat":
            return codebook
        low, high = start.feature_range(x)
        return array_module(x).clip(codebook, low, high)

    def _time(self, epochs: int) -> float:
        """How much of the training is over, 0 to 1, at the start of an epoch; the last one ends at 1."""
        return min(1.0, self.n_epochs_ / (epochs - 1)) if epochs > 1 else 1.0

    def _first_radius(self) -> float:
        if self.radius is not None:
            return float(self.radius)
        return max(float(self.final_radius), max(self.grid) / 2)

    def _cooled(self, first: float, last: float, time: Any) -> Any:
        """The value at `time`, 0 to 1."""
        if self.cooling == "linear":
            return first + (last - first) * time
        if self.cooling == "exponential":
            return first * (last / first) ** time
        return first / (1 + (first / last - 1) * time)

    def _finish(self, x: Array) -> None:
        self.labels_, distance = search.best_units(x, self.codebook_)
        self.quantization_error_ = float(distance.mean(dtype=np.float64))

    # Use

    @property
    def _n_features_out(self) -> int:  # type: ignore[override]
        return len(self.codebook_)

    def _looked_up(self, X: Any, method: str) -> tuple[Array, Array, Any]:
        """X of a method as the codebook's dtype can meet it, the codebook, and the way back."""
        x, back = self._input(X, method)
        return x, self.codebook_.astype(x.dtype, copy=False), back

    def transform(self, X: Any) -> Any:
        """Distances of samples [N, D] to all units: [N, M]."""
        x, codebook, back = self._looked_up(X, "transform")
        return self._framed(back(search.distances(x, codebook)), X)

    def predict(self, X: Any) -> Any:
        """The nearest unit of every sample [N, D], the lowest on ties: [N] int64, row * columns + column."""
        x, codebook, back = self._looked_up(X, "predict")
        return back(search.best_units(x, codebook)[0])

    def score_samples(self, X: Any) -> Any:
        """Minus the distance of every sample [N, D] to its nearest unit: [N], 0 is the best."""
        x, codebook, back = self._looked_up(X, "score_samples")
        return back(-search.best_units(x, codebook)[1])

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the quantization error on X [N, D]; y is ignored."""
        return -self.quantization_error(X)

    def quantization_error(self, X: Any) -> float:
        """The mean distance of samples [N, D] to their nearest units."""
        x, codebook, _ = self._looked_up(X, "quantization_error")
        return float(search.best_units(x, codebook)[1].mean(dtype=np.float64))

    def topographic_error(self, X: Any) -> float:
        """The share of samples [N, D] whose two nearest units are no neighbours on the map, 0 to 1.

        Neighbours are the 8 units around one of a rectangular map, the 6 of a hexagonal one. Kiviluoto,
        "Topology preservation in self-organizing maps" (1996).
        """
        x, codebook, _ = self._looked_up(X, "topographic_error")
        if len(codebook) < 2:
            return 0.0
        first, second = (_host(index) for index in search.two_best(x, codebook))
        return float((self.unit_distances()[first, second] > self._reach()).mean())

    # The map

    def unit_distances(self) -> np.ndarray:
        """Distances of all pairs of units on the grid: [M, M] float64; on a torus the short way round."""
        self._check_parameters("unit_distances")
        place = start.positions(self.grid, self.topology)
        across, down = (np.abs(place[:, None, i] - place[None, :, i]) for i in (0, 1))
        if self.toroidal:
            rows, columns = self.grid
            height = rows * (np.sqrt(3) / 2 if self.topology == "hexagonal" else 1)
            across, down = np.minimum(across, columns - across), np.minimum(down, height - down)
        return np.hypot(across, down)

    def _reach(self) -> float:
        """How far apart neighbours are at most, and a little for rounding."""
        return (1.0 if self.topology == "hexagonal" else np.sqrt(2)) + 1e-6

    def component_planes(self) -> Any:
        """The codebook as pictures, one for each feature: [D, rows, columns]."""
        self._check_fitted("component_planes")
        return array_module(self.codebook_).moveaxis(self.codebook_.reshape(*self.grid, -1), 2, 0)

    def u_matrix(self) -> Any:
        """Each unit's mean distance to its neighbours, high where clusters meet: [rows, columns]."""
        self._check_fitted("u_matrix")
        return ops.som_u_matrix(self.codebook_, self.grid, self.topology, self.toroidal)

    def hit_map(self, X: Any) -> np.ndarray:
        """How many samples [N, D] have each unit as their nearest: [rows, columns] int64."""
        x, codebook, _ = self._looked_up(X, "hit_map")
        index = _host(search.best_units(x, codebook)[0])
        return np.bincount(index, minlength=len(codebook)).reshape(self.grid)

    # Files of the ESOM Tools

    def save_esom(
        self, folder: str | os.PathLike[str], X: Any = None, keys: Any = None, name: str = "map"
    ) -> list[Path]:
        """Writes the map for the Databionic ESOM Tools: NAME.wts and NAME.umx, with X .lrn and .bm too.

        X [N, D]: samples, whose keys [N] are whole numbers, 1, 2, ... when None. Each file is written
        atomically. Returns their paths.
        """
        self._check_fitted("save_esom")
        stem, grid = Path(folder) / name, (int(self.grid[0]), int(self.grid[1]))
        written = [stem.with_name(f"{name}.{kind}") for kind in ("wts", "umx")]
        esom.write_wts(written[0], self.codebook_, grid)
        esom.write_umx(written[1], self.u_matrix())
        if X is not None:
            x, codebook, _ = self._looked_up(X, "save_esom")
            index, _ = search.best_units(x, codebook)
            written += [stem.with_name(f"{name}.{kind}") for kind in ("lrn", "bm")]
            names = getattr(self, "feature_names_in_", None)
            esom.write_lrn(written[2], x.toarray() if is_sparse(x) else x, keys, None, names)
            esom.write_bm(written[3], index, grid, keys)
        return written

    @classmethod
    def from_wts(cls: type[Self], path: str | os.PathLike[str], **parameters: Any) -> Self:
        """A map with the codebook and grid of a .wts file; parameters: others than the grid.

        Raises FileNotFoundError, and ValueError for a file or parameters that are wrong.
        """
        codebook, grid = esom.read_wts(path)
        som = cls(grid, **parameters)
        som._check_parameters("from_wts")
        validation.check_finite(codebook, f"{cls.__name__}.from_wts", "the codebook")
        som.n_features_in_ = codebook.shape[1]
        som.n_epochs_, som._seed_, som.history_ = 0, som._seed("from_wts"), []
        som.codebook_ = codebook
        return som

    # Labels

    def label(self: Self, X: Any, y: Any) -> Self:
        """Names the units after the labelled samples X [N, D], y [N] that they are nearest to, by majority.

        Leaves classes_; unit_label_counts_ [M, classes]; and unit_labels_ [M], indices into classes_, -1
        where no sample came. Of equally frequent labels the first in classes_ wins.
        """
        x, codebook, _ = self._looked_up(X, "label")
        labels = validation.labels(y, f"{self._name}.label", x.shape[0])
        self.classes_, of = np.unique(labels, return_inverse=True)
        index = _host(search.best_units(x, codebook)[0])
        counts = np.zeros((len(codebook), len(self.classes_)), np.int64)
        np.add.at(counts, (index, of), 1)
        self.unit_label_counts_ = counts
        self.unit_labels_ = np.where(counts.sum(axis=1) > 0, counts.argmax(axis=1), -1)
        return self

    def _forget_labels(self) -> None:
        """The names of units that are about to move."""
        for name in ("classes_", "unit_labels_", "unit_label_counts_"):
            vars(self).pop(name, None)

    def labels_map(self) -> np.ndarray:
        """The units' labels as indices into classes_, -1 without one: [rows, columns] int64."""
        self._check_labelled("labels_map")
        return self.unit_labels_.reshape(self.grid)

    def classify(self, X: Any) -> np.ndarray:
        """The label of each sample's unit or, where that has none, of the nearest unit that has: [N]."""
        self._check_labelled("classify")
        x, codebook, _ = self._looked_up(X, "classify")
        named = np.flatnonzero(self.unit_labels_ >= 0)
        index = _host(search.best_units(x, codebook)[0])
        nameless = np.flatnonzero(self.unit_labels_[index] < 0)
        if len(nameless):
            xp = array_module(x)
            others = codebook[xp.asarray(named)]
            found = search.best_units(x[xp.asarray(nameless)], others)[0]
            index[nameless] = named[_host(found)]
        return self.classes_[self.unit_labels_[index]]

    def _check_labelled(self, method: str) -> None:
        self._check_fitted(method)
        if not hasattr(self, "unit_labels_"):
            raise ValueError(f"[{self._name}.{method}] the units have no labels yet: call label(X, y) first")


def _host(array: Any) -> np.ndarray:
    return array.get() if hasattr(array, "get") else array
