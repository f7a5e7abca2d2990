"""The pseudo-likelihood of binary and of multinomial units: each given all others, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastarch.arrays import Array
from fastarch.estimators._draws import Stream, hidden_term, log_sum_exp, softplus
from fastarch.estimators.base import array_module
from fastarch.estimators.partition import FREE, Machine
from fastarch.estimators.questions import Restricted
from fastarch.estimators.validation import check_count

_BLOCK = 1 << 21  # numbers of an intermediate [B, units, H]
_UNITS_STREAM = (1 << 63) + 1


class Discrete(Restricted):
    """A machine with Bernoulli or softmax visible units, whose pseudo-likelihood is at hand."""

    def pseudo_likelihood(self, X: Any, n_units: int | None = None) -> Any:
        """The sum over the units of each sample of X [N, D] of ln P(unit | all others): [N], in nats.

        n_units: so many units, drawn for each sample, stand for all; None takes all, which costs as much as D
        transforms. Absent units take no part. Besag, "Statistical analysis of non-lattice data" (1975).
        """
        return self._conditionals(X, n_units, "pseudo_likelihood")

    def _conditionals(self, X: Any, n_units: int | None, method: str) -> Any:
        rows = self._rows(X, method)
        if n_units is not None:
            check_count(f"{self._name}.{method}", "n_units", n_units)
        stream = Stream(self._seed_, _UNITS_STREAM)
        parts = [
            pseudo_likelihood(self._machine(), *self._encode(block), n_units, stream)
            for _, block in rows.blocks()
        ]
        return rows.back(array_module(rows.x).concatenate(parts))

    def score_samples(self, X: Any) -> Any:
        """The pseudo-likelihood of each sample of X [N, D], over all units: [N], in nats."""
        return self._conditionals(X, None, "score_samples")


def pseudo_likelihood(
    machine: Machine, v: Array, mask: Array | None, n_units: int | None, stream: Stream
) -> Array:
    """For visible units v [B, V]: [B]. mask: [B, V] or None, where not FREE a unit takes no part."""
    xp = array_module(v)
    groups = v.shape[1] // machine.levels
    field = v @ machine.w
    field += machine.b_hidden
    conditional = _of_bits if machine.visible == "bernoulli" else _of_groups
    here = xp.ones((len(v), groups)) if mask is None else (mask[:, :: machine.levels] == FREE)
    here = here.astype(v.dtype)
    if n_units is None:
        total = xp.zeros(len(v), v.dtype)
        size = max(1, _BLOCK // max(1, len(v) * machine.levels * field.shape[1]))
        for start in range(0, groups, size):
            units = xp.broadcast_to(
                xp.arange(start, min(start + size, groups)), (len(v), min(size, groups - start))
            )
            total += (conditional(machine, v, field, units, xp) * here[:, start : start + size]).sum(1)
        return total
    units = xp.asarray(stream.below(groups, len(v) * n_units).reshape(len(v), n_units))
    drawn = xp.take_along_axis(here, units, 1)
    # The mean over the drawn units that are present, times the number of those that are.
    total = (conditional(machine, v, field, units, xp) * drawn).sum(1)
    return total * here.sum(1) / xp.maximum(drawn.sum(1), 1)


def _of_bits(machine: Machine, v: Array, field: Array, units: Array, xp: Any) -> Array:
    """ln P(unit | the rest) for units [B, n]."""
    flip = 1 - 2 * xp.take_along_axis(v, units, 1)
    flipped = machine.w[units] * flip[:, :, None]
    flipped += field[:, None, :]
    change = hidden_term(flipped, machine.hidden).sum(2)
    change -= hidden_term(field, machine.hidden).sum(1)[:, None]
    change += flip * machine.b_visible[units]
    return -softplus(change)  # of minus the fall in free energy


def _of_groups(machine: Machine, v: Array, field: Array, units: Array, xp: Any) -> Array:
    """ln P(the level of a group | the rest) for groups [B, n]."""
    index = units[:, :, None] * machine.levels + xp.arange(machine.levels)  # [B, n, levels]
    on = xp.take_along_axis(v, index.reshape(len(v), -1), 1).reshape(index.shape)
    weights = machine.w[index]  # [B, n, levels, H]
    without = field[:, None, :] - np.matmul(on[:, :, None, :], weights)[:, :, 0, :]
    score = hidden_term(without[:, :, None, :] + weights, machine.hidden).sum(3)
    score += machine.b_visible[index]
    return (score * on).sum(2) - log_sum_exp(score, axis=2)
