"""A run that does not end is a finding: a time limit by alarm, for the main thread of a process."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


class Hang(BaseException):
    """The time limit was reached. No `Exception`, so that simulated code does not take it for a panic."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block when it runs longer than `seconds` of real time.

    It is the one place where real time can decide about a finding, and only about one that would never end. Outside the main
    thread, where alarms cannot be set, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        message = f"no end after {seconds:g} seconds"
        raise Hang(message)

    before = signal.signal(signal.SIGALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, outer)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def stall_limit(steps: Callable[[], int], seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block once no step has ended for so long, and at most twice that. Does nothing outside the main thread.

    Args:
        steps: how many have ended so far.
        seconds: the limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = steps()

    def ring(_signal: int, _frame: FrameType | None) -> None:
        nonlocal known
        if steps() == known:
            raise Hang(f"no end after {seconds:g} seconds")
        known = steps()

    before = signal.signal(signal.SIGALRM, ring)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)
