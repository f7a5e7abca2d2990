"""Batches of a data set, shuffled and prepared ahead of use, the same for the same seed and epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from fastarch.data.augment import Draw, Step
from fastarch.data.dataset import _SHUFFLE, Dataset, random_order
from fastarch.data.transforms import to_unit

__all__ = ["Loader"]

Batch = tuple[np.ndarray, np.ndarray]


class Loader:
    """Yields batches (x, y) of one epoch: x [B, ...] floats (bytes come as 0 to 1), y [B] int64, new arrays.

    augment: a step of `fastarch.data.augment`; transform: applied to x after it, `Normalize` for one;
    prefetch: how many batches a background thread prepares ahead, 0 for no thread. Epoch k is determined by
    (seed, k) in every bit. Raises ValueError for impossible sizes.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        augment: Step | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"[Loader] batch_size is {batch_size}, expected 1 or more")
        if prefetch < 0:
            raise ValueError(f"[Loader] prefetch is {prefetch}, expected 0 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment
        self.transform = transform
        self.drop_last = drop_last
        self.prefetch = prefetch

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    @property
    def samples(self) -> int:
        """The number of samples in an epoch."""
        return len(self) * self.batch_size if self.drop_last else len(self.dataset)

    def epoch(self, k: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch k from number `start_batch` on, exactly those of the whole epoch."""
        if k < 0 or not 0 <= start_batch <= len(self):
            raise ValueError(
                f"[Loader] epoch {k} from batch {start_batch}, expected 0 or more and 0 to {len(self)}"
            )
        n = len(self.dataset)
        order = random_order(n, self.seed, _SHUFFLE, k) if self.shuffle else np.arange(n)
        numbers = range(start_batch, len(self))
        if self.prefetch == 0:
            return (self._batch(order, k, number) for number in numbers)
        return self._ahead(order, k, numbers)

    def _ahead(self, order: np.ndarray, k: int, numbers: range) -> Iterator[Batch]:
        # At most `prefetch` batches wait here. Leaving early (break, an error) closes this generator: what
        # has not begun is cancelled and the thread ends. An error in the thread comes out of result().
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="fastarch-loader") as thread:
            try:
                for number in numbers:
                    waiting.append(thread.submit(self._batch, order, k, number))
                    if len(waiting) > self.prefetch:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for batch in waiting:
                    batch.cancel()

    def _batch(self, order: np.ndarray, k: int, number: int) -> Batch:
        index = order[number * self.batch_size : (number + 1) * self.batch_size]
        x = to_unit(self.dataset.x[index])
        if self.augment is not None:
            x = self.augment(x, Draw(self.seed, k, index))
        if self.transform is not None:
            x = self.transform(x)
        return x, self.dataset.y[index]
