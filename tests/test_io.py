"""Weights and checkpoints: what comes back is what went in, and no file is ever half-written."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastarch as fa
from fastarch import io


class TinyModel:
    """The part of a Module that saving and loading use."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.arrays = {
            "fc.weight": random.standard_normal((3, 4)).astype(np.float32),
            "fc.bias": random.standard_normal(3).astype(np.float32),
        }

    def state_dict(self) -> dict[str, np.ndarray]:
        return dict(self.arrays)

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        self.arrays = {name: array.copy() for name, array in state.items()}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model, other = TinyModel(0), TinyModel(1)
    fa.save(model, tmp_path / "m.safetensors", metadata={"model": "tiny"})
    assert fa.load(other, tmp_path / "m.safetensors") is other
    assert all(same_bits(model.arrays[name], other.arrays[name]) for name in model.arrays)
    state = fa.load(tmp_path / "m.safetensors")
    assert set(state) == set(model.arrays)
    assert io.load_metadata(tmp_path / "m.safetensors") == {"model": "tiny"}


def test_torch_safetensors_reads_what_was_saved(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from safetensors.torch import load_file

    model = TinyModel(0)
    fa.save(model, tmp_path / "m.safetensors")
    read = load_file(tmp_path / "m.safetensors")
    assert set(read) == set(model.arrays)
    assert all(same_bits(tensor.numpy(), model.arrays[name]) for name, tensor in read.items())


ARRAYS = {
    "scalar": np.array(2.5),
    "python int": 7,
    "numpy scalar": np.float32(1.25),
    "empty": np.zeros((0, 3), np.float32),
    "strided": np.arange(24.0).reshape(4, 6)[::2, ::-1],
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(5, dtype=">i4"),
    "read-only": np.broadcast_to(np.float32(3.0), (2, 2)),
    "special": np.array([np.nan, -0.0, np.inf, 5e-324]),
    "payload": np.array([0x7FC12345, 0xFFC00001], np.uint32).view(np.float32),
    "half": np.array([1.5], np.float16),
    "bool": np.array([True, False]),
    **{
        name: np.array([np.iinfo(name).min, np.iinfo(name).max], name)
        for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
    },
}


def test_checkpoint_is_bit_exact(tmp_path: Path) -> None:
    meta = {"step": 3, "random": {"seed": 2**64 - 1}, "text": 'naïve "quoted"\n', "list": [1.5, None, True]}
    io.save_checkpoint(tmp_path / "c", ARRAYS, meta)
    arrays, read = io.load_checkpoint(tmp_path / "c")
    assert read == meta
    assert set(arrays) == set(ARRAYS)
    for name, wanted in ARRAYS.items():
        native = np.asarray(wanted)
        assert same_bits(arrays[name], native.astype(native.dtype.newbyteorder("="))), name


def test_checkpoint_may_hold_nothing(tmp_path: Path) -> None:
    io.save_checkpoint(tmp_path / "c", {}, {})
    assert io.load_checkpoint(tmp_path / "c") == ({}, {})


@pytest.mark.parametrize(
    "value",
    [np.array(["text"]), np.array([None]), np.array([1j]), np.zeros(2, np.longdouble), "text", object()],
)
def test_what_is_not_an_array_of_numbers_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(
        TypeError, match=r"\[save\] 'bad' has dtype .*, expected floats, integers or booleans"
    ):
        fa.save({"good": np.zeros(3), "bad": value}, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_wrong_metadata_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"metadata\['epoch'\] is int, expected text"):
        fa.save({}, tmp_path / "m", metadata={"epoch": 3})  # type: ignore[dict-item]
    for name in (3, "__metadata__"):
        with pytest.raises(TypeError, match=f"name is {name!r}, expected other text"):
            fa.save({name: np.zeros(1)}, tmp_path / "m")
    with pytest.raises(TypeError, match="JSON serializable"):
        io.save_checkpoint(tmp_path / "m", {}, {"bad": object()})
    assert os.listdir(tmp_path) == []


def test_wrong_names_and_shapes_leave_the_model_unchanged(tmp_path: Path) -> None:
    path, model = tmp_path / "m", TinyModel(0)
    before = dict(model.arrays)
    fa.save({"fc.weight": np.ones((3, 4)), "head.bias": np.ones(3)}, path)
    with pytest.raises(
        ValueError, match=r"m lacks 'fc.bias' and has 'head.bias' that the model does not have$"
    ):
        fa.load(model, path)
    fa.save({"fc.weight": np.ones((4, 3)), "fc.bias": np.ones(3)}, path)
    with pytest.raises(ValueError, match=r"'fc.weight' has shape \(4, 3\), the model expects \(3, 4\)$"):
        fa.load(model, path)
    fa.save({f"w{i}": np.ones(1) for i in range(9)} | before, path)
    with pytest.raises(ValueError, match=r"has 'w0', 'w1', 'w2', 'w3' and 5 more that the model"):
        fa.load(model, path)
    assert all(model.arrays[name] is before[name] for name in before)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        fa.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="is a folder, expected a safetensors file"):
        fa.load(tmp_path)
    with pytest.raises(TypeError, match="got TinyModel, expected a path"):
        fa.load(TinyModel(0))  # type: ignore[call-overload]
    with pytest.raises(IsADirectoryError, match="a folder, expected the name of a file"):
        fa.save({}, tmp_path)
    with pytest.raises(FileNotFoundError):
        fa.save({}, tmp_path / "no" / "folder")


def test_a_file_cut_or_changed_anywhere_gives_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m"
    fa.save({"a": np.arange(3.0), "b": np.array(1)}, path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"\[load\] .*m is (damaged|empty)[^\n]*$"):
            fa.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        fa.load(path)
    for position in range(len(whole)):  # a changed byte may still be a file; it is never another error
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        with contextlib.suppress(ValueError):
            fa.load(path)


def test_weights_are_no_checkpoint_and_8_bit_floats_are_named(tmp_path: Path) -> None:
    fa.save({"a": np.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="holds weights only, expected a checkpoint"):
        io.load_checkpoint(tmp_path / "weights")
    fa.save({"a": np.zeros(1)}, tmp_path / "odd", metadata={"fastarch.checkpoint": "{"})
    with pytest.raises(ValueError, match="not JSON"):
        io.load_checkpoint(tmp_path / "odd")
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "f8").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="'a' is stored as F8_E4M3, which NumPy lacks"):
        fa.load(tmp_path / "f8")


def test_atomic_write_keeps_the_old_file_when_the_body_raises(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with io.atomic_write(path, "w") as file:
        file.write("ä old")
    assert path.read_text("utf-8") == "ä old"

    def interrupted() -> None:
        with io.atomic_write(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text("utf-8") == "ä old"
    assert os.listdir(tmp_path) == ["config.json"]
    with pytest.raises(ValueError, match="mode is 'r'"), io.atomic_write(path, "r"):
        pass


def test_atomic_write_follows_a_link_and_the_umask(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with io.atomic_write(tmp_path / "link", "w") as file:
        file.write("through")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "through"
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "real").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_leftovers_of_dead_processes_go_and_others_stay(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / f".m.{io._host()}-{child.pid}-0.tmp"
    alive = tmp_path / f".m.{io._host()}-{os.getppid()}-0.tmp"
    elsewhere = tmp_path / f".m.other-{child.pid}-0.tmp"
    for file in (dead, alive, elsewhere):
        file.touch()
    fa.save({}, tmp_path / "m")
    assert sorted(os.listdir(tmp_path)) == sorted([alive.name, elsewhere.name, "m"])


SAVE_FOREVER = """
import sys
import numpy as np
from fastarch import io
step = 0
while True:
    step += 1
    io.save_checkpoint(sys.argv[1], {"a": np.full(200_000, step), "b": np.full(7, step)}, {"step": step})
    if step == 1:
        print("ready", flush=True)
"""


def test_a_killed_writer_never_leaves_a_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    random = np.random.default_rng(0)
    interrupted = 0
    for _ in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, path], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(float(random.uniform(0, 0.05)))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        interrupted += len(os.listdir(tmp_path)) > 1  # killed before the temporary file got its name
        arrays, meta = io.load_checkpoint(path)
        assert all((array == meta["step"]).all() for array in arrays.values())
    assert interrupted > 0
    io.save_checkpoint(path, {}, {})
    assert os.listdir(tmp_path) == ["checkpoint"]
