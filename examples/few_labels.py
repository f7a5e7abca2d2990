"""Ten labels a class: a deep belief network pretrained on unlabelled digits beside the same network without.

Needs nothing but fastarch: python examples/few_labels.py [number of seeds]
"""

from __future__ import annotations

import sys

import numpy as np

import fastarch as fa
from fastarch.estimators import DBNClassifier

NETWORK = {
    "hidden_layer_sizes": (200, 200, 200),
    "batch_size": 20,
    "fine_tune_epochs": 40,
    "dtype": "float32",
}


def compare(seed: int) -> tuple[float, float]:
    """(with, without) pretraining: the share of right answers on 500 digits that took no part in either."""
    digits = fa.data.digits()
    pool, test = fa.data.split(digits, 500, seed=seed)
    x, x_test = (part.x.reshape(len(part), -1) for part in (pool, test))
    order = np.random.default_rng(seed).permutation(len(pool))
    labelled = np.concatenate([order[pool.y[order] == digit][:10] for digit in range(10)])

    # n_epochs=0 starts the network from random weights of variance 1 / inputs; all else is the same.
    scores = []
    for epochs in (80, 0):
        network = DBNClassifier(n_epochs=epochs, random_state=seed, **NETWORK)
        network.fit(x[labelled], pool.y[labelled], unlabelled=x)
        scores.append(network.score(x_test, test.y))
    return scores[0], scores[1]


def main(seeds: int = 1) -> dict[str, float]:
    """Compares the two for seeds 0, 1, ...: other splits, labels, weights and samples each."""
    results = []
    for seed in range(seeds):
        results.append(compare(seed))
        with_, without = (100 * score for score in results[-1])
        print(f"seed {seed}: {with_:.1f} % with pretraining, {without:.1f} % without")
    mean = np.mean(results, axis=0)
    print(f"mean of {seeds}: {100 * mean[0]:.2f} % with pretraining, {100 * mean[1]:.2f} % without")
    better = sum(with_ > without for with_, without in results)
    return {"pretrained": float(mean[0]), "random": float(mean[1]), "better": better, "seeds": seeds}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
