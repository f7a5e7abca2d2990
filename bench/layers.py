"""The convolutions of the networks that people measure, each with how often it stands in its network.

Square pictures and filters; the sizes are those of a 224 x 224 input (LeNet-5: 32 x 32). Networks in which
layers of one shape repeat have one entry with a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from peers import Convolution

Layer = tuple[Convolution, int]  # and its count


def _count(layers: Iterable[tuple[int, int, int, int, int, int, int]], network: str, n: int) -> list[Layer]:
    """From (c, size, k, r, stride, padding, groups) of each layer in its order."""
    counts = Counter(layers)
    return [(Convolution(_name(network, n, *shape), n, *_fields(*shape)), m) for shape, m in counts.items()]


def _fields(c: int, size: int, k: int, r: int, stride: int, padding: int, groups: int) -> tuple[int, ...]:
    return c, size, k, r, stride, padding, groups


def _name(network: str, n: int, c: int, size: int, k: int, r: int, stride: int, _: int, groups: int) -> str:
    by = f"/{stride}" if stride > 1 else ""
    apart = " depthwise" if groups > 1 else ""
    return f"{network} {r}x{r}{by}{apart} {c}-{k}@{size} N{n}"


def _lenet5() -> list[tuple]:
    return [(1, 32, 6, 5, 1, 0, 1), (6, 14, 16, 5, 1, 0, 1)]


def _alexnet() -> list[tuple]:
    """torchvision's: 64, 192, 384, 256, 256 filters."""
    rest = [(192, 13, 384), (384, 13, 256), (256, 13, 256)]
    return [(3, 224, 64, 11, 4, 2, 1), (64, 27, 192, 5, 1, 2, 1), *((*shape, 3, 1, 1, 1) for shape in rest)]


def _vgg16() -> list[tuple]:
    layers, c, size = [], 3, 224
    for k, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            layers.append((c, size, k, 3, 1, 1, 1))
            c = k
        size //= 2
    return layers


def _resnet50() -> list[tuple]:
    """The stride on the 3x3 convolution, as torchvision has it."""
    layers, c, size = [(3, 224, 64, 7, 2, 3, 1)], 64, 56
    for width, repeats in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for i in range(repeats):
            stride = 2 if i == 0 and width > 64 else 1
            layers += [(c, size, width, 1, 1, 0, 1), (width, size, width, 3, stride, 1, 1)]
            layers += [(width, size // stride, 4 * width, 1, 1, 0, 1)]
            if i == 0:
                layers.append((c, size, 4 * width, 1, stride, 0, 1))
            c, size = 4 * width, size // stride
    return layers


# Of each block: size, input channels; filters of 1x1, before 3x3, of 3x3, before 5x5, of 5x5, after the pool.
_INCEPTION = (
    (28, 192, 64, 96, 128, 16, 32, 32),
    (28, 256, 128, 128, 192, 32, 96, 64),
    (14, 480, 192, 96, 208, 16, 48, 64),
    (14, 512, 160, 112, 224, 24, 64, 64),
    (14, 512, 128, 128, 256, 24, 64, 64),
    (14, 512, 112, 144, 288, 32, 64, 64),
    (14, 528, 256, 160, 320, 32, 128, 128),
    (7, 832, 256, 160, 320, 32, 128, 128),
    (7, 832, 384, 192, 384, 48, 128, 128),
)


def _googlenet() -> list[tuple]:
    """As published in 2014, with 5x5 filters."""
    layers = [(3, 224, 64, 7, 2, 3, 1), (64, 56, 64, 1, 1, 0, 1), (64, 56, 192, 3, 1, 1, 1)]
    for size, c, ones, before3, threes, before5, fives, pooled in _INCEPTION:
        layers += [(c, size, k, 1, 1, 0, 1) for k in (ones, before3, before5, pooled)]
        layers += [(before3, size, threes, 3, 1, 1, 1), (before5, size, fives, 5, 1, 2, 1)]
    return layers


def _mobilenet() -> list[tuple]:
    """Version 1, its depthwise convolutions alone."""
    shapes = [(32, 112, 1), (64, 112, 2), (128, 56, 1), (128, 56, 2), (256, 28, 1), (256, 28, 2)]
    shapes += [(512, 14, 1)] * 5 + [(512, 14, 2), (1024, 7, 1)]
    return [(c, size, c, 3, stride, 1, c) for c, size, stride in shapes]


_NETWORKS = {
    "lenet5": _lenet5,
    "alexnet": _alexnet,
    "vgg16": _vgg16,
    "googlenet": _googlenet,
    "resnet50": _resnet50,
    "mobilenet": _mobilenet,
}
NETWORKS = tuple(_NETWORKS)


def layers(network: str, n: int) -> list[Layer]:
    """The distinct convolutions of a network at batch size n, with their counts."""
    return _count(_NETWORKS[network](), network, n)
