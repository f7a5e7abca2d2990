"""The folder of one training run: what it was asked, what happened, and what came out."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastarch import __version__, io
from fastarch.train import checkpoint

CONFIG, METRICS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"


class RunFolder:
    """Reads and writes one run's folder; every file is replaced as a whole, so none is ever half-written."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def new(cls, parent: str | os.PathLike[str], name: str) -> RunFolder:
        """Makes `parent`/`name`-<n> with the next free number; two runs started at once get two folders."""
        parent = Path(parent)
        parent.mkdir(parents=True, exist_ok=True)
        stem = cls._stem(name)
        number = max(cls._numbers(parent, stem), default=0) + 1
        while True:
            try:
                (parent / f"{stem}-{number}").mkdir()
            except FileExistsError:
                number += 1
            else:
                return cls(parent / f"{stem}-{number}")

    @classmethod
    def latest(cls, parent: str | os.PathLike[str], name: str | None) -> RunFolder:
        """The run in `parent` that wrote last, among those called `name`-<n> where a name is given.

        Raises FileNotFoundError when there is none.
        """
        parent = Path(parent)
        folders = (
            [entry for entry in parent.iterdir() if (entry / CONFIG).is_file()] if parent.is_dir() else []
        )
        if name is not None:
            pattern = re.compile(re.escape(cls._stem(name)) + r"-\d+")
            folders = [entry for entry in folders if pattern.fullmatch(entry.name)]
        if not folders:
            of = f" of {name}" if name else ""
            raise FileNotFoundError(f"[train] there is no run{of} in {parent}{os.sep} to resume")
        return cls(max(folders, key=lambda entry: max(file.stat().st_mtime_ns for file in entry.iterdir())))

    @staticmethod
    def _stem(name: str) -> str:
        """`name` without what a shell or a file system may stumble over."""
        return re.sub(r"[^\w.-]+", "-", name).strip("-") or "run"

    @staticmethod
    def _numbers(parent: Path, stem: str) -> list[int]:
        pattern = re.compile(re.escape(stem) + r"-(\d+)")
        return [int(match[1]) for entry in os.scandir(parent) if (match := pattern.fullmatch(entry.name))]

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self / CONFIG).is_file()

    def begin(self, config: Mapping[str, Any]) -> None:
        """Starts a run here. Raises FileExistsError when the folder holds one already."""
        if self.exists():
            raise FileExistsError(
                f"[train] {self.path} holds a run already; resume it or name another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json(CONFIG, config)

    def abandon(self) -> None:
        """Takes back what `begin` wrote, when nothing came of the run; other files in the folder stay."""
        (self / CONFIG).unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def read_config(self) -> dict[str, Any]:
        """What the run was asked to do. Raises FileNotFoundError or ValueError, each saying what is wrong."""
        if not self.exists():
            what = "is no run folder (it has no config.json)" if self.path.is_dir() else "does not exist"
            raise FileNotFoundError(f"[train] {self.path} {what}")
        return self.read_json(CONFIG)

    def read_summary(self) -> dict[str, Any] | None:
        """The final figures, or None while the run has not finished."""
        return self.read_json(SUMMARY) if (self / SUMMARY).is_file() else None

    def read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self / name).read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"[train] {self / name} is not JSON ({error})") from None
        if not isinstance(content, dict):
            raise ValueError(f"[train] {self / name} holds {type(content).__name__}, expected an object")
        return content

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        with io.atomic_write(self / name, "w") as file:
            file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        with open(self / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def rewrite_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Makes metrics.jsonl say what the checkpoint knows; a killed run may have written further."""
        with io.atomic_write(self / METRICS, "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        checkpoint.save(self / CHECKPOINT, state)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state of the run, or None when it was stopped before its first checkpoint."""
        return checkpoint.load(self / CHECKPOINT) if (self / CHECKPOINT).is_file() else None


def versions() -> dict[str, str]:
    """The versions that a run's figures depend on."""
    return {
        "fastarch": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def differences(saved: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """How two configurations differ, one text per entry: "batch_size was 64, is now 32"."""
    found = []
    for key in [*saved, *(key for key in asked if key not in saved)]:
        before, after = saved.get(key), asked.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} was {_shown(before)}, is now {_shown(after)}")
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
