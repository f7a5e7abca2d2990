"""What matrix products of float32 arrays may be computed with.

By default float32 is float32. On a GPU with tensor cores (compute capability 8.0 or later, and in the
emulator) two other ways are open to convolutions and linear layers, forward and backward:

- ``"tf32"`` rounds every operand to 10 bits of fraction and sums in float32: relative errors of about 1e-3,
  as ``torch.set_float32_matmul_precision("high")`` allows;
- ``"3xtf32"`` makes float32's accuracy out of three tf32 products. Where that would not hold (products of
  fewer than 64 terms, magnitudes below 2^-100 or above 2^60) the kernels compute in float32 by themselves.

It is a permission: float64 arrays, the CPU and other devices compute as they always do.
"""

from __future__ import annotations

from fastarch.choices import Choice, Scope

NAMES = ("float32", "tf32", "3xtf32")  # their places are the kernels' numbers (csrc/core/types.h)
_CHOICE = Choice("precision", NAMES, "FASTARCH_PRECISION")
current = _CHOICE.current


class precision(Scope):
    """Allows float32 products on tensor cores: ``with fa.precision("tf32"): ...``.

    name: "float32" (the default: float32 throughout), "tf32" or "3xtf32". Raises ValueError for another
    name. The environment variable FASTARCH_PRECISION does the same for a whole process. Ootomo and Yokota,
    "Recovering single precision accuracy from Tensor Cores" (2022).
    """

    choice = _CHOICE
