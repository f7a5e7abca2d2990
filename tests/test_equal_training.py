"""One training run, the same on every backend: LeNet-5's first steps on real digits."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend

STEPS = 10
BATCH = 32


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """STEPS batches of digits as LeNet-5 takes them, [N, 1, 32, 32], and their classes."""
    data = fa.data.digits()
    return fa.data.fit_images(data.x[: STEPS * BATCH], 32, 1), data.y[: STEPS * BATCH]


def train(name: str, optimizer: str, **model_arguments: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """The loss of each step, and the weights after the last."""
    before = fa.random.get_state()
    try:
        fa.manual_seed(3)
        model = fa.models.lenet5(**model_arguments)
    finally:
        fa.random.set_state(before)
    with fa.backend(name):
        model.to("cuda" if name == "cuda" else "cpu")
        if optimizer == "SGD":
            rule = fa.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        else:
            rule = fa.optim.Adam(model.parameters(), lr=0.002)
        losses = []
        x, y = digits()
        if name == "cuda":
            import cupy

            x, y = cupy.asarray(x), cupy.asarray(y)
        for step in range(STEPS):
            part = slice(step * BATCH, (step + 1) * BATCH)
            loss = fa.nn.functional.cross_entropy(model(fa.tensor(x[part])), y[part])
            rule.zero_grad()
            loss.backward()
            rule.step()
            losses.append(loss.item())
    return losses, model.state_dict()


numpy_run = functools.lru_cache(maxsize=None)(functools.partial(train, "numpy"))


@pytest.mark.parametrize(
    ("optimizer", "activation", "pooling"), [("Adam", "relu", "max"), ("SGD", "tanh", "average")]
)
def test_first_losses_are_those_of_numpy(
    optimizer: str, activation: str, pooling: str, backend: Backend
) -> None:
    want, _ = numpy_run(optimizer, activation=activation, pooling=pooling)
    got, _ = train(backend.name, optimizer, activation=activation, pooling=pooling)
    assert np.isfinite(want).all()
    assert want[-1] < want[0] - 0.03, "ten steps that learn nothing would agree on anything"
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_a_run_is_repeated_bit_for_bit(backend: Backend) -> None:
    runs = [train(backend.name, "Adam") for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    for name, weights in runs[0][1].items():
        assert weights.tobytes() == runs[1][1][name].tobytes(), name
