"""A compiled search in a checkpoint file, and back: what is known, and the states that wait, section by section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.checkpoint import VERSION, read_file, write_file
from fuzz.compiled import kernel
from fuzz.compiled.rows import Row
from model.ops import Kind
from model.properties import Sometimes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fuzz.checkpoint import Bytes
    from fuzz.compiled.search import CompiledExplorer

_PIECE_WORDS: Final = 1 << 21
# Digests are noise, and zlib finds nothing in them.
_NOT_AT_ALL: Final = 0
_A_LITTLE: Final = 1
_NUMBERS: Final = ("waiting", "arriving", "depth", "transitions", "counts", "shown")


def save(path: Path, explorer: CompiledExplorer, described: dict[str, Any]) -> None:
    """Write a search that is between two blocks to a file, durably.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    search, known = explorer.search, explorer.known
    head = {
        "drc checkpoint": VERSION,
        **described,
        **{name: getattr(search, name) for name in _NUMBERS},
        "states": known.states,
        "table_words": len(known.table),
        "frontiers": [frontier.kept() for frontier in (explorer.frontier, explorer.following)],
    }
    write_file(path, head, _sections(explorer))


def _sections(explorer: CompiledExplorer) -> Iterator[tuple[Bytes, int]]:
    known = explorer.known
    for row, words, level in ((known.table, len(known.table), _NOT_AT_ALL), (known.parents, known.states, _A_LITTLE)):
        for first in range(0, words, _PIECE_WORDS):
            yield row.words[first : min(first + _PIECE_WORDS, words)], level
    for frontier in (explorer.frontier, explorer.following):
        for piece in frontier.pieces():
            yield piece, _A_LITTLE


def restore(path: Path, explorer: CompiledExplorer, described: dict[str, Any]) -> None:
    """Make a search that has not begun the one in a file.

    Raises:
        CheckpointError: the file is damaged, or belongs to another search.
        OSError: it could not be read.
    """
    head, sections = read_file(path, described)
    search, known = explorer.search, explorer.known
    for name in _NUMBERS:
        setattr(search, name, head[name])
    known.states = head["states"]
    known.table = _filled(sections, head["table_words"], head["table_words"])
    size = len(known.parents)
    while size < known.states:
        size *= 2
    known.parents = _filled(sections, known.states, size)
    for frontier, kept in zip((explorer.frontier, explorer.following), head["frontiers"], strict=True):
        frontier.refill(kept, sections)
    for index in range(len(Sometimes)):
        explorer.shown.words[kernel.SHOWN + index] = search.shown[index]
    if len(search.counts) != len(Kind):
        raise ValueError("a checkpoint of this code has a count for each kind")


def _filled(sections: Iterator[bytes], words: int, size: int) -> Row:
    row = Row(size)
    for first in range(0, words, _PIECE_WORDS):
        piece = memoryview(next(sections)).cast("q")
        row.words[first : first + len(piece)] = piece
    return row
