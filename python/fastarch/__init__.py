"""fastarch: the classic deep-learning architectures on hand-written CUDA kernels, with a NumPy fallback."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Loaded at first use, so that `import fastarch` costs little more than NumPy.
_SUBMODULES = ("cuda", "data", "estimators", "models", "nn", "ops", "optim", "random", "train")
_NAMES = {
    "Tensor": "tensors",
    "tensor": "tensors",
    "Function": "autograd",
    "no_grad": "autograd",
    "autotune": "autotuning",
    "backend": "backends",
    "conv_algorithm": "algorithms",
    "precision": "precisions",
    "manual_seed": "random",
    "info": "information",
    "save": "io",
    "load": "io",
    "concatenate": "tensors",
    "stack": "tensors",
    "where": "tensors",
}

if TYPE_CHECKING:
    from fastarch import cuda, data, estimators, models, nn, ops, optim, random, train
    from fastarch.algorithms import conv_algorithm
    from fastarch.autograd import Function, no_grad
    from fastarch.autotuning import autotune
    from fastarch.backends import backend
    from fastarch.information import info
    from fastarch.io import load, save
    from fastarch.precisions import precision
    from fastarch.random import manual_seed
    from fastarch.tensors import Tensor, concatenate, stack, tensor, where

__all__ = [
    "Function",
    "Tensor",
    "autotune",
    "backend",
    "concatenate",
    "conv_algorithm",
    "cuda",
    "data",
    "estimators",
    "info",
    "load",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "precision",
    "random",
    "save",
    "stack",
    "tensor",
    "train",
    "where",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"fastarch.{_NAMES[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"fastarch.{name}")
    else:
        raise AttributeError(f"module 'fastarch' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
