"""A deep stacking network reads digits: what each module adds, and what back-propagation adds at the end.

Needs nothing but fastarch: python examples/deep_stacking.py
"""

from __future__ import annotations

import numpy as np

import fastarch as fa
from fastarch.estimators import DSNClassifier


def main() -> dict[str, float]:
    """Trains on 1,438 digits and reports on the 359 others."""
    train, test = fa.data.split(fa.data.digits(), 0.2)
    x, x_test = (part.x.reshape(len(part.x), -1) for part in (train, test))

    stack = DSNClassifier(n_modules=4, n_hidden=20, output="linear", random_state=0).fit(x, train.y)
    figures = {}
    for depth in range(1, 5):
        shallow = DSNClassifier(n_modules=depth, n_hidden=20, output="linear", random_state=0).fit(x, train.y)
        # Modules are trained alone: a shallower network is the beginning of a deeper one.
        assert np.array_equal(shallow.outputs_[-1], stack.outputs_[depth - 1])
        figures[f"error {depth}"] = stack.errors_[depth - 1]
        figures[f"test {depth}"] = shallow.score(x_test, test.y)
        error, accuracy = figures[f"error {depth}"], 100 * figures[f"test {depth}"]
        print(f"modules {depth}: squared training error {error:.4f}, test accuracy {accuracy:.2f} %")

    tuned = DSNClassifier(n_modules=4, n_hidden=20, fine_tune_epochs=20, random_state=0).fit(x, train.y)
    figures["tuned"] = tuned.score(x_test, test.y)
    print(f"with a softmax layer and fine-tuning: test accuracy {100 * figures['tuned']:.2f} %")
    return figures


if __name__ == "__main__":
    main()
