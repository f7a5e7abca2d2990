"""Tables: CSV files with a row for each sample and a label column."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastarch.data.dataset import DataError, Dataset, listed, one_line
from fastarch.data.labels import from_names
from fastarch.data.npz import reshaped

__all__ = ["read_csv"]

_LABELS = ("label", "class", "target", "y")
_LARGEST = float(np.finfo(np.float32).max)


def read_csv(path: Path, label: str | int | None = None, shape: tuple[int, ...] | None = None) -> Dataset:
    """A table with a row for each sample, all columns numbers but the label's, x [N, F] float32.

    The separator is a comma, or a semicolon or tab where the first line has no comma. The first line is a
    header when a cell of it, outside the label's column, is not a number. label: a column's name or place
    (negative from the end), else the column called label, class, target or y, else the last. Any text is a
    label; the different ones, in order, are the classes. shape: of one sample, such as (1, 28, 28). A file
    cut within its last cell is not noticed: nothing in the format tells.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            text = file.read()
        except UnicodeDecodeError as error:
            raise DataError(
                f"[data] {path}: byte {error.start} is not UTF-8, expected a table as text"
            ) from None
    rows = _rows(path, text)
    line, first = next(rows, (0, []))
    if len(first) < 2:
        raise DataError(
            f"[data] {path}: {len(first)} columns, expected numbers and a label, separated by commas"
        )
    column, header = _label_column(path, first, label)
    x: list[np.ndarray] = []
    names: list[str] = []
    if not header:
        x.append(_numbers(path, line, first, column, None))
        names.append(first[column])
    for line, cells in rows:
        if len(cells) != len(first):
            raise DataError(f"[data] {path}: row {line} has {len(cells)} columns, expected {len(first)}")
        x.append(_numbers(path, line, cells, column, first if header else None))
        names.append(cells[column])
    if not x:
        raise DataError(f"[data] {path}: a header and no rows, expected at least one sample")
    y, classes = from_names(names, path)
    table = np.stack(x)
    return Dataset(reshaped(table, path, "a row", shape), y, classes, path.stem)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its cells."""
    start = text.lstrip().split("\n", 1)[0]
    separator = next((mark for mark in (",", ";", "\t") if mark in start), ",")
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise DataError(
            f"[data] {path}: row {reader.line_num}: {one_line(error)}, expected comma-separated cells"
        ) from None


def _label_column(path: Path, first: list[str], label: str | int | None) -> tuple[int, bool]:
    """The place of the label's column, and whether the first row is a header."""
    lower = [name.lower() for name in first]
    if isinstance(label, str):
        if label not in first:
            raise DataError(f"[data] {path}: no column {label!r}, expected one of {listed(first)}")
        return first.index(label), True
    if label is not None:
        if not -len(first) <= label < len(first):
            raise DataError(f"[data] {path}: no column {label}, expected {-len(first)} to {len(first) - 1}")
        column = label % len(first)
    else:
        column = next((lower.index(name) for name in _LABELS if name in lower), len(first) - 1)
    return column, any(_number(cell) is None for k, cell in enumerate(first) if k != column)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(path: Path, line: int, cells: list[str], column: int, header: list[str] | None) -> np.ndarray:
    """The cells but the label's, [F] float32."""
    if not cells[column]:
        raise DataError(f"[data] {path}: row {line}, column {column + 1}: empty, expected a label")
    others = cells[:column] + cells[column + 1 :]
    try:
        values = np.array(list(map(float, others)))
    except ValueError:
        values = np.array(math.nan)
    if not np.abs(values).max() <= _LARGEST:  # so NaN fails too
        k = next(k for k, cell in enumerate(cells) if k != column and not _fits(_number(cell)))
        name = f" ({header[k][:40]!r})" if header else ""
        raise DataError(
            f"[data] {path}: row {line}, column {k + 1}{name}: {cells[k][:40]!r}, expected a finite number"
        )
    return values.astype(np.float32)


def _fits(number: float | None) -> bool:
    return number is not None and abs(number) <= _LARGEST
