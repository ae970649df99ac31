"""A process that has to end: within its time, and with everything that it started.

What it started may have left its process group, so it is looked for among all processes, by parentage.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_SECONDS: Final = 0.02


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, directly or not, children before grandchildren."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The second field is a name in brackets, which may hold anything.
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants, and reap it."""
    doomed = descendants(process.pid)
    for pid in [process.pid, *doomed]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def run(
    command: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float, stopped: Callable[[], bool], folder: Path
) -> int | None:
    """Run a command to its end.

    Args:
        command: words.
        environment: of the process.
        log: file for what it says.
        seconds: its time.
        stopped: asked now and then; if it says so the process is ended.
        folder: working directory.

    Returns:
        The exit code, negative for a signal; None if it was ended here.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603  # our own interpreter on our own module
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=dict(environment), cwd=folder, start_new_session=True
        )
    deadline = time.monotonic() + seconds
    try:
        while process.poll() is None:
            if stopped() or time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_SECONDS)
    finally:
        if process.returncode is None:
            end(process)
    return process.returncode
