"""The command line: fastarch list, train, predict, info."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code is 0, 2 for bad input, 1 for a run that went wrong, 130 for Ctrl-C."""
    debug = os.environ.get("FASTARCH_DEBUG", "") not in ("", "0")
    try:
        from fastarch.cli.parser import parse  # in here, because a wrong FASTARCH_BACKEND shows at once

        options = parse(arguments)
        debug = debug or options.debug
        code = options.command(options)
        sys.stdout.flush()  # a closed pipe shows here, not in the interpreter's last moments
        return code
    except BrokenPipeError:  # fastarch list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        if debug:
            raise
        print(str(stop) or "interrupted", file=sys.stderr)
        return 128 + getattr(stop, "signal", 2)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError, ArithmeticError) as error:
        if debug:
            raise
        print(f"fastarch: {_sentence(error)}", file=sys.stderr)
        return 1 if isinstance(error, (ArithmeticError, MemoryError)) else BAD_INPUT


def _sentence(error: BaseException) -> str:
    """What went wrong as one line, without the number that the system puts before its errors."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split()) or type(error).__name__
