"""fastarch train: from options to a run folder."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastarch import backends
from fastarch.estimators import ESTIMATORS
from fastarch.train import estimator_runs, experiment
from fastarch.train.folder import SUMMARY, RunFolder, differences
from fastarch.train.interrupt import Interrupted
from fastarch.train.settings import EMBEDDED, Settings

RUNS = "runs"


def run(options: argparse.Namespace) -> int:
    """Trains, or goes on with a run, and prints the final figures."""
    given = _given(options)
    resume = options.resume is not None
    if options.architecture in ESTIMATORS:
        return _train_estimator(options, given)
    if resume:
        folder = _folder_to_resume(options, given)
        settings = _resumed(folder, options.architecture, given)
        summary = folder.read_summary()
        if summary is not None:
            _say(options, f"{folder.path} has finished; there is nothing to resume")
            _result(options, folder, summary)
            return 0
    else:
        if options.architecture is None:
            raise ValueError("[train] name an architecture (see `fastarch list`), or a run with --resume RUN")
        settings = experiment.settings(options.architecture, given)
    _check_backend(settings.backend)
    prepared = experiment.prepare(settings)
    if not resume:
        folder = _new_folder(options, settings.architecture, settings.data)
    _say(options, prepared.headline())
    try:
        history = experiment.run(
            prepared, folder, resume=resume, progress=not options.quiet, pictures=not options.no_plots
        )
    except Interrupted as stop:
        where = f"{stop.epoch} of {settings.epochs} epochs"
        where += f" and {stop.step} steps" if stop.step else ""
        message = f"stopped after {where}; go on with: {_resume_command(folder)}"
        raise Interrupted(
            message, signal=stop.signal, epoch=stop.epoch, step=stop.step, run_dir=folder.path
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; go on with: {_resume_command(folder)}") from None
    _result(options, folder, history.summary)
    return 0


def _check_backend(name: str | None) -> None:
    if name is not None and (reason := backends.reason_unusable(name)):
        raise RuntimeError(f"[backend] {name!r} cannot run here: {reason}")


def _new_folder(options: argparse.Namespace, name: str, data: str) -> RunFolder:
    if options.run_dir:
        return RunFolder(options.run_dir)
    return RunFolder.new(RUNS, f"{name}-{_data_name(data)}")


def _train_estimator(options: argparse.Namespace, given: dict[str, Any]) -> int:
    name = options.architecture
    if options.resume is not None:
        raise ValueError(f"[train] a run of {name} cannot be resumed: an estimator is trained in one go")
    settings = estimator_runs.settings(name, given)
    _check_backend(settings.backend)
    prepared = estimator_runs.prepare(settings)
    folder = _new_folder(options, name, settings.data)
    _say(options, prepared.headline())
    quiet = options.quiet
    try:
        summary = estimator_runs.run(prepared, folder, progress=not quiet, pictures=not options.no_plots)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {folder.path} holds no model") from None
    if options.json:
        print(json.dumps(summary))
        return 0
    rounds = f"{summary['rounds']} rounds, " if summary["rounds"] else ""
    print(f"{summary['result']}  ({rounds}{summary['seconds']:.1f} s, {summary['backend']} backend)")
    _tell_folder(folder, summary, prepared.features.pictures is not None)
    return 0


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were written on the command line."""
    names = [entry.name for entry in fields(Settings) if entry.name != "architecture"]
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if "model" in given:
        given["model"] = dict(given["model"])
    if options.data_name is not None:
        if given.get("data", options.data_name) != options.data_name:
            raise ValueError(f"[train] DATA is {options.data_name!r} and --data {given['data']!r}; give one")
        given["data"] = options.data_name
    if given.get("data", EMBEDDED) != EMBEDDED and Path(given["data"]).exists():
        given["data"] = str(Path(given["data"]).resolve())  # resuming works from any folder
    return given


def _folder_to_resume(options: argparse.Namespace, given: dict[str, Any]) -> RunFolder:
    if options.resume and options.run_dir:
        raise ValueError(f"[train] --resume {options.resume} and --run-dir {options.run_dir}; give one")
    if options.resume or options.run_dir:
        return RunFolder(options.resume or options.run_dir)
    name = None
    if options.architecture is not None:
        name = f"{options.architecture}-{_data_name(given.get('data', 'digits'))}"
    return RunFolder.latest(RUNS, name)


def _resumed(folder: RunFolder, architecture: str | None, given: dict[str, Any]) -> Settings:
    """The settings of the run in `folder`. Raises ValueError when the command line asks for others."""
    config = folder.read_config()
    if estimator_runs.is_run(config):
        raise ValueError(
            f"[train] {folder.path} is a run of {config['estimator']}, which cannot be resumed: "
            "an estimator is trained in one go"
        )
    saved = config.get("command")
    if not isinstance(saved, dict):
        raise ValueError(
            f"[train] {folder.path} was not begun by `fastarch train`; resume it with fit(resume=True)"
        )
    asked = {**given, **({"architecture": architecture} if architecture is not None else {})}
    changed = differences({name: saved.get(name) for name in asked}, asked)
    if changed:
        raise ValueError(
            f"[train] {folder.path} was begun with other settings: {'; '.join(changed)}; "
            "a resumed run keeps its settings, so leave these options out or begin a new run"
        )
    return Settings.from_dict(saved)


def _data_name(spec: str) -> str:
    return spec if spec == EMBEDDED else Path(spec).resolve().stem


def _resume_command(folder: RunFolder) -> str:
    return f"fastarch train --resume {shlex.quote(str(folder.path))}"


def _say(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        print(text, file=sys.stderr)


def _result(options: argparse.Namespace, folder: RunFolder, summary: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps(summary))
        return
    try:
        print(_figures(summary))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"[train] {folder.path / SUMMARY} is not the summary of a training run ({error!r})"
        ) from None
    _tell_folder(folder, summary)


def _tell_folder(folder: RunFolder, summary: dict[str, Any], picture: bool = True) -> None:
    pictures = ", ".join(summary.get("pictures", []))
    print(f"{folder.path}: model.safetensors, summary.json" + (f", {pictures}" if pictures else ""))
    what = "PICTURE" if picture else "TABLE"
    print(f"try it: fastarch predict {shlex.quote(str(folder.path))} {what}")


def _figures(summary: dict[str, Any]) -> str:
    """The line of the accuracy and what it took."""
    epochs = f"{summary['epochs']} epochs" if summary["epochs"] != 1 else "1 epoch"
    if summary.get("stopped_early"):
        epochs += f" (best: {summary['best_epoch']})"
    rate = f"{summary['samples_per_second']:,.0f} samples/s"
    took = f"{epochs}, {summary['seconds']:.1f} s, {rate}, {summary['backend']} backend"
    if "test_accuracy" in summary:
        accuracy = f"test accuracy {100 * summary['test_accuracy']:.2f} %"
        return f"{accuracy} on {summary['test_samples']:,} samples  ({took})"
    return f"accuracy {100 * summary['accuracy']:.2f} % on the training data  ({took})"
