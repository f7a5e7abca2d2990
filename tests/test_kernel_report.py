"""tools/kernel_report.py on what ptxas prints, with a stand-in for the compiler."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "kernel_report.py"

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5cleanPf' for 'sm_90'
ptxas info    : Function properties for _Z5cleanPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 31 registers, used 1 barriers, 512 bytes smem
ptxas info    : Compile time = 3.1 ms
"""
SPILL = """\
ptxas info    : Compiling entry function '_Z7crowdedPf' for 'sm_90'
ptxas info    : Function properties for _Z7crowdedPf
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("kernel_report", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_report"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kernel_report"]


@pytest.fixture
def nvcc(tmp_path):
    """Writes a stand-in for nvcc that prints `log` and exits with `code`; returns the arguments for it."""

    def write(log, code=0):
        (tmp_path / "log").write_text(log)
        script = tmp_path / "nvcc"
        script.write_text(f"#!/bin/sh\ncat '{tmp_path}/log' >&2\nexit {code}\n")
        script.chmod(0o755)
        return ["--nvcc", str(script), "--arch", "90", str(tmp_path / "kernel.cu")]

    return write


def test_parses_registers_shared_memory_and_spills(report):
    clean, crowded = report.parse("a.cu", LOG + SPILL)
    assert (clean.name, clean.arch, clean.registers, clean.shared) == ("_Z5cleanPf", "90", 31, 512)
    assert not clean.spills
    assert (crowded.registers, crowded.stack, crowded.spill_stores, crowded.spill_loads) == (255, 16, 12, 8)
    assert crowded.spills


def test_clean_kernels_pass(report, nvcc, capsys):
    assert report.main([*nvcc(LOG), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spilling"] == 0
    assert [kernel["registers"] for kernel in found["kernels"]] == [31]


def test_a_spill_fails_and_names_the_kernel(report, nvcc, capsys):
    assert report.main(nvcc(LOG + SPILL)) == 1
    printed = capsys.readouterr()
    assert "crowded" in printed.err
    assert "12 of stores" in printed.err
    assert "clean" not in printed.err
    assert len(printed.out.splitlines()) == 3


def test_a_compiler_error_is_passed_on(report, nvcc, capsys):
    assert report.main(nvcc("kernel.cu(3): error: expected a ';'", code=1)) == 2
    assert "expected a ';'" in capsys.readouterr().err


def test_a_missing_compiler_is_named(report, capsys):
    assert report.main(["--nvcc", "no-such-compiler"]) == 2
    assert "no-such-compiler" in capsys.readouterr().err
