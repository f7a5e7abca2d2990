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

import import_time
import layers
import lenet
import overhead
import peers
import rbm
from timing import HEADER, Contender, DeviceClock, Result, WallClock, compare, environment, line

from fastarch import backends

SUITES = ("conv2d", "pool2d", "rbm", "lenet", "overhead", "import")
TABLES = ("layers",)  # minutes long: only when named


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
    problems: list[Any] = list(peers.CONVOLUTIONS if suite == "conv2d" else peers.POOLINGS)
    if on_device:
        problems = [peers.at_batch(problem, max(64, problem.n)) for problem in problems]
    return problems[:3] if quick else problems


def kernels(suite: str, place: peers.Place, seconds: float, quick: bool) -> list[dict[str, Any]]:
    """The convolution or the pooling suite, or the layers of the networks."""
    kept: list[dict[str, Any]] = []
    clock = DeviceClock() if place.device == "cuda" else WallClock()
    passes = ("forward", "backward") if suite == "pool2d" else peers.PASSES
    make: Any = peers.pooling_contenders if suite == "pool2d" else peers.convolution_contenders
    for problem in problems_of(suite, place, quick):
        for direction in passes:
            contenders, reference = make(problem, direction, place)
            name = f"{problem.name} {direction}"
            flops = None if suite == "pool2d" else problem.flops
            report(compare(suite, name, contenders, reference, clock, seconds, flops), kept)
    return kept


def waiting(contender: str) -> Callable[[], float]:
    """One LeNet-5 step and its loss, for which a device is waited for."""
    step = lenet.step_of(contender)
    return lambda: float(step().item())


def training(place: peers.Place, seconds: float) -> list[dict[str, Any]]:
    """The LeNet-5 step: time interleaved in this process, peak memory in processes of their own."""
    names = [f"fastarch {name}" for name in place.backends]
    if peers.torch is not None:
        names.append("torch cuda" if place.device == "cuda" else "torch cpu")
    contenders = [Contender(name, waiting(name), peer=name.startswith("torch")) for name in names]
    kept: list[dict[str, Any]] = []
    # On a device too the host's clock: Python's work is part of a step of this size.
    report(compare("lenet", f"LeNet-5 step of {lenet.BATCH}", contenders, None, WallClock(), seconds), kept)
    for row in kept:
        row |= lenet.peak_memory(row["contender"])
        memory = f"peak {row['peak_mib']:.0f} MiB, {row['imports_mib']:.0f} after imports"
        print(f"{'':<42} {row['contender']:<22} {memory}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--quick", action="store_true", help="few problems, short measurements")
    parser.add_argument("--only", nargs="+", choices=SUITES + TABLES, default=SUITES, help="which suites")
    parser.add_argument("--device", choices=("host", "cuda"), help="default: cuda where it is usable")
    options = parser.parse_args()

    reason = backends.reason_unusable("cuda")
    if options.device == "cuda" and reason:
        parser.error(f"--device cuda: {reason}")
    place = peers.Place(options.device or ("host" if reason else "cuda"))
    seconds = 0.1 if options.quick else 1.0
    out: dict[str, Any] = {"environment": environment(), "place": place.device, "results": []}
    print(HEADER, flush=True)
    for suite in ("conv2d", "pool2d", "layers"):
        if suite in options.only:
            # Many layers: shorter rounds.
            out["results"] += kernels(suite, place, 0.1 if suite == "layers" else seconds, options.quick)
    if "rbm" in options.only:
        clock = DeviceClock() if place.device == "cuda" else WallClock()
        report(rbm.measure(place, clock, seconds, options.quick), out["results"])
    if "lenet" in options.only:
        out["results"] += training(place, 2 * seconds)
    if "overhead" in options.only:
        out["overhead_us"] = overhead.measure(options.quick)
        print("\nwhat the Python layer adds to a call")
        for name, added in out["overhead_us"].items():
            print(f"  {name:<26} {added:6.2f} us")
    if "import" in options.only:
        out["import_ms"] = import_time.measure(5 if options.quick else 15)
        print("\nimport: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in out["import_ms"].items()))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
