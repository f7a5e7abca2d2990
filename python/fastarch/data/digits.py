"""The embedded data set: 1797 handwritten digits of 8x8 pixels (see NOTICE.md beside this file)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastarch.data.dataset import Dataset

__all__ = ["digits"]


def digits() -> Dataset:
    """Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998), the part in scikit-learn.

    x: [1797, 1, 8, 8] float32 from 0 to 1 (17 levels of grey); y: [1797] int64, the digit.
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        x, y = file["x"], file["y"]
    pictures = x.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    return Dataset(pictures, y.astype(np.int64), [str(digit) for digit in range(10)], "digits")
