"""How long a process may take: its processor time counts, not what others take from it, and sleep without end is seen within a second."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Final

IDLE_FACTOR: Final = 1
"""A process may be idle so many times as long as it may run."""
ASLEEP_SECONDS: Final = 1.0
"""A process whose threads all sleep so long, and are not woken once, will not be."""
ASLEEP_SHARE: Final = 0.25
"""Of a short limit, where that is less."""


class Deadline:
    """A limit of processor time, and one of idle time; waiting for a processor counts as neither, however busy the machine is.

    A process that sleeps while it runs a program, all its threads, and is not woken once, waits for a lock that nobody gives back: it has
    nothing else to wait for. That is known soon; the wider limit of idle time is for what is stopped from outside, or hangs in the kernel.

    Args:
        pid: the process.
        seconds: of processor time, and of idle time.
        may_sleep: whether it may have something to wait for, such as a process that it has forked.
    """

    def __init__(self, pid: int, seconds: float, *, may_sleep: bool = False) -> None:
        self.pid = pid
        self.asleep = math.inf if may_sleep else min(ASLEEP_SECONDS, ASLEEP_SHARE * seconds)
        self.seconds = seconds
        self.used = self._processor_seconds()
        self.starved = self._starved_seconds()
        self.began = self.asleep_since = time.monotonic()
        self.switches = -1
        self.passed = False
        self.verdict = "hang"

    def is_over(self) -> bool:
        """Whether the time is over; remembered in `passed`."""
        now = time.monotonic()
        switches = context_switches(self.pid)
        if switches < 0 or switches != self.switches:
            self.switches, self.asleep_since = switches, now
        waited = now - self.began
        if now - self.asleep_since >= self.asleep:
            self.passed, self.verdict = True, "deadlock"
        elif waited > self.seconds:
            idle = waited - (self._starved_seconds() - self.starved)
            self.passed = idle > IDLE_FACTOR * self.seconds or self._processor_seconds() - self.used > self.seconds
        return self.passed

    def _processor_seconds(self) -> float:
        return sum(processor_times(self.pid)[:2])

    def _starved_seconds(self) -> float:
        """How long the process has been ready to run, and was not run."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0


def processor_times(pid: int) -> list[float]:
    """Return the user and system seconds of a process, and those of its children that were waited for; zeros if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return [0.0] * 4
    return [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15]]


def context_switches(pid: int) -> int:
    """Return how often the threads of a process have been switched to and from, or -1 unless all of them sleep."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            facts = dict(line.split(":", 1) for line in (task / "status").read_text(encoding="ascii", errors="replace").splitlines())
            if facts["State"].strip()[0] != "S":
                return -1
            total += int(facts["voluntary_ctxt_switches"]) + int(facts["nonvoluntary_ctxt_switches"])
    except (OSError, KeyError):
        return -1
    return total
