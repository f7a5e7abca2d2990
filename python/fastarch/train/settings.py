"""What a training run is asked to do, with defaults that suit the architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

EMBEDDED = "digits"  # the data set that is always there, whatever a folder of that name holds
OPTIMIZERS = ("adamw", "adam", "sgd", "rmsprop")
SCHEDULES = ("cosine", "constant", "step", "exponential")
RATES: dict[str, dict[str, float]] = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.01},
    "adam": {"lr": 1e-3, "weight_decay": 0.0},
    "sgd": {"lr": 0.05, "weight_decay": 5e-4},
    "rmsprop": {"lr": 3e-4, "weight_decay": 0.0},
}
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights of a run, and nothing else: a resumed run must have the same.

    label, shape: the label's column in a table, and the shape of one of its samples.
    model: arguments for the architecture's builder. augment: a preset of `fa.data.augment`, or "auto".
    test_split, validation_split: shares of the data, and of the rest, that are held out.
    """

    architecture: str
    data: str = EMBEDDED
    label: str | None = None
    shape: list[int] | None = None
    epochs: int = 20
    batch_size: int = 64
    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    schedule: str = "cosine"
    augment: str = "auto"
    clip_norm: float | None = None
    early_stopping: int | None = None
    test_split: float = 0.2
    validation_split: float = 0.1
    seed: int = 0
    dtype: str = "float32"
    backend: str | None = None
    checkpoint_every: int | None = None
    model: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, architecture: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
        """The architecture's `recipe` with what was `given` on top. Raises ValueError for what cannot be."""
        common = dict(recipe)
        if given.get("optimizer", common.get("optimizer")) != common.get("optimizer"):
            # The recipe's rate is for its own optimizer; another one begins with what usually suits it.
            common |= RATES.get(given["optimizer"], {})
        settings = cls(**{**common, **given, "architecture": architecture})
        settings._check()
        return settings

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Settings:
        """What `to_dict` returned. Raises ValueError for unknown entries: those of another version."""
        unknown = [name for name in saved if name not in {entry.name for entry in fields(cls)}]
        if unknown or "architecture" not in saved:
            what = f"unknown {', '.join(unknown)}" if unknown else "no architecture"
            raise ValueError(
                f"[train] the saved settings have {what}; another version of fastarch wrote them"
            )
        settings = cls(**saved)
        settings._check()
        return settings

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _check(self) -> None:
        for name in ("test_split", "validation_split"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise ValueError(f"[train] {name} is {share}, expected a share from 0 to below 1")
        if self.early_stopping is not None and self.validation_split == 0:
            raise ValueError("[train] early stopping needs validation data: validation_split is 0")
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"[train] {name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        if not self.lr > 0:
            raise ValueError(f"[train] lr is {self.lr}, expected a number above 0")
