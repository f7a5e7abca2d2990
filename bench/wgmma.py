"""Products by wgmma and TMA beside mma.sync and PyTorch on a GPU: `python bench/wgmma.py --json out.json`.

The linear layer's three products in bfloat16 and float16, and its forward pass in tf32, whose gradients have
operands that wgmma does not take. On a device without the instructions it says so and exits with 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget
import numpy as np
import torch
from timing import HEADER, Contender, DeviceClock, compare, environment, line

import fastarch as fa
from fastarch import backends

# [m, in, out]
SHAPES = [(8192, 8192, 8192), (4096, 4096, 4096), (16384, 1024, 4096), (2048, 2048, 2048), (128, 9216, 4096)]
PRODUCTS = ("forward", "input gradient", "weight gradient")


def contenders(shape: tuple[int, int, int], product: str, dtype: str, module: Any) -> list[Contender]:
    """The same product by each: PyTorch's is cuBLAS's."""
    m, inputs, outputs = shape
    kind = {"tf32": torch.float32}.get(dtype) or getattr(torch, dtype)
    generator = torch.Generator("cuda").manual_seed(0)
    x, weight, dy = (
        torch.randn(size, generator=generator, device="cuda").to(kind)
        for size in ((m, inputs), (outputs, inputs), (m, outputs))
    )
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"

    def ours(on: bool) -> Callable[[], Any]:
        def run() -> Any:
            module.set_wgmma(on)
            with fa.precision("tf32"):
                if product == "forward":
                    return fa.ops.linear(x, weight)
                need = (product == "input gradient", product == "weight gradient")
                dx, dw, _ = fa.ops.linear_backward(dy, x, weight, bias=False, need=need)
                return dx if need[0] else dw

        return run

    theirs = {
        "forward": lambda: x @ weight.T,
        "input gradient": lambda: dy @ weight,
        "weight gradient": lambda: dy.T @ x,
    }[product]
    return [
        Contender("fastarch wgmma", ours(True)),
        Contender("fastarch mma.sync", ours(False)),
        Contender("torch (cuBLAS)", theirs, peer=True),
    ]


def reference(entries: list[Contender]) -> np.ndarray:
    """The peer's result, which errors are differences to: float64 products of this size take too long."""
    return entries[-1].run().double().cpu().numpy()


def measure(module: Any, seconds: float, deadline: budget.Deadline, kept: list[dict[str, Any]]) -> None:
    """All products, into `kept`."""
    print(HEADER)
    for shape in SHAPES:
        for dtype in ("bfloat16", "float16", "tf32"):
            for product in PRODUCTS[: 1 if dtype == "tf32" else 3]:
                name = f"{'x'.join(map(str, shape))} {dtype} {product}"
                if deadline.passed(name):
                    continue
                entries = contenders(shape, product, dtype, module)
                flops = 2.0 * shape[0] * shape[1] * shape[2]
                clock = DeviceClock()
                for result in compare("wgmma", name, entries, reference(entries), clock, seconds, flops):
                    print(line(result), flush=True)
                    kept.append(result.to_dict())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each contender (default 1)")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="begin no further product after these"
    )
    options = parser.parse_args()
    with fa.backend("cuda"):  # says why where there is none
        module = backends._loaded["cuda"]
    if torch.cuda.get_device_capability() != (9, 0):
        print("bench/wgmma.py: wgmma is for compute capability 9.0 alone")
        return 1
    deadline = budget.Deadline(options.budget)
    out: dict[str, Any] = {"environment": environment(), "results": []}
    try:
        measure(module, options.seconds, deadline, out["results"])
    finally:  # what was measured before an error, or the end of the time, is kept
        if deadline.left_out:
            out["left_out"] = deadline.left_out
            print(f"left out after {options.budget:g} s: {len(deadline.left_out)} products")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    budget.end_in_order()
    raise SystemExit(main())
