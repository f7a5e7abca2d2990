"""ln Z and what rests on it: against sums over all joint states, integrals on a grid, and conditionals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fastarch.estimators import partition
from fastarch.estimators._draws import Stream
from fastarch.estimators.conditionals import pseudo_likelihood
from fastarch.estimators.partition import FREE, Machine

LEVELS = 3


def random_machine(rng, visible, V, H, scale=1.0):
    w, b, c = rng.normal(0, scale, (V, H)), rng.normal(0, 0.5, V), rng.normal(0, 0.5, H)
    return Machine(w, b, c, visible, levels=LEVELS if visible == "softmax" else 1)


def bits(n):
    return [np.array(s, float) for s in itertools.product((0, 1), repeat=n)]


def visible_states(machine):
    """All of them, by nested loops."""
    if machine.visible == "bernoulli":
        return bits(len(machine.b_visible))
    one_hot = np.eye(LEVELS)
    groups = len(machine.b_visible) // LEVELS
    return [np.concatenate(s) for s in itertools.product(one_hot, repeat=groups)]


def weight_of(machine, v):
    """The sum over all hidden states of exp(-E(v, h)), from the definition of the energy."""
    total = 0.0
    for h in bits(len(machine.b_hidden)):
        minus_energy = machine.b_hidden @ h + v @ machine.w @ h
        if machine.visible == "gaussian":
            minus_energy -= 0.5 * np.sum((v - machine.b_visible) ** 2)
        else:
            minus_energy += machine.b_visible @ v
        total += math.exp(minus_energy)
    return total


@pytest.mark.parametrize("visible", ["bernoulli", "softmax"])
@pytest.mark.parametrize(("V", "H"), [(6, 3), (3, 6), (6, 6)])
def test_log_partition_is_the_sum_over_joint_states(rng, visible, V, H):
    machine = random_machine(rng, visible, V, H)
    expected = math.log(sum(weight_of(machine, v) for v in visible_states(machine)))
    assert partition.log_partition(machine) == pytest.approx(expected, rel=1e-12)


def test_log_partition_of_gaussian_units_is_an_integral(rng):
    machine = random_machine(rng, "gaussian", 2, 3)
    grid = np.linspace(-14, 14, 281)
    step = grid[1] - grid[0]
    total = sum(weight_of(machine, np.array([x, y])) for x in grid[::4] for y in grid[::4]) * (4 * step) ** 2
    assert partition.log_partition(machine) == pytest.approx(math.log(total), rel=1e-8)


def test_log_partition_of_relu_units_sums_over_the_visible_states(rng):
    w, b, c = rng.normal(0, 0.5, (5, 30)), rng.normal(0, 0.5, 5), rng.normal(0, 0.5, 30)
    machine = Machine(w, b, c, hidden="relu")
    energies = np.array([partition.free_energy(machine, v[None])[0] for v in bits(5)])
    assert partition.log_partition(machine) == pytest.approx(np.log(np.exp(-energies).sum()), rel=1e-12)


def test_both_layers_give_the_same_sum(rng):
    """16 visible and 8 hidden units: 2^16 states of one layer or 2^8 of the other."""
    machine = random_machine(rng, "bernoulli", 16, 8)
    turned = Machine(machine.w.T.copy(), machine.b_hidden, machine.b_visible)
    of_hidden, of_visible = partition.log_partition(machine), partition.log_partition(turned)
    assert of_hidden == pytest.approx(of_visible, rel=1e-13)
    over_visible = [np.exp(-partition.free_energy(machine, v)).sum() for v in partition.states(16)]
    assert of_hidden == pytest.approx(math.log(sum(over_visible)), rel=1e-12)


def test_log_partition_refuses_what_cannot_be_enumerated(rng):
    with pytest.raises(ValueError, match=r"\[log_partition\] the smaller layer has 2\^25 states"):
        partition.log_partition(random_machine(rng, "bernoulli", 30, 25))
    with pytest.raises(ValueError, match="expected at most"):
        partition.log_partition(Machine(np.zeros((2, 2)), np.zeros(2), np.zeros(2), "gaussian", "relu"))


@pytest.mark.parametrize("visible", ["bernoulli", "softmax", "gaussian"])
def test_annealed_importance_sampling_holds_its_interval(rng, visible):
    """100 seeds. At 99 % a sound interval misses 6 or more of them once in 1900 runs."""
    machine = random_machine(rng, visible, 12, 6, scale=0.4 if visible == "gaussian" else 1.0)
    exact = partition.log_partition(machine)
    base = rng.normal(0, 0.5, 12)
    runs = [partition.annealed_importance_sampling(machine, base, 50, 200, 0.99, seed) for seed in range(100)]
    assert sum(run.low <= exact <= run.high for run in runs) >= 95
    mean = np.mean([np.exp(run.value - exact) for run in runs])  # Z itself is estimated without bias
    error = np.std([np.exp(run.value - exact) for run in runs]) / 10
    assert abs(mean - 1) < 4 * error
    assert error < 0.1


def test_a_wrong_machine_falls_out_of_the_interval(rng):
    machine = random_machine(rng, "bernoulli", 12, 6)
    other = Machine(machine.w * 1.05, machine.b_visible, machine.b_hidden)
    exact = partition.log_partition(other)
    runs = [partition.annealed_importance_sampling(machine, None, 50, 200, seed=s) for s in range(20)]
    assert sum(run.low <= exact <= run.high for run in runs) < 10


def test_more_temperatures_narrow_the_interval(rng):
    machine = random_machine(rng, "bernoulli", 12, 6, scale=2.0)
    few, many = (partition.annealed_importance_sampling(machine, None, 100, n) for n in (20, 2000))
    assert many.standard_error < few.standard_error / 2
    assert few.effective_chains < many.effective_chains <= 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": 1}, "betas is 1, expected at least 2"),
        ({"betas": np.array([0.0, 0.5])}, "betas are inverse temperatures that rise from 0 to 1"),
        ({"betas": np.array([0.0, 0.7, 0.6, 1.0])}, "rise from 0 to 1"),
        ({"n_chains": 1}, "n_chains is 1, expected at least 2"),
        ({"confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_annealed_importance_sampling_refuses(rng, options, message):
    with pytest.raises(ValueError, match=message):
        partition.annealed_importance_sampling(random_machine(rng, "bernoulli", 3, 2), **options)


def conditional_sum(machine, v, free):
    """The sum over free groups of ln P(group | the rest), by changing one group of the joint state."""
    levels = machine.levels
    total = 0.0
    for group in np.flatnonzero(free[::levels]):
        part = slice(group * levels, (group + 1) * levels)
        choices = np.eye(levels) if levels > 1 else np.array([[0.0], [1.0]])
        changed = np.repeat(v[None], len(choices), 0)
        changed[:, part] = choices
        total += math.log(weight_of(machine, v) / sum(weight_of(machine, u) for u in changed))
    return total


@pytest.mark.parametrize("visible", ["bernoulli", "softmax"])
@pytest.mark.parametrize("masked", [False, True])
def test_pseudo_likelihood_is_the_sum_of_the_conditionals(rng, visible, masked):
    machine = random_machine(rng, visible, 6, 4)
    v = np.array([s for s in visible_states(machine) if rng.random() < 0.3][:9])
    free = np.ones(v.shape, bool)
    if masked:
        free = np.repeat(rng.random((len(v), 6 // machine.levels)) < 0.6, machine.levels, 1)
        v = v * free
    mask = free.astype(np.uint8) * FREE if masked else None
    came = pseudo_likelihood(machine, v, mask, None, Stream(0, 0))
    expected = [conditional_sum(machine, row, f) for row, f in zip(v, free)]
    np.testing.assert_allclose(came, expected, rtol=1e-10, atol=1e-12)


def test_drawn_units_stand_for_all(rng):
    machine = random_machine(rng, "bernoulli", 8, 4)
    v = np.repeat(visible_states(machine)[77][None], 4000, 0)
    drawn = pseudo_likelihood(machine, v, None, 2, Stream(0, 0))
    whole = pseudo_likelihood(machine, v[:1], None, None, Stream(0, 0))[0]
    assert abs(drawn.mean() - whole) < 4 * drawn.std() / math.sqrt(len(v))
    assert drawn.std() > 0


def test_relu_conditionals_agree_with_the_free_energy(rng):
    w, b, c = rng.normal(0, 1, (4, 3)), rng.normal(0, 0.5, 4), rng.normal(0, 0.5, 3)
    machine = Machine(w, b, c, hidden="relu")
    v = np.array(bits(4))
    energy = partition.free_energy(machine, v)
    index = np.arange(16)
    expected = np.zeros(16)
    for unit in range(4):
        other = energy[index ^ (8 >> unit)]
        expected -= np.logaddexp(0, energy - other)
    np.testing.assert_allclose(pseudo_likelihood(machine, v, None, None, Stream(0, 0)), expected, rtol=1e-10)
