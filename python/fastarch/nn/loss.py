"""The losses as modules, with PyTorch's names and arguments."""

from __future__ import annotations

from typing import Any

from fastarch.autograd import Array
from fastarch.nn import functional as F
from fastarch.nn.module import Module
from fastarch.tensors import Tensor, as_tensor


class _Loss(Module):
    def __init__(self, reduction: str = "mean", **constants: Any) -> None:
        self.reduction = reduction
        for name, value in constants.items():
            # Constants move with the module, but are arguments rather than state.
            array: Array | None = None if value is None else as_tensor(value).data
            if array is None:
                setattr(self, name, None)
            else:
                self.register_buffer(name, array, persistent=False)

    def extra_repr(self) -> str:
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class CrossEntropyLoss(_Loss):
    """`functional.cross_entropy` of logits [N, C, ...] and class indices or probabilities."""

    weight: Array | None

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction, weight=weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class NLLLoss(_Loss):
    """`functional.nll_loss` of log-probabilities [N, C, ...] and class indices."""

    weight: Array | None

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction, weight=weight)
        self.ignore_index = ignore_index

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """`functional.mse_loss` of two tensors of one shape."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.mse_loss(input, target, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """`functional.binary_cross_entropy_with_logits` of logits and targets in [0, 1]."""

    weight: Array | None
    pos_weight: Array | None

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction, weight=weight, pos_weight=pos_weight)

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class KLDivLoss(_Loss):
    """`functional.kl_div` of log-probabilities and probabilities (or their logarithms)."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        return F.kl_div(input, target, self.reduction, self.log_target)
