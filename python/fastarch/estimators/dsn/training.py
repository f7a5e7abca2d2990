"""Training one module of a stack: where its weights start, how they move, and when they stop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fastarch import optim, random
from fastarch.arrays import Array, namespace
from fastarch.estimators import minimize
from fastarch.estimators.dsn import module
from fastarch.estimators.dsn.module import Chunks, Parameters
from fastarch.estimators.epochs import Epochs
from fastarch.estimators.rbm import RBM
from fastarch.nn import Parameter

SOLVERS = ("lbfgs", "gradient", "momentum", "adam")
RATES = {"momentum": 0.5, "adam": 0.02}  # learning rates unless told


@dataclass(frozen=True)
class Recipe:
    """How the weights of a module are found; see `DSNClassifier` for the meaning of each."""

    solver: str
    batch_size: int | None
    learning_rate: float
    momentum: float
    ridge: float
    tol: float
    patience: int
    chunks: Chunks


@dataclass(frozen=True)
class Trained:
    """A module's weights, its output weights [width, T] float64, and the errors they came to."""

    parameters: Parameters
    output: Array
    error: float
    held_error: float | None


def random_start(x: Array, sizes: tuple[int, ...], seed: int) -> Parameters:
    """Normal weights [L, D] and biases [L] for each group of `sizes`, so that inputs to the hidden units have
    a spread of about one whatever the scale of x."""
    xp = namespace(x)
    norm = float(xp.sqrt((x.astype(xp.float64) ** 2).sum(axis=1).mean()))
    parameters: Parameters = []
    for i, size in enumerate(sizes):
        draws = random.normal((size, x.shape[1] + 1), dtype=np.float64, stream=(seed, i))
        parameters.append(xp.asarray((draws[:, :-1] / (norm or 1.0)).astype(x.dtype)))
        parameters.append(xp.asarray(draws[:, -1].astype(x.dtype)))
    return parameters


def rbm_start(x: Array, sizes: tuple[int, ...], epochs: int, seed: int) -> Parameters:
    """The weights and hidden biases of restricted Boltzmann machines trained on x, each feature of which is
    brought to [0, 1] for them; the scaling then goes into the weights."""
    xp = namespace(x)
    low = x.min(axis=0)
    span = x.max(axis=0) - low
    span[span == 0] = 1
    v = (x - low) / span
    parameters: Parameters = []
    for i, size in enumerate(sizes):
        machine = RBM(size, n_epochs=epochs, learning_rate=0.1, random_state=seed + i).fit(v)
        weight = machine.components_ / span
        parameters += [xp.ascontiguousarray(weight), machine.intercept_hidden_ - weight @ low]
    return parameters


def train(
    x: Array,
    t: Array,
    held: tuple[Array, Array] | None,
    start: Parameters,
    recipe: Recipe,
    rounds: Epochs,
    seed: int,
) -> Trained:
    """The module with inputs x [N, D] and targets t [N, T], from the weights `start`.

    held: samples that are not trained on; the weights that do best there are kept. Training ends when the
    error there, or the training error where nothing is held out, has not fallen by the share `tol` in
    `patience` rounds.
    """
    steps = _line_search(x, t, start, recipe) if recipe.solver in ("lbfgs", "gradient") else None
    steps = steps or _steps(x, t, start, recipe, rounds, seed)
    best: tuple[float, Parameters] | None = None
    waited = 0
    lowest = np.inf
    for _ in rounds:
        step = next(steps, None)
        if step is None:
            break
        parameters, loss = step
        figures = {"loss": loss}
        watched = loss
        if held is not None:
            output = module.best_output(x, t, parameters, recipe.ridge, recipe.chunks)
            watched = figures["validation_loss"] = squared_error(*held, parameters, output, recipe.chunks)
        if best is None or watched < best[0]:
            best = (watched, parameters)
        rounds.record(**figures)
        waited = 0 if watched < lowest * (1 - recipe.tol) else waited + 1
        lowest = min(lowest, watched)
        if waited >= recipe.patience:
            break
    parameters = start if best is None else best[1]
    output = module.best_output(x, t, parameters, recipe.ridge, recipe.chunks)
    return Trained(
        parameters,
        output,
        squared_error(x, t, parameters, output, recipe.chunks),
        None if held is None else squared_error(*held, parameters, output, recipe.chunks),
    )


def squared_error(x: Array, t: Array, parameters: Parameters, output: Array, chunks: Chunks) -> float:
    """The squared error of a sample, averaged."""
    predicted = module.predict(x, parameters, output.astype(x.dtype), chunks)
    return float(((predicted - t) ** 2).sum(dtype=np.float64)) / len(x)


def _line_search(x: Array, t: Array, start: Parameters, recipe: Recipe) -> Iterator[tuple[Parameters, float]]:
    """(weights, loss of a sample) after each step over all samples."""
    xp, n = namespace(x), len(x)

    def objective(vector: Array) -> tuple[float, Array]:
        parameters = minimize.unflatten(vector, start)
        loss, gradients, _ = module.objective(x, t, parameters, recipe.ridge, recipe.chunks)
        return loss / n, minimize.flatten(gradients, xp) / n

    memory = 10 if recipe.solver == "lbfgs" else 0
    for vector, loss, _ in minimize.descend(objective, minimize.flatten(start, xp), memory):
        yield minimize.unflatten(vector, start), loss


def _steps(
    x: Array, t: Array, start: Parameters, recipe: Recipe, rounds: Epochs, seed: int
) -> Iterator[tuple[Parameters, float]]:
    """(weights, loss of a sample) after each pass over all batches; U is solved anew for every batch.

    The loss is that of these weights where there is one batch; of several, the mean of their losses as they
    came, each before its step.
    """
    n = len(x)
    # Equal batches of at least batch_size: a short one would be fitted by its output weights alone.
    batches = max(1, n // (recipe.batch_size or n))
    edges = [n * i // batches for i in range(batches + 1)]
    weights = [Parameter(a.copy()) for a in start]
    optimizer: Any
    if recipe.solver == "adam":
        optimizer = optim.Adam(weights, lr=recipe.learning_rate)
    else:
        optimizer = optim.SGD(weights, lr=recipe.learning_rate, momentum=recipe.momentum)

    def differentiate(part: Array, target: Array) -> float:
        """The loss of these samples, whose gradients the weights then have."""
        ridge = recipe.ridge * (len(part) / n)
        loss, gradients, _ = module.objective(part, target, [w.data for w in weights], ridge, recipe.chunks)
        for w, g in zip(weights, gradients):
            w.grad = g / len(part)
        return loss

    if batches == 1:
        differentiate(x, t)
    for epoch in range(rounds.total):
        if batches == 1:  # the loss after a step comes with the gradients of the next one
            optimizer.step()
            total = differentiate(x, t)
            rounds.step(n, n)
        else:
            order = namespace(x).asarray(random.permutation(n, seed, epoch))
            total = 0.0
            for begin, end in pairwise(edges):
                rows = order[begin:end]
                total += differentiate(x[rows], t[rows])
                optimizer.step()
                rounds.step(end, n)
        yield [w.data.copy() for w in weights], total / n
