"""All benchmarks beside their peers, as a table and as JSON: `python bench/run.py --json out.json [--quick]`.

On a machine with a GPU that fastarch can use, the arrays lie there and the peer is cuDNN; elsewhere the peer
is PyTorch on the same cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import budget
import import_time
import layers
import lenet
import max_pooled
import memory
import overhead
import peers
import rbm
import recurrent
from timing import HEADER, Contender, DeviceClock, Result, WallClock, compare, environment, line

from fastarch import backends

SUITES = ("conv2d", "pool2d", "conv2d_max_pool", "rbm", "lenet", "overhead", "import")
TABLES = ("memory", "recurrent", "layers")  # minutes long on a device: only when named


PROBLEMS = {"conv2d": peers.CONVOLUTIONS, "pool2d": peers.POOLINGS, "conv2d_max_pool": max_pooled.PROBLEMS}
CONTENDERS: dict[str, tuple[tuple[str, ...], Any]] = {  # the passes, and who computes them
    "conv2d": (peers.PASSES, peers.convolution_contenders),
    "pool2d": (("forward", "backward"), peers.pooling_contenders),
    "conv2d_max_pool": (max_pooled.PASSES, max_pooled.contenders_of),
}


def report(results: list[Result], kept: list[dict[str, Any]]) -> None:
    for result in results:
        print(line(result), flush=True)
        kept.append(result.to_dict())


def problems_of(suite: str, place: peers.Place, quick: bool) -> list[Any]:
    """What a suite of kernels measures; at a batch that fills the device."""
    on_device = place.device == "cuda"
    if suite == "layers":
        networks = layers.NETWORKS[:2] if quick else layers.NETWORKS
        return [p for network in networks for p, _ in layers.layers(network, 64 if on_device else 4)]
    problems: list[Any] = list(PROBLEMS[suite])
    if on_device:
        problems = [peers.at_batch(problem, max(64, problem.n)) for problem in problems]
    return problems[:3] if quick else problems


def kernels(
    suite: str,
    place: peers.Place,
    seconds: float,
    quick: bool,
    deadline: budget.Deadline,
    kept: list[dict[str, Any]],
) -> None:
    """A suite of convolution or pooling, or the layers of the networks, row by row into `kept`."""
    clock = DeviceClock() if place.device == "cuda" else WallClock()
    passes, make = CONTENDERS.get(suite, CONTENDERS["conv2d"])
    for problem in problems_of(suite, place, quick):
        for direction in passes:
            name = f"{problem.name} {direction}"
            if deadline.passed(name):
                continue
            contenders, reference = make(problem, direction, place)
            flops = None if suite == "pool2d" else problem.flops
            report(compare(suite, name, contenders, reference, clock, seconds, flops), kept)


def passes_of(
    suite: str,
    place: peers.Place,
    seconds: float,
    quick: bool,
    deadline: budget.Deadline,
    kept: list[dict[str, Any]],
) -> None:
    """The recurrent or the memory table, row by row into `kept`."""
    clock = DeviceClock() if place.device == "cuda" else WallClock()
    module: Any = recurrent if suite == "recurrent" else memory
    problems = module.DEVICE if place.device == "cuda" else module.HOST
    for problem in problems[:2] if quick else problems:
        for direction in module.DIRECTIONS:
            name = f"{problem.name} {direction}"
            if deadline.passed(name):
                continue
            contenders, reference = module.contenders(problem, direction, place)
            flops = problem.flops(direction) if suite == "recurrent" else None
            least = problem.least_bytes(direction) if suite == "memory" else None
            report(compare(suite, name, contenders, reference, clock, seconds, flops, least), kept)
    for step in memory.STEPS if suite == "memory" else ():
        if not deadline.passed(step.name):
            entries, least = memory.steps(step, place)
            report(compare(suite, step.name, entries, None, clock, seconds, least_bytes=least), kept)


def waiting(contender: str) -> Callable[[], float]:
    """One LeNet-5 step and its loss, for which a device is waited for."""
    step = lenet.step_of(contender)
    return lambda: float(step().item())


def training(place: peers.Place, seconds: float, kept: list[dict[str, Any]]) -> None:
    """The LeNet-5 step, into `kept`: time interleaved in this process, memory in processes of their own."""
    names = [f"fastarch {name}" for name in place.backends]
    if peers.torch is not None:
        names.append("torch cuda" if place.device == "cuda" else "torch cpu")
    contenders = [Contender(name, waiting(name), peer=name.startswith("torch")) for name in names]
    rows: list[dict[str, Any]] = []
    # On a device too the host's clock: Python's work is part of a step of this size.
    report(compare("lenet", f"LeNet-5 step of {lenet.BATCH}", contenders, None, WallClock(), seconds), rows)
    kept += rows
    for row in rows:
        row |= lenet.peak_memory(row["contender"])
        memory = f"peak {row['peak_mib']:.0f} MiB, {row['imports_mib']:.0f} after imports"
        print(f"{'':<42} {row['contender']:<30} {memory}")


def measure(
    options: argparse.Namespace,
    place: peers.Place,
    seconds: float,
    deadline: budget.Deadline,
    out: dict[str, Any],
) -> None:
    """All suites that were asked for, into `out`."""
    print(HEADER, flush=True)
    for suite in (*CONTENDERS, "layers"):
        if suite in options.only:
            # Many layers: shorter rounds.
            each = 0.1 if suite == "layers" else seconds
            kernels(suite, place, each, options.quick, deadline, out["results"])
    for suite in ("memory", "recurrent"):
        if suite in options.only:
            # Many contenders: shorter rounds.
            passes_of(suite, place, seconds / 10, options.quick, deadline, out["results"])
    if "rbm" in options.only:
        clock = DeviceClock() if place.device == "cuda" else WallClock()
        report(rbm.measure(place, clock, seconds, options.quick), out["results"])
    if "lenet" in options.only:
        training(place, 2 * seconds, out["results"])
    if "overhead" in options.only:
        out["overhead_us"] = overhead.measure(options.quick)
        print("\nwhat the Python layer adds to a call")
        for name, added in out["overhead_us"].items():
            print(f"  {name:<26} {added:6.2f} us")
    if "import" in options.only:
        out["import_ms"] = import_time.measure(5 if options.quick else 15)
        print("\nimport: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in out["import_ms"].items()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help="few problems, short measurements")
    parser.add_argument("--only", nargs="+", choices=SUITES + TABLES, default=SUITES, help="which suites")
    parser.add_argument("--device", choices=("host", "cuda"), help="default: cuda where it is usable")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="begin no further problem of a table after these"
    )
    options = parser.parse_args()

    deadline = budget.Deadline(options.budget)
    reason = backends.reason_unusable("cuda")
    if options.device == "cuda" and reason:
        parser.error(f"--device cuda: {reason}")
    place = peers.Place(options.device or ("host" if reason else "cuda"))
    seconds = 0.1 if options.quick else 1.0
    out: dict[str, Any] = {"environment": environment(), "place": place.device, "results": []}
    try:
        measure(options, place, seconds, deadline, out)
    finally:  # what was measured before an error, or the end of the time, is kept
        if deadline.left_out:
            out["left_out"] = deadline.left_out
            print(f"left out after {options.budget:g} s: {len(deadline.left_out)} of the tables' passes")
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    budget.end_in_order()
    sys.exit(main())
