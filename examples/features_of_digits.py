"""Features for a linear classifier: a restricted Boltzmann machine learns them from digits, without labels.

Each digit also comes shifted by one pixel in four directions, which a linear classifier of pixels does not
take well. Needs scikit-learn for the logistic regression: python examples/features_of_digits.py
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import fastarch as fa
from fastarch.estimators import RBM


def nudged(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures [N, 8, 8] as they are and shifted left, right, up and down: rows [5N, 64], labels [5N]."""
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    moves = [(1, 1), (1, 0), (1, 2), (0, 1), (2, 1)]
    views = [wide[:, i : i + 8, j : j + 8].reshape(len(x), 64) for i, j in moves]
    return np.concatenate(views), np.tile(y, 5)


def main() -> dict[str, float]:
    """Trains on the nudged views of 1,438 digits, tests on those of the 359 others."""
    train, test = fa.data.split(fa.data.digits(), 0.2)
    (x, y), (x_test, y_test) = (nudged(part.x[:, 0], part.y) for part in (train, test))

    def linear() -> LogisticRegression:
        return LogisticRegression(C=1000, max_iter=300)

    pixels = linear().fit(x, y)
    features = make_pipeline(RBM(n_components=100, n_epochs=10, random_state=0), linear()).fit(x, y)
    figures = {"pixels": pixels.score(x_test, y_test), "features": features.score(x_test, y_test)}
    for name, accuracy in figures.items():
        print(f"logistic regression on {name}: {100 * accuracy:.2f} % of {len(y_test):,} nudged digits")
    return figures


if __name__ == "__main__":
    main()
