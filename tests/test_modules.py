"""Modules: how parameters are found, saved, loaded, moved and counted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from fastarch import backends, nn


class Block(nn.Module):
    """Everything a module can be made of."""

    def __init__(self) -> None:
        self.scale = nn.Parameter(np.ones(3, np.float32))
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3, bias=False))
        self.several = nn.ModuleList([nn.Linear(3, 3), nn.Dropout(0.5)])
        self.register_buffer("mean", np.zeros(3, np.float32))
        self.register_buffer("cache", np.zeros(2, np.float32), persistent=False)
        self.shift = nn.Parameter(np.zeros(3, np.float32))

    def forward(self, x: Any) -> Any:
        return self.several[1](self.several[0](self.inner(x * self.scale + self.shift)))


KEYS = ["scale", "shift", "mean", "inner.0.weight", "inner.0.bias", "inner.2.weight", "several.0.weight"]
KEYS.append("several.0.bias")


def test_names_and_order() -> None:
    block = Block()
    assert list(block.state_dict()) == KEYS
    assert [name for name, _ in block.named_parameters()] == [k for k in KEYS if k != "mean"]
    assert [name for name, _ in block.named_buffers()] == ["mean", "cache"]
    assert [name for name, _ in block.named_children()] == ["inner", "several"]
    names = ["", "inner", "inner.0", "inner.1", "inner.2", "several", "several.0", "several.1"]
    assert [name for name, _ in block.named_modules()] == names
    assert len(list(block.buffers())) == 2
    assert isinstance(block.inner[-1], nn.Linear)
    assert len(block.inner) == 3
    assert [type(m).__name__ for m in block.inner] == ["Linear", "ReLU", "Linear"]
    block.inner.append(nn.Tanh())
    assert type(block.inner[3]) is nn.Tanh
    part = block.inner[1:]
    assert [type(m).__name__ for m in part] == ["ReLU", "Linear", "Tanh"]
    assert part[1] is block.inner[2]
    named = nn.Sequential({"first": nn.Linear(2, 2), "second": nn.ReLU()})
    assert list(named.state_dict()) == ["first.weight", "first.bias"]


def test_names_are_pytorch_s() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of names and their order")

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.inner = torch.nn.Sequential(
                torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3, bias=False)
            )
            self.several = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)])
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("cache", torch.zeros(2), persistent=False)
            self.shift = torch.nn.Parameter(torch.zeros(3))

    peer = Peer()
    assert list(peer.state_dict()) == KEYS
    result = Block().load_state_dict(peer.state_dict())
    assert result == ([], [])
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in Block().state_dict().items()})


def test_shared_parameters_count_once_and_have_every_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    twice = nn.Sequential(model, model)
    assert len(list(twice.parameters())) == 3
    assert len(list(twice.modules())) == 4
    assert "1.1.bias" in twice.state_dict()
    twice(np.ones((1, 3), np.float32)).sum().backward()
    assert model[0].weight.grad is not None


def test_the_state_is_a_copy() -> None:
    model = nn.Linear(3, 2)
    state = model.state_dict()
    model.weight.data += 1
    assert (model.weight.data != state["weight"]).all()
    model.load_state_dict(state)
    state["weight"] += 1
    assert (model.weight.data != state["weight"]).all()


def test_loading_is_all_or_nothing() -> None:
    model = Block()
    before = model.state_dict()
    good = {name: value + 1 for name, value in before.items()}
    wrong_shape = {**good, "several.0.bias": np.ones(4, np.float32)}
    missing = {name: value for name, value in good.items() if name != "shift"}
    unexpected = {**good, "extra": np.ones(1)}
    text = {**good, "several.0.bias": np.array(["a", "b", "c"])}
    for state, error, message in [
        (wrong_shape, ValueError, r"several.0.bias has shape \(4,\), the model expects \(3,\)"),
        (missing, ValueError, r"\[load_state_dict\] Block: missing keys: shift"),
        (unexpected, ValueError, "unexpected keys: extra"),
        (text, TypeError, r"\[load_state_dict\] several.0.bias"),
        ({**good, "scale": "text"}, TypeError, r"\[load_state_dict\] scale: .* expected numbers"),
    ]:
        with pytest.raises(error, match=message):
            model.load_state_dict(state)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])
    with pytest.raises(ValueError, match=r"several\.0\.bias has shape"):
        model.load_state_dict(wrong_shape, strict=False)
    assert model.load_state_dict({**missing, "extra": 1.0}, strict=False) == (["shift"], ["extra"])
    np.testing.assert_array_equal(model.scale.data, good["scale"])
    np.testing.assert_array_equal(model.mean, good["mean"])
    np.testing.assert_array_equal(model.shift.data, before["shift"])


def test_loading_keeps_type_and_object() -> None:
    model = nn.Linear(3, 2)
    weight, array = model.weight, model.weight.data
    model.load_state_dict({"weight": np.ones((2, 3)), "bias": [1, 2]})
    assert model.weight is weight
    assert weight.data is array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(model.bias.data, [1, 2])


def test_a_graph_from_before_loading_is_refused() -> None:
    model = nn.Linear(3, 2)
    y = model(fa.tensor(np.ones((1, 3), np.float32), requires_grad=True))
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_train_and_eval() -> None:
    block = Block()
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(block(x).data, block(x).data)
    block.train()
    assert all(module.training for module in block.modules())
    assert (block(x).data != block(x).data).any()


def test_zero_grad_and_freezing() -> None:
    block = Block().eval()
    block(np.ones((1, 3), np.float32)).sum().backward()
    assert all(p.grad is not None for p in block.parameters())
    block.zero_grad()
    assert all(p.grad is None for p in block.parameters())
    block.inner.requires_grad_(False)
    block(np.ones((1, 3), np.float32)).sum().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None] == KEYS[3:6]


def test_types() -> None:
    block = Block()
    scale = block.scale
    assert block.double() is block
    assert block.scale is scale
    assert {p.dtype for p in block.parameters()} == {np.dtype(np.float64)}
    assert block.mean.dtype == np.float64
    assert block(np.ones((1, 3))).dtype == np.float64
    assert block.float().scale.dtype == np.float32
    assert block.to("cpu").scale.dtype == np.float32
    assert block.to("float64").scale.dtype == np.float64
    with pytest.raises(ValueError, match=r"\[to\] got 'tpu'"):
        block.to("tpu")
    with pytest.raises(TypeError, match=r"\[to\] got int32"):
        block.to(np.int32)


def test_moving_to_the_device() -> None:
    block = Block().eval()
    reason = backends.reason_unusable("cuda")
    if reason:
        with pytest.raises(RuntimeError, match=r"\[to\] cannot move to 'cuda'"):
            block.to("cuda")
        assert isinstance(block.scale.data, np.ndarray)
        return
    import cupy

    x = np.ones((2, 3), np.float32)
    before = block(x).numpy()
    block.cuda()
    assert all(
        isinstance(array, cupy.ndarray) for array in [block.mean, *(p.data for p in block.parameters())]
    )
    np.testing.assert_allclose(block(cupy.asarray(x)).numpy(), before, rtol=1e-5, atol=1e-6)
    state = block.state_dict()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    block.load_state_dict(state)
    np.testing.assert_array_equal(block.cpu()(x).data, before)


def test_buffers() -> None:
    block = Block()
    with pytest.raises(ValueError, match=r"\[Block\] attribute 'mean' exists already"):
        block.register_buffer("mean", np.zeros(1))
    assert list(nn.Linear(1, 1).named_buffers()) == []


def test_copies_are_independent() -> None:
    block = Block()
    other = copy.deepcopy(block)
    other.scale.data += 1
    other.inner[0].weight.data += 1
    np.testing.assert_array_equal(block.scale.data, np.ones(3))
    assert list(other.state_dict()) == KEYS


def test_apply_visits_every_module() -> None:
    seen: list[str] = []
    block = Block()
    assert block.apply(lambda module: seen.append(type(module).__name__)) is block
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Linear", "Dropout", "ModuleList", "Block"]


def test_parameters_own_memory_that_can_be_changed() -> None:
    read_only = np.ones(3)
    read_only.flags.writeable = False
    parameter = nn.Parameter(read_only)
    parameter.data += 1
    assert nn.Parameter(np.ones((3, 4)).T).data.flags.c_contiguous
    array = np.ones(3)
    assert nn.Parameter(array).data is array
    assert not nn.Parameter(array, requires_grad=False).requires_grad


SUMMARY = """
layer          output shape  parameters  multiply-adds
------------------------------------------------------
0 (Conv2d)     [N, 4, 6, 6]          76          2,592
1 (MaxPool2d)  [N, 4, 3, 3]           0              0
2.0 (Flatten)  [N, 36]                0              0
2.1 (Dropout)  [N, 36]                0              0
3 (Linear)     [N, 36]            1,332          1,296
3 (Linear)     [N, 36]                0          1,296
------------------------------------------------------
total                             1,408          5,184
of the parameters 76 are learned and 1,332 are frozen
""".strip()


def test_summary() -> None:
    shared = nn.Linear(36, 36)
    shared.requires_grad_(False)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Flatten(), nn.Dropout()),
        shared,
        shared,
    )
    model[2].eval()
    state = fa.random.get_state()
    assert model.summary((2, 6, 6)) == SUMMARY
    assert fa.random.get_state() == state, "a summary must not draw"
    assert [module.training for module in model] == [True, True, False, True, True]
    assert "forward" not in vars(shared)
    with pytest.raises(ValueError, match=r"\[conv2d\] x has 1 channels"):
        model.summary((1, 6, 6))
    assert "forward" not in vars(shared)
    assert nn.ReLU().summary((3,)).splitlines()[2].split() == ["ReLU", "[N,", "3]", "0", "0"]
