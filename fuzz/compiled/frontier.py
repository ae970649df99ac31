"""States that wait: rows of encoded states, written and read in order; what exceeds a bound of memory lies in files meanwhile."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from fuzz.compiled.rows import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SEGMENT_WORDS: Final = 1 << 21
"""A segment is what is written or read at once. No state is longer."""
SPARE_MAX: Final = 8
"""Rows that are kept for segments to come."""


@dataclass(slots=True)
class Segment:
    """Some encoded states in a row.

    Args:
        states: how many.
        words: how many words they have.
        data: a row that has them, or the file.
    """

    states: int
    words: int
    data: Row | IO[bytes]

    def read(self) -> memoryview[int]:
        """Return the words."""
        if isinstance(self.data, Row):
            return self.data.words[: self.words]
        self.data.seek(0)
        return memoryview(self.data.read()).cast("q")


class Frontier:
    """A queue of states.

    Args:
        memory_max: words that may stay in memory; None for any number.
        folder: where files are put; they have no names, so that nothing is left behind.

    Attributes:
        segments: what waits, but for what was written last.
        room: a row to write states to, behind those in `used` words of it.
        used: words of the room that are states.
        spilled: words that were put into files.
        next: where in its row the first state is that was not loaded last.
    """

    def __init__(self, memory_max: int | None, folder: Path | None) -> None:
        self.memory_max = memory_max
        self.folder = folder
        self.segments: deque[Segment] = deque()
        self.room = Row(SEGMENT_WORDS)
        self.used = 0
        self.spilled = 0
        self._spare: list[Row] = []
        self._states = 0
        self._in_memory = 0
        # The segment at hand: where its first waiting state is, and how many of its states are done.
        self._loaded: Segment | None = None
        self._position = 0
        self.next = 0
        self._done = 0

    # Writing.

    def wrote(self, used: int, states: int) -> None:
        """So many words of the room are used now; so many states came."""
        self.used = used
        self._states += states

    def flush(self) -> None:
        """Make what was written last a segment: the room is empty again. Raise OSError if a file cannot be written."""
        words, states = self.used, self._states
        if not words:
            return
        if self.memory_max is None or self._in_memory + words <= self.memory_max:
            self._in_memory += words
            self.segments.append(Segment(states, words, self.room))
            # A row that was used before has its pages already.
            self.room = self._spare.pop() if self._spare else Row(SEGMENT_WORDS)
        else:
            file = tempfile.TemporaryFile(dir=self.folder, prefix="drc-frontier-")  # noqa: SIM115  # closed with its segment
            file.write(self.room.words[:words])
            file.flush()
            self.spilled += words
            self.segments.append(Segment(states, words, file))
        self.used = self._states = 0

    # Checkpoints.

    def kept(self) -> dict[str, Any]:
        """Return what a checkpoint has to say of it besides the words of `pieces`."""
        return {"states": [segment.states for segment in self.segments], "done": self._done, "last": self._states}

    def pieces(self) -> Iterator[memoryview[int]]:
        """Yield the words of all that waits: those of each segment, then what was written last."""
        for segment in self.segments:
            yield segment.read()
        yield self.room.words[: self.used]

    def refill(self, kept: dict[str, Any], pieces: Iterator[bytes]) -> None:
        """Become what a checkpoint says. Raise OSError if a file cannot be written."""
        for states in kept["states"]:
            self._write(next(pieces), states)
            self.flush()
        self._write(next(pieces), kept["last"])
        self._done = kept["done"]

    def _write(self, data: bytes, states: int) -> None:
        words = memoryview(data).cast("q")
        self.room.words[: len(words)] = words
        self.wrote(len(words), states)

    # Reading.

    def load(self, block: Row, most: int, skip: Callable[[int, int], int]) -> tuple[int, int]:
        """Put the states that wait first into a row; return where they begin in it, and how many there are, at most `most`.

        Args:
            block: room for a segment.
            most: how many are wanted.
            skip: returns the position behind so many states of the row from a position on.
        """
        segment = self.segments[0]
        if self._loaded is not segment:
            data = segment.read()
            block.words[: len(data)] = data
            self._loaded = segment
            self._position = skip(0, self._done)
        left = segment.states - self._done
        count = min(most, left)
        self.next = segment.words if count == left else skip(self._position, count)
        return self._position, count

    def done(self, count: int) -> None:
        """So many states that were loaded are expanded."""
        segment = self.segments[0]
        self._done += count
        self._position = self.next
        if self._done == segment.states:
            self.segments.popleft()
            self._loaded, self._position, self._done = None, 0, 0
            if isinstance(segment.data, Row):
                self._in_memory -= segment.words
                if len(self._spare) < SPARE_MAX:
                    self._spare.append(segment.data)
            else:
                segment.data.close()
