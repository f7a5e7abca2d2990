"""How convolutions with 3x3 filters may be computed: directly, or by Winograd's transforms.

Winograd's minimal filtering computes a tile of outputs with fewer multiplications: F(2x2, 3x3) with 2.25
times fewer, F(4x4, 3x3) with 4 times fewer.

- ``"auto"``: the CPU takes F(2x2, 3x3) for float32 where it was measured to be faster, except for images with
  pixels, and filters with weights, that are not finite or far out of the ordinary (beyond 2^60; filters of
  weights below 2^-60); these are computed directly. Each output is computed from the pixels that it sees
  alone, and its error is bounded, as that of a direct sum is, by float32's precision times the largest of
  these pixels times the sum of the filter's magnitudes. A GPU computes directly.
- ``"direct"``: as the sum in the operator's definition, everywhere.
- ``"winograd2"``, ``"winograd4"``: F(2x2, 3x3) or F(4x4, 3x3) wherever one is possible, whatever the values:
  an infinite pixel may give NaN where a direct sum is infinite. The larger tile costs about a digit of
  float32's accuracy, and all its outputs take part in the errors that its largest pixel makes, also those
  that do not see it.

It is a permission: convolutions of other filters, strides and dilations, those of several groups, 16-bit
arrays, gradients of weights and the NumPy backend compute directly, and so do, on CUDA, channels-last images
and `conv2d_max_pool`.
"""

from __future__ import annotations

from fastarch.choices import Choice, Scope

# Their places are the kernels' numbers (csrc/ops/conv2d.h).
NAMES = ("auto", "direct", "winograd2", "winograd4")
_CHOICE = Choice("conv_algorithm", NAMES, "FASTARCH_CONV_ALGORITHM")
current = _CHOICE.current


class conv_algorithm(Scope):
    """How 3x3 convolutions of stride 1 are computed: ``with fa.conv_algorithm("winograd2"): ...``.

    name: "auto" (the default), "direct", "winograd2" or "winograd4"; what they mean is said in
    ``fastarch.algorithms``. Raises ValueError for another name. The environment variable
    FASTARCH_CONV_ALGORITHM does the same for a whole process. Lavin and Gray, "Fast Algorithms for
    Convolutional Neural Networks" (2016).
    """

    choice = _CHOICE
