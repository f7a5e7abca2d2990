"""Every operator's test cases, their answers by definition and their gradients; imports NumPy alone."""

from __future__ import annotations

from cases import activation, conv2d, dropout, linear, pool2d, recurrent, softmax
from cases.case import LAYOUTS, TOLERANCE, Case, Gradient

_FAMILIES = (activation, conv2d, dropout, linear, pool2d, recurrent, softmax)

CASES: list[Case] = [case for family in _FAMILIES for case in family.CASES]
GRADIENTS: list[Gradient] = [gradient for family in _FAMILIES for gradient in family.GRADIENTS]

__all__ = ["CASES", "GRADIENTS", "LAYOUTS", "TOLERANCE", "Case", "Gradient"]
