"""Image patches as a matrix, block by block: what turns a convolution into matrix multiplies.

Row (c, r, s) of the patch matrix holds, for every output position, the input that filter tap (r, s) sees in
channel c; the columns run over (image, output row, output column). Where the stride is 1, the columns of an
output row are a whole row of the padded input instead of the Q valid ones: tap (r, s) is then one long run of
memory, which copies many times faster than Q numbers at a time. The surplus columns are cut off after the
multiply forward, and are zero in the output gradient backward, so that they add nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from numpy import ndarray

from fastarch.ops._boundary import Array, empty, zeros

_BLOCK_BYTES = 1 << 19  # of the patch matrix at a time: within a core's cache
_DEVICE_BLOCK_BYTES = 1 << 26  # on a device, few launches count for more than cache
_BLOCK_COLUMNS = 512  # at least: fewer would read the filters too often
_SURPLUS = 1.5  # the widest padded row that is still worth computing, in output rows


class Block(NamedTuple):
    """Output rows `p` of images `n`: `size` columns of the patch matrix, `pitch` rows of them per image."""

    n: slice
    p: slice
    images: int
    rows: int
    pitch: int
    size: int


class Plan:
    """The sizes of one convolution, and how it is cut into blocks.

    x [N, C, H, W], weight [K, C/groups, R, S], y [N, K, P, Q]; padding is that at the top and left, y says
    the rest. like: an array of the dtype and in the memory that the work is done in. planes: gives every
    image of a block as many columns as the padded input has pixels, so that a tap's columns are one run over
    all images.
    """

    def __init__(
        self,
        x: tuple[int, ...],
        weight: tuple[int, ...],
        y: tuple[int, ...],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        like: Array,
        planes: bool = False,
    ) -> None:
        self.n, self.c, self.h, self.w = x
        self.r, self.s = weight[2:]
        self.k, self.p, self.q = y[1:]
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.taps = self.c * self.r * self.s
        # The padded input that the outputs see; a stride may leave some of x unseen.
        self.padded_h = (self.p - 1) * stride[0] + (self.r - 1) * dilation[0] + 1
        self.padded_w = (self.q - 1) * stride[1] + (self.s - 1) * dilation[1] + 1
        self.runs = stride == (1, 1) and self.padded_w <= _SURPLUS * self.q
        self.width = self.padded_w if self.runs else self.q
        bytes_a_block = _BLOCK_BYTES if type(like) is ndarray else _DEVICE_BLOCK_BYTES
        columns = max(_BLOCK_COLUMNS, bytes_a_block // (like.dtype.itemsize * max(self.taps, 1)))
        self.block_images = min(self.n, max(1, columns // (self.p * self.width)))
        self.block_rows = min(self.p, max(1, columns // self.width))
        # Rows of columns that each image has beyond those of its outputs.
        whole = planes and self.runs and self.block_images > 1 and self.padded_h <= _SURPLUS * self.p
        self.tail = self.padded_h - self.p if whole else 0
        self.block = self.block_images * (self.block_rows + self.tail) * self.width  # columns of the largest

    def blocks(self) -> Iterator[Block]:
        for n in range(0, self.n, self.block_images):
            images = min(self.block_images, self.n - n)
            for p in range(0, self.p, self.block_rows):
                rows = min(self.block_rows, self.p - p)
                pitch = rows + self.tail
                yield Block(
                    slice(n, n + images), slice(p, p + rows), images, rows, pitch, images * pitch * self.width
                )

    def overlap(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where x and the padded input share pixels: (rows, columns) of x, (rows, columns) of the padded."""
        (top, left), rows, columns = self.padding, self.padded_h, self.padded_w
        high, wide = max(min(self.h, rows - top), 0), max(min(self.w, columns - left), 0)
        return (slice(0, high), slice(0, wide)), (slice(top, top + high), slice(left, left + wide))


class Reader:
    """Reads the patch matrix of x, a block at a time, through one buffer."""

    def __init__(self, plan: Plan, x: Array, xp: Any) -> None:
        self.plan, self.x = plan, x
        padded = plan.padding != (0, 0) or plan.padded_h > plan.h or plan.padded_w > plan.w
        self.direct = not padded and (not plan.runs or (plan.s == 1 and plan.padded_w == plan.w))
        if self.direct:
            source, strides = x, x.strides
        else:
            pitch = plan.padded_h * plan.padded_w
            # The last run goes on for this much behind the last padded row.
            slack = (plan.s - 1) * plan.dilation[1] if plan.runs else 0
            source = zeros("conv2d", (plan.c * plan.block_images * pitch + slack,), x)
            item = x.dtype.itemsize
            self.padded = source[: source.size - slack].reshape(
                plan.c, plan.block_images, plan.padded_h, plan.padded_w
            )
            strides = (pitch * item, plan.block_images * pitch * item, plan.padded_w * item, item)
        image, channel, row, column = strides
        self.windows = xp.lib.stride_tricks.as_strided(
            source,
            (plan.c, plan.r, plan.s, plan.n if self.direct else plan.block_images, plan.p, plan.width),
            (
                channel,
                row * plan.dilation[0],
                column * plan.dilation[1],
                image,
                row * plan.stride[0],
                column * plan.stride[1],
            ),
        )
        self.buffer = xp.empty(plan.taps * plan.block, x.dtype)

    def read(self, block: Block) -> Array:
        """The patch matrix of `block`: [C, R, S, images, rows, width], valid until the next call."""
        plan = self.plan
        if self.direct:
            windows = self.windows[:, :, :, block.n, block.p]
        else:
            if block.p.start == 0:
                inside, at = plan.overlap()
                self.padded[:, : block.images, at[0], at[1]] = self.x[
                    block.n, :, inside[0], inside[1]
                ].swapaxes(0, 1)
            windows = self.windows[:, :, :, : block.images, block.p]
        patches = self.buffer[: plan.taps * block.size].reshape(windows.shape)
        patches[...] = windows
        return patches


class Gradients:
    """Reads dy as a matrix whose columns are those of the patch matrix, surplus columns zero."""

    def __init__(self, plan: Plan, dy: Array, xp: Any) -> None:
        self.plan, self.dy, self.size = plan, dy, 0
        self.buffer = xp.empty(plan.k * plan.block, dy.dtype)

    def read(self, block: Block) -> Array:
        """dy of `block`: [K, columns], valid until the next call."""
        plan = self.plan
        flat = self.buffer[: plan.k * block.size]
        part = flat.reshape(plan.k, block.images, block.pitch, plan.width)
        if block.size != self.size:
            self.size = block.size  # another layout: the surplus columns lie elsewhere
            flat[...] = 0
        part[:, :, : block.rows, : plan.q] = self.dy[block.n, :, block.p].swapaxes(0, 1)
        return part.reshape(plan.k, block.size)


class Adder:
    """Adds the patch matrix of a gradient back onto the pixels that the patches came from."""

    def __init__(self, plan: Plan, dx: Array, xp: Any) -> None:
        self.plan, self.dx, self.xp = plan, dx, xp
        size = plan.c * plan.block_images * plan.padded_h * plan.padded_w
        self.buffer = empty("conv2d_backward", (size,), dx)
        (rows, columns), _ = plan.overlap()
        if (rows.stop, columns.stop) != (plan.h, plan.w):
            dx[...] = 0  # some pixels reach no output

    def add(self, block: Block, patches: Array) -> None:
        """Adds `block`'s [C, R, S, columns]; the images go to dx when their last rows have come."""
        plan = self.plan
        shape = (plan.c, block.images, plan.padded_h, plan.padded_w)
        padded = self.buffer[: plan.c * block.images * plan.padded_h * plan.padded_w].reshape(shape)
        if plan.tail:
            self._sum_planes(block, patches, padded.reshape(plan.c, block.size))
        else:
            if block.p.start == 0:
                padded[...] = 0
            if plan.runs and block.images == 1:
                self._add_runs(block, patches, padded.reshape(plan.c, -1))
            else:
                self._add_rows(block, patches, padded)
        if block.p.stop == plan.p:
            inside, at = plan.overlap()
            self.dx[block.n, :, inside[0], inside[1]] = padded[:, :, at[0], at[1]].swapaxes(0, 1)

    def _sum_planes(self, block: Block, patches: Array, sums: Array) -> None:
        """Every tap's columns are whole planes, shifted by the tap's place: one sum over a skewed view.

        Before its begin, a shifted run has the end of the run before it: zeros, for these are surplus
        columns.
        """
        plan, item = self.plan, patches.dtype.itemsize
        (dh, dw), run = plan.dilation, block.size
        skewed = self.xp.lib.stride_tricks.as_strided(
            patches,
            patches.shape,
            (
                plan.r * plan.s * run * item,
                (plan.s * run - dh * plan.width) * item,
                (run - dw) * item,
                item,
            ),
        )
        self.xp.sum(skewed, axis=(1, 2), out=sums)

    def _add_runs(self, block: Block, patches: Array, sums: Array) -> None:
        """Of one image, a tap's columns are a run of pixels; what sticks out at the end is surplus: zeros."""
        plan = self.plan
        for r in range(plan.r):
            for s in range(plan.s):
                start = (r * plan.dilation[0] + block.p.start) * plan.width + s * plan.dilation[1]
                run = sums[:, start : start + block.size]
                run += patches[:, r, s, : run.shape[1]]

    def _add_rows(self, block: Block, patches: Array, padded: Array) -> None:
        plan = self.plan
        (sh, sw), (dh, dw) = plan.stride, plan.dilation
        shape = (plan.c, plan.r, plan.s, block.images, block.rows, plan.width)
        parts = patches.reshape(shape)[..., : plan.q]
        high, wide = (block.rows - 1) * sh + 1, (plan.q - 1) * sw + 1
        for r in range(plan.r):
            top = r * dh + block.p.start * sh
            for s in range(plan.s):
                padded[:, :, top : top + high : sh, s * dw : s * dw + wide : sw] += parts[:, r, s]
