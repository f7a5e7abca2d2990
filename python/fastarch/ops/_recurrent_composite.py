"""Recurrences whose steps do more than the plain cells: projection, zoneout, layer normalisation.

Each step is put together from parts: the product with w_hh, normalised where asked; the gates, by the
kernel of a single step; the projection; the zoneout. What does not depend on the step before is still done
for all steps at once, and so is every weight gradient. N sequences, R packed rows, G gates of H units, P
outputs (H without a projection).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastarch.ops import _recurrent_steps as cells
from fastarch.ops._boundary import Array, empty, namespace, run
from fastarch.ops._products import linear_backward_input, linear_backward_weight, linear_forward
from fastarch.ops._recurrent_packing import Packing
from fastarch.random import philox

EPSILON = 1e-5  # added to a variance

Stream = tuple[int, int, Any]  # seed, offset, and None or an array [1] that holds the offset in its place
Keep = Any  # which states are renewed: a bool array, the probability of it, or None for all of them


@dataclass(frozen=True, slots=True)
class Options:
    """What a step does beyond the cell; all of it checked.

    w_hr [P, H]. norm_ih and norm_hh [GH], norm_c and norm_c_bias [H]: gains and bias of the normalisation.
    zoneout, zoneout_cell: probabilities of keeping h and c; stream: None for expectations.
    """

    w_hr: Array | None = None
    norm_ih: Array | None = None
    norm_hh: Array | None = None
    norm_c: Array | None = None
    norm_c_bias: Array | None = None
    zoneout: float = 0.0
    zoneout_cell: float = 0.0
    stream: Stream | None = None

    def any(self) -> bool:
        """Whether the plain kernels do not do."""
        return self.zoneout > 0 or self.zoneout_cell > 0 or bool(self.arrays())

    def arrays(self) -> dict[str, Array]:
        """Those that are there, by name."""
        named = {
            name: getattr(self, name) for name in ("w_hr", "norm_ih", "norm_hh", "norm_c", "norm_c_bias")
        }
        return {name: array for name, array in named.items() if array is not None}


class Normalised:
    """Rows with mean 0 and variance 1 over their features, times a gain; and back. Ba et al. (2016)."""

    def __init__(self, op: str, rows: int, gain: Array) -> None:
        self.gain = gain
        self.unit = empty(op, (rows, len(gain)), gain)
        self.scale = empty(op, (rows, 1), gain)
        self._xp = namespace(gain)

    def forward(self, x: Array, rows: slice) -> None:
        """In place; `rows` of the whole are kept for the way back."""
        x -= x.mean(axis=1, keepdims=True)
        scale = 1 / self._xp.sqrt((x * x).mean(axis=1, keepdims=True) + EPSILON)
        x *= scale
        self.unit[rows], self.scale[rows] = x, scale
        x *= self.gain

    def backward(self, dy: Array, rows: slice) -> Array:
        """The gradient of what came in, a new array."""
        unit, d = self.unit[rows], dy * self.gain
        shared = (d * unit).mean(axis=1, keepdims=True)
        d -= d.mean(axis=1, keepdims=True)
        d -= unit * shared
        d *= self.scale[rows]
        return d

    def gain_gradient(self, dy: Array) -> Array:
        """[F], of all rows."""
        return (dy * self.unit).sum(axis=0)


@dataclass(slots=True)
class Kept:
    """What the backward of a composite recurrence needs beyond that of a plain one."""

    norm_ih: Normalised | None
    norm_hh: Normalised | None
    norm_c: Normalised | None
    output: Array  # [R, H]: what the cell gave, before projection and zoneout
    keep_h: Keep
    keep_c: Keep


@dataclass(slots=True)
class Gradients:
    """What the steps leave for the products and sums over all of them."""

    product: Array  # [R, GH], of h times w_hh
    projected: Array | None  # [R, P], of w_hr's product
    norm_c: tuple[Array, Array] | None  # of its gain and bias, [H] each


def _keep(
    op: str, rate: float, stream: Stream | None, first: int, shape: tuple, packing: Any, like: Array
) -> Keep:
    """The element of step t, sequence b and unit u is kept where word first + (t N + b) width + u of the
    stream is below floor(rate 2^32): whatever the packing.
    """
    if rate == 0:
        return None
    if stream is None or rate == 1:
        return 1 - rate
    count, width = shape
    words = empty(op, (count * width,), like, np.uint32)
    run("random_words", _random_words, (words.view(np.int32),), first, *stream)
    renewed = (words >= int(rate * 2**32)).reshape(count, width)
    return renewed if packing is None else renewed[packing.rows]


def _random_words(words: Array, start: int, seed: int, offset: int, word: Array | None, xp: Any) -> None:
    """words [n] int32, overwritten with the bits of words start, start + 1, ... of the stream."""
    words[...] = philox(words.size, seed, offset if word is None else word, xp, start).view(np.int32)


def _mix(before: Array, after: Array, keep: Keep, rows: slice, xp: Any) -> Array:
    if isinstance(keep, float | int):
        return before + keep * (after - before)
    return xp.where(keep[rows], after, before)


def _split(d: Array, keep: Keep, rows: slice) -> tuple[Array, Array | None]:
    """A gradient's share of the new state and of the one before (None: nothing)."""
    if keep is None:
        return d, None
    renewed = d * (keep if isinstance(keep, float | int) else keep[rows])
    return renewed, d - renewed


def _rows(array: Array | None, rows: slice) -> Any:
    return None if array is None else array[rows]


class Composite:
    """One recurrence put together from parts; `forward` and `backward` visit the steps."""

    def __init__(self, op: str, cell: int, w_hh: Array, options: Options) -> None:
        self.op, self.cell, self.w_hh, self.options = op, cell, w_hh, options
        self.xp = namespace(w_hh)

    def forward(
        self,
        b_n: Array | None,
        bias: Array | None,
        gates: Array,
        h: Array,
        c: Any,
        y: Array,
        c_steps: Any,
        extra: Any,
        order: list,
        packing: Packing | None,
        t_count: int,
    ) -> Kept:
        """gates [R, GH]: comes in as w_ih x. bias [GH]: what is then added to it. Otherwise as
        recurrent_forward, but for c_steps [R, H], c after each step, where extra holds it before zoneout.
        """
        op, xp, options, w_hh = self.op, self.xp, self.options, self.w_hh
        units, n = gates.shape[1] // cells.GATES[self.cell], len(h)
        kept = self._start(gates, bias, y, units, t_count * n, packing)
        product = empty(op, (n, gates.shape[1]), gates)
        for n, r in order:
            before, c_n = h[:n], _rows(c, slice(0, n))
            c_before = c_n.copy() if c_n is not None and kept.keep_c is not None else None
            out, kind = kept.output[r], self.cell
            if kind == cells.GRU_RESET_BEFORE:  # its second product follows its gates: a step in one piece
                new = before.copy()
                arguments = (gates[r], new, None, out, None, kind, [n], False, cells.ALGORITHMS["step"])
                run("recurrent_forward", cells.recurrent_forward, (w_hh, None), *arguments)
            else:
                p = product[:n]
                run("linear_forward", linear_forward, (before, w_hh, None), p, 0)
                if kept.norm_hh is not None:
                    kept.norm_hh.forward(p, r)
                inputs = (p, b_n, before if kind == cells.GRU else None)
                run(
                    "recurrent_gates_forward",
                    cells.recurrent_gates_forward,
                    inputs,
                    gates[r],
                    c_n,
                    out,
                    _rows(extra, r),
                    kind,
                )
            if kept.norm_c is not None:
                unit = extra[r].copy()
                kept.norm_c.forward(unit, r)
                xp.multiply(gates[r][:, 3 * units :], xp.tanh(unit + options.norm_c_bias), out=out)
            if options.w_hr is not None:
                run("linear_forward", linear_forward, (out, options.w_hr, None), y[r], 0)
                out = y[r]
            y[r] = out if kept.keep_h is None else _mix(before, out, kept.keep_h, r, xp)
            h[:n] = y[r]
            if c_before is not None:
                c_n[...] = _mix(c_before, extra[r], kept.keep_c, r, xp)
                c_steps[r] = c_n
        return kept

    def _start(
        self, gates: Array, bias: Array | None, y: Array, units: int, count: int, packing: Packing | None
    ) -> Kept:
        """The inputs' share normalised, its bias added; room for the rest."""
        op, options, rows = self.op, self.options, len(gates)

        def norm(gain: Array | None) -> Normalised | None:
            return None if gain is None else Normalised(op, rows, gain)

        norm_ih = norm(options.norm_ih)
        if norm_ih is not None:
            norm_ih.forward(gates, slice(0, rows))
        if bias is not None:
            gates += bias
        outputs = y.shape[1]
        stream = options.stream
        keep_h = _keep(op, options.zoneout, stream, 0, (count, outputs), packing, gates)
        keep_c = _keep(op, options.zoneout_cell, stream, count * outputs, (count, units), packing, gates)
        own = options.w_hr is not None or keep_h is not None
        output = empty(op, (rows, units), gates) if own else y
        return Kept(norm_ih, norm(options.norm_hh), norm(options.norm_c), output, keep_h, keep_c)

    def backward(
        self,
        gates: Array,
        dy: Array | None,
        extra: Array | None,
        previous: Array | None,
        dh: Array,
        dc: Any,
        da: Array,
        da_h: Array | None,
        order: list,
        kept: Kept,
    ) -> Gradients:
        """As recurrent_backward, with dy [R, P] and dh [N, P]."""
        op, options, w_hh, kind = self.op, self.options, self.w_hh, self.cell
        units = gates.shape[1] // cells.GATES[kind]
        outer = da if da_h is None else da_h
        found = Gradients(outer if kept.norm_hh is None else empty(op, outer.shape, outer), None, None)
        if options.w_hr is not None:
            found.projected = empty(op, (len(gates), dh.shape[1]), dh)
        if kept.norm_c is not None:
            sums = self.xp.zeros((2, units), dh.dtype)
            found.norm_c = (sums[0], sums[1])
        for n, r in order:
            dh_n, dc_n = dh[:n], None if dc is None else dc[:n]
            if dy is not None:
                dh_n += dy[r]
            d, passed = _split(dh_n, kept.keep_h, r)
            passed_c = None
            if dc_n is not None:
                renewed, passed_c = _split(dc_n, kept.keep_c, r)
                dc_n[...] = renewed
            if found.projected is not None:
                found.projected[r] = d
                d = empty(op, (n, units), dh)
                run("linear_backward_input", linear_backward_input, (found.projected[r], options.w_hr), d)
            elif passed is None:
                d = d.copy()
            d_o = None if found.norm_c is None else self._through_cell_norm(gates[r], d, dc_n, kept, found, r)
            if kind == cells.GRU_RESET_BEFORE:
                arguments = (d, None, da[r], None, kind, [n], False, cells.ALGORITHMS["step"])
                inputs = (w_hh, gates[r], None, None, _rows(previous, r))
                run("recurrent_backward", cells.recurrent_backward, inputs, *arguments)
                dh_n[...] = d
            else:
                kept_rows = (gates[r], _rows(extra, r), _rows(previous, r))
                run(
                    "recurrent_gates_backward",
                    cells.recurrent_gates_backward,
                    kept_rows,
                    d,
                    dc_n,
                    da[r],
                    _rows(da_h, r),
                    kind,
                )
                if d_o is not None:
                    da[r][:, 3 * units :] = d_o
                if kept.norm_hh is not None:
                    found.product[r] = kept.norm_hh.backward(outer[r], r)
                run("linear_backward_input", linear_backward_input, (found.product[r], w_hh), dh_n)
                if kind == cells.GRU:
                    dh_n += d
            if passed is not None:
                dh_n += passed
            if passed_c is not None:
                dc_n += passed_c
        return found

    def option_gradients(self, da: Array, outer: Array, kept: Kept, found: Gradients) -> dict[str, Array]:
        """Those of the options' arrays; da and outer [R, GH]: of the two shares of the gates."""
        more = {}
        if kept.norm_ih is not None and kept.norm_hh is not None:
            more["norm_ih"] = kept.norm_ih.gain_gradient(da)
            more["norm_hh"] = kept.norm_hh.gain_gradient(outer)
        if found.norm_c is not None:
            more["norm_c"], more["norm_c_bias"] = found.norm_c
        if found.projected is not None and self.options.w_hr is not None:
            more["w_hr"] = empty(self.op, self.options.w_hr.shape, da)
            product = (found.projected, kept.output)
            run("linear_backward_weight", linear_backward_weight, product, more["w_hr"], None)
        return more

    def _through_cell_norm(
        self, a: Array, d: Array, dc: Array, kept: Kept, found: Gradients, rows: slice
    ) -> Array:
        """h = o tanh(norm(c)): o's gradient; c's is added to dc, and nothing of d is left."""
        norm, sums, o = kept.norm_c, found.norm_c, a[:, 3 * d.shape[1] :]
        assert norm is not None
        assert sums is not None
        t = self.xp.tanh(norm.unit[rows] * norm.gain + self.options.norm_c_bias)
        d_norm = d * o * (1 - t * t)
        sums[0][...] += (d_norm * norm.unit[rows]).sum(axis=0)
        sums[1][...] += d_norm.sum(axis=0)
        dc += norm.backward(d_norm, rows)
        d_o = d * t * o * (1 - o)
        d[...] = 0
        return d_o
