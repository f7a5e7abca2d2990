"""The layers, a file per family."""

from fastarch.nn.layers.activation import ReLU, Sigmoid, Softmax, Tanh
from fastarch.nn.layers.conv import Conv2d
from fastarch.nn.layers.linear import Linear
from fastarch.nn.layers.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from fastarch.nn.layers.regularization import Dropout
from fastarch.nn.layers.shape import Flatten, Identity

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "MaxPool2d",
    "ReLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]
