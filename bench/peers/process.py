"""A checker runs as a process of its own: limited in time and memory, reaped, and measured from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SECONDS_MAX: Final = 900.0
MEMORY_MAX_BYTES: Final = 12 << 30


class PeerFailed(Exception):
    """A checker did not do what it was asked for. The message is one line."""


class PeerObjects(Exception):
    """A checker found the protocol itself wrong, or a state from which nothing can be done. The message is one line."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a process.

    Args:
        out: what it wrote, both streams.
        code: its exit code.
        seconds: real time.
        cpu_seconds: processor time, that of its children included.
        peak_bytes: the most resident memory of it, or of the largest of its children.
    """

    out: str
    code: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def after(self, other: Ran) -> Ran:
        """Return both together, this one after the other."""
        return Ran(
            other.out + self.out,
            self.code,
            other.seconds + self.seconds,
            other.cpu_seconds + self.cpu_seconds,
            max(other.peak_bytes, self.peak_bytes),
        )


def run(command: Sequence[str], folder: Path, *, seconds_max: float = SECONDS_MAX, limit_memory: bool = True) -> Ran:
    """Run a command to its end.

    Args:
        command: the program, with its path, and its arguments.
        folder: where to.
        seconds_max: it is killed after so long, with all that it has started.
        limit_memory: whether its address space is bounded. A Java machine reserves more than it uses, and is told its bound itself.

    Raises:
        PeerFailed: it took too long, or could not be started.
    """

    def limit() -> None:
        if limit_memory:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))

    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        try:
            process = subprocess.Popen(  # noqa: S603  # checkers that we have looked up, on our own input
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=folder,
                start_new_session=True,
                preexec_fn=limit,  # noqa: PLW1509  # nothing else runs in this process but a timer that waits
            )
        except OSError as error:
            raise PeerFailed(f"{command[0]}: {error.strerror}") from error
        late = threading.Event()

        def kill() -> None:
            late.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(seconds_max, kill)
        timer.start()
        try:
            _pid, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.monotonic() - start
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if late.is_set():
            raise PeerFailed(f"{command[0]}: no end after {seconds_max:g} seconds")
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    return Ran(text, code, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
