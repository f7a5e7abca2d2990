"""Layers, losses and initialisers, under PyTorch's names and with its parameter layouts and state-dict
keys.
"""

from fastarch.nn import functional, init
from fastarch.nn.containers import ModuleList, Sequential
from fastarch.nn.layers import (
    GRU,
    LSTM,
    RNN,
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GRUCell,
    Identity,
    Linear,
    LSTMCell,
    MaxPool2d,
    ReLU,
    RNNCell,
    Sigmoid,
    Softmax,
    Tanh,
)
from fastarch.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, KLDivLoss, MSELoss, NLLLoss
from fastarch.nn.module import Module, Parameter

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GRUCell",
    "Identity",
    "KLDivLoss",
    "LSTMCell",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
]
