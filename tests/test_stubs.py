"""The stubs of the compiled modules say what the modules have."""

import ast
import importlib
from pathlib import Path

import pytest

import fastarch

FOLDER = Path(fastarch.__file__).parent
BUILT = [name for name in ("_core", "_cpu", "_cuda", "_emulator") if list(FOLDER.glob(f"{name}.*.so"))]


def test_there_is_something_compiled_or_this_is_a_plain_tree():
    assert "_core" in BUILT or not list(FOLDER.glob("*.so"))


@pytest.mark.parametrize("name", BUILT)
def test_stub_lists_every_function_with_its_arguments(name):
    module = importlib.import_module(f"fastarch.{name}")
    functions = {n: getattr(module, n) for n in dir(module) if not n.startswith("_")}
    stub = ast.parse((FOLDER / f"{name}.pyi").read_text())
    described = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert set(described) == set(functions)
    for function, node in described.items():
        lines = functions[function].__doc__.splitlines()
        signature = next(line for line in lines if line.startswith(f"{function}(") and "*args" not in line)
        for argument in node.args.args:
            assert f"{argument.arg}: " in signature, f"{name}.{function} has no argument {argument.arg}"
        assert signature.count(": ") == len(node.args.args), f"{name}.{function}: {signature}"
