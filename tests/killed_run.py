"""A small training run in a process of its own, killed where its second argument says: RUN_DIR [POINT].

POINT is step:<n> (after n steps), write:<n> (the n-th atomic file half-written), before:<n> or after:<n> (the
n-th file written but not yet named, or just named), metrics:<n> (the n-th epoch recorded, its checkpoint not
yet begun), slow (each step takes a moment, for a signal from outside). The run resumes what it finds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np

import fastarch as fa
from fastarch import nn, optim
from fastarch.data import augment
from fastarch.train.folder import RunFolder

SAMPLES, BATCH, EPOCHS = 150, 32, 3  # 5 steps an epoch, the last with 22 samples


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(run_dir: str, seed: int = 0, callbacks=(), epochs: int = EPOCHS, **changes) -> fa.train.History:
    """Everything that has a state is in it: dropout, Adam, a schedule, augmentation, early stopping."""
    digits = fa.data.digits()
    fa.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, activation="relu"),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(36, 10),
    )
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    settings = {
        "epochs": epochs,
        "batch_size": BATCH,
        "optimizer": optimizer,
        "schedule": optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * 5),
        "schedule_every": "step",
        "seed": seed,
        "run_dir": run_dir,
        "resume": True,
        "early_stopping": 2,
        "checkpoint_every": 2,
        "clip_norm": 5.0,
        "augment": augment.preset("digits"),
        "progress": False,
        "pictures": False,
        "callbacks": callbacks,
    }
    return fa.train.fit(
        model,
        digits.subset(np.arange(SAMPLES)),
        digits.subset(np.arange(SAMPLES, 200)),
        test=digits.subset(np.arange(200, 260)),
        **{**settings, **changes},
    )


def plant(point: str) -> list:
    """Prepares the death at `point`; returns the callbacks that it needs."""
    kind, _, number = point.partition(":")
    nth, calls = int(number or 0), count(1)
    replace = os.replace

    def dying_replace(source, target) -> None:
        now = next(calls) == nth
        if now and kind == "write":
            half = Path(source).read_bytes()
            Path(source).write_bytes(half[: len(half) // 2])
        if now and kind in ("write", "before"):
            die()
        replace(source, target)
        if now:
            die()

    if kind == "step":
        return [lambda step: die() if next(calls) == nth else None]
    if kind == "slow":
        return [lambda step: (print(step.epoch, step.step, flush=True), time.sleep(0.1))]
    if kind == "metrics":
        append = RunFolder.append_metrics

        def dying_append(self, record) -> None:
            append(self, record)
            if next(calls) == nth:
                with open(self / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write('{"epoch": 99, "lo')  # and half a line of what comes next
                die()

        RunFolder.append_metrics = dying_append
    else:
        assert kind in ("write", "before", "after"), point
        os.replace = dying_replace
    return []


if __name__ == "__main__":
    points = sys.argv[2:]
    try:
        history = run(sys.argv[1], callbacks=plant(points[0]) if points else ())
    except fa.train.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signal)
    print(history.summary["test_accuracy"])
