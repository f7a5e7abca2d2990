"""How the rows of a recurrent sequence lie: those of several lengths without their padding."""

from __future__ import annotations

import numpy as np

from fastarch.capturing import refuse
from fastarch.ops._boundary import Array, empty, namespace, zeros


class Packing:
    """Where the rows of sequences of several lengths lie when only what is inside them is kept.

    lengths: host integers [N], each 1 to T. Sequences are sorted, longest first; packed row offset(t) + b
    is step t of the b-th of them. `rows` says where each packed row lies in [T * N], `order` which sequence
    is b-th.
    """

    def __init__(self, lengths: np.ndarray, t_count: int, like: Array) -> None:
        # What is uploaded here, and by States.before, is made on the host at each call.
        refuse("sequences of several lengths are packed on the host")
        xp = namespace(like)
        count = len(lengths)
        order = np.argsort(-lengths, kind="stable")
        self.shape = (t_count, count)
        sizes = (lengths[:, None] > np.arange(lengths.max())).sum(axis=0)
        self.sizes: list[int] = sizes.tolist()
        self.offsets = np.concatenate(([0], np.cumsum(sizes)))
        self.rows = xp.asarray(np.concatenate([t * count + order[:n] for t, n in enumerate(self.sizes)]))
        self.order, self.places = xp.asarray(order), xp.asarray(np.argsort(order))

    def pack(self, x: Array) -> Array:
        """[T, N, F] -> [R, F]."""
        return x.reshape(-1, x.shape[-1])[self.rows]

    def sort(self, state: Array) -> Array:
        """[N, H] -> [N, H] in the order of the packed rows, contiguous and new."""
        sorted_state = state[self.order]
        return sorted_state if sorted_state.flags.c_contiguous else sorted_state.copy(order="C")

    def unpack(self, op: str, packed: Array) -> Array:
        """[R, F] -> [T, N, F], zeros past the ends."""
        t_count, count = self.shape
        x = zeros(op, (t_count * count, packed.shape[-1]), packed)
        x[self.rows] = packed
        return x.reshape(t_count, count, -1)

    def before(self, reverse: bool) -> np.ndarray:
        """Where the state before each packed row lies among [first states; states of the packed rows]."""
        count = self.shape[1]
        parts = []
        for t, n in enumerate(self.sizes):
            b = np.arange(n)
            if not reverse:
                parts.append(b if t == 0 else count + self.offsets[t - 1] + b)
            else:
                following = self.sizes[t + 1] if t + 1 < len(self.sizes) else 0
                parts.append(np.where(b < following, count + self.offsets[t + 1] + b, b))
        return np.concatenate(parts)


class States:
    """The states of all steps beside the first ones: a step finds the state before it without a copy."""

    def __init__(self, op: str, first: Array, rows: int, packing: Packing | None, reverse: bool) -> None:
        n, units = first.shape
        both = empty(op, (n + rows, units), first)
        if packing is None and reverse:
            self.steps, self.before_steps, kept = both[:rows], both[n:], both[rows:]
        else:
            self.steps, self.before_steps, kept = both[n:], both[:rows], both[:n]
        kept[...] = first
        self._both, self._packing, self._reverse = both, packing, reverse

    def before(self) -> Array:
        """[R, H]: the state before each row, once the steps are known."""
        if self._packing is None:
            return self.before_steps
        return self._both[namespace(self._both).asarray(self._packing.before(self._reverse))]
