"""Ctrl-C between two steps rather than inside one, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after its state was saved; `str(error)` says how to go on.

    signal: the signal's number. epoch, step: how far training had come; run_dir: the run's folder, or None.
    """

    def __init__(self, message: str, *, signal: int, epoch: int, step: int, run_dir: Any) -> None:
        super().__init__(message)
        self.signal, self.epoch, self.step, self.run_dir = signal, epoch, step, run_dir


class Interrupts:
    """Within the with block the first SIGINT or SIGTERM is noted in `received`; a second one interrupts.

    Python delivers signals to the main thread alone; in another thread this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                # A signal that the caller ignores or handles in C stays with the caller.
                if handler not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.__exit__()
            raise KeyboardInterrupt
        self.received = number
