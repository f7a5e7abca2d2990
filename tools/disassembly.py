"""What a kernel's machine code shows: block size, widths of its loads, tensor-core instructions."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_SECTION = re.compile(r"^\s*\.section\s+\.(text|nv\.info)\.(\w+),")
_OPCODE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")
_WORD = re.compile(r"\.word\s+0x([0-9a-f]{8})")

_LOADS = {"global": ("LDG", "LDGSTS"), "shared": ("LDS", "LDSM")}
_TENSOR = ("HMMA", "IMMA", "DMMA", "QGMMA", "HGMMA", "IGMMA", "UTCHMMA", "QMMA", "OMMA")


@dataclass
class Code:
    """One kernel's machine code: how often each opcode stands in it, and the launch bound if it has one."""

    max_threads: int | None = None
    opcodes: Counter[str] = field(default_factory=Counter)

    def wide_loads(self, memory: str) -> tuple[int, int]:
        """(loads of 16 bytes, all loads) from "global" or "shared" memory; LDSM (a matrix) counts as wide."""
        wide = total = 0
        for opcode, count in self.opcodes.items():
            base, *modifiers = opcode.split(".")
            if base in _LOADS[memory]:
                total += count
                wide += count * (base == "LDSM" or "128" in modifiers)
        return wide, total

    def count(self, *bases: str) -> int:
        """How many instructions have one of these opcodes, whatever their modifiers."""
        return sum(count for opcode, count in self.opcodes.items() if opcode.split(".")[0] in bases)

    @property
    def generic_moves(self) -> int:
        """Loads and stores that could reach any memory, as the compiler does not know which one it is."""
        return self.count("LD", "ST")

    @property
    def tensor_instructions(self) -> int:
        """Matrix multiplications on the tensor cores: mma.sync becomes HMMA and the like, wgmma HGMMA."""
        return self.count(*_TENSOR)


def parse(text: str) -> dict[str, Code]:
    """The kernels in what nvdisasm prints, by their mangled names."""
    kernels: dict[str, Code] = {}
    section, name, words = "", "", 0
    bound = 1
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section, name = found.groups()
            kernels.setdefault(name, Code())
        elif line.split(maxsplit=1)[:1] == [".section"]:
            section = ""
        elif section == "text" and (found := _OPCODE.match(line)):
            kernels[name].opcodes[found[1]] += 1
        elif section == "nv.info":
            if "EIATTR_MAX_THREADS" in line:
                words, bound = 3, 1  # x, y, z
            elif words and (found := _WORD.search(line)):
                bound *= int(found[1], 16)
                words -= 1
                kernels[name].max_threads = bound
    return {name: code for name, code in kernels.items() if code.opcodes}


def read(nvdisasm: str, cubin: Path) -> dict[str, Code]:
    """The kernels of a cubin; RuntimeError has the disassembler's words."""
    done = subprocess.run([nvdisasm, "-ndf", str(cubin)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{nvdisasm} cannot read {cubin.name}:\n{done.stderr}")
    return parse(done.stdout)


def find_nvdisasm() -> str | None:
    """The disassembler: on PATH, in the CUDA toolkit, or of the PyPI package nvidia-cuda-nvdisasm."""
    packages = Path(sysconfig.get_path("purelib"))
    places = [Path("/usr/local/cuda/bin"), *packages.glob("nvidia/cu*/bin"), *packages.glob("nvidia/*/bin")]
    return shutil.which("nvdisasm") or next(
        (found for place in places if (found := shutil.which("nvdisasm", path=str(place)))), None
    )


# Per multiprocessor: registers, bytes of shared memory, warps, blocks; and the bytes that every block is
# charged in addition (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
_MULTIPROCESSOR = {
    "75": (65536, 64 * 1024, 32, 16, 0),
    "80": (65536, 164 * 1024, 64, 32, 1024),
    "86": (65536, 100 * 1024, 48, 16, 1024),
    "89": (65536, 100 * 1024, 48, 24, 1024),
    "90": (65536, 228 * 1024, 64, 32, 1024),
    "100": (65536, 228 * 1024, 64, 32, 1024),
    "103": (65536, 228 * 1024, 64, 32, 1024),
    "120": (65536, 100 * 1024, 48, 24, 1024),
}


def occupancy(arch: str, threads: int, registers: int, shared: int) -> float | None:
    """The share of a multiprocessor's warps that blocks of this size can fill; None for an unknown one.

    threads: of a block; registers: of a thread; shared: bytes of a block.
    """
    limits = _MULTIPROCESSOR.get(arch.rstrip("af"))
    if limits is None:
        return None
    all_registers, all_shared, all_warps, most_blocks, charged = limits
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    # A multiprocessor's four parts hold whole warps, each in its own registers.
    by_registers = all_registers // 4 // max(1, of_warp) * 4 // warps
    by_shared = all_shared // (shared + charged) if shared + charged else most_blocks
    blocks = min(by_registers, by_shared, all_warps // warps, most_blocks)
    return blocks * warps / all_warps
