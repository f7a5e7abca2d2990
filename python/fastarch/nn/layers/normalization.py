"""Normalisation layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastarch.arrays import is_half
from fastarch.autograd import Array
from fastarch.capturing import refuse
from fastarch.nn import functional as F
from fastarch.nn.layers.checks import check_layout, check_positive
from fastarch.nn.module import Module, Parameter
from fastarch.tensors import Tensor, as_tensor


class _BatchNorm(Module):
    """What the batch norms share; they differ in the number of axes that they take."""

    _keeps_float32 = True
    running_mean: Array
    running_var: Array
    num_batches_tracked: Array
    _letters: ClassVar[dict[int, str]] = {}  # number of axes: the letters of those beside N and C

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        activation: str | None = None,
        layout: str = "NCHW",
        dtype: Any = np.float32,
    ) -> None:
        name = type(self).__name__
        check_positive(name, num_features=num_features)
        if not eps >= 0:
            raise ValueError(f"[{name}] eps must be at least 0, got {eps}")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"[{name}] momentum must be in [0, 1] or None, got {momentum}")
        if activation not in (None, "relu"):
            raise ValueError(f"[{name}] activation must be None or 'relu', got {activation!r}")
        if is_half(np.dtype(dtype)):  # as Module.to: statistics stay float32 beside 16-bit arrays
            dtype = np.float32
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.activation = activation
        self.layout = check_layout(name, layout)
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, dtype))
            self.register_buffer("running_var", np.ones(num_features, dtype))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    def reset_running_stats(self) -> None:
        """Forgets the running statistics: mean 0, variance 1."""
        if self.track_running_stats:
            self.running_mean[...] = 0
            self.running_var[...] = 1
            self.num_batches_tracked[...] = 0

    def reset_parameters(self) -> None:
        """Sets weight to 1, bias to 0 and forgets the running statistics."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            self.weight.data[...] = 1
            self.bias.data[...] = 0
            self.weight.mark_changed()
            self.bias.mark_changed()

    def forward(self, x: Any, residual: Any = None) -> Tensor:
        x = as_tensor(x)
        last = self.layout == "NHWC"
        if x.ndim not in self._letters or x.shape[-1 if last else 1] != self.num_features:
            orders = ((more, "C") if last else ("C", more) for more in self._letters.values())
            shapes = (f"[{', '.join(filter(None, ('N', *order)))}]" for order in orders)
            expected = " or ".join(shapes).replace("C", str(self.num_features))
            raise ValueError(f"[{type(self).__name__}] x has shape {x.shape}, expected {expected}")
        by_batch = self.training or not self.track_running_stats
        mean = self.running_mean if self.track_running_stats else None
        var = self.running_var if self.track_running_stats else None
        momentum = self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked += 1
            if momentum is None:  # the mean of all batches so far
                refuse(f"{type(self).__name__} with momentum=None counts its batches on the host")
                momentum = 1 / int(self.num_batches_tracked)
        return F.batch_norm(
            x,
            mean,
            var,
            self.weight,
            self.bias,
            by_batch,
            0.0 if momentum is None else momentum,
            self.eps,
            residual=residual,
            activation=self.activation,
            layout=self.layout,
        )

    def extra_repr(self) -> str:
        text = (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )
        text += "" if self.activation is None else f", activation={self.activation!r}"
        return text if self.layout == "NCHW" else f"{text}, layout={self.layout!r}"


class BatchNorm1d(_BatchNorm):
    """x [N, C] or [N, C, L] normalised over the batch in each channel; Ioffe and Szegedy 2015.

    Parameters, buffers and their keys are PyTorch's. In training by the batch's statistics, of which running
    means are kept with `momentum` (None: the mean of all batches); in evaluation by these. A call takes a
    `residual` of x's shape, added before activation None or "relu", all in one pass. Raises ValueError for
    sizes that do not fit and, in training, for one value per channel. With layout "NHWC" the channels lie
    last, x [N, ..., C]. With a 16-bit dtype parameters and
    buffers are float32, as after `to`.
    """

    _letters: ClassVar[dict[int, str]] = {2: "", 3: "L"}


class BatchNorm2d(_BatchNorm):
    """x [N, C, H, W] normalised over the batch and its pixels in each channel; otherwise as BatchNorm1d."""

    _letters: ClassVar[dict[int, str]] = {4: "H, W"}


class BatchNorm3d(_BatchNorm):
    """x [N, C, D, H, W] normalised over the batch and its voxels in each channel; else as BatchNorm1d."""

    _letters: ClassVar[dict[int, str]] = {5: "D, H, W"}


class LocalResponseNorm(Module):
    """x / (k + alpha * (mean of x^2 over `size` neighbouring channels))^beta for x [N, C, ...].

    average: alpha is for the mean, as in PyTorch and Caffe; False: for the sum, as Krizhevsky et al. (2012)
    write it. layout "NHWC": the channels lie last, x [N, ..., C]. Raises ValueError for a size below 1, a
    negative alpha or beta, and a k that is not above 0.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        average: bool = True,
        layout: str = "NCHW",
    ) -> None:
        check_positive("LocalResponseNorm", size=size)
        for name, value in (("alpha", alpha), ("beta", beta)):
            if not value >= 0:
                raise ValueError(f"[LocalResponseNorm] {name} must be at least 0, got {value}")
        if not k > 0:
            raise ValueError(f"[LocalResponseNorm] k must be above 0, got {k}")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.average = average
        self.layout = check_layout("LocalResponseNorm", layout)

    def forward(self, x: Any) -> Tensor:
        numbers = (self.size, self.alpha, self.beta, self.k)
        return F.local_response_norm(x, *numbers, average=self.average, layout=self.layout)

    def extra_repr(self) -> str:
        text = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        text += "" if self.average else ", average=False"
        return text if self.layout == "NCHW" else f"{text}, layout={self.layout!r}"
