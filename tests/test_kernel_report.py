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


SASS = """\
	.section	.nv.info._Z5cleanPf,"",@"SHT_CUDA_INFO"
	.sectionflags	@""
	//----- nvinfo : EIATTR_MAX_THREADS
	.align		4
        /*0098*/ 	.byte	0x04, 0x05
.L_318:
        /*009c*/ 	.word	0x00000040
        /*00a0*/ 	.word	0x00000002
        /*00a4*/ 	.word	0x00000001
	//----- nvinfo : EIATTR_CRS_STACK_SIZE
        /*00a8*/ 	.word	0x00000007
	.section	.text._Z5cleanPf,"ax",@progbits
        /*10c0*/                   LDG.E.64 R10, desc[UR6][R10.64] ;
        /*10d0*/              @!P0 LDG.E.128 R18, desc[UR6][R18.64] ;
        /*10e0*/                   LDS.128 R4, [R8] ;
        /*10f0*/                   LDSM.16.M88.4 R4, [R8] ;
        /*1100*/              @!UP0 LDS R4, [R8] ;
        /*1110*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
        /*1120*/                   FFMA R4, R8, R12, R4 ;
"""


@pytest.fixture(scope="module")
def report():
    sys.path.insert(0, str(TOOL.parent))  # as when it runs
    spec = importlib.util.spec_from_file_location("kernel_report", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_report"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kernel_report"]
    sys.path.remove(str(TOOL.parent))


@pytest.fixture
def nvcc(tmp_path):
    """Writes a stand-in for nvcc that prints `log` and exits with `code`; returns the arguments for it."""

    def write(log, code=0, sass=None):
        (tmp_path / "log").write_text(log)
        (tmp_path / "sass").write_text(sass or "")
        for name, line in (("nvcc", f"cat '{tmp_path}/log' >&2"), ("nvdisasm", f"cat '{tmp_path}/sass'")):
            script = tmp_path / name
            script.write_text(f"#!/bin/sh\n{line}\nexit {code}\n")
            script.chmod(0o755)
        disassembler = str(tmp_path / "nvdisasm") if sass else "no-such-disassembler"
        tools = ["--nvcc", str(tmp_path / "nvcc"), "--nvdisasm", disassembler]
        return [*tools, "--arch", "90", str(tmp_path / "kernel.cu")]

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


def test_machine_code_is_looked_into(report, nvcc, capsys):
    assert report.main([*nvcc(LOG, sass=SASS), "--json"]) == 0
    (kernel,) = json.loads(capsys.readouterr().out)["kernels"]
    assert kernel["threads"] == 128
    assert kernel["global_loads"] == [1, 2]
    assert kernel["shared_loads"] == [2, 3]
    assert kernel["tensor"] == 1
    assert kernel["occupancy"] == 1.0  # 31 registers: 16 blocks of 4 warps
    assert report.main(nvcc(LOG, sass=SASS)) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-7:] == ["128", "100", "%", "1/2", "2/3", "0", "1"]


def test_without_a_disassembler_the_report_says_so(report, nvcc, capsys):
    assert report.main(nvcc(LOG)) == 0
    printed = capsys.readouterr()
    assert "no-such-disassembler" in printed.err
    assert "occupancy" not in printed.out


def test_a_tensor_core_kernel_without_tensor_cores_fails(report, nvcc, capsys):
    renamed = [text.replace("_Z5cleanPf", "_Z10mma_kernelPf") for text in (LOG, SASS)]
    assert report.main(nvcc(renamed[0], sass=renamed[1])) == 0
    assert report.main(nvcc(renamed[0], sass=renamed[1].replace("HMMA", "FMUL"))) == 1
    assert "mma_kernel has no tensor-core instruction" in capsys.readouterr().err
    older = renamed[0].replace("sm_90", "sm_75")  # which never starts it
    assert report.main(nvcc(older, sass=renamed[1].replace("HMMA", "FMUL"))) == 0


def test_a_kernel_that_does_not_know_its_memory_fails(report, nvcc, capsys):
    vague = SASS.replace("LDG.E.64", "LD.E.64")
    assert report.main(nvcc(LOG, sass=vague)) == 1
    assert "clean has 1 moves of generic memory on sm_90" in capsys.readouterr().err
    assert report.main(nvcc(LOG.replace("sm_90", "sm_120"), sass=vague)) == 0
    barrier = [text.replace("_Z5cleanPf", "_Z15persistent_stepPf") for text in (LOG, vague)]
    assert report.main(nvcc(barrier[0], sass=barrier[1])) == 0


def test_a_tensor_core_kernel_for_clusters_is_judged_where_there_are_clusters(report, nvcc, capsys):
    log, sass = (text.replace("_Z5cleanPf", "_Z18cluster_mma_kernelPf") for text in (LOG, SASS))
    scalar = sass.replace("HMMA", "FMUL")
    assert report.main(nvcc(log.replace("sm_90", "sm_80"), sass=scalar)) == 0
    assert report.main(nvcc(log, sass=scalar)) == 1
    assert "cluster_mma_kernel has no tensor-core instruction on sm_90" in capsys.readouterr().err


def test_a_kernel_for_wgmma_without_it_fails_where_it_exists(report, nvcc, capsys):
    log, sass = (text.replace("_Z5cleanPf", "_Z12wgmma_kernelPf") for text in (LOG, SASS))
    there = log.replace("sm_90", "sm_90a")
    assert report.main(nvcc(there, sass=sass)) == 1  # HMMA is not what it is for
    assert "wgmma_kernel has no tensor-core instruction on sm_90a" in capsys.readouterr().err
    assert report.main(nvcc(there, sass=sass.replace("HMMA.16816", "HGMMA.64x256x16"))) == 0
    assert report.main(nvcc(log, sass=sass.replace("HMMA", "FMUL"))) == 0  # a trap, never started


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "share"),
    [
        ("90", 256, 32, 0, 1.0),
        ("90", 256, 33, 0, 0.75),  # 40 registers are given: 6 blocks
        ("90", 256, 255, 0, 0.125),
        ("90", 128, 32, 100_000, 0.125),  # two blocks fit
        ("75", 256, 32, 0, 1.0),
        ("75", 64, 16, 0, 1.0),  # 16 blocks of 2 warps
        ("86", 1024, 32, 0, 32 / 48),
        ("120", 32, 16, 0, 0.5),  # 24 blocks
    ],
)
def test_occupancy(report, arch, threads, registers, shared, share):
    assert report.disassembly.occupancy(arch, threads, registers, shared) == share


def test_occupancy_of_an_unknown_architecture(report):
    assert report.disassembly.occupancy("999", 256, 32, 0) is None


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
