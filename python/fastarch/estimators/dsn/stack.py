"""What deep stacking classifiers and regressors share: modules on top of one another, each trained alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastarch import random
from fastarch.arrays import Array, namespace
from fastarch.estimators import validation
from fastarch.estimators.base import Estimator
from fastarch.estimators.dsn import module, network
from fastarch.estimators.dsn.module import Chunks, Parameters
from fastarch.estimators.dsn.training import RATES, SOLVERS, Recipe, Trained, random_start, rbm_start, train
from fastarch.estimators.epochs import Epochs


class Stack(Estimator):
    """Modules whose inputs are x and the predictions of the modules below; see the public classes."""

    _groups = 1  # groups of hidden units in a module: two make it a tensor network

    _hidden_default = 100

    weights_: list[Parameters]
    outputs_: list[Array]
    errors_: list[float]

    def __init__(
        self,
        n_modules: int = 3,
        n_hidden: int | Sequence[int] | None = None,
        *,
        ridge: float = 1.0,
        solver: str = "gradient",
        n_epochs: int = 50,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        momentum: float = 0.9,
        init: str = "random",
        rbm_epochs: int = 10,
        tol: float = 1e-4,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        fine_tune_epochs: int = 0,
        fine_tune_rate: float = 1e-3,
        fine_tune_batch: int = 64,
        chunk_size: int = 4096,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.n_modules = n_modules
        self.n_hidden = n_hidden
        self.ridge = ridge
        self.solver = solver
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.init = init
        self.rbm_epochs = rbm_epochs
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.fine_tune_epochs = fine_tune_epochs
        self.fine_tune_rate = fine_tune_rate
        self.fine_tune_batch = fine_tune_batch
        self.chunk_size = chunk_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _recipe(self) -> Recipe:
        """The arguments, checked. Raises TypeError or ValueError."""
        who = f"{self._name}.fit"
        for name in (
            "n_modules",
            "n_epochs",
            "rbm_epochs",
            "n_iter_no_change",
            "fine_tune_batch",
            "chunk_size",
        ):
            validation.check_count(who, name, getattr(self, name))
        validation.check_count(who, "fine_tune_epochs", self.fine_tune_epochs, 0)
        if self.batch_size is not None:
            validation.check_count(who, "batch_size", self.batch_size)
        validation.check_choice(who, "solver", self.solver, SOLVERS)
        validation.check_choice(who, "init", self.init, ("random", "rbm"))
        validation.check_choice(who, "early_stopping", self.early_stopping, (True, False))
        validation.check_number(
            who, "validation_fraction", self.validation_fraction, 0, 1, open_low=True, open_high=True
        )
        validation.check_number(who, "fine_tune_rate", self.fine_tune_rate, 0, open_low=True)
        if self.batch_size is not None and self.solver in ("lbfgs", "gradient"):
            raise ValueError(
                f"[{who}] batch_size is {self.batch_size}, but the line search of solver {self.solver!r} "
                "needs all samples at once: leave batch_size None, or take 'momentum' or 'adam'"
            )
        rate = RATES.get(self.solver, 1.0) if self.learning_rate is None else self.learning_rate
        return Recipe(
            solver=self.solver,
            batch_size=self.batch_size,
            learning_rate=validation.check_number(who, "learning_rate", rate, 0, open_low=True),
            momentum=validation.check_number(who, "momentum", self.momentum, 0, 1, open_high=True),
            ridge=validation.check_number(who, "ridge", self.ridge, 0),
            tol=validation.check_number(who, "tol", self.tol, 0, 1, open_high=True),
            patience=self.n_iter_no_change,
            chunks=self._chunks(),
        )

    def _chunks(self) -> Chunks:
        jobs = 1 if self.n_jobs is None else self.n_jobs
        if jobs == -1:
            jobs = os.cpu_count() or 1
        return Chunks(self.chunk_size, validation.check_count(f"{self._name}.fit", "n_jobs", jobs))

    def _sizes(self) -> list[tuple[int, ...]]:
        """The hidden units of each group of each module."""
        who = f"{self._name}.fit"
        value: Any = self._hidden_default if self.n_hidden is None else self.n_hidden
        if self._groups == 2:
            pair = (value, value) if np.ndim(value) == 0 else tuple(value)
            if len(pair) != 2:
                raise ValueError(f"[{who}] n_hidden is {value!r}, expected a number or a pair of them")
            return [tuple(validation.check_count(who, "n_hidden", size) for size in pair)] * self.n_modules
        each = [value] * self.n_modules if np.ndim(value) == 0 else list(value)
        if len(each) != self.n_modules:
            raise ValueError(
                f"[{who}] n_hidden has {len(each)} entries, expected a number or one for each of "
                f"{self.n_modules} modules"
            )
        return [(validation.check_count(who, "n_hidden", size),) for size in each]

    def _check_batch(self, sizes: list[tuple[int, ...]]) -> None:
        """Output weights are solved on each batch: few samples they fit whatever the hidden units do."""
        widest = max(math.prod(size + 1 for size in module_sizes) for module_sizes in sizes)
        if self.batch_size is not None and self.batch_size < 2 * widest:
            raise ValueError(
                f"[{self._name}.fit] batch_size is {self.batch_size}, expected None or at least "
                f"{2 * widest}: twice the {widest} features whose output weights are solved on each batch"
            )

    # Training

    def _fit_stack(self, x: Array, t: Array) -> tuple[Array, Array, int]:
        """Trains module after module on x [N, D] and targets t [N, T]; returns the x and t that were trained
        on, all of them unless some are held out, and the seed."""
        recipe, sizes, seed = self._recipe(), self._sizes(), self._seed()
        self._check_batch(sizes)
        x, t, held = self._hold_out(x, t, seed)
        self.weights_, self.outputs_, self.errors_ = [], [], []
        self.held_errors_: list[float] = []
        below = x
        for m in range(self.n_modules):
            if self.init == "rbm":
                start = rbm_start(below, sizes[m], self.rbm_epochs, _child(seed, m) % 2**32)
            else:
                start = random_start(below, sizes[m], _child(seed, m))
            with self._epochs(
                self.n_epochs, title=f"module {m + 1} of {self.n_modules}", go_on=m > 0
            ) as rounds:
                trained = train(below, t, held, start, recipe, rounds, _child(seed, m + 2**32))
            if self._is_enough(trained):
                break
            self._append(trained, x.dtype)
            if rounds.stopped:
                break
            below = self._input_above(below)
            held = None if held is None else (self._input_above(held[0]), held[1])
        self.n_modules_ = len(self.weights_)
        return x, t, seed

    def _is_enough(self, trained: Trained) -> bool:
        """Whether a further module makes the error on the held-out samples no smaller."""
        return bool(self.held_errors_) and not trained.held_error < self.held_errors_[-1]  # type: ignore

    def _append(self, trained: Trained, dtype: Any) -> None:
        self.weights_.append(trained.parameters)
        self.outputs_.append(trained.output.astype(dtype))
        self.errors_.append(trained.error)
        if trained.held_error is not None:
            self.held_errors_.append(trained.held_error)

    def _input_above(self, below: Array) -> Array:
        """The next module's input: what the newest one saw, and what it says."""
        predicted = module.predict(below, self.weights_[-1], self.outputs_[-1], self._chunks())
        return namespace(below).concatenate([below, predicted], axis=1)

    def _hold_out(self, x: Array, t: Array, seed: int) -> tuple[Array, Array, tuple[Array, Array] | None]:
        if not self.early_stopping:
            return x, t, None
        n = len(x)
        held = max(1, round(n * self.validation_fraction))
        if n - held < 1:
            raise ValueError(
                f"[{self._name}.fit] X has {n} sample(s) (n_samples={n}), early stopping holds {held} "
                "of them out and needs at least one to train on"
            )
        order = namespace(x).asarray(random.permutation(n, _child(seed, 2**33), 0))
        first, rest = order[:held], order[held:]
        return x[rest], t[rest], (x[first], t[first])

    # Prediction

    def _predictions(self, x: Array) -> list[Array]:
        """What each module says of x [N, D]: [N, T] each."""
        x = x.astype(self.outputs_[0].dtype, copy=False)
        chunks, below, found = self._chunks(), x, []
        for parameters, output in zip(self.weights_, self.outputs_):
            found.append(module.predict(below, parameters, output, chunks))
            below = namespace(x).concatenate([below, found[-1]], axis=1)
        return found

    def _fine_tune(self, net: network.StackedNetwork, x: Array, t: Array, targets: Array, seed: int) -> None:
        """Back-propagation through the whole stack, whose weights are then the network's.

        t: what the network is tuned to, targets [N, T] what each module was trained to and errors_ tells of.
        """
        rounds: Epochs
        with self._epochs(self.fine_tune_epochs, title="fine-tuning", go_on=True) as rounds:
            batch = min(self.fine_tune_batch, len(x))
            network.fine_tune(net, x, t, rounds, self.fine_tune_rate, batch, _child(seed, 2**33 + 1))
        stages: Any = net.stack
        arrays = [stage.arrays() for stage in stages]
        self.weights_ = [parameters for parameters, _ in arrays]
        self.outputs_ = [output for _, output in arrays]
        self.errors_ = [
            float(((said - targets) ** 2).sum(dtype=np.float64)) / len(x) for said in self._predictions(x)
        ]


def _child(seed: int, index: int) -> int:
    """The seed number `index` that comes from `seed`."""
    words = random.philox(2, seed, index)
    return int(words[0]) << 32 | int(words[1])
