"""Named choices that hold for a `with` block or, by an environment variable, for a process."""

from __future__ import annotations

import os
from contextvars import ContextVar
from types import TracebackType
from typing import ClassVar, TypeVar

S = TypeVar("S", bound="Scope")


class Choice:
    """One of `names`, the first by default; kernels know it by its place."""

    def __init__(self, name: str, names: tuple[str, ...], variable: str) -> None:
        self.name = name
        self.names = names
        default = self.number(os.environ.get(variable) or names[0])
        self.selected: ContextVar[int] = ContextVar(f"fastarch_{name}", default=default)
        # What was in force around the open `with` blocks: of this thread, as one object may serve several.
        self.outer: ContextVar[tuple[int, ...]] = ContextVar(f"fastarch_outer_{name}", default=())

    def number(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"[{self.name}] got {name!r}, expected one of {', '.join(self.names)}")
        return self.names.index(name)

    def current(self) -> int:
        """The number of the one in force."""
        return self.selected.get()


class Scope:
    """Puts a name of `choice` in force: ``with scope: ...``."""

    choice: ClassVar[Choice]

    def __init__(self, name: str) -> None:
        self.name = name
        self._number = self.choice.number(name)

    def __enter__(self: S) -> S:
        outer, selected = self.choice.outer, self.choice.selected
        outer.set((*outer.get(), selected.get()))
        selected.set(self._number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        *outer, before = self.choice.outer.get()
        self.choice.outer.set(tuple(outer))
        self.choice.selected.set(before)
