"""Gradient clipping, in place on the `grad` of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

import numpy as np

from fastarch.arrays import is_half, namespace
from fastarch.autograd import Array
from fastarch.capturing import refuse
from fastarch.tensors import Tensor


def _gradients(parameters: Any) -> list[Array]:
    tensors: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in tensors if p.grad is not None]


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Any:
    """Scales all gradients together so that their norm, as of one long vector, is at most max_norm; returns
    the norm before.

    The norm, in float32 of 16-bit gradients, is a NumPy scalar, or a CuPy array of no dimensions, so that the
    device is not waited for. Raises ValueError for a max_norm below 0 and a norm_type not above 0, and
    RuntimeError for a norm that is not finite when asked to.
    """
    if not max_norm >= 0:
        raise ValueError(f"[clip_grad_norm_] max_norm must be at least 0, got {max_norm}")
    if not norm_type > 0:
        raise ValueError(f"[clip_grad_norm_] norm_type must be above 0, got {norm_type}")
    grads = _gradients(parameters)
    if not grads:
        return np.float32(0)
    xp = namespace(grads[0])
    norm = _norm(xp.stack([_norm(g.reshape(-1), norm_type) for g in grads]), norm_type)
    if error_if_nonfinite:
        refuse("clip_grad_norm_ with error_if_nonfinite reads the norm on the host")
        if not bool(xp.isfinite(norm)):
            raise RuntimeError(f"[clip_grad_norm_] the norm of the gradients is {norm}")
    scale = xp.minimum(max_norm / (norm + norm.dtype.type(1e-6)), 1)
    for g in grads:
        if is_half(g.dtype):  # a scale of 16 bits would be rounded, or 0
            g[...] = g.astype(np.float32) * scale
        else:
            g *= scale.astype(g.dtype)
    return norm


def _norm(flat: Array, norm_type: float) -> Any:
    xp = namespace(flat)
    if is_half(flat.dtype):  # float16 ends at 65504: its squares, and their sum, do not fit
        flat = flat.astype(np.float32)
    if norm_type == 2:
        return xp.sqrt(flat.dot(flat))
    if norm_type == inf:
        return abs(flat).max() if flat.size else flat.sum()
    return (abs(flat) ** norm_type).sum() ** flat.dtype.type(1 / norm_type)


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limits every element of the gradients to [-clip_value, clip_value]. Raises ValueError for a negative
    bound.
    """
    if not clip_value >= 0:
        raise ValueError(f"[clip_grad_value_] clip_value must be at least 0, got {clip_value}")
    for g in _gradients(parameters):
        namespace(g).clip(g, -clip_value, clip_value, out=g)
