"""Writes the type stubs of the compiled modules, python/fastarch/_*.pyi, from their docstrings.

Run it after a change of a binding, with the modules built: PYTHONPATH=python python tools/make_stubs.py
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

MODULES = ("_core", "_cpu", "_cuda", "_emulator")
FOLDER = Path(__file__).resolve().parents[1] / "python" / "fastarch"
# pybind11 writes what it converts from; a caller thinks of one type.
NARROWED = (
    ("typing.SupportsInt | typing.SupportsIndex", "int"),
    ("typing.SupportsFloat | typing.SupportsIndex", "float"),
    ("collections.abc.Callable", "Callable"),
    ("collections.abc.Sequence", "Sequence"),
    ("object", "Any"),
)


def signature(name: str, doc: str) -> str:
    """`name(x: Any, stream: int = 0) -> None` from a pybind11 docstring."""
    # A wrapped function's docstring has a line of the wrapper's too, which says nothing.
    lines = [line for line in doc.splitlines() if line.startswith(f"{name}(") and "*args" not in line]
    if not lines:
        raise ValueError(f"{name}: no line of its docstring is its signature")
    line = lines[0]
    for wide, narrow in NARROWED:
        line = re.sub(rf"\b{re.escape(wide)}", narrow, line)
    return line


def stub(module: ModuleType) -> str:
    """The text of a module's stub."""
    names = sorted(n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n)))
    lines = [f"def {signature(name, getattr(module, name).__doc__)}: ..." for name in names]
    text = "\n".join(lines)
    imports = [
        f"from {source} import {name}\n"
        for source, name in (
            ("collections.abc", "Callable"),
            ("collections.abc", "Sequence"),
            ("typing", "Any"),
        )
        if re.search(rf"\b{name}\b", text)
    ]
    return '"""Made by tools/make_stubs.py."""\n\n' + "".join(imports) + "\n" + text + "\n"


def main() -> int:
    missing = []
    for name in MODULES:
        try:
            module = importlib.import_module(f"fastarch.{name}")
        except ImportError as error:
            missing.append(f"{name} ({error})")
            continue
        (FOLDER / f"{name}.pyi").write_text(stub(module))
    if missing:
        print("make_stubs: left as they are, not built: " + ", ".join(missing), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
