"""Every case of every operator on every backend against its definition in float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from cases import CASES, GRADIENTS, Case
from conftest import FLOATS, Backend, dtypes_of, seeded

HALVES = ("float16", "bfloat16")
PUBLIC = [name for family in fa.ops.OPERATORS.values() for name in family]


@pytest.mark.parametrize("op", PUBLIC)
def test_operator_has_a_case(op: str) -> None:
    assert any(case.op == op for case in CASES), f"tests/cases has no case for fastarch.ops.{op}"


@pytest.mark.parametrize("op", [name for name in PUBLIC if name.endswith("_backward")])
def test_backward_has_a_gradient_check(op: str) -> None:
    assert any(gradient.op == op for gradient in GRADIENTS), (
        f"tests/cases has no Gradient for fastarch.ops.{op}"
    )


def test_cases_name_public_operators() -> None:
    assert {case.op for case in CASES} <= set(PUBLIC)


@functools.cache
def made(case: Case, dtype: str) -> dict[str, Any]:
    return case.make(seeded(str(case)), FLOATS[dtype])


@functools.cache
def definition(case: Case, dtype: str) -> tuple:
    return as_tuple(case.oracle(**made(case, dtype)))


def as_tuple(outputs: Any) -> tuple:
    return tuple(outputs) if isinstance(outputs, tuple) else (outputs,)


def calls_of(cases: list[Case]) -> list[Any]:
    """Each case in every float dtype that its operator takes."""
    return [
        pytest.param(case, dtype, id=f"{case}-{dtype}")
        for case in cases
        for dtype in dtypes_of(case.op)
        if case.halves or dtype not in HALVES
    ]


@pytest.mark.parametrize(("case", "dtype"), calls_of(CASES))
def test_case(case: Case, dtype: str, backend: Backend) -> None:
    arguments = {name: backend.put(value, case.layout) for name, value in made(case, dtype).items()}
    got = as_tuple(perform(case, arguments, backend))
    again = as_tuple(perform(case, arguments, backend))
    want = definition(case, dtype)
    assert len(got) == len(want)
    for index, (array, second, expected) in enumerate(zip(got, again, want, strict=True)):
        where = f"output {index} of {case}"
        if expected is None:
            assert array is None, f"{where} is not needed and must be None"
            continue
        width = "float32" if index in case.wide and dtype in HALVES else dtype
        check_form(array, expected, width, backend, where)
        for name, argument in arguments.items():
            if isinstance(argument, backend.xp.ndarray):
                assert not backend.xp.may_share_memory(array, argument), f"{where} is memory of {name}"
        check_values(backend.host(array), expected, case.tolerance_in(width), case.nonfinite, where)
        assert backend.host(array).tobytes() == backend.host(second).tobytes(), (
            f"{where} differs when repeated"
        )
    for name, argument in arguments.items():
        if isinstance(argument, backend.xp.ndarray):
            before = made(case, dtype)[name]
            assert backend.host(argument).tobytes() == before.tobytes(), f"{case} modified its input {name}"


def perform(case: Case, arguments: dict[str, Any], backend: Backend) -> Any:
    if case.call is None:
        return backend.call(case.op, arguments)
    with fa.backend(backend.name):
        return case.call(fa.ops, **arguments)


def check_form(array: Any, expected: np.ndarray, dtype: str, backend: Backend, where: str) -> None:
    """The array type that went in, the shape and dtype of the definition, C order, writable."""
    assert type(array) is backend.xp.ndarray, f"{where} is {type(array)}"
    assert array.shape == expected.shape, where
    assert array.dtype == (dtype if expected.dtype == np.float64 else expected.dtype), where
    assert array.flags.c_contiguous, f"{where} is not in C order"
    if backend.xp is np:
        assert array.flags.writeable, f"{where} is read-only"


def check_values(got: np.ndarray, want: np.ndarray, tolerance: float, nonfinite: bool, where: str) -> None:
    """Finite first, then close; integers exactly."""
    if want.dtype != np.float64:
        np.testing.assert_array_equal(got, want, err_msg=where)
        return
    assert nonfinite or np.isfinite(want).all(), f"the definition of {where} is not finite"
    finite = np.isfinite(want)
    got = got.astype(np.float64)
    np.testing.assert_array_equal(np.isfinite(got), finite, err_msg=f"finite elements of {where}")
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=where)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=where)
