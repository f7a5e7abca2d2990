"""Tables: CSV files with a row for each sample and a label column."""

from __future__ import annotations

import csv
import io
import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fastarch.data.dataset import DataError, Dataset, listed, one_line
from fastarch.data.labels import from_names
from fastarch.data.npz import reshaped

__all__ = ["read_csv"]

_LABELS = ("label", "class", "target", "y")
_LARGEST = float(np.finfo(np.float32).max)  # what rounds to infinity lies beyond


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
    start, first = next(rows, (0, []))
    first = [cell.strip() for cell in first]
    if len(first) < 2:
        raise DataError(
            f"[data] {path}: {len(first)} columns, expected numbers and a label, separated by commas"
        )
    column, header = _label_column(path, first, label)
    values = array("f")  # row after row
    names: list[str] = []
    for line, cells in rows if header else itertools.chain([(start, first)], rows):
        if len(cells) != len(first):
            raise DataError(f"[data] {path}: row {line} has {len(cells)} columns, expected {len(first)}")
        try:
            values.extend(map(float, cells[:column]))
            values.extend(map(float, cells[column + 1 :]))
        except ValueError:
            raise _wrong_cell(path, line, cells, column, first if header else None) from None
        names.append(cells[column].strip())
        if not names[-1]:
            raise DataError(f"[data] {path}: row {line}, column {column + 1}: empty, expected a label")
    if not names:
        raise DataError(f"[data] {path}: a header and no rows, expected at least one sample")
    table = np.array(values, np.float32).reshape(len(names), -1)
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        place = int(np.argmin(finite)) + header
        line, cells = next(itertools.islice(_rows(path, text), place, None))
        raise _wrong_cell(path, line, cells, column, first if header else None)
    y, classes = from_names(names, path)
    return Dataset(reshaped(table, path, "a row", shape), y, classes, path.stem)


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its cells."""
    start = text.lstrip().split("\n", 1)[0]
    separator = next((mark for mark in (",", ";", "\t") if mark in start), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
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


def _wrong_cell(path: Path, line: int, cells: list[str], column: int, header: list[str] | None) -> DataError:
    """The error about the first cell of a row, outside the label's column, that is no finite float32."""
    numbers = [0.0 if k == column else _number(cell) for k, cell in enumerate(cells)]
    k = next(k for k, number in enumerate(numbers) if number is None or not abs(number) <= _LARGEST)
    name = f" ({header[k][:40]!r})" if header else ""
    came = f"row {line}, column {k + 1}{name}: {cells[k].strip()[:40]!r}"
    return DataError(f"[data] {path}: {came}, expected a finite number")
