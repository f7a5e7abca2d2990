"""Models: parameter counts, equality with PyTorch for equal weights, gradients, learning, and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import Backend
from differences import host
from fastarch import models, optim
from fastarch.nn import functional as F

VARIANTS = [(a, p) for a in ("relu", "tanh") for p in ("max", "average")]


def images(n: int, dtype: Any = np.float32, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((n, channels, 32, 32)).astype(dtype)


@pytest.mark.parametrize("name", list(models.MODELS))
def test_the_table_tells_the_truth(name: str) -> None:
    info = models.MODELS[name]
    model = models.build(name)
    assert info.name == name
    assert sum(p.size for p in model.parameters()) == info.parameters
    y = model.eval()(np.zeros((2, *info.input_shape), np.float32))
    assert y.shape == (2, 10)
    assert info.title
    assert info.description
    assert any(year in info.paper for year in map(str, range(1980, 2030)))
    assert {"epochs", "batch_size", "optimizer", "lr"} <= set(info.training)
    assert f"{info.parameters:,}" in model.summary(info.input_shape).splitlines()[-1]


def test_building_by_name() -> None:
    assert models.build("lenet5", num_classes=3, in_channels=2)(images(1, channels=2)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"\[build\] no model 'lenet6'; there are .*lenet5"):
        models.build("lenet6")


@pytest.mark.parametrize(("activation", "pooling"), VARIANTS)
def test_lenet5_has_its_parameters(activation: str, pooling: str) -> None:
    model = fa.models.lenet5(activation=activation, pooling=pooling)
    counts = {name: p.size for name, p in model.named_parameters()}
    assert sum(counts.values()) == 61_706
    layers = {"conv1": 156, "conv2": 2_416, "fc1": 48_120, "fc2": 10_164, "fc3": 850}
    assert {k: counts[f"{k}.weight"] + counts[f"{k}.bias"] for k in layers} == layers


def test_lenet5_errors() -> None:
    with pytest.raises(ValueError, match=r"\[lenet5\] activation must be 'relu' or 'tanh', got 'gelu'"):
        fa.models.lenet5(activation="gelu")
    with pytest.raises(ValueError, match=r"\[lenet5\] pooling must be 'max' or 'average', got 'min'"):
        fa.models.lenet5(pooling="min")
    with pytest.raises(ValueError, match=r"\[linear\] x has shape \(1, 256\)"):
        fa.models.lenet5()(np.zeros((1, 1, 28, 28), np.float32))


@pytest.mark.parametrize(("activation", "pooling"), VARIANTS)
def test_lenet5_is_pytorch_s(activation: str, pooling: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    tn = torch.nn

    class Peer(tn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = tn.Conv2d(1, 6, 5), tn.Conv2d(6, 16, 5)
            self.fc1, self.fc2, self.fc3 = tn.Linear(400, 120), tn.Linear(120, 84), tn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            f = torch.relu if activation == "relu" else torch.tanh
            pool = tn.functional.max_pool2d if pooling == "max" else tn.functional.avg_pool2d
            x = pool(f(self.conv1(x)), 2)
            x = pool(f(self.conv2(x)), 2).flatten(1)
            return self.fc3(f(self.fc2(f(self.fc1(x)))))

    peer = Peer().double()
    model = fa.models.lenet5(activation=activation, pooling=pooling).double()
    model.load_state_dict(peer.state_dict())
    x, target = images(5, np.float64), np.array([0, 3, 9, 1, 1])
    inputs, others = fa.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, want = model(inputs), peer(others)
    np.testing.assert_allclose(y.data, want.detach().numpy(), rtol=1e-11, atol=1e-13)
    loss, other = F.cross_entropy(y, target), tn.functional.cross_entropy(want, torch.tensor(target))
    np.testing.assert_allclose(loss.item(), other.item(), rtol=1e-12)
    loss.backward()
    other.backward()
    np.testing.assert_allclose(inputs.grad, others.grad.numpy(), rtol=1e-9, atol=1e-14)
    for (name, p), q in zip(model.named_parameters(), peer.parameters()):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-9, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(("activation", "pooling"), [("tanh", "average"), ("relu", "max")])
def test_the_gradient_of_the_whole_network(backend: Backend, activation: str, pooling: str) -> None:
    """Central differences along random directions in each parameter, and along one in all of them, in
    float64.
    """
    fa.manual_seed(1)
    model = fa.models.lenet5(activation=activation, pooling=pooling).double()
    if backend.name == "cuda":
        model.to("cuda")
    x, target = backend.put(images(2, np.float64)), backend.put(np.array([4, 7]))
    generator = np.random.default_rng(0)
    step = 1e-6
    with fa.backend(backend.name):

        def loss() -> Any:
            return F.cross_entropy(model(x), target)

        loss().backward()
        grads = [host(p.grad) for p in model.parameters()]
        # one parameter at a time, then all together: a wrong gradient anywhere shows in its own line and in
        # the last
        parameters = list(model.parameters())
        for chosen in [*[[i] for i in range(len(parameters))], list(range(len(parameters)))]:
            directions = {i: generator.standard_normal(parameters[i].shape) for i in chosen}
            scale = np.sqrt(sum((d**2).sum() for d in directions.values()))
            values = []
            for sign in (1, -1):
                originals = {i: parameters[i].data for i in chosen}
                for i, d in directions.items():
                    parameters[i].data = originals[i] + backend.put(np.asarray(d * (sign * step / scale)))
                with fa.no_grad():
                    values.append(loss().item())
                for i, original in originals.items():
                    parameters[i].data = original
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = sum((grads[i] * d).sum() for i, d in directions.items()) / scale
            assert numeric == pytest.approx(analytic, rel=1e-5, abs=2e-8)
            assert analytic != 0


@pytest.mark.parametrize(("activation", "pooling"), VARIANTS)
def test_a_tiny_batch_is_learned_by_heart(activation: str, pooling: str) -> None:
    fa.manual_seed(0)
    model = fa.models.lenet5(activation=activation, pooling=pooling)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    x, target = images(10), np.arange(10)
    for _ in range(400):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        if loss.item() < 1e-3:
            break
    assert loss.item() < 1e-3
    with fa.no_grad():
        assert (model(x).argmax(1) == target).all()


def test_one_seed_gives_one_network() -> None:
    def trained(seed: int) -> list[bytes]:
        fa.manual_seed(seed)
        model = fa.models.lenet5()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(images(8)), np.arange(8)).backward()
            optimizer.step()
        return [array.tobytes() for array in model.state_dict().values()]

    assert trained(5) == trained(5)
    assert trained(5) != trained(6)
