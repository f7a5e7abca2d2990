"""Bad calls of the recurrent operators: each answers with the documented exception."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cases.recurrent import VALID, saved_by
from conftest import Backend
from test_errors import Row, floats, name_of, refused


def saved_step(kind: str, features: int, **options) -> Any:
    """What a backend's step of N 2, H 3 hands to its backward."""

    def step(backend: Backend) -> Any:
        arguments = VALID[f"{kind}_cell"] | {"x": floats(2, features), "save": True} | options
        arguments["w_ih"] = floats(len(arguments["w_ih"]), features)
        call = {name: value if value is None else backend.put(value) for name, value in arguments.items()}
        return backend.call(f"{kind}_cell", call)[-1]

    return step


RECURRENT: list[Row] = [
    row
    for op in ("rnn", "lstm", "gru")
    for row in [
        (op, {"lengths": [0, 4]}, ValueError, "lengths holds 0, expected 1 to 4"),
        (op, {"lengths": [4, 5]}, ValueError, "lengths holds 5, expected 1 to 4"),
        (op, {"lengths": [-1, 4]}, ValueError, "lengths holds -1"),
        (op, {"lengths": [4, 4, 4]}, ValueError, r"lengths has shape \(3,\), expected \(2,\)"),
        (op, {"lengths": [[4, 4]]}, TypeError, "lengths"),
        (op, {"lengths": [4, 2.0]}, TypeError, "lengths is 2.0"),
        (op, {"lengths": 4}, TypeError, "lengths is int"),
        (op, {"reverse": 1}, TypeError, "reverse"),
        (
            op,
            {"h0": floats(2, 3, dtype=np.float64)},
            TypeError,
            "h0 has dtype float64, expected float32",
        ),
        (
            op,
            {"b_ih": floats(3, dtype=np.float16)},
            TypeError,
            "b_ih has dtype float16, expected float32",
        ),
        (f"{op}_cell", {"h": floats(2, 3, dtype=np.float64)}, TypeError, "h has dtype float64"),
        (op, {"h0": floats(3, 3)}, ValueError, r"h0 has shape \(3, 3\), expected \(2, 3\)"),
        (op, {"x": floats(0, 2, 5)}, ValueError, "at least one step"),
        (op, {"x": floats(4, 2, 6)}, ValueError, "w_ih has shape"),
        (op, {"w_hh": floats(4, 4)}, ValueError, r"w_[ih]h has shape"),
        (op, {"w_hh": floats(0, 0)}, ValueError, "zero"),
        (op, {"b_hh": floats(2)}, ValueError, "b_hh has shape"),
        (f"{op}_backward", {"saved": None}, TypeError, f"saved is None, expected what {op} returned"),
        (f"{op}_backward", {"dhn": floats(2, 4)}, ValueError, "dhn has shape"),
        (f"{op}_backward", {"need": True}, TypeError, "need"),
        (f"{op}_cell", {"h": floats(2, 4)}, ValueError, "h has shape"),
        (f"{op}_cell_backward", {"dh": floats(1, 3)}, ValueError, "dh has shape"),
        (f"{op}_cell_backward", {"need": (1, 1)}, TypeError, "need"),
    ]
]
RECURRENT += [
    ("lstm", {"c0": floats(2, 4)}, ValueError, "c0 has shape"),
    ("lstm_backward", {"dcn": floats(2, 4)}, ValueError, "dcn has shape"),
    ("lstm", {"w_hr": floats(2, 3)}, ValueError, r"w_hr has shape \(2, 3\), expected \(3, 3\)"),
    ("lstm", {"w_hr": floats(3)}, ValueError, r"expected 2 dimensions \[P, H\]"),
    (
        "lstm",
        {"norm_ih": floats(12)},
        ValueError,
        "norm_hh is None, expected all of norm_ih, norm_hh, norm_c",
    ),
    ("gru", {"norm_ih": floats(9), "norm_hh": floats(3)}, ValueError, "norm_hh has shape"),
    ("gru", {"norm_ih": floats(9, dtype=np.float64)}, TypeError, "norm_ih has dtype float64"),
    ("gru", {"zoneout": 1.5}, ValueError, "zoneout is 1.5, expected a probability"),
    ("rnn", {"zoneout": "half"}, TypeError, "zoneout is 'half'"),
    ("lstm", {"zoneout_cell": -1}, ValueError, "zoneout_cell is -1"),
    ("lstm", {"stream": 3}, TypeError, r"stream is 3, expected \(seed, offset\) or None"),
    ("lstm", {"stream": (1, -2)}, ValueError, "offset of stream is -2"),
    ("gru", {"zoneout": 0.5, "algorithm": "cluster"}, ValueError, "'cluster' has no projection"),
    ("gru", {"zoneout": 0.5, "algorithm": "persistent"}, ValueError, "'persistent' has no projection"),
    ("lstm_backward", {"saved": saved_by("rnn")}, TypeError, "saved is <saved by rnn"),
    ("gru", {"algorithm": "fast"}, ValueError, "algorithm is 'fast'"),
    ("lstm", {"algorithm": None}, ValueError, "algorithm is None"),
    ("lstm_cell", {"c": floats(2, 4)}, ValueError, r"c has shape \(2, 4\), expected \(2, 3\)"),
    ("lstm_cell", {"w_hr": floats(2, 3)}, ValueError, r"w_hr has shape \(2, 3\), expected \(3, 3\)"),
    ("lstm_cell", {"norm_ih": floats(12)}, ValueError, "norm_hh is None, expected all of norm_ih"),
    ("lstm_cell", {"zoneout_cell": 2}, ValueError, "zoneout_cell is 2.0, expected a probability"),
    ("gru_cell", {"norm_hh": floats(9)}, ValueError, "norm_ih is None, expected all of"),
    ("lstm_cell", {"save": "yes"}, TypeError, "save is 'yes', expected"),
    ("lstm_cell_backward", {"saved": 3}, TypeError, "saved is 3, expected what lstm_cell returned with save"),
    ("gru_cell_backward", {"saved": saved_step("lstm", 5)}, TypeError, "saved is <saved by lstm_cell, x "),
    (
        "lstm_cell_backward",
        {"saved": saved_step("lstm", 6)},
        ValueError,
        "of another step, expected one of the same",
    ),
    (
        "lstm_cell_backward",
        {"saved": saved_step("lstm", 5, zoneout=0.5)},
        ValueError,
        "saved .* of another step",
    ),
    (
        "rnn_cell_backward",
        {"saved": saved_step("rnn", 5), "nonlinearity": "relu"},
        ValueError,
        "another step",
    ),
    (
        "gru_cell_backward",
        {"saved": saved_step("gru", 5, zoneout=0.5), "reset_before": True},
        ValueError,
        "another step",
    ),
    (
        "lstm_cell_backward",
        {"saved": saved_step("lstm", 5, zoneout=0.5, h=None), "zoneout": 0.5},
        ValueError,
        "another step",
    ),
    ("gru_cell_backward", {"zoneout": None}, TypeError, "zoneout is None"),
    ("rnn_cell_backward", {"stream": (1,)}, TypeError, r"stream is \(1,\), expected \(seed, offset\)"),
    ("rnn", {"nonlinearity": "sigmoid"}, ValueError, "nonlinearity is 'sigmoid'"),
    ("rnn_cell", {"nonlinearity": None}, ValueError, "nonlinearity is None"),
    ("gru", {"reset_before": 0}, TypeError, "reset_before"),
    ("gru_cell", {"reset_before": "yes"}, TypeError, "reset_before"),
]


@pytest.mark.parametrize("row", RECURRENT, ids=name_of)
def test_bad_argument(row: Row, backend: Backend) -> None:
    refused(backend, *row)
