"""The layers, a file per family."""

from fastarch.nn.layers.activation import ReLU, Sigmoid, Softmax, Tanh
from fastarch.nn.layers.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from fastarch.nn.layers.linear import Linear
from fastarch.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from fastarch.nn.layers.recurrent import GRU, LSTM, RNN
from fastarch.nn.layers.recurrent_cell import GRUCell, LSTMCell, RNNCell
from fastarch.nn.layers.regularization import Dropout
from fastarch.nn.layers.shape import Flatten, Identity

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
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
    "MaxPool2d",
    "RNNCell",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
