"""What a model says about a data set: probabilities, loss, accuracy, confusion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastarch import data
from fastarch.arrays import on_device
from fastarch.autograd import no_grad
from fastarch.nn import functional as F
from fastarch.tensors import tensor

Transform = Callable[[np.ndarray], np.ndarray]

BATCH = 256  # evaluation keeps no activations for a backward pass


@dataclass(frozen=True)
class Arrays:
    """Plain arrays where a Dataset is expected: x [N, ...] and targets y [N, ...] of any kind."""

    x: np.ndarray
    y: np.ndarray
    name: str = "arrays"

    def __len__(self) -> int:
        return len(self.x)

    @property
    def classes(self) -> list[str]:
        if self.y.ndim != 1 or self.y.dtype.kind not in "iu":
            return []
        return [str(i) for i in range(int(self.y.max()) + 1)]


def as_dataset(value: Any, name: str) -> Any:
    """A Dataset, or a pair of arrays, as something with x, y, classes and name, and at least one sample."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        value = Arrays(np.asarray(value[0]), np.asarray(value[1]))
        if value.x.ndim < 1 or value.y.shape[:1] != value.x.shape[:1]:
            raise ValueError(
                f"[fit] {name} has x {value.x.shape} and y {value.y.shape}, expected equal lengths"
            )
    elif not isinstance(value, (data.Dataset, Arrays)):
        raise TypeError(
            f"[fit] {name} is {type(value).__name__}, expected a Dataset or a pair of arrays (x, y)"
        )
    if len(value) == 0:
        raise ValueError(f"[fit] {name} {value.name!r} is empty")
    return value


def to_model(array: np.ndarray, like: Any) -> Any:
    """`array` where the parameter array `like` lives, floats in its dtype."""
    if array.dtype.kind == "f":
        array = array.astype(like.dtype, copy=False)
    return array if isinstance(like, np.ndarray) else _device_array(array)


def _device_array(array: np.ndarray) -> Any:
    import cupy

    return cupy.asarray(array)


def to_host(array: Any) -> np.ndarray:
    """A NumPy array of a host or device array."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def figures(pairs: Sequence[tuple[Any, Any]]) -> list[tuple[float, int | None]]:
    """(loss, right answers or None) of some batches as numbers; what lies on a device is read at once."""
    losses, rights = [loss for loss, _ in pairs], [right for _, right in pairs if right is not None]
    found = losses + rights
    if found and on_device(found[0]):
        import cupy

        found = cupy.stack([value.astype(np.float64).reshape(()) for value in found]).get().tolist()
    counts = iter(found[len(losses) :])
    return [
        (float(loss), None if right is None else int(next(counts))) for loss, (_, right) in zip(found, pairs)
    ]


def outputs(model: Any, x: np.ndarray, transform: Transform | None = None) -> np.ndarray:
    """The model's outputs for x [N, ...], in evaluation mode, without gradients: a host array."""
    parts = [to_host(y.data) for _, y in _forward(model, x, transform)]
    return np.concatenate(parts) if parts else np.zeros((0,), dtype=np.float32)


def _forward(model: Any, x: np.ndarray, transform: Transform | None) -> Iterator[tuple[slice, Any]]:
    """The outputs of `model` batch by batch, as Tensors."""
    like = parameter_array(model)
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            for start in range(0, len(x), BATCH):
                rows = slice(start, min(start + BATCH, len(x)))
                part = data.to_unit(x[rows])
                if transform is not None:
                    part = transform(part)
                yield rows, model(tensor(to_model(part, like)))
    finally:
        model.train(was_training)


def parameter_array(model: Any) -> Any:
    """An array of the model: where it lives and its dtype are those of its inputs."""
    try:
        return next(iter(model.parameters())).data
    except StopIteration:
        raise ValueError(f"[fit] {type(model).__name__} has no parameters to train") from None


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64, for reports."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def is_classification(logits: Any, y: Any) -> bool:
    """Whether these are scores of classes [N, C] for class numbers [N]."""
    return logits.ndim == 2 and y.ndim == 1 and y.dtype.kind in "iu"


def evaluate(
    model: Any, dataset: Any, loss: Callable[..., Any] = F.cross_entropy, transform: Transform | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """Mean loss and, for class numbers, accuracy of `model` on `dataset`; and the outputs [N, ...]."""
    dataset = as_dataset(dataset, "dataset")
    total, parts = 0.0, []
    like = parameter_array(model)
    for rows, y in _forward(model, dataset.x, transform):
        value = loss(y, to_model(dataset.y[rows], like))
        total += float(value.item()) * (rows.stop - rows.start)
        parts.append(to_host(y.data))
    logits = np.concatenate(parts)
    figures = {"loss": total / len(dataset)}
    if is_classification(logits, dataset.y):
        figures["accuracy"] = float(np.mean(logits.argmax(axis=1) == dataset.y))
    return figures, logits


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [true class, predicted class]."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (true, predicted), 1)
    return matrix
