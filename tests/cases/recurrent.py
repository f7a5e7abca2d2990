"""Recurrent sequences and cells: cases. Sizes are (T, N, D, H); definitions in recurrent_oracle."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from cases import recurrent_oracle as oracle
from cases.case import Arguments, Case, Gradient, in_every_layout

KINDS = ("rnn", "lstm", "gru")
_SIZES = {
    "one": (1, 1, 1, 1),
    "primes": (5, 3, 7, 11),
    "one_step": (1, 5, 3, 2),
    "one_sequence": (6, 1, 4, 9),
    "one_feature": (3, 2, 1, 5),
    "one_unit": (4, 3, 5, 1),
    "batch_17": (3, 17, 2, 3),
    "units_37": (2, 3, 5, 37),
    "features_129": (2, 2, 129, 3),
    "empty_batch": (3, 0, 4, 5),
}
_STEP_SIZES = {"step_aligned": (1, 9, 16, 24), "step_odd": (1, 35, 131, 37), "empty_step": (1, 0, 4, 5)}
# id: (size, what differs). Sequence b has lengths[b] steps.
_UNSORTED, _EQUAL = [2, 5, 1], [3, 3, 3]
_VARIANTS: dict[str, tuple[str, Arguments]] = {
    "reverse": ("primes", {"reverse": True}),
    "step": ("primes", {"algorithm": "step"}),
    "step_reverse": ("units_37", {"algorithm": "step", "reverse": True}),
    "persistent": ("one_sequence", {"algorithm": "persistent", "reverse": True}),
    "persistent_lengths": ("primes", {"algorithm": "persistent", "lengths": _UNSORTED}),
    "persistent_lengths_reverse": (
        "primes",
        {"algorithm": "persistent", "lengths": _UNSORTED, "reverse": True},
    ),
    "persistent_one_step": ("one_step", {"algorithm": "persistent"}),
    "lengths": ("primes", {"lengths": _UNSORTED}),
    "lengths_reverse": ("primes", {"lengths": _UNSORTED, "reverse": True}),
    "short_lengths": ("primes", {"lengths": _EQUAL}),
    "full_lengths": ("primes", {"lengths": [5, 5, 5], "reverse": True}),
    "no_states": ("primes", {"h0": None, "c0": None}),
    "no_bias": ("primes", {"b_ih": None, "b_hh": None}),
    "no_recurrent_bias": ("primes", {"b_hh": None}),
    "no_input_bias": ("primes", {"b_ih": None, "lengths": _UNSORTED}),
}
_OPTIONS: dict[str, Arguments] = {
    "rnn": {"nonlinearity": "relu"},
    "gru": {"reset_before": True},
}


def _make(kind: str, size: str, more: Arguments, rng: np.random.Generator, dtype: np.dtype) -> Arguments:
    t, n, d, h = (_SIZES | _STEP_SIZES)[size]
    gates = oracle.GATES[kind] * h
    arguments: Arguments = {
        "x": rng.standard_normal((t, n, d)).astype(dtype),
        "h0": rng.standard_normal((n, h)).astype(dtype),
        "c0": rng.standard_normal((n, h)).astype(dtype),
        "w_ih": (d**-0.5 * rng.standard_normal((gates, d))).astype(dtype),
        "w_hh": (h**-0.5 * rng.standard_normal((gates, h))).astype(dtype),
        "b_ih": rng.standard_normal(gates).astype(dtype),
        "b_hh": rng.standard_normal(gates).astype(dtype),
    }
    arguments |= more
    if kind != "lstm":
        del arguments["c0"]
    return arguments


def _make_backward(kind: str, size: str, more: Arguments, without: tuple[str, ...], rng, dtype) -> Arguments:
    t, n, _, h = (_SIZES | _STEP_SIZES)[size]
    shapes = {"dy": (t, n, h), "dhn": (n, h), "dcn": (n, h)}
    if kind != "lstm":
        del shapes["dcn"]
    gradients = {
        name: None if name in without else rng.standard_normal(shape).astype(dtype)
        for name, shape in shapes.items()
    }
    return gradients | _make(kind, size, more, rng, dtype)


def _to_cell(arguments: Arguments, backward: bool) -> Arguments:
    """The arguments of one step from those of a sequence of one."""
    names = {"h0": "h", "c0": "c", "dhn": "dh", "dcn": "dc"}
    cell = {names.get(name, name): value for name, value in arguments.items() if name != "dy"}
    return cell | {"x": cell["x"][0]}


def _make_cell(make, rng, dtype) -> Arguments:
    return _to_cell(make(rng, dtype), False)


def _split(kind: str, call: Arguments) -> tuple[Arguments, Arguments]:
    """The forward's arguments, and the backward's own: gradients and need."""
    own = {name: call[name] for name in ("dy", "dhn", "dcn", "need") if name in call}
    return {name: value for name, value in call.items() if name not in own}, own


def forward(ops: Any, kind: str, **call) -> tuple:
    """y, last h and, of an LSTM, last c, by the public operator."""
    y, states, _ = getattr(ops, kind)(**call)
    return (y, *states) if kind == "lstm" else (y, states)


def backward(ops: Any, kind: str, **call) -> tuple:
    """The gradients, by the public operators: the forward first, for what it saves."""
    call, own = _split(kind, call)
    *_, saved = getattr(ops, kind)(**call)
    gradients = getattr(ops, f"{kind}_backward")(saved=saved, **own)
    count = 7 if kind == "lstm" else 6
    assert all(gradient is None for gradient in gradients[count:])  # of options, which recurrent_options has
    return tuple(gradients[:count])


def _cell_backward(kind: str, ops: Any, **call) -> tuple:
    """The gradients of a step, by the public operator."""
    gradients = getattr(ops, f"{kind}_cell_backward")(**call)
    count = 7 if kind == "lstm" else 6
    assert all(gradient is None for gradient in gradients[count:])
    return tuple(gradients[:count])


def _define(kind: str, call: Arguments) -> Arguments:
    """The definition's arguments, which know nothing of algorithms."""
    named = {name: value for name, value in call.items() if name != "algorithm"}
    return {"c0": None, "lengths": None, "reverse": False} | named


def forward_oracle(kind: str, **call) -> tuple:
    y, hn, cn, _ = oracle.sequence(kind, **_define(kind, call))
    return (y, hn, cn) if kind == "lstm" else (y, hn)


def backward_oracle(kind: str, **call) -> tuple:
    return oracle.sequence_backward(kind, **{"dcn": None} | _define(kind, call))


def _from_cell(call: Arguments) -> Arguments:
    names = {"h": "h0", "c": "c0", "dh": "dhn", "dc": "dcn"}
    sequence = {names.get(name, name): value for name, value in call.items()}
    return sequence | {"x": sequence["x"][None]}


def cell_oracle(kind: str, **call) -> Any:
    _, *states = forward_oracle(kind, **_from_cell(call))
    return tuple(states)


def cell_backward_oracle(kind: str, **call) -> tuple:
    dx, *rest = backward_oracle(kind, dy=None, **_from_cell(call))
    return None if dx is None else dx[0], *rest


# In 16 bits gates, h and the gates' gradients are rounded at every step, and sums of
# them may cancel.
_TOLERANCE = {"float32": 5e-5, "float64": 1e-11, "float16": 16 * 2.0**-11, "bfloat16": 16 * 2.0**-8}


def _forward_case(kind: str, case: str, size: str, more: Arguments) -> Case:
    more = {name: value for name, value in more.items() if name != "c0" or kind == "lstm"}
    make = partial(_make, kind, size, more)
    return Case(
        kind,
        case,
        make,
        partial(forward_oracle, kind),
        _TOLERANCE,
        call=lambda ops, **a: forward(ops, kind, **a),
    )


def _backward_case(kind: str, case: str, size: str, more: Arguments, without: tuple[str, ...] = ()) -> Case:
    return Case(
        f"{kind}_backward",
        case,
        partial(_make_backward, kind, size, more, without),
        partial(backward_oracle, kind),
        _TOLERANCE,
        halves=more.get("nonlinearity") != "relu",  # roundings of h may carry the next sum past the kink
        call=lambda ops, **a: backward(ops, kind, **a),
    )


def _cases(kind: str) -> list[Case]:
    variants = {name: (name, {}) for name in _SIZES} | _VARIANTS
    if kind in _OPTIONS:
        options = _OPTIONS[kind]
        variants["option"] = ("primes", options)
        variants["option_lengths_reverse"] = ("primes", {**options, "lengths": _UNSORTED, "reverse": True})
        variants["option_no_bias"] = ("units_37", {**options, "b_ih": None, "b_hh": None})
    cases = [_forward_case(kind, name, *variant) for name, variant in variants.items()]
    cases += [_backward_case(kind, name, *variant) for name, variant in variants.items()]
    cases += in_every_layout(_forward_case(kind, "layout", "primes", {"lengths": _UNSORTED}))[1:]
    cases += in_every_layout(_backward_case(kind, "layout", "primes", {"lengths": _UNSORTED}))[1:]
    cases += in_every_layout(_backward_case(kind, "uniform", "primes", {}))[1:]
    without = [
        ("output_alone", ("dhn", "dcn")),
        ("state_alone", ("dy", "dcn")),
        ("nothing", ("dy", "dhn", "dcn")),
    ]
    cases += [_backward_case(kind, name, "primes", {"reverse": True}, none) for name, none in without]
    for name, need in (("input_only", (True, False)), ("weight_only", (False, True))):
        cases.append(_backward_case(kind, name, "primes", {"need": need}))
    return cases + _cell_cases(kind)


def _cell_cases(kind: str) -> list[Case]:
    variants: dict[str, tuple[str, Arguments]] = {
        "one": ("one", {}),
        "primes": ("one_step", {}),
        "aligned": ("step_aligned", {}),
        "odd": ("step_odd", {}),
        "empty_batch": ("empty_step", {}),
        "no_state": ("one_step", {"h0": None, "c0": None}),
        "no_bias": ("one_step", {"b_ih": None, "b_hh": None}),
        "no_recurrent_bias": ("step_aligned", {"b_hh": None}),
        "no_input_bias": ("step_odd", {"b_ih": None}),
    }
    if kind in _OPTIONS:
        variants["option"] = ("one_step", _OPTIONS[kind])
    cases = []
    for name, (size, more) in variants.items():
        make = partial(_make_cell, partial(_make, kind, size, more))
        cases.append(Case(f"{kind}_cell", name, make, partial(cell_oracle, kind), _TOLERANCE))
        make = partial(_make_cell, partial(_make_backward, kind, size, more, ()))
        oracle_of = partial(cell_backward_oracle, kind)
        call = partial(_cell_backward, kind)
        cases.append(Case(f"{kind}_cell_backward", name, make, oracle_of, _TOLERANCE, call=call))
    for size, need in (("step_odd", (True, False)), ("step_aligned", (False, True))):
        make = partial(_make_cell, partial(_make_backward, kind, size, {"need": need}, ()))
        oracle_of, call = partial(cell_backward_oracle, kind), partial(_cell_backward, kind)
        name = "input_only" if need[0] else "weight_only"
        cases.append(Case(f"{kind}_cell_backward", name, make, oracle_of, _TOLERANCE, call=call))
    cases += in_every_layout(cases[2])[1:] + in_every_layout(cases[3])[1:]
    return cases


CASES = [case for kind in KINDS for case in _cases(kind)]


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# A valid call of every operator, T 4, N 2, D 5, H 3, and the arguments that may be None.
VALID: dict[str, Arguments] = {}
OPTIONAL: set[tuple[str, str]] = set()


def saved_by(kind: str) -> Any:
    """What a backend's forward hands to the backward."""

    def forward(backend: Any) -> Any:
        return backend.call(kind, {name: backend.put(value) for name, value in VALID[kind].items()})[-1]

    return forward


for kind, gates in (("rnn", 3), ("lstm", 12), ("gru", 9)):
    states = {"h0": floats(2, 3), "c0": floats(2, 3)} if kind == "lstm" else {"h0": floats(2, 3)}
    weights = {
        "w_ih": floats(gates, 5),
        "w_hh": floats(gates, 3),
        "b_ih": floats(gates),
        "b_hh": floats(gates),
    }
    step = {"x": floats(2, 5), **{name[0]: state for name, state in states.items()}, **weights}
    VALID[kind] = {"x": floats(4, 2, 5), **states, **weights}
    VALID[f"{kind}_cell"] = step
    VALID[f"{kind}_cell_backward"] = {f"d{name[0]}": state for name, state in states.items()} | step
    VALID[f"{kind}_backward"] = {"dy": floats(4, 2, 3)} | {f"d{name[0]}n": s for name, s in states.items()}
    VALID[f"{kind}_backward"]["saved"] = saved_by(kind)
    ops = (kind, f"{kind}_cell", f"{kind}_cell_backward")
    OPTIONAL |= {(op, name) for op in ops for name in ("h0", "c0", "h", "c", "b_ih", "b_hh")}
    OPTIONAL |= {(f"{kind}_backward", name) for name in ("dy", "dhn", "dcn")}
OPTIONAL |= {("lstm_cell_backward", "dh"), ("lstm_cell_backward", "dc")}


KERNEL_OPTIONAL = {
    *((f"recurrent_cell_{way}", name) for way in ("forward", "backward") for name in ("h", "c", "gates")),
    *(("recurrent_cell_backward", name) for name in ("dh", "dc", "dh_before", "dc_before")),
}
KERNEL_OUTPUTS = {
    "recurrent_cell_forward": {"y", "c_next", "gates"},
    "recurrent_cell_backward": {"da", "dh_before", "dc_before"},
}


def kernel_calls() -> dict[str, Arguments]:
    """A small call of each kernel, of an LSTM: N 3, H 5."""
    how = {"cell": 2, "sizes": [3, 2], "reverse": False, "algorithm": 0}
    gates = {"gates": floats(5, 20)}
    state = {"h": floats(3, 5), "c": floats(3, 5)}
    kept = {"extra": floats(5, 5), "previous": floats(5, 5)}
    found = {"dh": floats(3, 5), "dc": floats(3, 5), "da": floats(5, 20), "da_h": None}
    forward = {"w_hh": floats(20, 5), "b_n": None, **gates, **state, "y": floats(5, 5), "extra": floats(5, 5)}
    backward = {"w_hh": floats(20, 5), **gates, "dy": floats(5, 5), **kept, **found}
    step = {"product": floats(3, 20), "b_n": None, "h": None, "gates": floats(3, 20), "c": floats(3, 5)}
    step_kept = {"extra": floats(3, 5), "previous": floats(3, 5)}
    inputs = {"x": floats(3, 7), **state, "w_ih": floats(20, 7), "w_hh": floats(20, 5)}
    inputs |= {"b_ih": None, "b_hh": None, "gates": floats(3, 20), "extra": None}
    whole_back = {"dh": floats(3, 5), "dc": floats(3, 5), "da": floats(3, 20), "da_h": None}
    whole_back |= {"dh_before": floats(3, 5), "dc_before": floats(3, 5), "cell": 2}
    return {
        "recurrent_cell_forward": inputs | {"y": floats(3, 5), "c_next": floats(3, 5), "cell": 2},
        "recurrent_cell_backward": inputs | whole_back,
        "recurrent_forward": forward | how,
        "recurrent_backward": backward | how,
        "recurrent_gates_forward": step | {"y": floats(3, 5), "extra": floats(3, 5), "cell": 2},
        "recurrent_gates_backward": {
            "gates": floats(3, 20),
            **step_kept,
            **found,
            "da": floats(3, 20),
            "cell": 2,
        },
    }


# Gradients by central differences, through everything that an operator gives at once.

_NAMES = ("x", "h0", "c0", "w_ih", "w_hh", "b_ih", "b_hh")


def _gradient(kind: str, case: str, size: str, more: Arguments) -> Gradient:
    names = [name for name in _NAMES if name != "c0" or kind == "lstm"]

    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        made = _make(kind, size, {}, rng, np.dtype(np.float64))
        return tuple(made[name] for name in names)

    def forward_flat(ops: Any, *arrays) -> Any:
        outputs = forward(ops, kind, **dict(zip(names, arrays, strict=True)), **more)
        return np.concatenate([output.ravel() for output in outputs])

    def backward_flat(ops: Any, d, *arrays) -> tuple:
        (t, n, _), h = arrays[0].shape, arrays[names.index("w_hh")].shape[1]
        parts = {"dy": d[: t * n * h].reshape(t, n, h), "dhn": d[t * n * h :][: n * h].reshape(n, h)}
        if kind == "lstm":
            parts["dcn"] = d[(t + 1) * n * h :].reshape(n, h)
        return backward(ops, kind, **parts, **dict(zip(names, arrays, strict=True)), **more)

    return Gradient(f"{kind}_backward", case, inputs, forward_flat, backward_flat)


def _cell_gradient(kind: str, more: Arguments) -> Gradient:
    names = [name for name in ("x", "h", "c", *_NAMES[3:]) if name != "c" or kind == "lstm"]

    def inputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        made = _to_cell(_make(kind, "one_step", {}, rng, np.dtype(np.float64)), False)
        return tuple(made[name] for name in names)

    def forward_flat(ops: Any, *arrays) -> Any:
        output = getattr(ops, f"{kind}_cell")(*arrays, **more)
        return np.concatenate([part.ravel() for part in output]) if kind == "lstm" else output

    def backward_flat(ops: Any, d, *arrays) -> tuple:
        gradients = (d,)
        if kind == "lstm":
            half = d.shape[0] // 2
            gradients = (d[:half].reshape(arrays[1].shape), d[half:].reshape(arrays[1].shape))
        found = getattr(ops, f"{kind}_cell_backward")(*gradients, *arrays, **more)
        return tuple(found[: len(arrays)])

    return Gradient(
        f"{kind}_cell_backward", "option" if more else "one_step", inputs, forward_flat, backward_flat
    )


_SIZES["tiny"] = (4, 3, 2, 3)
_TINY_LENGTHS = [2, 4, 1]
GRADIENTS = [
    *(_gradient(kind, "tiny", "tiny", {}) for kind in KINDS),
    *(_gradient(kind, "lengths", "tiny", {"lengths": _TINY_LENGTHS}) for kind in KINDS),
    *(_gradient(kind, "reverse", "tiny", {"lengths": _TINY_LENGTHS, "reverse": True}) for kind in KINDS),
    *(_gradient(kind, "option", "tiny", options) for kind, options in _OPTIONS.items()),
    *(_cell_gradient(kind, {}) for kind in KINDS),
    *(_cell_gradient(kind, options) for kind, options in _OPTIONS.items()),
]
