"""Recommendation from ratings of which most are missing: a restricted Boltzmann machine beside simple means.

The ratings are generated: 600 users like 60 films by three hidden tastes, rate from 1 to 5, and have seen a
quarter of them. Needs nothing but fastarch: python examples/recommendation.py
"""

from __future__ import annotations

import numpy as np

from fastarch.estimators import RatingRBM

USERS, FILMS, TASTES = 600, 60, 3


def made_up_ratings(draw: np.random.Generator) -> np.ndarray:
    """What every user would give every film: [users, films], 1 to 5."""
    liking = draw.normal(size=(USERS, TASTES)) @ draw.normal(size=(TASTES, FILMS))
    quality = 0.6 * draw.normal(size=FILMS)
    return np.clip(np.round(3.3 + 0.7 * liking + quality + 0.3 * draw.normal(size=liking.shape)), 1, 5)


def main() -> dict[str, float]:
    """Withholds a fifth of the ratings and predicts them."""
    draw = np.random.default_rng(0)
    ratings = made_up_ratings(draw)
    rated = draw.random(ratings.shape) < 0.25
    withheld = rated & (draw.random(ratings.shape) < 0.2)
    known = np.where(rated & ~withheld, ratings, np.nan)  # NaN: not rated, or withheld
    print(f"{np.isfinite(known).sum():,} ratings known, {withheld.sum():,} withheld")

    def error(predicted: np.ndarray) -> float:
        return float(np.sqrt(np.mean((predicted - ratings)[withheld] ** 2)))

    of_film = np.nanmean(known, axis=0)
    machine = RatingRBM(n_components=60, n_epochs=50, random_state=0).fit(known)
    predicted = machine.predict_ratings(known)
    figures = {
        "mean": error(np.broadcast_to(of_film, ratings.shape)),
        "machine": error(predicted),
    }
    for name, value in figures.items():
        print(f"root mean squared error of the {name}: {value:.3f}")

    # To the first user: the unseen films that the machine expects to please most.
    expected = np.where(rated[0], -np.inf, predicted[0])
    best = np.argsort(-expected)[:5]
    figures["recommended"] = float(ratings[0, best].mean())
    figures["unseen"] = float(ratings[0, ~rated[0]].mean())
    print(
        f"five recommended films: {figures['recommended']:.2f} on average, all unseen {figures['unseen']:.2f}"
    )
    return figures


if __name__ == "__main__":
    main()
