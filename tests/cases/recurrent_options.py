"""What recurrent steps do beyond their cells, as cases: projection, zoneout, layer normalisation.

The definition goes through one sequence and one step at a time, in complex numbers of double precision: its
derivatives along an imaginary step of 1e-30 are exact to rounding, and are the definition of the backward.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cases import recurrent as plain
from cases.case import Arguments, Case, Gradient, in_every_layout
from cases.dropout import philox

_STEP = 1e-30
_PARAMETERS = ("w_hr", "norm_ih", "norm_hh", "norm_c", "norm_c_bias")
_LEAVES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh", *_PARAMETERS)
_OF = {
    kind: tuple(
        name for name in _LEAVES if kind == "lstm" or name in (*_LEAVES[:2], *_LEAVES[3:7], *_LEAVES[8:10])
    )
    for kind in plain.KINDS
}


def _sigmoid(v: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-v))


def _normalise(v: np.ndarray, gain: np.ndarray | None) -> np.ndarray:
    if gain is None:
        return v
    centred = v - v.sum() / len(v)
    return gain * centred / np.sqrt((centred * centred).sum() / len(v) + 1e-5)


def _kept(old: np.ndarray, new: np.ndarray, rate: float, stream: Any, first: int) -> np.ndarray:
    """Zoneout of one state; its elements' words start at `first`."""
    if rate == 0:
        return new
    if stream is None:
        return rate * old + (1 - rate) * new
    words = [philox(*stream, (first + u) // 4)[(first + u) % 4] for u in range(len(old))]
    return np.array(
        [o if word < int(rate * 2**32) else v for word, o, v in zip(words, old, new, strict=True)]
    )


def _step(kind: str, a, p, h, c, call: Arguments) -> tuple[np.ndarray, np.ndarray]:
    """What the cell gives, before projection and zoneout; a, p: the shares of x and h, p without its bias."""
    b = call["b_hh"]
    units = len(a) // plain.oracle.GATES[kind]
    parts = [slice(k * units, (k + 1) * units) for k in range(plain.oracle.GATES[kind])]
    if kind == "rnn":
        total = a + p + b
        return np.tanh(total) if call.get("nonlinearity", "tanh") == "tanh" else total * (total.real > 0), c
    if kind == "lstm":
        i, f, g, o = (
            (a + p + b)[parts[0]],
            (a + p + b)[parts[1]],
            (a + p + b)[parts[2]],
            (a + p + b)[parts[3]],
        )
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        seen = c if call["norm_c"] is None else _normalise(c, call["norm_c"]) + call["norm_c_bias"]
        return _sigmoid(o) * np.tanh(seen), c
    r, z = (_sigmoid((a + p + b)[part]) for part in parts[:2])
    if call.get("reset_before"):
        n = np.tanh(a[parts[2]] + call["w_hh"][parts[2]] @ (r * h) + b[parts[2]])
    else:
        n = np.tanh(a[parts[2]] + r * (p + b)[parts[2]])
    return (1 - z) * n + z * h, c


def definition(kind: str, **call) -> tuple[np.ndarray, ...]:
    """y [T, N, P], the last h [N, P] and c [N, H] (LSTM); real or complex."""
    call = {"lengths": None, "reverse": False, "c0": None, "stream": None, **call}
    for name in ("norm_ih", "norm_hh", "norm_c", "w_hr"):
        call.setdefault(name)
    x, width, outputs = call["x"], call["w_hh"].shape[0], call["w_hh"].shape[1]
    units = width // plain.oracle.GATES[kind]
    t_count, count, _ = x.shape
    for name, shape in (("h0", (count, outputs)), ("c0", (count, units)), ("b_ih", width), ("b_hh", width)):
        call[name] = np.zeros(shape) if call[name] is None else call[name]
    hs, cs = call["h0"] + 0j, call["c0"] + 0j
    y = np.zeros((t_count, count, outputs), complex)
    rate, rate_c, stream = call.get("zoneout", 0.0), call.get("zoneout_cell", 0.0), call["stream"]
    for b in range(count):
        order = range(t_count if call["lengths"] is None else call["lengths"][b])
        for t in reversed(order) if call["reverse"] else order:
            h, c, row = hs[b], cs[b], t * count + b
            a = _normalise(call["w_ih"] @ x[t, b], call["norm_ih"]) + call["b_ih"]
            new, new_c = _step(kind, a, _normalise(call["w_hh"] @ h, call["norm_hh"]), h, c, call)
            new = new if call["w_hr"] is None else call["w_hr"] @ new
            y[t, b] = hs[b] = _kept(h, new, rate, stream, row * outputs)
            cs[b] = _kept(c, new_c, rate_c, stream, t_count * count * outputs + row * units)
    return (y, hs, cs) if kind == "lstm" else (y, hs)


def forward_oracle(kind: str, **call) -> tuple:
    call = {
        name: value.astype(float) if isinstance(value, np.ndarray) else value for name, value in call.items()
    }
    call.pop("algorithm", None)
    return tuple(output.real for output in definition(kind, **call))


def backward_oracle(kind: str, need=(True, True), **call) -> tuple:
    """A gradient of every leaf, None for what is not there or not needed."""
    call = {
        name: value.astype(float) if isinstance(value, np.ndarray) else value for name, value in call.items()
    }
    cotangents = [call.pop(name) for name in ("dy", "dhn", "dcn") if name in call]
    found: list[np.ndarray | None] = []
    for name in _OF[kind]:
        wanted = name in ("h0", "c0") or need[0 if name == "x" else 1]
        if call.get(name) is None or not wanted:
            found.append(None)
            continue
        slope = np.zeros(call[name].shape)
        for element in np.ndindex(slope.shape):
            moved = call[name] + 0j
            moved[element] += _STEP * 1j
            outputs = definition(kind, **{**call, name: moved})
            parts = [(d * o.imag).sum() for d, o in zip(cotangents, outputs, strict=True) if d is not None]
            slope[element] = sum(parts) / _STEP
        found.append(slope)
    return tuple(found)


def forward(ops: Any, kind: str, **call) -> tuple:
    return plain.forward(ops, kind, **call)


def backward(ops: Any, kind: str, **call) -> tuple:
    """The gradients of every leaf, by the public operators."""
    call, own = plain._split(kind, call)
    *_, saved = getattr(ops, kind)(**call)
    return tuple(getattr(ops, f"{kind}_backward")(saved=saved, **own))


def _make(kind: str, features: str, more: Arguments, backward: bool, rng, dtype, t: int = 3) -> Arguments:
    """N 3, D 2, H 4; features: some of "projected normalised"."""
    n, d, units = 3, 2, 4
    outputs = 2 if "projected" in features else units
    width = plain.oracle.GATES[kind] * units

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    call: Arguments = {"dy": normal(t, n, outputs), "dhn": normal(n, outputs)} if backward else {}
    if backward and kind == "lstm":
        call["dcn"] = normal(n, units)
    call |= {"x": normal(t, n, d), "h0": normal(n, outputs)}
    if kind == "lstm":
        call["c0"] = normal(n, units)
    call |= {
        "w_ih": normal(width, d),
        "w_hh": normal(width, outputs),
        "b_ih": normal(width),
        "b_hh": normal(width),
    }
    if "projected" in features:
        call["w_hr"] = normal(outputs, units)
    if "normalised" in features:
        call |= {"norm_ih": normal(width), "norm_hh": normal(width)}
        if kind == "lstm":
            call |= {"norm_c": normal(units), "norm_c_bias": normal(units)}
    return call | more


_STREAM = {"stream": (5, 2**40 + 3)}
_LENGTHS = {"lengths": [2, 3, 1]}
# id: (features, what differs); for every kind, then for one.
_VARIANTS: dict[str, tuple[str, Arguments]] = {
    "zoneout": ("", {"zoneout": 0.4, **_STREAM}),
    "zoneout_expected": ("", {"zoneout": 0.3, "reverse": True}),
    "zoneout_1": ("", {"zoneout": 1.0, **_STREAM}),
    "zoneout_lengths": ("", {"zoneout": 0.5, **_STREAM, **_LENGTHS, "reverse": True}),
    "normalised": ("normalised", {"algorithm": "step"}),
    "normalised_no_bias": ("normalised", {"b_ih": None, "b_hh": None, "reverse": True}),
    "normalised_zoneout": ("normalised", {"zoneout": 0.4, **_STREAM, **_LENGTHS, "h0": None, "c0": None}),
}
_OWN: dict[str, dict[str, tuple[str, Arguments]]] = {
    "rnn": {"relu": ("normalised", {"zoneout": 0.3, **_STREAM, "nonlinearity": "relu"})},
    "gru": {"reset_before": ("", {"zoneout": 0.3, **_STREAM, "reset_before": True})},
    "lstm": {
        "projected": ("projected", {}),
        "projected_lengths": ("projected", {**_LENGTHS, "reverse": True, "b_hh": None}),
        "zoneout_both": ("", {"zoneout": 0.3, "zoneout_cell": 0.4, **_STREAM, **_LENGTHS}),
        "zoneout_cell": ("", {"zoneout_cell": 0.4, "reverse": True}),
        "everything": (
            "projected normalised",
            {"zoneout": 0.2, "zoneout_cell": 0.3, **_STREAM, **_LENGTHS, "reverse": True},
        ),
    },
}
_TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


def _cases(kind: str) -> list[Case]:
    cases = []
    for name, (features, more) in (_VARIANTS | _OWN[kind]).items():
        more = {key: value for key, value in more.items() if key != "c0" or kind == "lstm"}
        for op, oracle, call in (
            (kind, forward_oracle, forward),
            (f"{kind}_backward", backward_oracle, backward),
        ):
            cases.append(
                Case(
                    op,
                    f"options_{name}",
                    partial(_make, kind, features, more, op != kind),
                    partial(oracle, kind),
                    _TOLERANCE,
                    call=lambda ops, call=call, **a: call(ops, kind, **a),
                )
            )
    return cases + [layout for case in cases[-2:] for layout in in_every_layout(case)[1:]]


def _make_cell(kind: str, features: str, more: Arguments, backward: bool, rng, dtype) -> Arguments:
    return plain._to_cell(_make(kind, features, more, backward, rng, dtype, t=1), backward)


def cell_oracle(kind: str, **call) -> tuple:
    _, *states = forward_oracle(kind, **plain._from_cell(call))
    return tuple(states)


def cell_backward_oracle(kind: str, **call) -> tuple:
    dx, *rest = backward_oracle(kind, dy=None, **plain._from_cell(call))
    return None if dx is None else dx[0], *rest


# What a step has not.
_SEQUENCE = ("lengths", "reverse", "algorithm")


def _cell_cases(kind: str) -> list[Case]:
    variants = {
        name: (features, {key: value for key, value in more.items() if key not in _SEQUENCE})
        for name, (features, more) in (_VARIANTS | _OWN[kind]).items()
        if not name.endswith("_lengths")
    }
    cases = []
    for name, (features, more) in variants.items():
        more = {key: value for key, value in more.items() if key != "c0" or kind == "lstm"}
        forward_of = partial(_make_cell, kind, features, more, False)
        cases.append(
            Case(f"{kind}_cell", f"options_{name}", forward_of, partial(cell_oracle, kind), _TOLERANCE)
        )
        backward_of = partial(_make_cell, kind, features, more, True)
        by_definition = partial(cell_backward_oracle, kind)
        op = f"{kind}_cell_backward"
        cases.append(Case(op, f"options_{name}", backward_of, by_definition, _TOLERANCE))
    return cases + [layout for case in cases[-2:] for layout in in_every_layout(case)[1:]]


CASES = [case for kind in plain.KINDS for case in (*_cases(kind), *_cell_cases(kind))]


def _gradient(kind: str, case: str, features: str, more: Arguments) -> Gradient:
    def call_of(arrays: tuple, names: list[str]) -> Arguments:
        return dict(zip(names, arrays, strict=True)) | more

    made = _make(kind, features, {}, False, np.random.default_rng(0), np.dtype(float))
    names = [name for name in _OF[kind] if name in made]

    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        drawn = _make(kind, features, {}, False, rng, np.dtype(float))
        return tuple(drawn[name] for name in names)

    def forward_flat(ops: Any, *arrays) -> Any:
        return np.concatenate([output.ravel() for output in forward(ops, kind, **call_of(arrays, names))])

    def backward_flat(ops: Any, d, *arrays) -> tuple:
        call, parts = call_of(arrays, names), {}
        (t, n, _), outputs = call["x"].shape, call["h0"].shape[1]
        cuts = np.cumsum([t * n * outputs, n * outputs])
        for name, part, rows in zip(
            ("dy", "dhn", "dcn"), np.split(d, cuts), ((t, n), (n,), (n,)), strict=True
        ):
            if name != "dcn" or kind == "lstm":
                parts[name] = part.reshape(*rows, -1)
        gradients = dict(zip(_OF[kind], backward(ops, kind, **parts, **call), strict=True))
        return tuple(gradients[name] for name in names)

    return Gradient(f"{kind}_backward", f"options_{case}", inputs, forward_flat, backward_flat)


def _cell_gradient(kind: str, case: str, features: str, more: Arguments) -> Gradient:
    more = {key: value for key, value in more.items() if key not in _SEQUENCE}
    made = _make_cell(kind, features, {}, False, np.random.default_rng(0), np.dtype(float))
    names = list(made)

    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        drawn = _make_cell(kind, features, {}, False, rng, np.dtype(float))
        return tuple(drawn[name] for name in names)

    def forward_flat(ops: Any, *arrays) -> Any:
        output = getattr(ops, f"{kind}_cell")(**dict(zip(names, arrays, strict=True)), **more)
        return np.concatenate(output, axis=1) if isinstance(output, tuple) else output

    def backward_flat(ops: Any, d, *arrays) -> tuple:
        call = dict(zip(names, arrays, strict=True)) | more
        outputs = call["h"].shape[1]
        parts = {"dh": d[:, :outputs]} | ({"dc": d[:, outputs:]} if kind == "lstm" else {})
        found = getattr(ops, f"{kind}_cell_backward")(**parts, **call)
        return tuple(getattr(found, name) for name in names)

    return Gradient(f"{kind}_cell_backward", f"options_{case}", inputs, forward_flat, backward_flat)


GRADIENTS = [
    *(
        _cell_gradient(kind, case, *variant)
        for kind, case, variant in [
            ("rnn", "relu", _OWN["rnn"]["relu"]),
            ("gru", "normalised_zoneout", ("normalised", {"zoneout": 0.4, **_STREAM})),
            ("gru", "reset_before", _OWN["gru"]["reset_before"]),
            ("lstm", "projected", ("projected", {"zoneout_cell": 0.4})),
            ("lstm", "everything", _OWN["lstm"]["everything"]),
        ]
    ),
    *(
        _gradient(kind, case, *variant)
        for kind, case, variant in [
            ("rnn", "zoneout_lengths", _VARIANTS["zoneout_lengths"]),
            ("gru", "zoneout_lengths", _VARIANTS["zoneout_lengths"]),
            ("gru", "normalised", ("normalised", _LENGTHS)),
            ("lstm", "projected", ("projected", {"reverse": True})),
            ("lstm", "everything", _OWN["lstm"]["everything"]),
        ]
    ),
]
