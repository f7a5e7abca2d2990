#!/usr/bin/env python3
"""How many units the recurrent kernels that keep their weights in shared memory take, as a table.

    tools/recurrent_capacity.py

The rules are those of cuda/recurrent/persistent.h and cluster.h, for 16-bit floats of persistent_mma.h and
cluster_mma.h, which tests/test_recurrent_capacity.py holds against the kernels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SIZES = {"bfloat16": 2, "float32": 4, "float64": 8}  # float16 as bfloat16
ROWS = 4  # of the batch at the least, but for a single sequence
CLUSTER_BLOCKS = 8
LARGE_CLUSTER_BLOCKS = 16  # of the 16-bit kernels
WARPS, TILE, TILES_AT_ONCE, CHUNK, MMA_ROWS = 8, 8, 4, 32, 8


@dataclass(frozen=True)
class Device:
    """What the number of units depends on: bytes of shared memory a block, multiprocessors; whether NVIDIA
    documents clusters of 8 blocks for it, of which some such devices also run those of 16.
    """

    name: str
    example: str
    shared: int
    multiprocessors: int
    clusters: bool = False
    halves: bool = True  # whether its tensor cores have the instructions of the 16-bit kernels


DEVICES = (
    Device("sm_75", "T4", 64 * 1024, 40, halves=False),
    Device("sm_80", "A100", 163 * 1024, 108),
    Device("sm_86", "RTX 3090", 99 * 1024, 82),
    Device("sm_89", "RTX 4090", 99 * 1024, 128),
    Device("sm_90", "H100", 227 * 1024, 132, True),
    Device("sm_100", "B200", 227 * 1024, 148, True),
    Device("sm_120", "RTX 5090", 99 * 1024, 170),
)


def fits(device: Device, algorithm: str, gates: int, itemsize: int, units: int, backward: bool) -> bool:
    """Whether a layer of so many units stays resident: its weights, and the rows that a step reads."""
    if itemsize == 2:
        return fits_mma(device, algorithm, gates, units, backward)
    blocks = device.multiprocessors if algorithm == "persistent" else CLUSTER_BLOCKS
    together = 2 if backward else 1  # units that a warp takes at a time
    of_block = -(-units // blocks)
    of_block = -(-of_block // together) * together
    row = (gates if backward else 1) * units  # gradients of the gates, or states
    copies = 1 if algorithm == "persistent" else 2  # before and after a step
    left = device.shared // itemsize - of_block * gates * units
    return left >= ROWS * copies * row


def fits_mma(device: Device, algorithm: str, gates: int, units: int, backward: bool) -> bool:
    """The same of 16-bit floats: weights in whole tiles, the products of 8 rows, in clusters the rows."""
    persistent = algorithm == "persistent"
    vectors, each = (1, gates) if backward else (gates, 1)  # resident a unit; values in a row a unit
    blocks = device.multiprocessors if persistent else LARGE_CLUSTER_BLOCKS
    together = TILE // gcd(TILE, vectors)
    of_block = -(-units // blocks)
    of_block = -(-of_block // together) * together
    length = (units if persistent else blocks * of_block) * each
    tiles, chunks, slices = -(-of_block * vectors // TILE), -(-length // CHUNK), WARPS
    while slices > 1 and (slices > chunks or 2 * WARPS // slices <= -(-tiles // TILES_AT_ONCE)):
        slices //= 2
    rows = 0 if persistent else 2 * MMA_ROWS * (chunks | 1) * CHUNK
    return 2 * (tiles * TILE * chunks * CHUNK + rows) + 4 * slices * tiles * TILE * MMA_ROWS <= device.shared


def largest(device: Device, algorithm: str, gates: int, itemsize: int, backward: bool) -> int:
    """The most units that fit."""
    return max(units for units in range(1, 6000) if fits(device, algorithm, gates, itemsize, units, backward))


def table(algorithm: str) -> str:
    """Markdown: forward / backward for every kind and dtype."""
    columns = [(kind, dtype) for dtype in SIZES for kind in GATES]
    names = [kind if kind != "LSTM" else f"{dtype} {kind}" for kind, dtype in columns]
    lines = ["| architecture | example | " + " | ".join(names) + " |", "|---" * (len(columns) + 2) + "|"]
    for device in DEVICES:
        if algorithm == "cluster" and not device.clusters:
            continue
        cells = []
        for kind, dtype in columns:
            if SIZES[dtype] == 2 and not device.halves:
                cells.append("as float32")
                continue
            found = [
                largest(device, algorithm, GATES[kind], SIZES[dtype], backward) for backward in (False, True)
            ]
            cells.append(f"{found[0]} / {found[1]}")
        where = f"{device.name} ({device.shared // 1024} KB)"
        count = f"{device.example}, {device.multiprocessors}"
        lines.append(f"| {where} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in ("persistent", "cluster"):
        print(f"{name}\n\n{table(name)}\n")
