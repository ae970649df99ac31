"""A pool of processes that ends when it is told to, when its parent dies, and never leaves a zombie."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from multiprocessing.synchronize import Event
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")


class HarnessFailure(Exception):
    """The harness or its machine failed; says nothing about the code under test."""


@dataclass(slots=True)
class _Process:
    """What a worker process knows."""

    stop: Event | None = None


_PROCESS = _Process()


def stopping() -> bool:
    """Say whether this worker process has been told to stop. False in any other process."""
    return _PROCESS.stop is not None and _PROCESS.stop.is_set()


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Worker processes, to be used in a `with` block.

    They are spawned, not forked, because the parent may have threads. An interruption from the keyboard, which the terminal sends
    to all processes, is the parent's business: it sets `stop`, and workers hand in what they have.

    Args:
        count: processes.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.count = count
        self._stop = context.Event()
        self._pool = concurrent.futures.ProcessPoolExecutor(count, context, initializer=_begin, initargs=(self._stop,))

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop all workers and wait for them. A second interruption meanwhile kills them."""
        self.stop()
        try:
            self._pool.shutdown(wait=True, cancel_futures=True)
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.kill()
            raise

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand a call to a worker.

        Raises:
            HarnessFailure: a worker has died.
        """
        try:
            return self._pool.submit(function, *args, **kwargs)
        except BrokenProcessPool as error:
            raise _died() from error

    def result(self, future: Future[T]) -> T:
        """Wait for a call's result.

        Raises:
            HarnessFailure: a worker has died.
        """
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise _died() from error

    def stop(self) -> None:
        """Tell the workers to hand in what they have."""
        self._stop.set()


def _died() -> HarnessFailure:
    return HarnessFailure("a worker process died: killed from outside, or out of memory")


def _begin(stop: Event) -> None:
    """Prepare a worker process."""
    _PROCESS.stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent: a pool's queues do not notice when it is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
