"""Equal calls give equal bits in every order of threads, and where promised with any multiprocessors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import CASES, Case
from conftest import dtypes_of
from fastarch import backends
from test_operators import as_tuple, made

if backends.reason_unusable("emulator"):
    pytest.skip("what these tests vary, only the emulator lets them", allow_module_level=True)

# What promises the same bits on every device too. The other sums are cut up so that they fill the device.
FAMILIES = ("activation", "dropout", "local_response_norm", "pool2d", "softmax")
ANYWHERE = {op for family in FAMILIES for op in fa.ops.OPERATORS[family]}
ANYWHERE |= {"som_bmu", "som_totals", "som_online_update", "som_u_matrix"}


@pytest.fixture
def module() -> Iterator[Any]:
    loaded: Any = backends._loaded["emulator"]
    yield loaded
    loaded.set_multiprocessors(2)
    loaded.set_seed(0)


def of_each_operator() -> list[Any]:
    """A few cases of every operator, in the narrowest and the widest type it takes."""
    chosen = []
    for op in dict.fromkeys(case.op for case in CASES):
        mine = [case for case in CASES if case.op == op and case.layout == "contiguous"]
        step = max(1, len(mine) // 3)
        for case in mine[::step][:3]:
            types = dtypes_of(op)
            for dtype in dict.fromkeys((types[0], types[-1] if case.halves else types[0])):
                chosen.append(pytest.param(case, dtype, id=f"{case}-{dtype}"))
    return chosen


@pytest.mark.parametrize(("case", "dtype"), of_each_operator())
def test_bits(module: Any, case: Case, dtype: str) -> None:
    arguments = made(case, dtype)

    def run(seed: int, multiprocessors: int) -> tuple[Any, ...]:
        module.set_seed(seed)
        module.set_multiprocessors(multiprocessors)
        given = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        with fa.backend("emulator"):
            if case.call is not None:
                return as_tuple(case.call(fa.ops, **given))
            return as_tuple(getattr(fa.ops, case.op)(**given))

    def expect_equal(first: Any, second: Any) -> None:
        if first is None:
            assert second is None
        else:
            assert np.asarray(first).tobytes() == np.asarray(second).tobytes()

    first = run(0, 2)
    for seed, multiprocessors in ((1, 2), (2, 5), (3, 132)):
        for ours, theirs in zip(run(seed, multiprocessors), first, strict=True):
            if multiprocessors == 2 or case.op in ANYWHERE:
                expect_equal(ours, theirs)
