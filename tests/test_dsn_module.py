"""A module of a deep stacking network: its gradient and ridge solution against the definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import fastarch as fa
from dsn_definition import naive_features, naive_output
from fastarch import backends
from fastarch.estimators import minimize
from fastarch.estimators.dsn import module, network
from fastarch.estimators.dsn.module import Chunks

WHOLE = Chunks(10**9)


def problem(groups, samples=50, seed=0):
    """Inputs [N, 6], targets [N, 3] and the weights of a module."""
    draw = np.random.default_rng(seed)
    x, t = draw.normal(size=(samples, 6)), draw.normal(size=(samples, 3))
    parameters = []
    for size in (5, 4)[:groups]:
        parameters += [draw.normal(size=(size, 6)), draw.normal(size=size)]
    return x, t, parameters


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_error_and_output_weights_are_the_definitions(groups, ridge):
    x, t, parameters = problem(groups)
    f = naive_features(x, parameters)
    u = naive_output(f, t, ridge)
    error = ((f @ u - t) ** 2).sum() + ridge * (u[:-1] ** 2).sum()
    got, _, output = module.objective(x, t, parameters, ridge, WHOLE)
    np.testing.assert_allclose(module.features(module.hidden(x, parameters)), f, rtol=1e-12)
    np.testing.assert_allclose(output, u, rtol=1e-7, atol=1e-7)
    assert got == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_gradient_against_central_differences(groups, ridge):
    """U is solved anew for every difference: the envelope theorem is what is tested."""
    x, t, parameters = problem(groups)
    _, gradients, _ = module.objective(x, t, parameters, ridge, WHOLE)
    size = 1e-5
    for parameter, gradient in zip(parameters, gradients):
        assert gradient.shape == parameter.shape
        for index in np.ndindex(parameter.shape):
            middle = parameter[index]
            parameter[index] = middle + size
            above = module.objective(x, t, parameters, ridge, WHOLE)[0]
            parameter[index] = middle - size
            below = module.objective(x, t, parameters, ridge, WHOLE)[0]
            parameter[index] = middle
            expected = (above - below) / (2 * size)
            assert abs(gradient[index] - expected) < 1e-7 * max(1, abs(expected))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_ridge_residual_is_zero(groups, ridge):
    x, t, parameters = problem(groups, samples=200)
    gram, cross = module.sums(module.hidden(x, parameters), t, WHOLE)
    u = module.solve(gram, cross, ridge)
    penalty = ridge * np.eye(len(gram))
    penalty[-1, -1] = 0
    residual = (gram + penalty) @ u - cross
    assert abs(residual).max() < 1e-11 * abs(cross).max()


def test_a_singular_system_gets_the_solution_of_least_norm():
    x, t, (weight, bias) = problem(1)
    twice = [np.vstack([weight, weight[:2]]), np.append(bias, bias[:2])]
    error, gradients, u = module.objective(x, t, twice, 0.0, WHOLE)
    f = naive_features(x, twice)
    np.testing.assert_allclose(u, np.linalg.lstsq(f, t, rcond=None)[0], atol=1e-6)
    np.testing.assert_allclose(u[:2], u[-3:-1], atol=1e-6)
    assert error == pytest.approx(module.objective(x, t, [weight, bias], 0.0, WHOLE)[0], rel=1e-9)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [1, 7, 50])
def test_chunks_give_what_the_whole_gives(groups, size):
    x, t, parameters = problem(groups)
    error, gradients, u = module.objective(x, t, parameters, 0.1, WHOLE)
    one, several = (module.objective(x, t, parameters, 0.1, Chunks(size, workers)) for workers in (1, 3))
    assert one[0] == pytest.approx(error, rel=1e-12)
    np.testing.assert_allclose(one[2], u, rtol=1e-9, atol=1e-11)
    for part, whole in zip(one[1], gradients):
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-10)
    # The number of threads changes no bit.
    assert one[0] == several[0]
    for a, b in zip([*one[1], one[2]], [*several[1], several[2]]):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(
        module.predict(x, parameters, u, Chunks(size, 2)), naive_features(x, parameters) @ u, rtol=1e-9
    )


def test_threads_see_the_callers_backend():
    x, *_ = problem(1)
    seen = []

    def ask(rows):
        seen.append(backends.current())
        return rows

    with fa.backend("numpy"):
        Chunks(10, 3).map(ask, len(x))
    assert seen == ["numpy"] * 5


# Minimizing


def rosenbrock(x):
    value = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    slope = np.array([-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)])
    return float(value), slope


@pytest.mark.parametrize(("memory", "steps", "bound"), [(10, 60, 1e-12), (1, 400, 1e-8), (0, 400, 0.5)])
def test_a_bent_valley_is_descended(memory, steps, bound):
    start = np.array([-1.2, 1.0])
    values = [rosenbrock(start)[0]]
    for _, (x, value, slope) in zip(range(steps), minimize.descend(rosenbrock, start, memory)):
        values.append(value)
        assert (value, slope.tolist()) == (rosenbrock(x)[0], rosenbrock(x)[1].tolist())
    assert all(later < earlier for earlier, later in pairwise(values))
    assert values[-1] < bound


def test_descent_ends_where_it_must():
    def bowl(x):
        return float(x @ x), 2 * x

    *_, (_, value, _) = minimize.descend(bowl, np.array([3.0, -4.0]))
    assert value < 1e-20
    assert list(minimize.descend(bowl, np.zeros(2))) == []
    assert list(minimize.descend(lambda x: (float("nan"), x * np.nan), np.ones(2))) == []
    wall = list(
        minimize.descend(lambda x: (float(x[0]) if x[0] > -1 else float("inf"), np.ones(1)), np.zeros(1))
    )
    assert -1 < wall[-1][1] < -0.99


def test_the_softmax_layer_is_the_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(0)
    z, y = draw.normal(size=(200, 4)), draw.integers(0, 3, 200)
    z[np.arange(200), y] += 1
    weight, bias = network.softmax_layer(z, y, 3, ridge=2.0, rounds=100)
    peer = linear_model.LogisticRegression(C=0.5, tol=1e-8, max_iter=1000).fit(z, y)
    scores = z @ weight.T + bias
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probability, peer.predict_proba(z), atol=5e-3)
