"""The benchmark scripts run on the host; cuDNN's place takes a library that computes with fastarch."""

from __future__ import annotations

import ctypes
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastarch as fa
from conftest import seeded

BENCH = Path(__file__).resolve().parent.parent / "bench"
T, N, H = 5, 3, 4


@pytest.fixture(scope="module", autouse=True)
def bench() -> Iterator[None]:
    """The modules of bench/, importable as when its scripts run."""
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def test_tables_run_on_the_host(monkeypatch, tmp_path, capsys) -> None:
    import memory
    import recurrent
    import run

    monkeypatch.setattr(recurrent, "HOST", [recurrent.Sequence(kind, 3, 2, 4) for kind in ("lstm", "gru")])
    problems = [memory.Normalization(kind, (2, 8, 3, 3)) for kind in ("batch", "response")]
    problems += [memory.Normalization(kind, (2, 3, 3, 8), "NHWC") for kind in ("batch", "response")]
    monkeypatch.setattr(memory, "HOST", problems)
    monkeypatch.setattr(memory, "shapes", lambda: [(3, 2, 1, 1), (5,)])
    path = tmp_path / "out.json"
    arguments = ["--only", "memory", "recurrent", "--device", "host", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    monkeypatch.setattr(run, "compare", lambda *args, **more: run_briefly(run, *args, **more))
    assert run.main() == 0
    rows = json.loads(path.read_text())["results"]
    for problem in recurrent.HOST + problems:
        for direction in ("forward", "forward+backward" if problem in recurrent.HOST else "backward"):
            mine = [row for row in rows if row["problem"] == f"{problem.name} {direction}"]
            assert {row["contender"] for row in mine} >= {"fastarch numpy"}, f"{problem.name} {direction}"
            assert all(row["error"] < 1e-4 for row in mine), mine
    for step in memory.STEPS:
        assert any(row["problem"] == step.name and row["gbytes"] > 0 for row in rows)
    assert "GB/s" in capsys.readouterr().out


def run_briefly(run: Any, *args: Any, **more: Any) -> Any:
    """timing.compare with hardly any rounds."""
    from timing import compare

    suite, name, entries, reference, clock, _, *rest = args
    return compare(suite, name, entries, reference, clock, 1e-4, *rest, **more)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["max", "average", "adaptive"])
def test_pooling_contenders_agree(kind: str, layout: str) -> None:
    import peers
    from timing import relative_error

    problem = peers.Pooling("small", kind, 2, 3, 6, 3 if kind != "adaptive" else 2, 2, 1, layout)
    for direction in ("forward", "backward"):
        contenders, reference = peers.pooling_contenders(problem, direction, peers.Place("host"))
        assert contenders
        for contender in contenders:
            assert relative_error(contender.run(), reference) < 1e-5, f"{contender.name} {direction}"


def test_a_spent_budget_leaves_problems_out(monkeypatch, tmp_path, capsys) -> None:
    import recurrent
    import run

    monkeypatch.setattr(recurrent, "HOST", [recurrent.Sequence("rnn", 2, 2, 3)])
    path = tmp_path / "out.json"
    arguments = ["--only", "recurrent", "--device", "host", "--budget", "-1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 0
    out = json.loads(path.read_text())
    assert out["results"] == []
    assert out["left_out"] == ["rnn T2 N2 H3 forward", "rnn T2 N2 H3 forward+backward"]
    assert "left out after -1 s: 2" in capsys.readouterr().out


def test_a_refusal_is_a_row() -> None:
    from timing import Contender, WallClock, compare, line

    entries = [
        Contender("runs", lambda: np.ones(2)),
        Contender("refuses", lambda: 1 / 0, refused="too large"),
    ]
    rows = compare("suite", "problem", entries, np.ones(2), WallClock(), 1e-4)
    assert [row.contender for row in rows] == ["runs", "refuses"]
    assert "refused: too large" in line(rows[1])
    assert json.loads(json.dumps(rows[1].to_dict()))["median_us"] is None


def test_problems_of_the_device_are_distinct() -> None:
    import recurrent

    names = [problem.name for problem in recurrent.DEVICE]
    assert len(names) == len(set(names))
    assert {problem.dtype for problem in recurrent.DEVICE} == {"float32", "bfloat16", "float16"}


# cuDNN's C API on the host: memory by address, weights gate by gate, gradients added


def at(address: Any, *shape: int) -> np.ndarray:
    """The float32 array at an address."""
    count = int(np.prod(shape))
    memory = (ctypes.c_float * count).from_address(getattr(address, "value", address))
    return np.frombuffer(memory, np.float32).reshape(shape)


class FakeCudnn:
    """Computes with fastarch; its weights lie in the reverse order, with gaps."""

    def __init__(self, kind: str, refuse: str = "") -> None:
        import cudnn_rnn

        self.kind, self.refuse, self.gates = kind, refuse, cudnn_rnn.GATES[kind]
        self.alive: set[int] = set()
        self.numbers = itertools.count(1)
        self.called: list[str] = []
        self.functions = SimpleNamespace(
            cudnnGetErrorString=lambda status: b"CUDNN_STATUS_NOT_SUPPORTED",
            cudnnGetLastErrorString=lambda text, size: setattr(text, "value", b"no such layer"),
        )
        for name in cudnn_rnn.SIGNATURES:
            setattr(self.functions, name, self._function(name, len(cudnn_rnn.SIGNATURES[name])))

    def _function(self, name: str, count: int) -> Any:
        def call(*arguments: Any) -> int:
            assert len(arguments) == count, f"{name} takes {count} arguments"
            self.called.append(name)
            if name == self.refuse:
                return 3000
            if name.startswith("cudnnCreate"):
                arguments[0]._obj.value = next(self.numbers)
                self.alive.add(arguments[0]._obj.value)
            elif name.startswith("cudnnDestroy"):
                self.alive.remove(arguments[0].value)
            elif hasattr(self, name):
                getattr(self, name)(*arguments)
            return 0

        return call

    def cudnnSetRNNDescriptor_v8(self, rnn: Any, algorithm: int, mode: int, *more: Any) -> None:
        assert mode == {"rnn": 1, "lstm": 2, "gru": 3}[self.kind]
        assert more[:3] == (2, 0, 0)  # two biases, one direction, a product with the input
        assert more[3:6] == (0, 0, 3)  # float32 data and sums, no tensor cores
        assert more[6:10] == (H, H, H, 1)
        assert more[11] == 1  # padded input

    def cudnnSetRNNDataDescriptor(self, data: Any, kind: int, layout: int, *more: Any) -> None:
        assert (kind, layout, *more[:3]) == (0, 0, T, N, H)
        assert list(more[3]) == [T] * N

    def cudnnGetRNNTempSpaceSizes(self, handle, rnn, mode, data, work, reserve) -> None:
        work._obj.value, reserve._obj.value = 64, 128 if mode == 1 else 0

    def _slot(self, number: int) -> int:
        """Where gate `number` lies, in floats: its matrix, a gap, its bias."""
        return 16 + (2 * self.gates - 1 - number) * (H * H + H + 3)

    def cudnnGetRNNWeightSpaceSize(self, handle, rnn, size) -> None:
        size._obj.value = 4 * self._slot(-1)

    def cudnnGetRNNWeightParams(self, handle, rnn, layer, size, base, number, *out: Any) -> None:
        assert layer == 0
        self.asked = {out[0].value: H * H, out[2].value: H}
        out[1]._obj.value = base + 4 * self._slot(number)
        out[3]._obj.value = base + 4 * (self._slot(number) + H * H + 1)

    def cudnnGetTensorNdDescriptor(self, tensor, most, kind, count, dims, strides) -> None:
        kind._obj.value, count._obj.value = 0, 3
        dims[:] = (1, self.asked[tensor.value] // H, H)

    def _weights(self, space: Any) -> list[np.ndarray]:
        """Views of w_ih, w_hh, b_ih, b_hh's gates."""
        floats = at(space, self._slot(-1))
        matrices = [floats[s : s + H * H].reshape(H, H) for s in map(self._slot, range(2 * self.gates))]
        biases = [floats[s + H * H + 1 :][:H] for s in map(self._slot, range(2 * self.gates))]
        g = self.gates
        return [matrices[:g], matrices[g:], biases[:g], biases[g:]]  # type: ignore[list-item]

    def _run(self, space: Any) -> tuple[np.ndarray, Any]:
        w = [np.concatenate(parts) for parts in self._weights(space)]
        states = (None, None) if self.kind == "lstm" else (None,)
        with fa.backend("numpy"):
            y, _, saved = getattr(fa.ops, self.kind)(self.x, *states, *w)
        return y, saved

    def cudnnRNNForward(
        self, handle, rnn, mode, lengths, xd, x, yd, y, hd, hx, hy, cd, cx, cy, *spaces
    ) -> None:
        assert (lengths, hx, hy, cx, cy) == (None,) * 5
        assert spaces[5] is not None or mode == 0
        self.x = at(x, T, N, H).copy()
        at(y, T, N, H)[...], self.saved = self._run(spaces[1])

    def cudnnRNNBackwardData_v8(self, *arguments: Any) -> None:
        dy, dx, states = arguments[5], arguments[7], arguments[8:16]
        assert [a for i, a in enumerate(states) if i not in (0, 4)] == [None] * 6
        with fa.backend("numpy"):
            last = (None, None) if self.kind == "lstm" else (None,)
            self.gradients = getattr(fa.ops, f"{self.kind}_backward")(at(dy, T, N, H), *last, self.saved)
        at(dx, T, N, H)[...] = self.gradients.x

    def cudnnRNNBackwardWeights_v8(self, handle, rnn, add, lengths, xd, x, hd, hx, yd, y, *spaces) -> None:
        assert add == 0
        whole = (self.gradients.w_ih, self.gradients.w_hh, self.gradients.b_ih, self.gradients.b_hh)
        for views, whole_gradient in zip(self._weights(spaces[1]), whole, strict=True):
            for gate, view in enumerate(views):
                view += whole_gradient[gate * H : (gate + 1) * H]


def host_memory() -> Any:
    import cudnn_rnn

    return cudnn_rnn.Memory(lambda n: np.zeros(n, np.uint8), np.array, lambda a: a.ctypes.data, 0)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_cudnn_is_called_as_its_header_says(kind: str) -> None:
    import cudnn_rnn

    rng, gates = seeded(f"cudnn {kind}"), cudnn_rnn.GATES[kind]
    x, dy = rng.standard_normal((2, T, N, H)).astype(np.float32)
    shapes = ((gates * H, H), (gates * H, H), (gates * H,), (gates * H,))
    weights = [0.3 * rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    states = (None, None) if kind == "lstm" else (None,)
    with fa.backend("numpy"):
        want, _, saved = getattr(fa.ops, kind)(x, *states, *weights)
        slopes = getattr(fa.ops, f"{kind}_backward")(dy, *states, saved)
    fake = FakeCudnn(kind)
    library = cudnn_rnn.Library(fake.functions)
    layer = cudnn_rnn.Layer(
        library, host_memory(), kind, x.dtype, x.shape, "dynamic", "float32", weights, True
    )
    assert "cudnnBuildRNNDynamic" in fake.called
    buffers = np.full_like(x, np.nan), np.full_like(x, np.nan)
    y = cudnn_rnn.pass_of(layer, "forward", x, dy, buffers, np.asarray)()
    np.testing.assert_allclose(y, want, rtol=1e-6, atol=1e-6)
    both = cudnn_rnn.pass_of(layer, "forward+backward", x, dy, buffers, np.asarray)
    both()  # a second pass starts from zero gradients again
    np.testing.assert_allclose(both().get(), slopes.w_hh, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(buffers[1], slopes.x, rtol=1e-6, atol=1e-6)
    assert fake.alive
    layer.close()
    assert not fake.alive


@pytest.mark.parametrize(
    "function", ["cudnnSetRNNDescriptor_v8", "cudnnGetRNNTempSpaceSizes", "cudnnRNNForward"]
)
def test_what_cudnn_refuses_is_said_in_its_words(function: str) -> None:
    import cudnn_rnn

    fake = FakeCudnn("lstm", refuse=function)
    weights = [np.zeros(shape, np.float32) for shape in ((4 * H, H), (4 * H, H), (4 * H,), (4 * H,))]
    x = np.zeros((T, N, H), np.float32)

    def attempt() -> None:
        library = cudnn_rnn.Library(fake.functions)
        layer = cudnn_rnn.Layer(
            library, host_memory(), "lstm", x.dtype, x.shape, "static", "float32", weights, False
        )
        try:
            layer.forward(x, x.copy())
        finally:
            layer.close()

    with pytest.raises(cudnn_rnn.Unsupported, match=f"{function}: CUDNN_STATUS_NOT_SUPPORTED: no such layer"):
        attempt()
    assert not fake.alive, "objects of a layer that was refused"


def test_ways_have_distinct_names() -> None:
    import cudnn_rnn

    for dtype in ("float32", "bfloat16"):
        names = [cudnn_rnn.name_of(*way) for way in cudnn_rnn.ways(dtype, "forward")]
        assert len(names) == len(set(names)) == (16 if dtype == "float32" else 8)
