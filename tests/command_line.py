"""Running commands in tests: in this process or in one of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import fastarch as fa
from fastarch.cli import main


def command(*arguments, cwd=None, **environment):
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastarch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(fa.__file__).parents[1]), **environment},
        # A shell's background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments, **more):
    process = command(*arguments, **more)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def fails(capsys, *arguments, code=2):
    """Runs a command that must fail with one line on standard error and nothing else; returns the line."""
    assert main(list(map(str, arguments))) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("epoch ")]
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("fastarch: ")
    return lines[0]


def save_small_data(path):
    """Writes 300 of the digits to an .npz file."""
    digits = fa.data.digits()
    np.savez(path, x=digits.x[:300], y=digits.y[:300])


def train_small(data, folder):
    """A finished run on them, good enough to predict."""
    options = ["--epochs", "12", "--batch-size", "16", "--run-dir", str(folder), "--quiet", "--no-plots"]
    assert main(["train", "lenet5", str(data), *options]) == 0
