"""Optimizers, learning-rate schedules and gradient clipping, numerically PyTorch's."""

from fastarch.optim import lr_scheduler
from fastarch.optim.adam import Adam, AdamW
from fastarch.optim.clip import clip_grad_norm_, clip_grad_value_
from fastarch.optim.optimizer import Optimizer
from fastarch.optim.rmsprop import RMSprop
from fastarch.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
