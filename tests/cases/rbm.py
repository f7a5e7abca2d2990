"""Restricted Boltzmann machines: cases. v [B, V], w [V, H], biases [V] and [H].

Weights and biases are multiples of 1/8 and data is binary, so that pre-activations are the same in every
float type: then samples must be the very same ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cases.case import Arguments, Case, Gradient, in_every_layout
from cases.rbm_oracle import (
    rbm_cd,
    rbm_free_energy,
    rbm_hidden,
    rbm_phases,
    rbm_update,
    rbm_visible,
)


def update_copies(ops: Any, **arguments) -> tuple:
    """The operator works in place: on copies here, as inputs of a case must stay as they are."""
    names = ("w", "b_visible", "b_hidden", "velocity_w", "velocity_bv", "velocity_bh")
    copies = {name: arguments[name].copy(order="C") for name in names}
    assert ops.rbm_update(**(arguments | copies)) is None
    return tuple(copies.values())


ORACLES = {
    oracle.__name__: oracle
    for oracle in (rbm_hidden, rbm_visible, rbm_phases, rbm_cd, rbm_update, rbm_free_energy)
}

# id: (B, V, H)
_SIZES = {
    "one": (1, 1, 1),
    "primes": (5, 13, 7),
    "one_row": (1, 17, 33),
    "one_visible": (3, 1, 5),
    "one_hidden": (3, 5, 1),
    "tile_edge": (9, 66, 34),
    "visible_129": (2, 129, 3),
}


def _eighths(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-8, 9, shape) / 8


def machine(size: str, rng: np.random.Generator, dtype: np.dtype) -> dict[str, np.ndarray]:
    """v, w and the biases."""
    b, v, h = _SIZES[size]
    made = {
        "v": rng.integers(0, 2, (b, v)),
        "w": _eighths(rng, v, h),
        "b_visible": _eighths(rng, v),
        "b_hidden": _eighths(rng, h),
    }
    return {name: array.astype(dtype) for name, array in made.items()}


def _sigma(rng: np.random.Generator, n: int, dtype: np.dtype) -> np.ndarray:
    return rng.choice([0.5, 1.0, 2.0], n).astype(dtype)


def _make_hidden(size, more, rng, dtype) -> Arguments:
    made = machine(size, rng, dtype)
    del made["b_visible"]
    sigma = {"sigma": _sigma(rng, len(made["w"]), dtype)} if "sigma" in more else {}
    return {**made, "seed": 3, "offset": 2**40 + 1, **more, **sigma}


def _make_visible(size, more, rng, dtype) -> Arguments:
    made = machine(size, rng, dtype)
    h = rng.integers(0, 2, (len(made["v"]), made["w"].shape[1])).astype(dtype)
    sigma = {"sigma": _sigma(rng, len(made["w"]), dtype)} if "sigma" in more else {}
    parameters = {"w": made["w"], "b_visible": made["b_visible"]}
    return {"h": h, **parameters, "seed": 2**64 - 1, "offset": 5, **more, **sigma}


def _make_phases(size, more, rng, dtype) -> Arguments:
    """more: chains, clamp and sigma by their names, to be filled in."""
    made = machine(size, rng, dtype)
    rows, visible = made["v"].shape
    filled = dict(more)
    if "chain" in more:
        rows = rows + more["chain"]
        filled["chain"] = rng.integers(0, 2, (rows, visible)).astype(dtype)
    if "clamp" in more:
        filled["clamp"] = rng.integers(0, 2, (rows, visible)).astype(more["clamp"])
    if "sigma" in more:
        filled["sigma"] = _sigma(rng, visible, dtype)
    return {**made, "seed": 1, "offset": 2, **filled}


def _make_update(size, more, rng, dtype) -> Arguments:
    made = machine(size, rng, dtype)
    (rows, visible), hidden = made.pop("v").shape, made["w"].shape[1]
    chains = rows + more.get("chains", 0)
    shapes = {"v": (rows, visible), "h0": (rows, hidden), "vk": (chains, visible), "hk": (chains, hidden)}
    statistics = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    velocities = {
        f"velocity_{end}": rng.standard_normal(made[name].shape).astype(dtype)
        for end, name in (("w", "w"), ("bv", "b_visible"), ("bh", "b_hidden"))
    }
    sigma = {"sigma": _sigma(rng, visible, dtype)} if "sigma" in more else {}
    numbers = {name: more[name] for name in ("momentum", "weight_decay") if name in more}
    return {**statistics, **made, **velocities, "learning_rate": 0.1, **numbers, **sigma}


def _make_energy(size, more, rng, dtype) -> Arguments:
    made = machine(size, rng, dtype)
    sigma = {"sigma": _sigma(rng, len(made["w"]), dtype)} if "sigma" in more else {}
    return {**made, **more, **sigma}


_CHAINS: dict[str, dict[str, Any]] = {
    "k1": {},
    "k3": {"k": 3},
    "persistent": {"chain": 4, "k": 2},
    "fewer_chains": {"chain": -3, "k": 2},
    "gaussian_visible": {"visible": "gaussian"},
    "sigma": {"visible": "gaussian", "sigma": True},
    "softmax": {"visible": "softmax", "group_size": 13, "k": 2},
    "relu": {"hidden": "relu"},
    "gaussian_hidden": {"hidden": "gaussian"},
    "clamp": {"clamp": np.bool_, "k": 2},
    "clamped_chain": {"clamp": np.uint8, "chain": 0, "k": 2},
}
_ENERGIES: dict[str, dict[str, Any]] = {
    "relu": {"hidden": "relu"},
    "gaussian_hidden": {"hidden": "gaussian"},
    "gaussian_visible": {"visible": "gaussian"},
    "sigma": {"visible": "gaussian", "sigma": True},
    "softmax": {"visible": "softmax"},
}
_UPDATES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "chains": {"chains": 6, "momentum": 0.5},
    "sigma": {"sigma": True, "momentum": 0.5},
}


def _case(op: str, name: str, make, size: str, more: dict[str, Any]) -> Case:
    call = update_copies if op == "rbm_update" else None
    return Case(op, name, partial(make, size, more), ORACLES[op], call=call)


CASES = [
    *(_case("rbm_hidden", size, _make_hidden, size, {}) for size in _SIZES),
    *(
        _case("rbm_hidden", unit, _make_hidden, "primes", {"unit": unit, "step": 2**21 - 1})
        for unit in ("bernoulli", "gaussian", "relu")
    ),
    _case("rbm_hidden", "sigma", _make_hidden, "primes", {"sigma": True}),
    *in_every_layout(_case("rbm_hidden", "layout", _make_hidden, "primes", {}))[1:],
    *(_case("rbm_visible", size, _make_visible, size, {}) for size in _SIZES),
    _case("rbm_visible", "gaussian", _make_visible, "primes", {"unit": "gaussian", "step": 3}),
    _case("rbm_visible", "sigma", _make_visible, "primes", {"unit": "gaussian", "sigma": True}),
    *(
        _case("rbm_visible", f"softmax_{n}", _make_visible, size, {"unit": "softmax", "group_size": n})
        for n, size in ((1, "primes"), (2, "tile_edge"), (13, "primes"), (43, "visible_129"))
    ),
    *in_every_layout(_case("rbm_visible", "layout", _make_visible, "primes", {}))[1:],
    *(
        _case(op, name, _make_phases, "primes", more)
        for op in ("rbm_phases", "rbm_cd")
        for name, more in _CHAINS.items()
    ),
    *(_case("rbm_cd", size, _make_phases, size, {}) for size in _SIZES),
    *in_every_layout(_case("rbm_cd", "layout", _make_phases, "primes", {"chain": 2}))[1:],
    *(_case("rbm_update", name, _make_update, "primes", more) for name, more in _UPDATES.items()),
    *(_case("rbm_update", size, _make_update, size, _UPDATES["momentum"]) for size in _SIZES),
    *in_every_layout(_case("rbm_update", "layout", _make_update, "primes", {}))[1:],
    *(_case("rbm_free_energy", size, _make_energy, size, {}) for size in _SIZES),
    *(_case("rbm_free_energy", name, _make_energy, "primes", more) for name, more in _ENERGIES.items()),
    *in_every_layout(_case("rbm_free_energy", "layout", _make_energy, "primes", {}))[1:],
]


def _energy_gradient(name: str, visible: str, hidden: str, with_sigma: bool) -> Gradient:
    """The free energy falls by the statistics of the data: v h / sigma^2 for w, and so on."""
    units = {"visible": visible, "hidden": hidden}

    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return tuple(rng.standard_normal(shape) for shape in ((3, 5), (5, 4), (5,), (4,)))

    def sigma_like(x: Any) -> Any:
        return {"sigma": 0 * x + 0.7} if with_sigma else {}

    def backward(ops: Any, dy: Any, v: Any, w: Any, b_visible: Any, b_hidden: Any) -> tuple:
        precision = 1 / 0.7**2 if with_sigma else 1.0
        h = ops.rbm_hidden(v, w, b_hidden, unit=hidden, **sigma_like(b_visible))[0]
        pull = h @ w.T + b_visible
        dv = -dy[:, None] * ((pull - v) * precision if visible == "gaussian" else pull)
        off = (v - b_visible) * precision if visible == "gaussian" else v
        return dv, -precision * (v * dy[:, None]).T @ h, -(dy @ off), -(dy @ h)

    return Gradient(
        "rbm_free_energy",
        name,
        inputs,
        lambda ops, v, *rest: ops.rbm_free_energy(v, *rest, **units, **sigma_like(rest[1])),
        backward,
    )


GRADIENTS = [
    _energy_gradient("bernoulli", "bernoulli", "bernoulli", False),
    _energy_gradient("gaussian_visible", "gaussian", "bernoulli", True),
    _energy_gradient("relu", "bernoulli", "relu", False),
    _energy_gradient("gaussian_hidden", "bernoulli", "gaussian", False),
]


# Calls whose arguments tests/test_errors.py and tests/hostile_calls.py spoil one at a time: B 3, V 4, H 5.


def _floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


_PARAMETERS = {"w": _floats(4, 5), "b_visible": _floats(4), "b_hidden": _floats(5)}
_GAUSSIAN = {"visible": "gaussian", "sigma": _floats(4)}
_CHAIN = {"chain": _floats(3, 4), "clamp": np.zeros((3, 4), np.uint8)}
_STATISTICS = {"v": _floats(3, 4), "h0": _floats(3, 5), "vk": _floats(2, 4), "hk": _floats(2, 5)}
_VELOCITIES = {"velocity_w": _floats(4, 5), "velocity_bv": _floats(4), "velocity_bh": _floats(5)}

VALID = {
    "rbm_hidden": {"v": _floats(3, 4), "w": _floats(4, 5), "b_hidden": _floats(5), "sigma": _floats(4)},
    "rbm_visible": {
        "h": _floats(3, 5),
        "w": _floats(4, 5),
        "b_visible": _floats(4),
        "unit": "gaussian",
        "sigma": _floats(4),
    },
    "rbm_phases": {"v": _floats(3, 4), **_PARAMETERS, **_CHAIN, **_GAUSSIAN},
    "rbm_cd": {"v": _floats(3, 4), **_PARAMETERS, **_CHAIN, **_GAUSSIAN},
    "rbm_update": {
        **_STATISTICS,
        **_PARAMETERS,
        **_VELOCITIES,
        "learning_rate": 0.1,
        "sigma": _floats(4),
    },
    "rbm_free_energy": {"v": _floats(3, 4), **_PARAMETERS, **_GAUSSIAN},
}
OPTIONAL = {(op, name) for op in VALID for name in ("sigma", "chain", "clamp")}

# What must be refused: a change of the valid call, the error and what it says.
BAD: list[tuple[str, Arguments, type[Exception], str]] = [
    ("rbm_hidden", {"v": _floats(3, 5)}, ValueError, "v has shape .* expects 4 visible units"),
    ("rbm_hidden", {"unit": "softmax"}, ValueError, "unit is 'softmax', expected one of bernoulli, gauss"),
    ("rbm_hidden", {"unit": None}, ValueError, "unit is None"),
    ("rbm_hidden", {"unit": ["relu"]}, ValueError, "unit is"),
    ("rbm_hidden", {"step": -1}, ValueError, "step is -1, expected 0 to"),
    ("rbm_hidden", {"step": 2**21}, ValueError, "step is"),
    ("rbm_hidden", {"step": 1.0}, TypeError, "step is 1.0, expected an int"),
    ("rbm_hidden", {"seed": -1}, ValueError, "seed is -1"),
    ("rbm_hidden", {"offset": 2**64}, ValueError, "offset is"),
    ("rbm_hidden", {"b_hidden": _floats(4)}, ValueError, "b_hidden has shape"),
    (
        "rbm_visible",
        {"h": _floats(3, 4)},
        ValueError,
        r"h has shape \(3, 4\), expected",
    ),
    (
        "rbm_visible",
        {"unit": "relu"},
        ValueError,
        "unit is 'relu', expected one of",
    ),
    ("rbm_visible", {"unit": "bernoulli"}, ValueError, "sigma is given, expected None: unit is 'bernoulli'"),
    ("rbm_visible", {"group_size": 2}, ValueError, "group_size is 2, expected None"),
    ("rbm_visible", {"unit": "softmax", "sigma": None}, TypeError, "group_size is None"),
    (
        "rbm_visible",
        {"unit": "softmax", "sigma": None, "group_size": 3},
        ValueError,
        "group_size is 3, expected a divisor of the 4 visible units",
    ),
    ("rbm_visible", {"unit": "softmax", "sigma": None, "group_size": 0}, ValueError, "group_size is 0"),
    *(
        (op, changes, error, match)
        for op in ("rbm_phases", "rbm_cd")
        for changes, error, match in [
            ({"k": 0}, ValueError, "k is 0, expected 1 to"),
            ({"k": 2**20}, ValueError, "k is"),
            ({"k": 1.5}, TypeError, "k is 1.5"),
            ({"k": True}, TypeError, "k is True"),
            ({"v": _floats(0, 4)}, ValueError, "v has shape .* at least one row"),
            ({"chain": _floats(0, 4)}, ValueError, "chain has shape .* at least one row"),
            ({"chain": _floats(3, 5)}, ValueError, "chain has shape"),
            ({"chain": _floats(4, 4)}, ValueError, "clamp has shape"),
            ({"clamp": _floats(3, 4)}, TypeError, "clamp has dtype float32, expected bool"),
            ({"clamp": np.ones((3, 5), bool)}, ValueError, "clamp has shape"),
            ({"visible": "relu"}, ValueError, "visible is 'relu'"),
            ({"hidden": "softmax"}, ValueError, "hidden is 'softmax'"),
            ({"visible": "bernoulli"}, ValueError, "sigma is given"),
            ({"seed": 0.5}, TypeError, "seed"),
        ]
    ),
    ("rbm_update", {"learning_rate": "fast"}, TypeError, "learning_rate is 'fast', expected a number"),
    ("rbm_update", {"momentum": None}, TypeError, "momentum is None"),
    (
        "rbm_update",
        {"hk": _floats(3, 5)},
        ValueError,
        r"hk has shape \(3, 5\), expected",
    ),
    ("rbm_update", {"h0": _floats(2, 5)}, ValueError, "h0 has shape"),
    ("rbm_update", {"v": _floats(0, 4)}, ValueError, "h0 has shape"),
    ("rbm_update", {"velocity_bh": _floats(4)}, ValueError, "velocity_bh has shape"),
    ("rbm_free_energy", {"visible": "bernoulli"}, ValueError, "sigma is given"),
    ("rbm_free_energy", {"hidden": 3}, ValueError, "hidden is 3"),
]


def kernel_calls() -> dict[str, Arguments]:
    """A small call of each kernel."""
    parameters = {name: array.copy() for name, array in _PARAMETERS.items()}
    statistics = {name: array.copy() for name, array in _STATISTICS.items()}
    velocities = {name: array.copy() for name, array in _VELOCITIES.items()}
    words = {"seed": 1, "offset": 2}
    return {
        "rbm_half_step": {
            "x": _floats(3, 4),
            "w": _floats(4, 5),
            "bias": _floats(5),
            "sigma": _floats(5),
            "clamp": np.zeros((3, 5), np.uint8),
            "held": _floats(3, 5),
            "mean": _floats(3, 5),
            "sample": _floats(3, 5),
            "down": False,
            "unit": 0,
            "group": 1,
            **words,
            "step": 0,
        },
        "rbm_phases": {
            "v": _floats(3, 4),
            "w": parameters["w"],
            "w_up": _floats(4, 5),
            "b_visible": parameters["b_visible"],
            "b_hidden": parameters["b_hidden"],
            "chain": _floats(3, 4),
            "sigma": _floats(4),
            "clamp": np.zeros((3, 4), np.uint8),
            "h0": _floats(3, 5),
            "vk": _floats(3, 4),
            "hk": _floats(3, 5),
            "k": 1,
            "visible": 0,
            "hidden": 0,
            "group": 1,
            **words,
        },
        "rbm_gradient": {**statistics, "dw": _floats(4, 5), "dbv": _floats(4), "dbh": _floats(5)},
        "rbm_update": {
            **statistics,
            "precision": _floats(4),
            **parameters,
            **velocities,
            "rate": 0.1,
            "momentum": 0.5,
            "decay": 0.0,
        },
        "rbm_free_energy": {
            "v": _floats(3, 4),
            **parameters,
            "sigma": _floats(4),
            "energy": _floats(3),
            "visible": 0,
            "hidden": 0,
        },
    }


KERNEL_OUTPUTS = {
    "rbm_half_step": {"mean", "sample"},
    "rbm_phases": {"h0", "vk", "hk"},
    "rbm_gradient": {"dw", "dbv", "dbh"},
    "rbm_update": {*_PARAMETERS, *_VELOCITIES},
    "rbm_free_energy": {"energy"},
}
KERNEL_OPTIONAL = {
    *(("rbm_half_step", name) for name in ("sigma", "clamp", "mean", "sample")),
    *(("rbm_phases", name) for name in ("chain", "sigma", "clamp")),
    ("rbm_update", "precision"),
    ("rbm_free_energy", "sigma"),
}
_UNITS = (-1, 4, 2**31, 2**63, 1.5)
_GROUPS = (-1, 0, 3, 2**31, 2**63, 1.5)
KERNEL_WRONG = {
    ("rbm_half_step", "unit"): _UNITS,
    ("rbm_half_step", "group"): _GROUPS,
    ("rbm_half_step", "step"): (-1, 2**21, 2**63, 1.5),
    ("rbm_phases", "k"): (-1, 0, 2**20, 2**62, 2**63, 1.5),
    ("rbm_phases", "group"): _GROUPS,
    **{(kernel, "visible"): _UNITS for kernel in ("rbm_phases", "rbm_free_energy")},
    **{(kernel, "hidden"): (3, *_UNITS) for kernel in ("rbm_phases", "rbm_free_energy")},
}
