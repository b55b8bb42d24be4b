"""Ctrl-C and SIGTERM: training stops after the step that runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, in order.

    signal: its number.
    step: the steps done.
    saved: whether a state to resume from was written.
    """

    def __init__(self, number: int, step: int, saved: bool) -> None:
        super().__init__(f"{signal.Signals(number).name} after step {step}")
        self.signal, self.step, self.saved = number, step, saved


class Request:
    """Whether a signal has asked training to stop."""

    signal: int | None = None

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            # Asked twice: now.
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def requests() -> Iterator[Request]:
    """Inside, the first signal is noted; outside the main thread, which alone gets signals, nothing is."""
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.receive) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
