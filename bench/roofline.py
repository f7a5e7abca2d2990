"""The least time that each convolution of the networks can take on a device: `python bench/roofline.py`.

A floor, not a measurement: the larger of operations over the rate of the unit that does them, and bytes
(input and weights read once, output written once) over the memory's bandwidth. Hold measured times against
it: their ratio is what is left to win.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from layers import NETWORKS, layers
from peers import Convolution


@dataclass(frozen=True)
class Device:
    """Rates in operations a second, by arithmetic, and bytes a second."""

    name: str
    rates: dict[str, float]
    bandwidth: float


# fp32 from the data sheet, bf16 and the copy bandwidth as large products and copies reach them; tf32 is half
# of bf16, and 3xTF32 does three products for one.
DEVICES = {
    "h200": Device("H200", {"fp32": 67e12, "3xtf32": 130e12, "tf32": 390e12, "bf16": 780e12}, 4.3e12),
}
BYTES = {"fp32": 4, "3xtf32": 4, "tf32": 4, "bf16": 2}


def least_bytes(p: Convolution, size: int) -> float:
    """Bytes that any forward pass moves."""
    x = p.n * p.c * p.size**2
    weight = p.k * (p.c // p.groups) * p.r**2
    return float(size) * (x + weight + p.n * p.k * p.output**2)


def floor(p: Convolution, device: Device, arithmetic: str) -> tuple[float, str]:
    """(seconds, "arithmetic" or "memory": what binds) of a forward pass; the gradients' floors are alike."""
    by_rate = p.flops / device.rates[arithmetic]
    by_memory = least_bytes(p, BYTES[arithmetic]) / device.bandwidth
    return (by_rate, "arithmetic") if by_rate >= by_memory else (by_memory, "memory")


def table(network: str, n: int, device: Device) -> str:
    """Markdown: a row a layer, its floor for each arithmetic, * where the memory binds; the network's sum."""
    kinds = list(device.rates)
    rows = [
        f"| {network}, N = {n} | times | GFLOP | MB fp32 | " + " | ".join(f"{k} us" for k in kinds) + " |"
    ]
    rows.append("|---" + "|---:" * (3 + len(kinds)) + "|")
    total = dict.fromkeys(kinds, 0.0)
    for p, count in layers(network, n):
        cells = []
        for kind in kinds:
            seconds, bound = floor(p, device, kind)
            total[kind] += count * seconds
            cells.append(f"{seconds * 1e6:.1f}{'*' if bound == 'memory' else ''}")
        name = p.name.split(" ", 1)[1].rsplit(" ", 1)[0]
        size = least_bytes(p, 4) / 1e6
        rows.append(f"| {name} | {count} | {p.flops / 1e9:.2f} | {size:.1f} | " + " | ".join(cells) + " |")
    rows.append("| all | | | | " + " | ".join(f"{total[kind] * 1e6:.0f}" for kind in kinds) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], help="default: all")
    parser.add_argument("--device", choices=DEVICES, default="h200")
    parser.add_argument("--batch", type=int, default=64, metavar="N")
    options = parser.parse_args()
    device = DEVICES[options.device]
    print(f"Floors of a forward pass on one {device.name}; * where the memory binds.\n")
    print("\n\n".join(table(network, options.batch, device) for network in options.networks or NETWORKS))


if __name__ == "__main__":
    main()
