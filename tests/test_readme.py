"""The examples of the README run as they stand, but for the number of epochs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastarch import backends

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def test_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BLOCKS) == 4
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        if '"emulator"' in block and "emulator" not in backends.available():
            continue  # left out of wheels
        exec(compile(re.sub(r"epochs=\d+", "epochs=1", block), str(README), "exec"), names)
    assert names["dw"].shape == names["w"].shape
    assert len(names["history"].epochs) == 1
    assert (tmp_path / "lenet5.safetensors").is_file()
    assert names["features"].shape == (1797, 128)
    assert names["stack"].score(names["pixels"][:400], names["labels"][:400]) > 0.95
