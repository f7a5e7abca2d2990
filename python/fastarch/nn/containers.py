"""Modules that hold other modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastarch.nn.layers.conv_pool import pooled_convolution
from fastarch.nn.module import Module


class _Indexed(Module):
    """Children named "0", "1", ... in order."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]

    def append(self, module: Module) -> Any:
        """Adds a module at the end."""
        self._add(str(len(self)), module)
        return self

    def _add(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"[{type(self).__name__}] expected modules, got {type(module).__name__}")
        if hasattr(self, name):
            raise ValueError(f"[{type(self).__name__}] the name {name!r} is taken")
        setattr(self, name, module)


class Sequential(_Indexed):
    """Calls modules one after the other; given one dict, its keys name them, otherwise "0", "1", ... do."""

    def __init__(self, *modules: Any) -> None:
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], Mapping) else None
        for name, module in named if named is not None else ((str(i), m) for i, m in enumerate(modules)):
            self._add(name, module)

    def __getitem__(self, index: Any) -> Any:
        """A module, or for a slice a Sequential of those modules."""
        modules = list(self.children())[index]
        return Sequential(*modules) if isinstance(index, slice) else modules

    def forward(self, x: Any) -> Any:
        modules = list(self.children())
        at = 0
        while at < len(modules):
            pooled = pooled_convolution(modules, at)
            if pooled is None:
                x = modules[at](x)
                at += 1
            else:
                convolution, activation, count = pooled
                x = convolution.max_pooled(x, activation)
                at += count
        return x


class ModuleList(_Indexed):
    """A list of modules whose parameters are found; it has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for index, module in enumerate(modules):
            self._add(str(index), module)
