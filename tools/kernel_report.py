#!/usr/bin/env python3
"""Compile every CUDA kernel and report its registers, shared memory, spills, occupancy and instructions.

    tools/kernel_report.py --arch 90                      one architecture, a table
    tools/kernel_report.py --arch 75,80,90a,120 --json    several, as JSON
    tools/kernel_report.py --arch 90 cuda/conv2d.cu       one file

Needs nvcc (on PATH, in CUDA_HOME, or by --nvcc), no GPU. Exits with 2 when nvcc is missing or a file does not
compile, and with 1 when a kernel
    spills registers or uses a local stack;
    moves memory that the compiler could not tell to be global or shared, up to 9.0 (kernels named after
    clusters, persistent or online do: distributed shared memory, the runtime's grid barrier; for 12.0 nvcc
    13.0 leaves some in kernels that have none elsewhere, which is not understood);
    has mma in its name and no tensor-core instruction (from 8.0 on; one with cluster in its name from 9.0 on;
    one with wgmma in its name: no HGMMA, on 90a).

With nvdisasm (the CUDA toolkit's, or pip install nvidia-cuda-nvdisasm) the table also has
    threads     of a block, by the kernel's launch bounds; ? where it has none, and 256 is assumed below
    occupancy   the share of a multiprocessor's warps that can be resident, by registers and the static shared
                memory; a kernel that asks for dynamic shared memory may have fewer
    ld128       16-byte loads of all loads, from global / from shared memory, as they stand in the code
    generic     loads and stores of memory that the compiler could not tell to be global or shared
    tensor      tensor-core instructions (HMMA, HGMMA, ...)
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import disassembly

ROOT = Path(__file__).resolve().parent.parent
ASSUMED_THREADS = 256

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\w+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass
class Kernel:
    """One kernel compiled for one architecture; sizes in bytes, registers a thread, shared memory a block."""

    file: str
    name: str
    arch: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    threads: int | None = None
    occupancy: float | None = None
    global_loads: tuple[int, int] | None = None  # of 16 bytes, all
    shared_loads: tuple[int, int] | None = None
    generic: int | None = None  # moves of memory of an unknown kind
    tensor: int | None = None
    wgmma: int | None = None  # of these, those of a warpgroup

    @property
    def spills(self) -> bool:
        return self.stack + self.spill_stores + self.spill_loads > 0


def parse(file: str, log: str) -> list[Kernel]:
    """The kernels that `ptxas -v` reports in `log`, with mangled names."""
    kernels: list[Kernel] = []
    name = arch = ""
    stack = stores = loads = 0
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            name, arch = entry.groups()
            stack = stores = loads = 0
        elif spills := _SPILLS.search(line):
            stack, stores, loads = map(int, spills.groups())
        elif name and (registers := _REGISTERS.search(line)):
            shared = _SHARED.search(line)
            size = int(shared[1]) if shared else 0
            kernels.append(Kernel(file, name, arch, int(registers[1]), size, stack, stores, loads))
            name = ""
    return kernels


def readable(names: list[str]) -> list[str]:
    """Demangled and shortened: the kernel and its template arguments."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if not names or not tool:
        return names
    text = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [_shorten(line) for line in text.splitlines()]


def _shorten(name: str) -> str:
    name = re.sub(r"fastarch::cuda::|fastarch::|\(anonymous namespace\)::", "", name)
    name = name.removeprefix("void ")
    depth = 0
    for i, letter in enumerate(name):  # cut the parameter list, which follows the template's
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0 and i > 0:
            name = name[:i]
            break
    return re.sub(r"\((?:unsigned |long )*(?:int|bool|long|char)\)|\((?:\w+::)*Activation\)", "", name)


def compile_one(nvcc: str, nvdisasm: str | None, source: Path, arch: str, flags: list[str]) -> list[Kernel]:
    """Compiles `source` for sm_`arch` and returns its kernels; RuntimeError has the compiler's words."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        command = [
            nvcc,
            "-std=c++20",
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "-cubin",
            "-o",
            str(cubin),
            "-Xptxas",
            "-v",
            *flags,
        ]
        command += [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'cuda'}", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{source} does not compile for sm_{arch}:\n{done.stdout}{done.stderr}")
        name = str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else str(source)
        kernels = parse(name, done.stdout + done.stderr)
        if nvdisasm:
            look_inside(kernels, disassembly.read(nvdisasm, cubin))
    return kernels


def look_inside(kernels: list[Kernel], codes: dict[str, disassembly.Code]) -> None:
    """Adds what the machine code shows."""
    for k in kernels:
        code = codes[k.name]
        k.threads = code.max_threads
        k.occupancy = disassembly.occupancy(k.arch, k.threads or ASSUMED_THREADS, k.registers, k.shared)
        k.global_loads, k.shared_loads = code.wide_loads("global"), code.wide_loads("shared")
        k.generic, k.tensor = code.generic_moves, code.tensor_instructions
        k.wgmma = code.count("HGMMA")


def lacks_tensor_cores(k: Kernel) -> bool:
    """Whether it is called after instructions that its machine code should have and does not."""
    if "wgmma" in k.name:
        return k.arch == "90a" and k.wgmma == 0
    least = 90 if "cluster" in k.name else 80  # where there are no clusters it traps
    return "mma" in k.name and k.tensor == 0 and int(k.arch.rstrip("af")) >= least


def moves_generic_memory(k: Kernel) -> bool:
    """Whether it has slower loads or stores than it needs: fastarch::cuda::global() tells the compiler."""
    named = any(word in k.name for word in ("cluster", "persistent", "online"))
    return bool(k.generic) and not named and int(k.arch.rstrip("af")) <= 90


def table(kernels: list[Kernel]) -> str:
    head = ["kernel", "arch", "registers", "shared", "stack", "spills"]
    rows = [
        [
            k.name,
            f"sm_{k.arch}",
            str(k.registers),
            str(k.shared),
            str(k.stack),
            str(k.spill_stores + k.spill_loads),
        ]
        for k in kernels
    ]
    if any(k.tensor is not None for k in kernels):
        head += ["threads", "occupancy", "ld128 global", "shared", "generic", "tensor"]
        for row, k in zip(rows, kernels):
            share = "?" if k.occupancy is None else f"{100 * k.occupancy:.0f} %"
            row += [str(k.threads or "?"), share, of(k.global_loads), of(k.shared_loads)]
            row += [str(k.generic), str(k.tensor)]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def of(loads: tuple[int, int] | None) -> str:
    return f"{loads[0]}/{loads[1]}" if loads else "?"


def find_nvcc(argument: str | None) -> str | None:
    if argument:
        return shutil.which(argument)
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="default: every .cu of cuda")
    parser.add_argument("--arch", default="90", help="comma-separated compute capabilities (default 90)")
    parser.add_argument("--nvcc", help="the compiler (default: PATH, then CUDA_HOME)")
    parser.add_argument("--nvdisasm", help="the disassembler (default: PATH, the toolkit, site-packages)")
    parser.add_argument("--flag", action="append", default=[], help="one more flag for nvcc; repeatable")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="compilers at once")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args(arguments)

    nvcc = find_nvcc(options.nvcc)
    if not nvcc:
        print(
            f"kernel_report: no nvcc found ({options.nvcc or 'PATH, CUDA_HOME, /usr/local/cuda'})",
            file=sys.stderr,
        )
        return 2
    nvdisasm = shutil.which(options.nvdisasm) if options.nvdisasm else disassembly.find_nvdisasm()
    if not nvdisasm:
        print(
            f"kernel_report: no nvdisasm found ({options.nvdisasm or 'PATH, CUDA toolkit, site-packages'}): "
            "the report is without occupancy and instructions",
            file=sys.stderr,
        )
    files = [file.resolve() for file in options.files] or sorted((ROOT / "cuda").rglob("*.cu"))
    work = [(file, arch.strip()) for file in files for arch in options.arch.split(",")]
    kernels: list[Kernel] = []
    with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
        try:
            for found in pool.map(lambda job: compile_one(nvcc, nvdisasm, *job, options.flag), work):
                kernels += found
        except RuntimeError as error:
            pool.shutdown(cancel_futures=True)
            print(f"kernel_report: {error}", file=sys.stderr)
            return 2
    for kernel, name in zip(kernels, readable([kernel.name for kernel in kernels])):
        kernel.name = name

    spilling = [kernel for kernel in kernels if kernel.spills]
    if options.json:
        print(json.dumps({"kernels": [asdict(k) for k in kernels], "spilling": len(spilling)}, indent=1))
    else:
        print(table(kernels))
    for k in spilling:
        print(
            f"kernel_report: {k.file}: {k.name} spills on sm_{k.arch}: {k.stack} bytes of stack, "
            f"{k.spill_stores} of stores, {k.spill_loads} of loads",
            file=sys.stderr,
        )
    # What is called after mma but does its sums elsewhere has lost its point on the way through the compiler;
    # before 8.0 there is nothing to find. A kernel for wgmma is for 90a alone, and traps elsewhere.
    scalar = [k for k in kernels if lacks_tensor_cores(k)]
    for k in scalar:
        print(
            f"kernel_report: {k.file}: {k.name} has no tensor-core instruction on sm_{k.arch}",
            file=sys.stderr,
        )
    generic = [k for k in kernels if moves_generic_memory(k)]
    for k in generic:
        print(
            f"kernel_report: {k.file}: {k.name} has {k.generic} moves of generic memory on sm_{k.arch}",
            file=sys.stderr,
        )
    if not kernels:
        print("kernel_report: no kernels were found in what was compiled", file=sys.stderr)
        return 2
    return 1 if spilling or scalar or generic else 0


if __name__ == "__main__":
    sys.exit(main())
