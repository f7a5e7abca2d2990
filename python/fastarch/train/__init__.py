"""Training: `fit`, run folders that survive kill -9, and what a finished run leaves behind."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastarch.train.engine import Diverged, Step
    from fastarch.train.evaluation import confusion_matrix, evaluate, outputs
    from fastarch.train.folder import RunFolder
    from fastarch.train.interrupt import Interrupted
    from fastarch.train.loop import History, fit

__all__ = [
    "Diverged",
    "History",
    "Interrupted",
    "RunFolder",
    "Step",
    "confusion_matrix",
    "evaluate",
    "fit",
    "outputs",
]

# Loaded at first use: the command line reads the names of optimizers here before it needs any of this.
_HOMES = {
    "Diverged": "engine",
    "History": "loop",
    "Interrupted": "interrupt",
    "RunFolder": "folder",
    "Step": "engine",
    "confusion_matrix": "evaluation",
    "evaluate": "evaluation",
    "fit": "loop",
    "outputs": "evaluation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastarch.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastarch.train.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
