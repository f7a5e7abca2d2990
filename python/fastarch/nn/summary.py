"""The table of a model's layers, from one pass over an input of zeros."""

from __future__ import annotations

from typing import Any

from fastarch.arrays import namespace
from fastarch.autograd import no_grad
from fastarch.nn.module import Module
from fastarch.tensors import Tensor

_Row = tuple[str, str, int, int]


def summary(model: Module, input_shape: tuple[int, ...]) -> str:
    """A table with a line for every layer in the order of its calls: output shape, parameters, multiply-adds.

    input_shape: one input without the batch dimension, which is shown as N. Parameters count once where
    shared.
    """
    rows = _run(model, tuple(input_shape))
    total = sum(parameter.size for parameter in model.parameters())
    learned = sum(parameter.size for parameter in model.parameters() if parameter.requires_grad)
    cells = [("layer", "output shape", "parameters", "multiply-adds")]
    cells += [(label, shape, f"{count:,}", f"{work:,}") for label, shape, count, work in rows]
    cells.append(("total", "", f"{total:,}", f"{sum(work for *_, work in rows):,}"))
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
        for a, b, c, d in cells
    ]
    rule = "-" * max(map(len, lines))
    lines.insert(1, rule)
    lines.insert(-1, rule)
    if learned != total:
        lines.append(f"of the parameters {learned:,} are learned and {total - learned:,} are frozen")
    return "\n".join(lines)


def _run(model: Module, input_shape: tuple[int, ...]) -> list[_Row]:
    layers = [
        (name, module) for name, module in model.named_modules() if not any(True for _ in module.children())
    ]
    modes = [(module, module.training) for module in model.modules()]
    rows: list[_Row] = []
    counted: set[int] = set()

    def watch(name: str, module: Module) -> None:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            first = result[0] if isinstance(result, tuple) else result
            own = [p for p in module.parameters() if id(p) not in counted]
            counted.update(map(id, own))
            label = f"{name} ({type(module).__name__})" if name else type(module).__name__
            shape = "[" + ", ".join(["N", *map(str, first.shape[1:])]) + "]"
            work = module.multiply_adds(args[0].shape, first.shape) if args else 0
            rows.append((label, shape, sum(p.size for p in own), work))
            return result

        # An attribute of the instance hides the method of the class for the time of this one pass.
        vars(module)["forward"] = forward

    xp_like = next((p.data for p in model.parameters()), None)
    try:
        for name, module in layers:
            watch(name, module)
        model.eval()
        with no_grad():
            if xp_like is None:
                import numpy as np

                x = np.zeros((1, *input_shape), np.float32)
            else:
                x = namespace(xp_like).zeros((1, *input_shape), xp_like.dtype)
            model(Tensor(x))
    finally:
        for _, module in layers:
            vars(module).pop("forward", None)
        for module, training in modes:
            module.training = training
    return rows
