"""LeNet-5, the convolutional network that read the digits on cheques."""

from __future__ import annotations

from typing import Any

from fastarch import nn
from fastarch.tensors import Tensor


class LeNet5(nn.Module):
    """LeNet-5 for images [N, in_channels, 32, 32], giving logits [N, num_classes].

    LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition", 1998. As it
    is built today: every filter of the second convolution sees all six maps, pooling has no parameters, and
    the output is a linear layer rather than radial basis functions; 61,706 parameters for 10 classes, where
    the paper has 60,000. With activation="tanh" and pooling="average" it is the closest to the paper.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 1, activation: str = "relu", pooling: str = "max"
    ) -> None:
        if activation not in ("relu", "tanh"):
            raise ValueError(f"[lenet5] activation must be 'relu' or 'tanh', got {activation!r}")
        if pooling not in ("max", "average"):
            raise ValueError(f"[lenet5] pooling must be 'max' or 'average', got {pooling!r}")
        self.conv1 = nn.Conv2d(in_channels, 6, 5, activation=activation)  # 6 x 28 x 28
        self.pool1 = nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)  # 6 x 14 x 14
        self.conv2 = nn.Conv2d(6, 16, 5, activation=activation)  # 16 x 10 x 10
        self.pool2 = nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)  # 16 x 5 x 5
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(16 * 5 * 5, 120, activation=activation)
        self.fc2 = nn.Linear(120, 84, activation=activation)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Any) -> Tensor:
        x = nn.convolve_and_pool(self.conv1, self.pool1, x)
        x = self.flatten(nn.convolve_and_pool(self.conv2, self.pool2, x))
        return self.fc3(self.fc2(self.fc1(x)))


def lenet5(
    num_classes: int = 10, in_channels: int = 1, activation: str = "relu", pooling: str = "max"
) -> LeNet5:
    """LeNet-5 for images [N, in_channels, 32, 32]: activation "relu" or "tanh", pooling "max" or "average".

    Raises ValueError for another activation or pooling.
    """
    return LeNet5(num_classes, in_channels, activation, pooling)
