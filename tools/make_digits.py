"""Writes python/fastarch/data/digits.npz from scikit-learn's copy of the UCI digits."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TARGET = Path(__file__).resolve().parent.parent / "python/fastarch/data/digits.npz"


def main() -> None:
    digits = load_digits()
    x, y = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    if not (x == digits.images).all() or x.max() != 16:
        raise SystemExit("scikit-learn's digits changed: expected whole numbers from 0 to 16")
    np.savez_compressed(TARGET, x=x, y=y)
    print(f"{TARGET}: {x.shape}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
