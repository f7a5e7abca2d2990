"""Optimizer steps in place: no public operator, no cases; tests/test_fused_updates.py compares the bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from cases.case import Arguments, Case, Gradient

CASES: list[Case] = []
GRADIENTS: list[Gradient] = []
KERNEL_OUTPUTS: dict[str, set[str]] = {"sgd_update": set(), "adam_update": set()}  # beside those in lists
KERNEL_OPTIONAL = {("sgd_update", "words"), ("adam_update", "words")}
FREE = {("sgd_update", "words", "strided"), ("sgd_update", "words", "reversed")}  # of one element


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of every compiled kernel, with fresh arrays."""

    def arrays() -> list[Any]:
        return [np.ones((2, 3), np.float32), np.ones(5, np.float32)]

    sgd = {"lr": 0.1, "momentum": 0.9, "keep": 1.0, "decay": 0.0, "nesterov": False, "first": False}
    adam = {"step_size": 0.1, "correction": 1.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.0}
    return {
        "sgd_update": {
            **{name: arrays() for name in ("params", "grads", "buffers")},
            **sgd,
            "words": np.ones(1),
        },
        "adam_update": {
            **{name: arrays() for name in ("params", "grads", "means", "squares", "largest")},
            **adam,
            "kept": 1.0,
            "amsgrad": True,
            "words": np.ones(3),
        },
    }
