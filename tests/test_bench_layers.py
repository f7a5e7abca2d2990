"""The layer tables of the benchmarks against the networks' published parameter counts, and their floors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture(scope="module")
def bench():
    """The modules of bench/, importable as when its scripts run."""
    sys.path.insert(0, str(BENCH))
    import layers
    import roofline

    yield layers, roofline
    sys.path.remove(str(BENCH))


# Weights of all convolutions: the network's parameters less its linear layers, biases and batch norms.
WEIGHTS = {
    "lenet5": 2_550,
    "alexnet": 61_100_840 - 58_631_144 - 1_152,
    "vgg16": 138_357_544 - 123_642_856 - 4_224,
    "googlenet": 6_998_552 - 1_025_000 - 7_280,
    "resnet50": 25_557_032 - 2_049_000 - 53_120,
    "mobilenet": 9 * 4_960,
}


@pytest.mark.parametrize("network", WEIGHTS)
def test_weights_add_up(bench, network):
    layers, _ = bench
    assert set(layers.NETWORKS) == set(WEIGHTS)
    shapes = layers.layers(network, 1)
    assert sum(m * p.k * (p.c // p.groups) * p.r**2 for p, m in shapes) == WEIGHTS[network]


def test_names_are_distinct(bench):
    layers, _ = bench
    names = [p.name for network in layers.NETWORKS for p, _ in layers.layers(network, 8)]
    assert len(set(names)) == len(names)


def test_floor_by_hand(bench):
    layers, roofline = bench
    p = next(p for p, _ in layers.layers("vgg16", 2) if (p.c, p.k) == (64, 128))
    device = roofline.Device("toy", {"fp32": 1e12}, 1e9)
    assert p.flops == 2 * 2 * 112 * 112 * 128 * 64 * 9
    assert roofline.least_bytes(p, 4) == 4 * (2 * 64 * 112**2 + 128 * 64 * 9 + 2 * 128 * 112**2)
    assert roofline.floor(p, device, "fp32") == (roofline.least_bytes(p, 4) / 1e9, "memory")
    fast = roofline.Device("toy", {"fp32": 1e9}, 1e12)
    assert roofline.floor(p, fast, "fp32") == (p.flops / 1e9, "arithmetic")


def test_plans_are_reported(tmp_path):
    """The program for a GPU goes through its motions on the emulator."""
    pytest.importorskip("fastarch._emulator", reason="_emulator is not in this build")
    out = tmp_path / "plans.json"
    options = ["--emulator", "--networks", "--precisions", "float32", "float16", "--json", str(out)]
    command = [sys.executable, str(BENCH / "plans.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    plans = json.loads(out.read_text())["plans"]
    assert len(plans) == len(done.stdout.splitlines()) == 6
    for plan in plans:
        assert plan["microseconds"] == min(trial["microseconds"] for trial in plan["trials"])
        assert {"tile", "slices", "model_cycles"} < set(plan["trials"][0])


@pytest.mark.parametrize("script", ["run", "plans"])
def test_what_was_measured_before_sigterm_is_kept(script, tmp_path):
    """As sent by `timeout`: the program ends with its status, and writes what it has."""
    out = tmp_path / "made" / "out.json"
    options = ["--only", "pool2d", "--device", "host", "--quick"]
    if script == "plans":
        pytest.importorskip("fastarch._emulator", reason="_emulator is not in this build")
        options = ["--emulator", "--networks", "--precisions", *["float32"] * 1000]
    command = [sys.executable, "-u", str(BENCH / f"{script}.py"), *options, "--json", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for _ in range(4):  # run: a header, and rows
            assert program.stdout.readline()
        program.terminate()
        program.communicate(timeout=60)
    assert program.returncode == 124
    kept = json.loads(out.read_text())
    assert kept["environment"]
    assert kept["results" if script == "run" else "plans"]


def test_references_of_a_device_are_pytorch_s(bench):
    """On the host in place of a device: in double precision, of the shape that the contenders have."""
    torch = pytest.importorskip("torch")
    import max_pooled
    import peers
    from timing import relative_error

    class Pretended(peers.Place):
        backends = ("numpy",)

        def native(self, array):
            return array

        def tensor(self, array):
            return torch.from_numpy(array)

    made = [
        max_pooled.contenders_of(peers.Convolution("small", 2, 3, 9, 4, 3, 1, 1), passed, Pretended("cuda"))
        for passed in max_pooled.PASSES
    ]
    for kind in ("max", "average", "adaptive"):
        for layout in ("NCHW", "NHWC"):
            problem = peers.Pooling("small", kind, 2, 3, 6, 3 if kind != "adaptive" else 2, 2, 1, layout)
            made += [
                peers.pooling_contenders(problem, passed, Pretended("cuda"))
                for passed in ("forward", "backward")
            ]
    for contenders, reference in made:
        assert reference.dtype == "float64"
        for contender in contenders:
            assert relative_error(contender.run(), reference) < 1e-5, contender.name


def test_nobody_knows_whether_a_tree_without_git_is_clean(bench, monkeypatch):
    import timing

    monkeypatch.setattr(timing, "_output", lambda command: None)
    assert timing.environment()["clean"] is None
    monkeypatch.setattr(timing, "_output", lambda command: "")
    assert timing.environment()["clean"] is True
