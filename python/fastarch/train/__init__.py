"""Training: `fit`, run folders that survive kill -9, and what a finished run leaves behind."""

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
