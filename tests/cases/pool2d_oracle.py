"""Pooling by definition, which is PyTorch's. x [N, C, H, W], y [N, C, P, Q]; or with the channels last.

arg-max [N, C, P, Q] counts inside the window, r * S + s; uint8 where R * S <= 256, else int32.
"""

from __future__ import annotations

import numpy as np

from cases.case import pair


def output_size(size, kernel, stride, padding, dilation, ceil_mode):
    """The windows along one axis; with ceil_mode also a last one that sticks out, if it starts inside."""
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count


def windows(shape, y_shape, kernel, stride, padding, dilation=1):
    """Every (p, q) with its taps (r, s, h, w) inside the image and its area within the padded image."""
    (height, width), (r_count, s_count) = shape[2:], pair(kernel)
    (sh, sw), (ph, pw), (dh, dw) = pair(kernel if stride is None else stride), pair(padding), pair(dilation)
    for p in range(y_shape[2]):
        for q in range(y_shape[3]):
            top, left = p * sh - ph, q * sw - pw
            taps = [
                (r, s, top + r * dh, left + s * dw)
                for r in range(r_count)
                for s in range(s_count)
                if 0 <= top + r * dh < height and 0 <= left + s * dw < width
            ]
            area = (min(top + r_count, height + ph) - top) * (min(left + s_count, width + pw) - left)
            yield p, q, taps, area


def pooled_shape(shape, kernel, stride, padding, dilation, ceil_mode):
    stride = kernel if stride is None else stride
    axes = zip(shape[2:], pair(kernel), pair(stride), pair(padding), pair(dilation), strict=True)
    return (*shape[:2], *(output_size(*axis, ceil_mode) for axis in axes))


def max_pool2d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The greatest pixel of each window and which it is: the first of equals, but the last NaN.

    A window without a pixel, which dilation can make, gives -inf and the first offset.
    """
    y_shape = pooled_shape(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    r_count, s_count = pair(kernel_size)
    y = np.full(y_shape, -np.inf)
    argmax = np.zeros(y_shape, np.uint8 if r_count * s_count <= 256 else np.int32)
    for p, q, taps, _ in windows(x.shape, y_shape, kernel_size, stride, padding, dilation):
        for n, c in np.ndindex(x.shape[:2]):
            best = None
            for r, s, h, w in taps:
                value = float(x[n, c, h, w])
                if best is None or value > best or np.isnan(value):
                    best, y[n, c, p, q], argmax[n, c, p, q] = value, value, r * s_count + s
    return y, argmax


def max_pool2d_backward(dy, argmax, input_shape, kernel_size, stride=None, padding=0, dilation=1):
    """Each dy goes to the pixel that won its window."""
    dx = np.zeros(input_shape)
    s_count = pair(kernel_size)[1]
    for p, q, taps, _ in windows(input_shape, dy.shape, kernel_size, stride, padding, dilation):
        for n, c in np.ndindex(*input_shape[:2]):
            for r, s, h, w in taps:
                if argmax[n, c, p, q] == r * s_count + s:
                    dx[n, c, h, w] += float(dy[n, c, p, q])
    return dx


def avg_pool2d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The sum of each window over its area, in which the padding counts or not."""
    y = np.zeros(pooled_shape(x.shape, kernel_size, stride, padding, 1, ceil_mode))
    for p, q, taps, area in windows(x.shape, y.shape, kernel_size, stride, padding):
        for n, c in np.ndindex(x.shape[:2]):
            total = sum(float(x[n, c, h, w]) for _, _, h, w in taps)
            y[n, c, p, q] = total / (area if count_include_pad else len(taps))
    return y


def avg_pool2d_backward(dy, input_shape, kernel_size, stride=None, padding=0, count_include_pad=True):
    """Each dy is shared out equally over its window."""
    dx = np.zeros(input_shape)
    for p, q, taps, area in windows(input_shape, dy.shape, kernel_size, stride, padding):
        for n, c in np.ndindex(*input_shape[:2]):
            for _, _, h, w in taps:
                dx[n, c, h, w] += float(dy[n, c, p, q]) / (area if count_include_pad else len(taps))
    return dx


def _cells(size, count):
    """The pixels of each of `count` cells, from floor(i * size / count) to ceil((i + 1) * size / count)."""
    return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def adaptive_avg_pool2d(x, output_size):
    """The mean of each of P x Q cells."""
    p_count, q_count = pair(output_size)
    y = np.zeros((*x.shape[:2], p_count, q_count))
    for n, c, p, q in np.ndindex(y.shape):
        rows, columns = _cells(x.shape[2], p_count)[p], _cells(x.shape[3], q_count)[q]
        y[n, c, p, q] = sum(float(x[n, c, h, w]) for h in rows for w in columns) / (len(rows) * len(columns))
    return y


def adaptive_avg_pool2d_backward(dy, input_shape):
    """Each dy is shared out equally over its cell."""
    dx = np.zeros(input_shape)
    for n, c, p, q in np.ndindex(dy.shape):
        rows, columns = _cells(input_shape[2], dy.shape[2])[p], _cells(input_shape[3], dy.shape[3])[q]
        for h in rows:
            for w in columns:
                dx[n, c, h, w] += float(dy[n, c, p, q]) / (len(rows) * len(columns))
    return dx


def adaptive_max_pool2d(x, output_size):
    """The greatest pixel of each of P x Q cells, the first of equals but the last NaN, and which it is."""
    p_count, q_count = pair(output_size)
    y = np.zeros((*x.shape[:2], p_count, q_count))
    rows, columns = _cells(x.shape[2], p_count), _cells(x.shape[3], q_count)
    # A cell is at most this wide; fewer where the sizes divide evenly.
    widest = [n // c if n % c == 0 else min(n // c + 2, n) for n, c in zip(x.shape[2:], (p_count, q_count))]
    argmax = np.zeros(y.shape, np.uint8 if widest[0] * widest[1] <= 256 else np.int32)
    for n, c, p, q in np.ndindex(y.shape):
        values = [float(x[n, c, h, w]) for h in rows[p] for w in columns[q]]
        best = 0
        for i, value in enumerate(values):
            if value > values[best] or np.isnan(value):
                best = i
        y[n, c, p, q], argmax[n, c, p, q] = values[best], best
    return y, argmax


def adaptive_max_pool2d_backward(dy, argmax, input_shape):
    """Each dy goes to the pixel that won its cell."""
    dx = np.zeros(input_shape)
    for n, c, p, q in np.ndindex(dy.shape):
        rows, columns = _cells(input_shape[2], dy.shape[2])[p], _cells(input_shape[3], dy.shape[3])[q]
        r, s = divmod(int(argmax[n, c, p, q]), len(columns))
        dx[n, c, rows[r], columns[s]] += float(dy[n, c, p, q])
    return dx


def last(x):
    """[N, C, H, W] as [N, H, W, C]."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def with_channels_last(definition):
    """The definition for images of either layout."""

    def either(*args, layout="NCHW", **call):
        if layout == "NCHW":
            return definition(*args, **call)
        arrays = {name: a.transpose(0, 3, 1, 2) for name, a in call.items() if isinstance(a, np.ndarray)}
        if "input_shape" in call:
            n, h, w, c = call["input_shape"]
            arrays["input_shape"] = (n, c, h, w)
        result = definition(*args, **{**call, **arrays})
        return tuple(last(a) for a in result) if isinstance(result, tuple) else last(result)

    return either
