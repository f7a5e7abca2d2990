"""The layers, a file per family."""

from fastarch.nn.layers.activation import ReLU, Sigmoid, Softmax, Tanh
from fastarch.nn.layers.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from fastarch.nn.layers.conv_pool import convolve_and_pool
from fastarch.nn.layers.linear import Linear
from fastarch.nn.layers.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, LocalResponseNorm
from fastarch.nn.layers.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
)
from fastarch.nn.layers.recurrent import GRU, LSTM, RNN
from fastarch.nn.layers.recurrent_cell import GRUCell, LSTMCell, RNNCell
from fastarch.nn.layers.regularization import Dropout
from fastarch.nn.layers.shape import Flatten, Identity

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Dropout",
    "Flatten",
    "GRUCell",
    "Identity",
    "LSTMCell",
    "Linear",
    "LocalResponseNorm",
    "MaxPool1d",
    "MaxPool2d",
    "RNNCell",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "convolve_and_pool",
]
