"""The multiply's plans: what the model of cuda/gemm/plan.h expects of each, and what it takes.

    python bench/plans.py [--networks resnet50 ...] [--n 64] [--precisions float32 tf32] [--json out.json]
        [--budget 320]

Runs the convolutions and the linear layers of the networks under fa.autotune, which times every plan within
four times the best estimate, and prints for each product the model's choice beside the fastest. The JSON has
all trials: cycles by the model, microseconds measured. On a machine without a usable GPU, --emulator goes
through the same motions; its time is made up.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget
import layers
import numpy as np
from timing import environment

import fastarch as fa
from fastarch import backends

# (rows, inputs, outputs): LeNet-5, AlexNet and VGG-16, an LSTM's input projection, two square ones.
LINEAR = (
    (64, 400, 120),
    (128, 9216, 4096),
    (64, 25088, 4096),
    (1024, 512, 2048),
    (2048, 2048, 2048),
    (64, 64, 64),
)


Late = Callable[[str], bool]  # whether a layer is left out


def linear_layers(xp: Any, dtype: Any, shapes: Any, late: Late) -> None:
    """Forward and both gradients of every layer."""
    for rows, inputs, outputs in shapes:
        if late(f"linear {rows}x{inputs}x{outputs}"):
            continue
        x, weight, dy = (
            normal(xp, shape, dtype) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        fa.ops.linear(x, weight)
        fa.ops.linear_backward(dy, x, weight)


def convolutions(xp: Any, dtype: Any, networks: list[str], n: int, late: Late) -> None:
    """Forward and both gradients of every layer, once for each shape."""
    for network in networks:
        for p, _ in layers.layers(network, n):
            if late(p.name):
                continue
            x = normal(xp, (p.n, p.c, p.size, p.size), dtype)
            weight = normal(xp, (p.k, p.c // p.groups, p.r, p.r), dtype)
            geometry = {"stride": p.stride, "padding": p.padding, "groups": p.groups}
            dy = normal(xp, fa.ops.conv2d(x, weight, **geometry).shape, dtype)
            fa.ops.conv2d_backward(dy, x, weight, **geometry)


def normal(xp: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Random numbers made on the device: zeros would draw less power, and run at a higher clock."""
    if xp is np:
        return np.random.default_rng(0).standard_normal(shape, np.float32).astype(dtype)
    return xp.random.standard_normal(shape, dtype=xp.float32).astype(dtype)


def report(tuning: dict[str, Any]) -> str:
    """A line: how far the model's choice is from the fastest plan, and its estimate from the truth."""
    trials = tuning["trials"]
    model = min(trials, key=lambda trial: trial["model_cycles"])
    return (
        f"{tuning['problem']}: model {model['tile']} in {model['slices']}, {model['microseconds']:.1f} us; "
        f"fastest {tuning['tile']} in {tuning['slices']}, {tuning['microseconds']:.1f} us "
        f"({model['microseconds'] / tuning['microseconds']:.2f} times); "
        f"{model['microseconds'] * 1000 / model['model_cycles']:.2f} ns a model cycle"
    )


def measure(
    module: Any,
    xp: Any,
    precision: str,
    shapes: Any,
    arguments: argparse.Namespace,
    deadline: budget.Deadline,
    kept: list[dict[str, Any]],
) -> None:
    """All layers in one precision; its plans, those before an error too, into `kept`."""
    half = precision == "float16"
    dtype = np.float16 if half else np.float32
    module.forget_plans()

    def late(layer: str) -> bool:
        return deadline.passed(f"{precision} {layer}")

    try:
        with fa.autotune(), fa.precision("float32" if half else precision):
            linear_layers(xp, dtype, shapes, late)
            convolutions(xp, dtype, arguments.networks, arguments.n, late)
    finally:
        for tuning in module.tunings():
            print(report(tuning), flush=True)
            kept.append({"precision": precision, **tuning})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--networks", nargs="*", default=["lenet5", "alexnet", "resnet50"], choices=layers.NETWORKS
    )
    parser.add_argument("--n", type=int, default=64, help="images in a batch")
    parser.add_argument("--precisions", nargs="+", default=["float32", "tf32", "3xtf32", "float16"])
    parser.add_argument(
        "--emulator", action="store_true", help="small layers on the emulator, to try this program"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no further layer after these")
    arguments = parser.parse_args()

    backend = "emulator" if arguments.emulator else "cuda"
    reason = backends.reason_unusable(backend)
    if reason:
        print(f"plans: the backend {backend} cannot run here: {reason}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"fastarch._{backend}")
    xp = np if arguments.emulator else importlib.import_module("cupy")
    shapes = LINEAR[-1:] if arguments.emulator else LINEAR
    deadline = budget.Deadline(arguments.budget)
    out: dict[str, Any] = {"environment": environment(), "plans": []}
    try:
        with tempfile.TemporaryDirectory() as folder, fa.backend(backend):
            os.environ["FASTARCH_AUTOTUNE_CACHE"] = str(Path(folder) / "plans.json")  # everything anew
            for precision in arguments.precisions:
                measure(module, xp, precision, shapes, arguments, deadline, out["plans"])
    finally:  # what was measured before an error, or the end of the time, is kept
        if deadline.left_out:
            out["left_out"] = deadline.left_out
            print(f"left out after {arguments.budget:g} s: {len(deadline.left_out)} layers")
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    budget.end_in_order()
    sys.exit(main())
