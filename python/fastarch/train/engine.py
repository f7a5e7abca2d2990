"""One training run, step by step, and its state between two steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastarch import data, optim, random
from fastarch.arrays import on_device
from fastarch.tensors import tensor
from fastarch.train import evaluation
from fastarch.train.folder import CHECKPOINT, RunFolder
from fastarch.train.interrupt import Interrupted, Interrupts
from fastarch.train.progress import Progress

_READ_EVERY = 16  # steps on a device after which the host reads their losses: each reading waits for it
STATE_FORMAT = 1  # raised when a checkpoint's content changes
_STREAMS_PER_STEP = 1 << 32  # Philox streams that a step may use; the first 2**32 are for what comes before


class Diverged(ArithmeticError):
    """The loss or a weight stopped being finite. epoch and step (from 1) say where."""

    def __init__(self, message: str, *, epoch: int, step: int) -> None:
        super().__init__(message)
        self.epoch, self.step = epoch, step


@dataclass(frozen=True)
class Step:
    """What a callback sees after a step: epoch and step from 1, the batch's loss, its accuracy or None."""

    epoch: int
    step: int
    loss: float
    accuracy: float | None


@dataclass
class Plan:
    """What to train, on what, and how; see `fit` for the meaning of each."""

    model: Any
    datasets: Mapping[str, Any]
    optimizer: Any
    schedule: Any
    step_schedule: bool
    loss: Callable[..., Any]
    seed: int
    epochs: int
    batch_size: int
    early_stopping: int | None
    checkpoint_every: int | None
    clip_norm: float | None
    augment: Callable[..., Any] | None
    transform: Callable[[np.ndarray], np.ndarray] | None
    callbacks: Sequence[Callable[[Step], Any]]
    folder: RunFolder | None

    def loader(self, prefetch: int = 2) -> data.Loader:
        """The batches to train on."""
        return data.Loader(
            self.datasets["train"],
            self.batch_size,
            shuffle=True,
            seed=self.seed,
            augment=self.augment,
            transform=self.transform,
            prefetch=prefetch,
        )


@dataclass
class _Unread:
    """A step whose loss and number of right answers still lie where the model is."""

    step: int
    samples: int
    loss: Any
    right: Any


@dataclass
class _Sums:
    """What an epoch has added up so far; part of a checkpoint in the middle of an epoch."""

    samples: int = 0
    loss: float = 0.0
    right: int = 0
    seconds: float = 0.0
    lr: float = 0.0  # of the last step

    def means(self, classification: bool) -> dict[str, float]:
        figures = {"loss": self.loss / self.samples}
        if classification:
            figures["accuracy"] = self.right / self.samples
        return figures


@dataclass
class Position:
    """Where a run stands: everything but the weights, the optimizer and the schedule."""

    epoch: int = 0  # epochs completed
    step: int = 0  # steps completed in the epoch under way
    sums: _Sums = field(default_factory=_Sums)
    records: list[dict[str, Any]] = field(default_factory=list)
    classification: bool = False
    elapsed: float = 0.0
    best: dict[str, Any] | None = None  # epoch, loss and weights with the lowest validation loss
    finished: bool = False
    stopped_early: bool = False


class Run:
    """Trains as `plan` says, from the beginning or from a state that `state` returned."""

    def __init__(self, plan: Plan, progress: bool) -> None:
        self.plan = plan
        self.at = Position()
        self._like = evaluation.parameter_array(plan.model)
        self._loader = plan.loader()
        self.steps = len(self._loader)
        self._progress = Progress(plan.epochs, self.steps, enabled=progress)
        self._since = 0.0
        self._read_every = _READ_EVERY if on_device(self._like) and not plan.callbacks else 1

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, as `checkpoint.save` takes it."""
        plan, at = self.plan, self.at
        return {
            "format": STATE_FORMAT,
            "model": plan.model.state_dict(),
            "optimizer": plan.optimizer.state_dict(),
            "schedule": plan.schedule.state_dict() if plan.schedule is not None else None,
            "position": {**vars(at), "sums": vars(at.sums), "elapsed": self._elapsed()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts the run where it was when `state` was taken. Raises ValueError for another format."""
        if state.get("format") != STATE_FORMAT:
            raise ValueError(
                f"[fit] the checkpoint has format {state.get('format')!r}, this version reads {STATE_FORMAT}"
            )
        plan = self.plan
        try:
            position = state["position"]
            at = Position(**{**position, "sums": _Sums(**position["sums"])})
            plan.model.load_state_dict(state["model"])
            plan.optimizer.load_state_dict(state["optimizer"])
            if plan.schedule is not None:
                plan.schedule.load_state_dict(state["schedule"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"[fit] the checkpoint is not that of a training run of this version ({error!r})"
            ) from None
        self.at = at

    def train(self) -> None:
        """Runs to the end. Raises Diverged, and Interrupted after a signal, with the state saved first."""
        plan, at = self.plan, self.at
        self._since = time.perf_counter()
        # What is no longer finite is found and reported here; NumPy need not warn of it as well.
        with Interrupts() as interrupts, np.errstate(over="ignore", invalid="ignore"):
            try:
                if plan.folder is not None and not (plan.folder / CHECKPOINT).exists():
                    self._save()  # initial weights too: a resumed run need not be given the same ones
                plan.model.train()
                while at.epoch < plan.epochs and not at.stopped_early:
                    self._train_epoch(interrupts)
                    self._end_epoch()
                    self._stop_if_asked(interrupts)
                if at.best is not None:
                    plan.model.load_state_dict(at.best["weights"])
                at.elapsed, self._since = self._elapsed(), 0.0
                at.finished = True
                self._save()
            finally:
                self._progress.close()

    def _train_epoch(self, interrupts: Interrupts) -> None:
        plan, at = self.plan, self.at
        # Closing the generator ends its thread, however this is left.
        batches: Any = self._loader.epoch(at.epoch, at.step)
        with closing(batches):
            began = time.perf_counter()
            before, first = at.sums.seconds, at.sums.samples
            unread: list[_Unread] = []
            for x, y in batches:
                loss, right = self._train_step(x, y)
                at.step += 1
                unread.append(_Unread(at.step, len(x), loss, right))
                done = at.epoch * self.steps + at.step
                due = bool(plan.checkpoint_every and done % plan.checkpoint_every == 0)
                asked = interrupts.received is not None
                if not (len(unread) >= self._read_every or due or asked or at.step == self.steps):
                    continue
                steps = self._read(unread)
                unread.clear()
                at.sums.seconds = before + time.perf_counter() - began
                rate = (at.sums.samples - first) / max(at.sums.seconds - before, 1e-9)
                self._progress.step(at.epoch + 1, at.step, at.sums.means(at.classification), rate)
                for step in steps:
                    for callback in plan.callbacks:
                        callback(step)
                if at.step < self.steps:  # after the last step the epoch's end saves
                    if due and interrupts.received is None:
                        self._save()
                    self._stop_if_asked(interrupts)

    def _read(self, unread: Sequence[_Unread]) -> list[Step]:
        """Adds up what these steps left where the model is; raises Diverged for a loss that is not finite."""
        at = self.at
        steps = []
        for one, (loss, right) in zip(unread, evaluation.figures([(u.loss, u.right) for u in unread])):
            if not math.isfinite(loss):
                self._diverged(f"the loss became {loss}", one.step)
            at.sums.samples += one.samples
            at.sums.loss += loss * one.samples
            at.sums.right += right or 0
            at.classification = right is not None
            accuracy = None if right is None else right / one.samples
            steps.append(Step(at.epoch + 1, one.step, loss, accuracy))
        return steps

    def _train_step(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        """One optimizer step: the batch's loss and how many answers were right or None, both unread."""
        plan, at = self.plan, self.at
        # Dropout and its like draw from streams of this very step: nothing that ran before can shift them.
        stream = (1 + at.epoch * self.steps + at.step) * _STREAMS_PER_STEP
        random.set_state({"seed": plan.seed, "offset": stream})
        target = evaluation.to_model(y, self._like)
        output = plan.model(tensor(evaluation.to_model(x, self._like)))
        loss = plan.loss(output, target)
        if self._read_every == 1 and not math.isfinite(value := float(loss.item())):
            self._diverged(f"the loss became {value}", at.step + 1)
        plan.optimizer.zero_grad()
        loss.backward()
        if plan.clip_norm is not None:
            optim.clip_grad_norm_(plan.model.parameters(), plan.clip_norm)
        at.sums.lr = float(plan.optimizer.param_groups[0]["lr"])
        plan.optimizer.step()
        if plan.schedule is not None and plan.step_schedule:
            plan.schedule.step()
        if not evaluation.is_classification(output.data, target):
            return loss.data, None
        return loss.data, (output.data.argmax(axis=1) == target).sum()

    def _end_epoch(self) -> None:
        plan, at = self.plan, self.at
        figures = at.sums.means(at.classification)
        if "validation" in plan.datasets:
            found, _ = evaluation.evaluate(plan.model, plan.datasets["validation"], plan.loss, plan.transform)
            if not math.isfinite(found["loss"]):
                self._diverged(f"the validation loss became {found['loss']}", self.steps)
            figures |= {f"validation_{name}": value for name, value in found.items()}
            self._watch(found["loss"])
        record = {
            "epoch": at.epoch + 1,
            **figures,
            "lr": at.sums.lr,
            "seconds": round(at.sums.seconds, 4),
            "samples_per_second": round(at.sums.samples / max(at.sums.seconds, 1e-9), 1),
            "elapsed": round(self._elapsed(), 3),
        }
        if plan.schedule is not None and not plan.step_schedule:
            plan.schedule.step()
        at.records.append(record)
        at.epoch, at.step, at.sums = at.epoch + 1, 0, _Sums()
        if plan.folder is not None:
            plan.folder.append_metrics(record)
        if at.epoch < plan.epochs and not at.stopped_early:  # `train` saves the finished state itself
            self._save()
        self._progress.epoch(at.epoch, record)  # what is shown as done is saved

    def _watch(self, loss: float) -> None:
        """Keeps the best weights, and notes when validation has not improved for too long."""
        plan, at = self.plan, self.at
        if plan.early_stopping is None:
            return
        if at.best is None or loss < at.best["loss"]:
            at.best = {"epoch": at.epoch + 1, "loss": loss, "weights": plan.model.state_dict()}
        elif at.epoch + 1 - at.best["epoch"] >= plan.early_stopping:
            at.stopped_early = at.epoch + 1 < plan.epochs

    def _save(self) -> None:
        if self.plan.folder is None:
            return
        state = self.state()
        for name, value in state["model"].items():
            if not np.isfinite(value).all():
                self._diverged(f"{name!r} got a value that is not finite", self.at.step)
        self.plan.folder.save_checkpoint(state)

    def _stop_if_asked(self, interrupts: Interrupts) -> None:
        if interrupts.received is None or self.at.epoch >= self.plan.epochs or self.at.stopped_early:
            return  # a run that is over only needs its results written
        at, folder = self.at, self.plan.folder
        self._save()
        where = f"after {at.epoch} of {self.plan.epochs} epochs"
        where += f" and {at.step} of {self.steps} steps" if at.step else ""
        how = (
            "nothing is saved without run_dir"
            if folder is None
            else f"saved in {folder.path}; resume=True goes on"
        )
        raise Interrupted(
            f"stopped {where}; {how}",
            signal=interrupts.received,
            epoch=at.epoch,
            step=at.step,
            run_dir=None if folder is None else folder.path,
        )

    def _diverged(self, what: str, step: int) -> None:
        at, folder = self.at, self.plan.folder
        epoch = at.epoch + (1 if step else 0)
        kept = "" if folder is None else f"; the last good checkpoint is kept in {folder.path}"
        raise Diverged(
            f"[fit] {what} in epoch {epoch}, step {step or self.steps} of {self.steps}{kept}; "
            "try a lower learning rate or a bound on the gradients (clip_norm)",
            epoch=epoch,
            step=step or self.steps,
        )

    def _elapsed(self) -> float:
        """Seconds of training in this process and in those that it resumed."""
        return self.at.elapsed + (time.perf_counter() - self._since if self._since else 0.0)
