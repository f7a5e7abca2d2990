"""The options of every command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import fastarch
from fastarch.backends import NAMES as BACKENDS
from fastarch.train.settings import DTYPES, OPTIMIZERS, SCHEDULES


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, with the function to call as `command`; a wrong one ends the process with code 2."""
    return _parser().parse_args(arguments)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--debug", action="store_true", help="show the traceback of an error (also FASTARCH_DEBUG=1)"
    )
    parser = argparse.ArgumentParser(
        prog="fastarch",
        description="The classic deep-learning architectures: train them, use them, see what runs here.",
    )
    parser.add_argument("--version", action="version", version=f"fastarch {fastarch.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, add in (("list", _list), ("train", _train), ("predict", _predict), ("info", _info)):
        text = {
            "list": "the architectures and estimators: parameters, input, paper",
            "train": "train an architecture or an estimator on a data set",
            "predict": "what a trained model sees in pictures",
            "info": "versions, what is compiled, devices, and why something is off",
        }[name]
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", parents=[common]
        )
        add(command)
    return parser


def _lazily(module: str) -> Callable[[argparse.Namespace], int]:
    """The function `run` of a module that is imported only when called."""

    def run(options: argparse.Namespace) -> int:
        import importlib
        import os

        # Before NumPy is loaded: OpenBLAS's threads wait for one another by spinning. For products as small
        # as LeNet-5's one thread is no slower alone and forty times faster on a busy machine; the sums of a
        # run do not depend on the number of cores. Whoever sets the variable decides; compiled kernels have
        # threads of their own.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        return importlib.import_module(module).run(options)

    return run


def _list(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=_lazily("fastarch.cli.list"))


def _info(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=_lazily("fastarch.cli.info"))


def _train(command: argparse.ArgumentParser) -> None:
    command.epilog = (
        "Options that are not given come from a recipe for the architecture. Ctrl-C saves and says how to go "
        "on; a killed run goes on too. The same seed gives the same weights, bit for bit. An estimator takes "
        "the options that make sense for it, and is trained in one go: Ctrl-C keeps what it has learnt."
    )
    add = command.add_argument
    add("architecture", nargs="?", metavar="ARCH", help="see `fastarch list`; not needed with --resume RUN")
    add("data_name", nargs="?", metavar="DATA", help="the same as --data")
    _recipe_options(command)
    folder = command.add_argument_group("run folder")
    add = folder.add_argument
    add("--run-dir", metavar="DIR", help="the run's folder (default: runs/ARCH-DATA-<n>)")
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run: that folder, or the latest one of ARCH and DATA",
    )
    add("--no-plots", action="store_true", help="draw no pictures")
    output = command.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="print the final figures as JSON and nothing else"
    )
    output.add_argument("--quiet", action="store_true", help="show no progress")
    command.set_defaults(command=_lazily("fastarch.cli.train"))


def _recipe_options(command: argparse.ArgumentParser) -> None:
    """Each is absent from the result unless given; it then comes from the recipe or the run to resume."""
    group = command.add_argument_group("recipe", argument_default=argparse.SUPPRESS)

    def add(flag: str, kind: Any = None, metavar: str | None = None, help: str = "", **more: Any) -> None:
        if kind is not None:
            more["type"] = kind
        group.add_argument(flag, metavar=metavar, help=help, default=argparse.SUPPRESS, **more)

    add(
        "--data",
        metavar="DATA",
        help="digits, or a path: MNIST or CIFAR-10 files, a folder of pictures, .npz, .csv",
    )
    add("--label", metavar="COLUMN", help="the column of a .csv that holds the classes")
    add("--shape", _shape, "C,H,W", "the shape of a sample of a .csv or .npz (of a folder for estimators)")
    add("--epochs", _count, "N", "passes over the training data")
    add("--batch-size", _count, "N", "samples in a step")
    add("--optimizer", choices=OPTIMIZERS, help=", ".join(OPTIMIZERS))
    add("--lr", _positive, "RATE", "learning rate at the beginning")
    add("--momentum", _share, "M", "momentum of sgd and rmsprop (0.9)")
    add("--weight-decay", _not_negative, "D", "weight decay")
    add("--schedule", choices=SCHEDULES, help="how the learning rate falls")
    add("--augment", metavar="NAME", help="auto, none, digits, flip-crop")
    add("--clip-norm", _positive, "NORM", "bound on the norm of all gradients")
    add(
        "--early-stop",
        _count,
        "N",
        "stop after N epochs without a lower validation loss",
        dest="early_stopping",
    )
    add("--test-split", _share, "SHARE", "share of the data held out for the final figure (0.2)")
    add("--validation-split", _share, "SHARE", "share of the rest watched during training (0.1)")
    add("--seed", _seed, "N", "of everything random (0)")
    add("--dtype", choices=DTYPES, help=" or ".join(DTYPES))
    add("--backend", choices=BACKENDS, help=", ".join(BACKENDS))
    add("--checkpoint-every", _count, "N", "also save after every N steps, not only after every epoch")
    add(
        "--model",
        _assignment,
        "NAME=VALUE",
        "an argument of the architecture or estimator, such as activation=relu; may be repeated",
        action="append",
    )


def _predict(command: argparse.ArgumentParser) -> None:
    command.description = (
        "What a trained model sees in pictures: its most probable classes, or for a map its unit, and so on."
    )
    add = command.add_argument
    add("model", metavar="RUN_OR_MODEL", help="a run folder, or its model.safetensors")
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="picture files of any size and colour, .npy or .npz; tables for what was trained on one",
    )
    add("--top", type=_count, default=3, metavar="K", help="how many classes to show (3)")
    add(
        "--invert",
        action="store_true",
        help="swap light and dark, as for dark ink where the model knows light ink",
    )
    add("--whole", action="store_true", help="take drawings as they are, rather than cut to what is drawn")
    add("--backend", choices=BACKENDS, help=", ".join(BACKENDS))
    add("--json", action="store_true", help="as JSON")
    command.set_defaults(command=_lazily("fastarch.cli.predict"))


def _count(text: str) -> int:
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def _seed(text: str) -> int:
    return _number(text, int, lambda value: 0 <= value < 2**64, "a whole number from 0 to 2**64 - 1")


def _shape(text: str) -> list[int]:
    try:
        sides = [int(part) for part in text.split(",")]
    except ValueError:
        sides = []
    if not sides or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected sizes such as 1,28,28")
    return sides


def _positive(text: str) -> float:
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def _not_negative(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < float("inf"), "a number of at least 0")


def _share(text: str) -> float:
    return _number(text, float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def _number(text: str, kind: Any, fits: Callable[[Any], bool], expected: str) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return value


def _assignment(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value a number, several with commas between them, true, false, none or text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE")
    words: dict[str, Any] = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    parts = [_plain_number(part) for part in value.split(",")]
    if all(part is not None for part in parts):
        return name, parts[0] if len(parts) == 1 else parts
    return name, value


def _plain_number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
