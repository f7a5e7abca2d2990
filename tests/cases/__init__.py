"""Every operator's test cases, their answers by definition and their gradients; imports NumPy alone.

A family is a file here with CASES and GRADIENTS. It may also have VALID, a valid call of each of its public
operators, OPTIONAL, pairs (operator, argument) that may be None, BAD, rows (operator, changed arguments,
error, pattern of its message), and kernel_calls(), a small valid call of each of its compiled kernels:
tests/test_errors.py and tests/hostile_calls.py spoil their arguments one at a time. FREE holds (kernel,
argument, what) of spoilt arrays that the kernel may take. Of kernels whose names do not say it,
KERNEL_OUTPUTS names the arrays that are written; KERNEL_OPTIONAL has the pairs (kernel, argument) that may be
None, KERNEL_WRONG the wrong numbers of such pairs.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from cases.case import LAYOUTS, TOLERANCE, Case, Gradient

_MODULES = [
    importlib.import_module(f"cases.{path.stem}") for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))
]
_FAMILIES = [module for module in _MODULES if hasattr(module, "CASES")]

CASES: list[Case] = [case for family in _FAMILIES for case in family.CASES]
GRADIENTS: list[Gradient] = [gradient for family in _FAMILIES for gradient in family.GRADIENTS]
VALID: dict[str, dict[str, Any]] = {
    op: call for family in _FAMILIES for op, call in getattr(family, "VALID", {}).items()
}
BAD: list[tuple] = [row for family in _FAMILIES for row in getattr(family, "BAD", ())]
OPTIONAL: set[tuple[str, str]] = {pair for family in _FAMILIES for pair in getattr(family, "OPTIONAL", ())}
FREE: set[tuple[str, str, str]] = {row for family in _FAMILIES for row in getattr(family, "FREE", ())}
KERNEL_OUTPUTS: dict[str, set[str]] = {
    kernel: names for family in _FAMILIES for kernel, names in getattr(family, "KERNEL_OUTPUTS", {}).items()
}
KERNEL_OPTIONAL: set[tuple[str, str]] = {
    pair for family in _FAMILIES for pair in getattr(family, "KERNEL_OPTIONAL", ())
}
KERNEL_WRONG: dict[tuple[str, str], tuple] = {
    pair: wrong for family in _FAMILIES for pair, wrong in getattr(family, "KERNEL_WRONG", {}).items()
}


def kernel_calls() -> dict[str, dict[str, Any]]:
    """A small valid call of every compiled kernel that its family describes, with fresh arrays."""
    makers = [family.kernel_calls for family in _FAMILIES if hasattr(family, "kernel_calls")]
    return {kernel: call for make in makers for kernel, call in make().items()}


__all__ = [
    "BAD",
    "CASES",
    "FREE",
    "GRADIENTS",
    "KERNEL_OPTIONAL",
    "KERNEL_OUTPUTS",
    "KERNEL_WRONG",
    "LAYOUTS",
    "OPTIONAL",
    "TOLERANCE",
    "VALID",
    "Case",
    "Gradient",
    "kernel_calls",
]
