"""Who may import whom, read from the sources: Python by its syntax tree, C++ and CUDA by their includes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastarch as fa

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "fastarch"

# Lowest first. A module imports its own layer's package and what is below, never what is above or beside it.
LAYERS = (
    {"autotuning", "choices"},
    {"algorithms", "backends", "capturing", "precisions"},
    {"arrays"},
    {"random"},
    {"ops", "information", "progress"},
    {"autograd", "shape_functions", "tensor_functions", "tensors"},
    {"cuda", "nn", "optim"},
    {"models", "io", "data"},
    {"plots"},
    {"estimators"},
    {"train", "predict"},
    {"cli"},
)
COMPILED = {"_core", "_cpu", "_cuda", "_emulator"}
# Modules that form one layer together may import one another.
TOGETHER = (
    {"autograd", "shape_functions", "tensor_functions", "tensors"},
    {"nn", "optim"},
    {"train", "predict"},
    {"models", "io"},
)
# A model is layers and operators: what is below them is their business.
BELOW_MODELS = {"algorithms", "arrays", "autotuning", "backends", "choices", "precisions"} | COMPILED

# These say which version of the package they are.
READS_VERSION = {"autotuning", "information", "io", "train", "cli"}

PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """The layer's module that a file of the package belongs to: "ops" for ops/conv2d.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, also inside functions; relative ones made absolute."""
    package = ["fastarch", *path.relative_to(PACKAGE).parent.parts]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return found


def inner(dotted: str) -> str | None:
    """The module of the package that an import reaches, or None for another package."""
    parts = dotted.split(".")
    return (parts[1] if len(parts) > 1 else "") if parts[0] == "fastarch" else None


def rank(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def test_every_module_has_a_layer() -> None:
    known = set().union(*LAYERS) | {"__init__", "__main__"}
    strangers = {name_of(p) for p in PYTHON_FILES} - known
    assert not strangers, f"{strangers} stand in no layer: add them to LAYERS"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_python_imports_go_down(path: Path) -> None:
    name = name_of(path)
    if name in ("__init__", "__main__"):
        return
    wrong = []
    for line, dotted in imported(path):
        other = inner(dotted)
        if other is None or other == name:
            continue
        if other in COMPILED:
            allowed = rank(name) <= rank("ops")
        elif not any(other in layer for layer in LAYERS):
            allowed = name in READS_VERSION  # the package itself reaches everything
        else:
            beside = any(name in group and other in group for group in TOGETHER)
            allowed = beside or rank(other) < rank(name)
        if name == "models" and other in BELOW_MODELS:
            allowed = False
        if not allowed:
            wrong.append(f"line {line} imports {dotted}")
    assert not wrong, f"{path.relative_to(ROOT)}: {'; '.join(wrong)}"


def families(devices: str = "CUDA_") -> list[str]:
    """The operator families, from CMake's lists: all, or with "" those that have CPU kernels too."""
    text = (ROOT / "CMakeLists.txt").read_text()
    match = re.search(rf"set\(FASTARCH_{devices}OPERATORS ([^)]+)\)", text)
    assert match
    listed = match[1].split()
    return [name for part in listed for name in (families("") if part.startswith("$") else [part])]


def test_an_operator_does_not_call_another() -> None:
    files = [p for p in sorted((PACKAGE / "ops").glob("*.py")) if not p.name.startswith("_")]
    wrong = []
    for path in files:
        others = {f"fastarch.ops.{other.stem}" for other in files if other != path}
        for line, dotted in imported(path):
            if ".".join(dotted.split(".")[:3]) in others:
                wrong.append(f"ops/{path.name}:{line} imports {dotted}")
    assert not wrong, wrong


HEAVY = ("matplotlib", "sklearn", "torch", "cupy", "scipy", "PIL", "pandas")


@pytest.mark.parametrize(
    "submodule", ["", "ops", "nn", "optim", "models", "data", "estimators", "train", "random", "cli"]
)
def test_importing_is_light(submodule: str) -> None:
    """No heavy package is imported before something needs it."""
    name = "fastarch" + (f".{submodule}" if submodule else "")
    program = f"import sys, {name}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"import {name} imports {done.stdout.strip()}"


def test_cases_import_numpy_alone() -> None:
    wrong = []
    for path in sorted((ROOT / "tests" / "cases").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            tops = {name.split(".")[0] for name in names}
            wrong += [f"{path.name}: {t}" for t in tops - sys.stdlib_module_names - {"numpy", "cases"}]
    assert not wrong, wrong


def is_public(node: ast.stmt) -> bool:
    """A function or class that users see.

    An overload is explained by its implementation, a `Function` by the function that applies it.
    """
    if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
        return False
    marks = node.decorator_list if isinstance(node, ast.FunctionDef) else node.bases
    return not any(isinstance(mark, ast.Name) and mark.id in ("overload", "Function") for mark in marks)


def test_public_functions_have_docstrings() -> None:
    bare = []
    for path in PYTHON_FILES:
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(ROOT)}: the module")
        if any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(PACKAGE).parts):
            continue
        for node in tree.body:
            if is_public(node) and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not bare, "\n".join(bare)


# C++ and CUDA


def sources(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"})


def code_of(path: Path) -> str:
    """The text without comments, so that prose may name what code may not."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', code_of(path), flags=re.M)


def is_python(header: str) -> bool:
    return header.startswith("pybind11/") or header == "Python.h"


def is_cuda(header: str) -> bool:
    return re.match(r"(cuda|cooperative_groups|cub/|thrust/|nv|mma\.h|sm_)", header) is not None


def is_system(header: str) -> bool:
    """A header of the C++ library or the system: no folder of ours, no Python, no CUDA."""
    ours = header.startswith(("core/", "ops/", "gemm/", "bindings/", "cpu/", "emulator/"))
    return not ours and not is_python(header) and not is_cuda(header)


def check_includes(folder: str, allowed: tuple[str, ...], python: bool = False, cuda: bool = False) -> None:
    """Every include in `folder` is the C++ library's or starts with one of `allowed`."""
    found = sources(folder)
    assert found, f"{folder} holds no sources"
    wrong = []
    for path in found:
        for header in includes(path):
            fine = header.startswith(allowed) or is_system(header)
            fine = fine or (python and is_python(header)) or (cuda and is_cuda(header))
            if not fine:
                wrong.append(f"{path.relative_to(ROOT)} includes {header}")
    assert not wrong, "\n".join(wrong)


def test_the_core_stands_alone() -> None:
    check_includes("csrc/core", ("core/",))


def test_contracts_know_no_device_and_no_python() -> None:
    check_includes("csrc/ops", ("core/",))


def test_bindings_see_contracts_alone() -> None:
    check_includes("csrc/bindings", ("bindings/", "ops/", "core/", "cpu/", "emulator/"), python=True)
    # A device's own controls are bound in the file of its name, and there alone.
    for device in ("cpu", "emulator"):
        wrong = [
            path.name
            for path in sources("csrc/bindings")
            if path.stem != device and any(header.startswith(f"{device}/") for header in includes(path))
        ]
        assert not wrong, f"{wrong} include {device}/"


def test_kernels_know_no_python() -> None:
    check_includes("cuda", ("core/", "ops/", "gemm/", "emulator/"), cuda=True)


def test_cpu_kernels_know_no_python_and_no_cuda() -> None:
    if (ROOT / "csrc/cpu").is_dir():
        check_includes("csrc/cpu", ("core/", "ops/", "cpu/"))


@pytest.mark.parametrize("folder", ["cuda", "csrc/cpu", "csrc/bindings"])
def test_a_kernel_file_includes_its_own_contract_alone(folder: str) -> None:
    wrong = []
    for family in families():
        for path in [*(ROOT / folder).glob(f"{family}.c*"), *(ROOT / folder).glob(f"{family}/*.c*")]:
            others = [h for h in includes(path) if h.startswith("ops/") and h != f"ops/{family}.h"]
            wrong += [f"{path.relative_to(ROOT)} includes {header}" for header in others]
    assert not wrong, wrong


def test_every_family_is_complete() -> None:
    """A family in CMake's list has its contract, its kernels, its binding, its operators and its cases."""
    parts = ("csrc/ops/{}.h", "cuda/{}.cu", "csrc/bindings/{}.cpp", "tests/cases/{}.py")
    paths = [part.format(family) for family in families() for part in parts]
    assert all((ROOT / path).is_file() for path in paths), [p for p in paths if not (ROOT / p).is_file()]
    assert set(families()) == set(fa.ops.OPERATORS)


@pytest.mark.parametrize("pattern", ["__shared__", "<<<", r"\basm\b"])
def test_raw_cuda_stays_in_the_core(pattern: str) -> None:
    """Kernels reach shared memory, launches and PTX through cuda/core, where the emulator can follow."""
    mechanism = (ROOT / "cuda/core", ROOT / "cuda/emulator")
    kernels = [p for p in sources("cuda") if not any(p.is_relative_to(m) for m in mechanism)]
    wrong = [str(p.relative_to(ROOT)) for p in kernels if re.search(pattern, code_of(p))]
    assert not wrong, f"{pattern} outside cuda/core: {wrong}"
