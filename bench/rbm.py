"""Restricted Boltzmann machines beside their peers: an epoch on digits against scikit-learn's BernoulliRBM,
and one step of CD-k at a size people use against the same composed of PyTorch's operations.

scikit-learn trains by persistent chains of one step, so fastarch does too; its operators and its estimator
are measured, on the same rows in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import peers
from timing import Contender, WallClock, compare

import fastarch as fa

try:
    from sklearn.neural_network import BernoulliRBM
except ImportError:
    BernoulliRBM = None  # the peer is left out; the table then has no ratios

HIDDEN = 256
BATCHES = (10, 100)
RATE = 0.05


@dataclass(frozen=True)
class Step:
    """CD-k on a batch [B, V] with H hidden units."""

    name: str
    batch: int
    visible: int
    hidden: int
    k: int = 1

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.visible * self.hidden * (2 * self.k + 3)


STEPS = [Step("CD-1 784x512 B128", 128, 784, 512), Step("CD-10 784x512 B128", 128, 784, 512, 10)]


def digits() -> np.ndarray:
    x = fa.data.digits().x
    return np.ascontiguousarray(x.reshape(len(x), -1), np.float32)


def machine(visible: int, hidden: int, xp: Any = np) -> tuple[list[Any], list[Any]]:
    """Parameters as they start, and velocities."""
    rng = np.random.default_rng(0)
    shapes = ((visible, hidden), (visible,), (hidden,))
    parameters = [xp.asarray((0.01 * rng.standard_normal(shape)).astype(np.float32)) for shape in shapes]
    return parameters, [xp.zeros_like(x) for x in parameters]


def epoch(backend: str, batches: list[np.ndarray]) -> Callable[[], np.ndarray]:
    """One epoch of the operators, from the start; returns the weights."""

    def run() -> np.ndarray:
        parameters, velocities = machine(batches[0].shape[1], HIDDEN)
        chain = np.zeros_like(batches[0])
        with fa.backend(backend):
            for i, v in enumerate(batches):
                h0, chain, hk = fa.ops.rbm_phases(v, *parameters, 1, 0, i, chain)
                fa.ops.rbm_update(v, h0, chain, hk, *parameters, *velocities, RATE)
        return parameters[0]

    return run


def estimator(backend: str, x: np.ndarray, batch: int) -> Callable[[], Any]:
    """One epoch of fa.estimators.RBM."""
    options = {"persistent": True, "learning_rate": RATE, "momentum": 0.0, "batch_size": batch}

    def run() -> Any:
        with fa.backend(backend):
            return fa.estimators.RBM(HIDDEN, n_epochs=1, random_state=0, **options).fit(x)

    return run


def rows_of(step: Step) -> np.ndarray:
    """A batch of random bits."""
    return (np.random.default_rng(1).random((step.batch, step.visible)) < 0.5).astype(np.float32)


def cd_step(backend: str, step: Step) -> Callable[[], Any]:
    """One step of CD-k, all of it: both phases and the update."""
    xp: Any = np
    if backend == "cuda":
        import cupy as xp
    v = xp.asarray(rows_of(step))
    parameters, velocities = machine(step.visible, step.hidden, xp)
    offsets = iter(range(2**62))

    def run() -> Any:
        with fa.backend(backend):
            h0, vk, hk = fa.ops.rbm_phases(v, *parameters, step.k, 0, next(offsets))
            fa.ops.rbm_update(v, h0, vk, hk, *parameters, *velocities, RATE, 0.5)
        return parameters[0]

    return run


def torch_step(device: str, step: Step) -> Callable[[], Any]:
    """The same by PyTorch's operations."""
    torch = peers.torch
    v = torch.from_numpy(
        (np.random.default_rng(1).random((step.batch, step.visible)) < 0.5).astype("float32")
    )
    v = v.to(device)
    (w, bv, bh), (vw, vbv, vbh) = (
        [torch.from_numpy(x).to(device) for x in part] for part in machine(step.visible, step.hidden)
    )

    def run() -> Any:
        h0 = h = torch.sigmoid(torch.addmm(bh, v, w))
        for _ in range(step.k):
            vk = torch.bernoulli(torch.sigmoid(torch.addmm(bv, torch.bernoulli(h), w.t())))
            h = torch.sigmoid(torch.addmm(bh, vk, w))
        dw = torch.addmm(v.t() @ h0, vk.t(), h, alpha=-1)
        for x, velocity, gradient in ((w, vw, dw), (bv, vbv, (v - vk).sum(0)), (bh, vbh, (h0 - h).sum(0))):
            velocity.mul_(0.5).add_(gradient, alpha=RATE / step.batch)
            x.add_(velocity)
        return w

    return run


def measure(place: peers.Place, clock: Any, seconds: float, quick: bool) -> list[Any]:
    """Epochs, which are the host's, and single steps where the arrays of `place` lie."""
    results = []
    if place.device == "host":
        x = digits()
        for batch in BATCHES[:1] if quick else BATCHES:
            batches = [x[i : i + batch] for i in range(0, len(x), batch)]
            contenders = []
            for backend in place.backends:
                if backend != "emulator":
                    contenders += [
                        Contender(f"fastarch {backend}", epoch(backend, batches)),
                        Contender(f"RBM().fit {backend}", estimator(backend, x, batch)),
                    ]
            if BernoulliRBM is not None:
                peer = BernoulliRBM(HIDDEN, learning_rate=RATE, batch_size=batch, n_iter=1, random_state=0)
                contenders.append(Contender("scikit-learn", lambda peer=peer: peer.fit(x), peer=True))
            name = f"epoch of digits 64x{HIDDEN} B{batch}"
            results += compare("rbm", name, contenders, None, WallClock(), seconds)
    for step in STEPS[:1] if quick else STEPS:
        contenders = [Contender(f"fastarch {name}", cd_step(name, step)) for name in place.backends]
        if peers.torch is not None:
            device = "cuda" if place.device == "cuda" else "cpu"
            contenders.append(Contender(f"torch {device}", torch_step(device, step), peer=True))
        results += compare("rbm", step.name, contenders, None, clock, seconds, step.flops)
    return results
