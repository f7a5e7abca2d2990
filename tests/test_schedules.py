"""Learning-rate schedules: their definitions, PyTorch's rates, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import cos, pi
from typing import Any

import numpy as np
import pytest

from fastarch import nn, optim
from fastarch.optim import lr_scheduler as schedules

EPOCHS = 24


def optimizer() -> optim.SGD:
    a, b = (nn.Parameter(np.ones(1)) for _ in range(2))
    return optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.02}], lr=0.4)


def rates(make: Callable[[Any], Any]) -> list[list[float]]:
    """The rates of both groups, epoch by epoch, as the optimizer sees them."""
    o = optimizer()
    schedule = make(o)
    seen = []
    for epoch in range(EPOCHS):
        assert schedule.last_epoch == epoch
        seen.append([group["lr"] for group in o.param_groups])
        assert schedule.get_last_lr() == seen[-1]
        schedule.step()
    return seen


def warm(epoch: int) -> float:
    return (epoch + 1) / 4 if epoch < 4 else 0.5 ** ((epoch - 4) // 3)


# (name, arguments, factor of the base rate in an epoch; None where it depends on the base)
DEFINITIONS: list[tuple[str, dict[str, Any], Callable[[int, float], float]]] = [
    ("StepLR", {"step_size": 5, "gamma": 0.3}, lambda e, b: b * 0.3 ** (e // 5)),
    (
        "MultiStepLR",
        {"milestones": [9, 3, 9], "gamma": 0.5},
        lambda e, b: b * 0.5 ** ((e >= 3) + 2 * (e >= 9)),
    ),
    ("ExponentialLR", {"gamma": 0.9}, lambda e, b: b * 0.9**e),
    (
        "CosineAnnealingLR",
        {"T_max": 10, "eta_min": 0.01},
        lambda e, b: 0.01 + (b - 0.01) * (1 + cos(pi * e / 10)) / 2,
    ),
    ("LinearLR", {"start_factor": 0.25, "total_iters": 6}, lambda e, b: b * (0.25 + 0.75 * min(e, 6) / 6)),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1}, lambda e, b: b * (1 - 0.9 * min(e, 5) / 5)),
    ("LambdaLR", {"lr_lambda": lambda e: 1 / (1 + e)}, lambda e, b: b / (1 + e)),
]


@pytest.mark.parametrize(("name", "options", "want"), DEFINITIONS, ids=[d[0] for d in DEFINITIONS])
def test_rates(name: str, options: dict[str, Any], want: Callable[[int, float], float]) -> None:
    got = rates(lambda o: getattr(schedules, name)(o, **options))
    np.testing.assert_allclose(got, [[want(e, 0.4), want(e, 0.02)] for e in range(EPOCHS)], rtol=1e-12)


@pytest.mark.parametrize(("name", "options", "want"), DEFINITIONS, ids=[d[0] for d in DEFINITIONS])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_rates_are_pytorch_s(name: str, options: dict[str, Any], want: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the second oracle here")
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    theirs = torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.02}], lr=0.4)
    peer = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    expected = []
    for _ in range(EPOCHS):
        expected.append([group["lr"] for group in theirs.param_groups])
        peer.step()
    np.testing.assert_allclose(
        rates(lambda o: getattr(schedules, name)(o, **options)), expected, rtol=1e-9, atol=1e-15
    )


def test_warmup() -> None:
    got = rates(lambda o: schedules.LinearWarmup(o, 4, lambda p: schedules.StepLR(p, 3, 0.5)))
    np.testing.assert_allclose(got, [[0.4 * warm(e), 0.02 * warm(e)] for e in range(EPOCHS)], rtol=1e-12)
    got = rates(lambda o: schedules.LinearWarmup(o, 2))
    np.testing.assert_allclose([r[0] for r in got[:4]], [0.2, 0.4, 0.4, 0.4])
    assert rates(lambda o: schedules.LinearWarmup(o, 0))[0] == [0.4, 0.02]


def test_a_function_for_each_group() -> None:
    got = rates(lambda o: schedules.LambdaLR(o, [lambda e: 1.0, lambda e: 0.5**e]))
    np.testing.assert_allclose(got, [[0.4, 0.02 * 0.5**e] for e in range(EPOCHS)])


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.CosineAnnealingLR(o, 20),
        lambda o: schedules.LinearWarmup(o, 4, lambda p: schedules.ExponentialLR(p, 0.9)),
        lambda o: schedules.LambdaLR(o, lambda e: 1 / (1 + e)),
    ],
)
def test_a_resumed_schedule_has_the_same_rates_to_the_bit(make: Callable[[Any], Any]) -> None:
    want = rates(make)
    o = optimizer()
    schedule = make(o)
    for _ in range(7):
        schedule.step()
    saved, saved_optimizer = json.loads(json.dumps(schedule.state_dict())), o.state_dict()
    for order in ("optimizer first", "schedule first"):
        fresh = optimizer()
        if order == "optimizer first":
            fresh.load_state_dict(saved_optimizer)
        again = make(fresh)
        if order == "schedule first":
            fresh.load_state_dict(saved_optimizer)
        again.load_state_dict(saved)
        seen = []
        for _ in range(7, EPOCHS):
            seen.append([group["lr"] for group in fresh.param_groups])
            again.step()
        assert seen == want[7:]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: schedules.StepLR(o, 0), ValueError, r"\[StepLR\] step_size must be positive"),
        (lambda o: schedules.CosineAnnealingLR(o, 0), ValueError, r"\[CosineAnnealingLR\] T_max must be"),
        (lambda o: schedules.LinearLR(o, 0.0), ValueError, r"\[LinearLR\] start_factor must be in \(0, 1\]"),
        (lambda o: schedules.LinearWarmup(o, -1), ValueError, r"\[LinearWarmup\] warmup must be at least 0"),
        (lambda o: schedules.LambdaLR(o, [lambda e: 1.0]), ValueError, r"\[LambdaLR\] got 1 functions for 2"),
        (lambda o: schedules.StepLR(0.1, 2), TypeError, r"\[StepLR\] expected an optimizer, got float"),
        (lambda o: schedules.LRScheduler(o), TypeError, r"\[LRScheduler\] a schedule needs a method rate"),
        (
            lambda o: schedules.StepLR(o, 2).load_state_dict({"last_epoch": 1, "base_lrs": [0.1]}),
            ValueError,
            r"\[StepLR\] the state is for 1 groups, the optimizer has 2",
        ),
    ],
)
def test_errors(make: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(optimizer())
