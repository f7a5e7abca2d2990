"""Files of emergent maps as the Databionic ESOM Tools keep them: .lrn, .wts, .bm and .umx.

All are text: lines that start with # are comments, those that start with % the header, the others rows of
numbers between tabs or spaces. Ultsch and Moerchen, "ESOM-Maps: tools for clustering, visualization, and
classification with Emergent SOM" (2005).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import io

__all__ = [
    "BestMatches",
    "EsomError",
    "LearnFile",
    "read_bm",
    "read_lrn",
    "read_umx",
    "read_wts",
    "write_bm",
    "write_lrn",
    "write_umx",
    "write_wts",
]

# The types of a .lrn file's columns; others are left out.
_IGNORED, _DATA, _CLASS, _KEY = 0, 1, 3, 9
_MOST = 10**9  # of rows or columns that a header may announce


class EsomError(ValueError):
    """A file that is not what it should be; the message says which, on which line, and what was expected."""


@dataclass(frozen=True)
class LearnFile:
    """A .lrn file: x [N, D] float64 (NaN: missing), the samples' keys [N] int64, their classes [N] int64 or
    None, and the names of the D columns."""

    x: np.ndarray
    keys: np.ndarray
    classes: np.ndarray | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class BestMatches:
    """A .bm file: the samples' keys [N] int64, their units [N] int64 (row * columns + column), the grid."""

    keys: np.ndarray
    index: np.ndarray
    grid: tuple[int, int]


# Reading


class _Lines:
    """The lines of a file that say something: headers first, then rows, each with its number."""

    def __init__(self, path: str | os.PathLike[str], kind: str) -> None:
        self.path, self.kind = Path(path), kind
        data = self.path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")  # names in old files; numbers are ASCII anyway
        if "\0" in text:
            raise EsomError(f"[{kind}] {path}: holds zero bytes, expected text")
        self.headers: list[tuple[int, list[str]]] = []
        self.rows: list[tuple[int, list[str]]] = []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if not line.startswith("%"):
                self.rows.append((number, line.split()))
            elif self.rows:
                raise self.wrong(number, "a header line behind rows", "headers first")
            else:
                words = line[1:].split("\t") if "\t" in line[1:].strip() else line[1:].split()
                self.headers.append((number, [word.strip() for word in words if word.strip()]))

    def wrong(self, number: int, came: str, expected: str) -> EsomError:
        return EsomError(f"[{self.kind}] {self.path}: line {number}: {came}, expected {expected}")

    def sizes(self, which: int, count: int, what: str) -> list[int]:
        """Header number `which` as `count` positive whole numbers."""
        if which >= len(self.headers):
            raise EsomError(f"[{self.kind}] {self.path}: {len(self.headers)} header lines, expected % {what}")
        number, words = self.headers[which]
        if len(words) != count:
            raise self.wrong(number, f"{len(words)} words in the header", f"% {what}")
        return [self.whole(number, word, 0, _MOST) for word in words]

    def whole(self, number: int, word: str, low: int, high: int) -> int:
        try:
            value = int(word)
        except ValueError:
            raise self.wrong(number, repr(word[:40]), "a whole number") from None
        if not low <= value <= high:
            raise self.wrong(number, str(value)[:40], f"{low} to {high}")
        return value

    def number(self, number: int, word: str) -> float:
        try:
            return float(word)
        except ValueError:
            if word in ("?", "NA"):
                return float("nan")
            raise self.wrong(number, repr(word[:40]), "a number") from None

    def table(self, count: int, width: int, rows: str) -> list[tuple[int, list[str]]]:
        """The rows, `count` of them with `width` words each."""
        if len(self.rows) != count:
            raise EsomError(
                f"[{self.kind}] {self.path}: {len(self.rows)} rows, "
                f"expected {count} as the header says ({rows})"
            )
        for number, words in self.rows:
            if len(words) != width:
                raise self.wrong(number, f"{len(words)} columns", f"{width}")
        return self.rows

    def numbers(self, count: int, width: int, rows: str) -> np.ndarray:
        table = self.table(count, width, rows)
        out = np.empty((count, width))
        for i, (number, words) in enumerate(table):
            try:
                out[i] = words  # all at once, by NumPy; the words one by one explain errors
            except ValueError:
                out[i] = [self.number(number, word) for word in words]
        return out


def read_lrn(path: str | os.PathLike[str]) -> LearnFile:
    """Reads data from a .lrn file. Raises FileNotFoundError, and EsomError for a file that is none.

    Where the file has no key column the keys are 1, 2, ... Missing values (NaN, NA, ?) are NaN.
    """
    lines = _Lines(path, "read_lrn")
    (n,), (width,) = lines.sizes(0, 1, "rows"), lines.sizes(1, 1, "columns")
    if len(lines.headers) < 3:
        raise EsomError(f"[read_lrn] {path}: {len(lines.headers)} header lines, expected a third, the types")
    number, words = lines.headers[2]
    if len(words) != width:
        raise lines.wrong(number, f"{len(words)} column types", f"{width}")
    types = [lines.whole(number, word, 0, 9) for word in words]
    if types.count(_KEY) > 1 or types.count(_CLASS) > 1:
        raise lines.wrong(number, "several columns of keys or classes", "at most one of each (types 9 and 3)")
    names = [f"x{k}" for k in range(width)]
    if len(lines.headers) > 3:
        number, names = lines.headers[3]
        if len(names) != width:
            raise lines.wrong(number, f"{len(names)} column names", f"{width}")
    table = lines.table(n, width, "rows of data")
    places = [k for k, kind in enumerate(types) if kind == _DATA]

    def whole(kind: int) -> np.ndarray | None:
        if kind not in types:
            return None
        k = types.index(kind)
        return np.array([lines.whole(i, row[k], -(2**62), 2**62) for i, row in table], np.int64)

    x = np.array([[lines.number(i, row[k]) for k in places] for i, row in table]).reshape(n, len(places))
    keys = whole(_KEY)
    return LearnFile(
        x,
        np.arange(1, n + 1) if keys is None else keys,
        whole(_CLASS),
        tuple(names[k] for k in places),
    )


def read_wts(path: str | os.PathLike[str]) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads a codebook [M, D] float64 and its grid (rows, columns) from a .wts file.

    Raises FileNotFoundError, and EsomError for a file that is none.
    """
    lines = _Lines(path, "read_wts")
    (rows, columns), (width,) = lines.sizes(0, 2, "rows columns"), lines.sizes(1, 1, "features")
    return lines.numbers(rows * columns, width, "a row for each unit"), (rows, columns)


def read_bm(path: str | os.PathLike[str]) -> BestMatches:
    """Reads the samples' best matches from a .bm file, whose rows are `key row column`.

    Raises FileNotFoundError, and EsomError for a file that is none.
    """
    lines = _Lines(path, "read_bm")
    rows, columns = lines.sizes(0, 2, "rows columns")
    n = lines.sizes(1, 1, "samples")[0] if len(lines.headers) > 1 else len(lines.rows)
    keys, index = np.empty(n, np.int64), np.empty(n, np.int64)
    for i, (number, words) in enumerate(lines.table(n, 3, "samples")):
        keys[i] = lines.whole(number, words[0], -(2**62), 2**62)
        row = lines.whole(number, words[1], 0, rows - 1)
        index[i] = row * columns + lines.whole(number, words[2], 0, columns - 1)
    return BestMatches(keys, index, (rows, columns))


def read_umx(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a U-matrix [rows, columns] float64 from a .umx file.

    Raises FileNotFoundError, and EsomError for a file that is none.
    """
    lines = _Lines(path, "read_umx")
    rows, columns = lines.sizes(0, 2, "rows columns")
    return lines.numbers(rows, columns, "a row of heights for each row of the grid")


# Writing


def write_lrn(
    path: str | os.PathLike[str],
    x: Any,
    keys: Any = None,
    classes: Any = None,
    names: Sequence[str] | None = None,
) -> None:
    """Writes data x [N, D] to a .lrn file, atomically; read_lrn gives the same numbers back, bit for bit.

    keys: [N] whole numbers, 1, 2, ... when None. classes: [N] whole numbers, or None. names: of the D
    columns. Raises ValueError for shapes that do not fit or a name that the file cannot hold.
    """
    x = _matrix("write_lrn", "x", x)
    n, d = x.shape
    keys = _whole("write_lrn", "keys", keys, n)
    columns: list[Any] = [keys]
    heads, kinds = ["Key"], [_KEY]
    if classes is not None:
        columns.append(_whole("write_lrn", "classes", classes, n))
        heads.append("Class")
        kinds.append(_CLASS)
    given = [f"x{k}" for k in range(d)] if names is None else [str(name) for name in names]
    if len(given) != d:
        raise ValueError(f"[write_lrn] {len(given)} names, expected {d}")
    for name in given:
        if not name.strip() or name != name.strip() or any(mark in name for mark in "\t\r\n\0"):
            raise ValueError(f"[write_lrn] a column is named {name!r}, expected text without tabs")
    form = _form(x)
    whole = np.column_stack(columns)
    header = [str(n), str(d + len(kinds)), _row([*kinds, *[_DATA] * d]), _row([*heads, *given])]
    rows = (f"{_row(head)}\t{form(row)}" if d else _row(head) for head, row in zip(whole, x))
    _write(path, header, rows)


def write_wts(path: str | os.PathLike[str], codebook: Any, grid: tuple[int, int]) -> None:
    """Writes a codebook [M, D] and its grid (rows, columns) to a .wts file, atomically."""
    codebook = _matrix("write_wts", "codebook", codebook)
    rows, columns = _grid("write_wts", grid)
    if len(codebook) != rows * columns:
        raise ValueError(f"[write_wts] codebook has {len(codebook)} units, grid {grid} {rows * columns}")
    form = _form(codebook)
    _write(path, [f"{rows}\t{columns}", str(codebook.shape[1])], map(form, codebook))


def write_bm(path: str | os.PathLike[str], index: Any, grid: tuple[int, int], keys: Any = None) -> None:
    """Writes the samples' units index [N] (row * columns + column) to a .bm file, atomically.

    keys: [N] whole numbers, 1, 2, ... when None. Raises ValueError for an index outside of the grid.
    """
    rows, columns = _grid("write_bm", grid)
    index = _whole("write_bm", "index", index, None)
    keys = _whole("write_bm", "keys", keys, len(index))
    if len(index) and not (index.min() >= 0 and index.max() < rows * columns):
        raise ValueError(
            f"[write_bm] index holds {index.min()} to {index.max()}, expected 0 to {rows * columns - 1}"
        )
    found = (_row((key, *divmod(unit, columns))) for key, unit in zip(keys.tolist(), index.tolist()))
    _write(path, [f"{rows}\t{columns}", str(len(index))], found)


def write_umx(path: str | os.PathLike[str], heights: Any) -> None:
    """Writes a U-matrix [rows, columns] to a .umx file, atomically."""
    heights = _matrix("write_umx", "heights", heights)
    _write(path, [_row(heights.shape)], map(_form(heights), heights))


def _write(path: str | os.PathLike[str], header: list[str], rows: Any) -> None:
    with io.atomic_write(path, "w") as file:
        file.writelines(f"% {line}\n" for line in header)
        file.writelines(f"{row}\n" for row in rows)


def _row(words: Any) -> str:
    return "\t".join(map(str, words))


def _form(x: np.ndarray) -> Any:
    """The text of a row of x, with as many digits as bring every number back."""
    text = "\t".join(["%.9g" if x.dtype == np.float32 else "%.17g"] * x.shape[1])
    return lambda row: text % tuple(row.tolist())


def _matrix(who: str, name: str, value: Any) -> np.ndarray:
    array = np.asarray(value.get() if hasattr(value, "get") else value)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise ValueError(
            f"[{who}] {name} has shape {array.shape} and dtype {array.dtype}, expected a matrix of numbers"
        )
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _whole(who: str, name: str, value: Any, n: int | None) -> np.ndarray:
    if value is None:
        return np.arange(1, (n or 0) + 1)
    array = np.asarray(value.get() if hasattr(value, "get") else value)
    if array.ndim != 1 or array.dtype.kind not in "iu" or (n is not None and len(array) != n):
        raise ValueError(
            f"[{who}] {name} has shape {array.shape} and dtype {array.dtype}, "
            f"expected {'N' if n is None else n} whole numbers"
        )
    return array.astype(np.int64)


def _grid(who: str, grid: Any) -> tuple[int, int]:
    rows, columns = grid
    if rows < 1 or columns < 1:
        raise ValueError(f"[{who}] grid is {grid!r}, expected (rows, columns)")
    return int(rows), int(columns)
