"""Words that kernels read: no public operator, no cases; tests/test_words.py compares them."""

from __future__ import annotations

import numpy as np

from cases.case import Arguments, Case, Gradient

CASES: list[Case] = []
GRADIENTS: list[Gradient] = []
KERNEL_OUTPUTS = {"store_words": {"words"}, "random_words": {"words"}}
KERNEL_OPTIONAL = {("random_words", "word")}
# Any number of words, and in memory one word alone looks the same either way.
FREE = {
    *(
        ("random_words", "words", what)
        for what in ("one row less", "one row more", "no rows", "an axis more")
    ),
    *((op, "word", what) for op in ("random_words", "dropout_forward") for what in ("strided", "reversed")),
    ("store_words", "words", "an axis more"),
}
KERNEL_WRONG = {("random_words", "start"): (-1, 2**62, 2**63, 1.5)}


def kernel_calls() -> dict[str, Arguments]:
    """A small valid call of every compiled kernel, with fresh arrays."""
    return {
        "store_words": {"words": np.zeros(5, np.int64), "values": np.arange(5)},
        "random_words": {
            "words": np.zeros(7, np.int32),
            "start": 2,
            "seed": 1,
            "offset": 2,
            "word": np.ones(1, np.int64),
        },
    }
