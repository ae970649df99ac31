"""Workers expand parts of one block side by side: one in this process, the others forked from it, over rows that all of them share.

A forked worker has a machine of its own, because the library's arrays are copied with everything else; what is known, the block and
what is found lie in shared rows. Each command is answered, a worker that dies is a failure of the machine, and none outlives its parent.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled import kernel
from fuzz.compiled.rows import Row
from fuzz.compiled.world import COUNTS_AT, REGISTERS
from fuzz.workers import HarnessFailure
from model.ops import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from fuzz.compiled.machine import Machine

BUDGET: Final = 1 << 17
"""Steps between two looks at whether to stop."""
FOUND_WORDS: Final = 1 << 22
_FILTER_WORDS: Final = 1 << 12
_RECENT_WORDS: Final = 1 << 13
"""So few that they stay in a processor's second cache, of half a megabyte or more."""
STOP: Final = kernel.CONTROL_WORDS - 1
"""The word of a control row that asks its worker to stop."""
VERDICT: Final = kernel.CONTROL_WORDS - 2
_WAIT_SECONDS: Final = 1.0


@dataclass
class Part:
    """One worker's share of a block, and its rows.

    Args:
        found: what it takes for new.
        control: see `fuzz.compiled.kernel`.
        counts: executions by kind.
        earlier: what was found before the row was full, in order.
    """

    found: Row = field(default_factory=lambda: Row(FOUND_WORDS))
    control: Row = field(default_factory=lambda: Row(kernel.CONTROL_WORDS))
    counts: Row = field(default_factory=lambda: Row(len(Kind)))
    earlier: list[bytes] = field(default_factory=list)

    def begin(self, position: int, end: int, number: int) -> None:
        """Make it a share that nothing was done of."""
        words = self.control.words
        for index in range(kernel.CONTROL_WORDS):
            words[index] = 0
        words[kernel.POSITION], words[kernel.END], words[kernel.NUMBER] = position, end, number
        for index in range(len(Kind)):
            self.counts.words[index] = 0
        self.earlier.clear()

    @property
    def status(self) -> int:
        """How its expansion came back."""
        return self.control.words[kernel.STATUS]


class Expansion:
    """What a worker does with its part: it calls compiled code until the part is done or somebody has to help.

    Args:
        machine: the worker's.
        block, table: shared rows.
        expand: the entry that expands, `fuzz.compiled.kernel.expand` or one like it.
    """

    def __init__(self, machine: Machine, block: Row, table: Row, expand: Callable[..., int]) -> None:
        self.machine = machine
        self.expand = expand
        self.block = block
        self.table = table
        self.filter = Row(_FILTER_WORDS)
        self.recent = Row(_RECENT_WORDS)

    def run(self, part: Part, look: Callable[[], bool]) -> None:
        """Go on with a part; its status says why this came back. `look` is asked now and then whether to stop."""
        control, machine = part.control.words, self.machine
        if control[kernel.FILTERED] == 0:
            self.filter.clear()
            self.recent.clear()
        world = machine.w
        for index in range(len(Kind)):
            world[COUNTS_AT + index] = 0
        mask = len(self.table) // 2 - 1
        while True:
            control[kernel.BUDGET] = BUDGET
            status = machine.call(self.expand, self.block, self.table, mask, self.filter, self.recent, part.found, part.control)
            if status == kernel.FILTER_FULL:
                larger = Row(4 * len(self.filter))
                machine.call(kernel.rehash, self.filter, larger, len(larger) // 2 - 1)
                self.filter = larger
            elif status != kernel.BUDGET_SPENT or control[STOP] != 0 or look():
                break
        for index in range(len(Kind)):
            part.counts.words[index] += world[COUNTS_AT + index]
        control[VERDICT] = world[REGISTERS["verdict"]]
        control[kernel.STATUS] = status


class Crew:
    """The workers of a search, until the table grows; to be used in a `with` block.

    Args:
        machine: the one of this process; workers get copies of it.
        block, table: shared rows.
        parts: one for each worker.
        expand: the entry that expands.
    """

    def __init__(self, machine: Machine, block: Row, table: Row, parts: list[Part], expand: Callable[..., int] = kernel.expand) -> None:
        self.parts = parts
        self._here = Expansion(machine, block, table, expand)
        self._there: list[tuple[Any, Connection]] = []
        machine.occupy()
        context = multiprocessing.get_context("fork")
        for part in parts[1:]:
            ours, theirs = context.Pipe()
            # A worker that held an end of another's pipe would keep that one alive.
            others = [ours, *(connection for _process, connection in self._there)]
            process = context.Process(target=_work, args=(theirs, others, Expansion(machine, block, table, expand), part), daemon=True)
            process.start()
            theirs.close()
            self._there.append((process, ours))

    def expand(self, wanted: list[int], look: Callable[[], bool]) -> None:
        """Go on with some parts.

        Args:
            wanted: numbers of the parts.
            look: asked now and then whether to stop.

        Raises:
            HarnessFailure: a worker died.
        """
        for number in wanted:
            if number:
                self._there[number - 1][1].send_bytes(b"g")
        if 0 in wanted:
            self._here.run(self.parts[0], look)
        for number in wanted:
            if number:
                self._wait(number, look)

    def stop(self) -> None:
        """Ask all workers to stop where they are."""
        for part in self.parts:
            part.control.words[STOP] = 1

    def _wait(self, number: int, look: Callable[[], bool]) -> None:
        process, connection = self._there[number - 1]
        while True:
            try:
                if connection.poll(_WAIT_SECONDS):
                    connection.recv_bytes()
                    return
            except (EOFError, OSError) as error:
                raise HarnessFailure("a worker process of the search died") from error
            if look():
                self.stop()
            if not process.is_alive() and not connection.poll(0):
                raise HarnessFailure(f"a worker process of the search died (exit code {process.exitcode})")

    def close(self) -> None:
        """End the workers, and wait until they are gone."""
        for _process, connection in self._there:
            connection.close()
        for process, _connection in self._there:
            process.join(_WAIT_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()
        self._there.clear()


def _work(connection: Connection, others: list[Connection], expansion: Expansion, part: Part) -> None:
    """Answer commands until there are no more: the parent has closed its end, or is gone."""
    for other in others:
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.recv_bytes()
            expansion.run(part, _never)
            connection.send_bytes(b"d")


def _never() -> bool:
    return False
