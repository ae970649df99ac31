"""A memo holds the bytes in which each part of a memory was last found sound, so that only what differs is read again.

It can hide nothing: a part is believed only if every word that its verdict depends on has the value that it had when the part
was last read, and then reading it again would find the same. Which memo is looked into decides how long a check takes, never
what it finds.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TypeAlias

from impl.layout import WORD_BYTES, layout_for
from impl.stack_maps import image_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from impl.config import Config

Words: TypeAlias = list[int]
Span: TypeAlias = tuple[int, int]
"""Address of a block, and of the word after it."""
Piece: TypeAlias = "tuple[bytes, memoryview[int]]"
"""What words of a memory contained when they were sound, and these words. The bytes may be longer; then these are their beginning."""

# Nothing looks like this.
NEVER: Final[list[Piece]] = [(b"", memoryview(bytes(WORD_BYTES)).cast("Q"))]
# A memo keeps its memory alive, so there are few: for drivers that take turns.
MEMOS_MAX: Final = 8
# Objects remembered by one memo, living ones and others at addresses that may be used again.
VALUES_MAX: Final = 256


def bytes_of(words: Words) -> bytes:
    """Return words as they lie in a memory."""
    return b"".join(word.to_bytes(WORD_BYTES, sys.byteorder) for word in words)


def unchanged(pieces: list[Piece]) -> bool:
    """Say whether the memory contains these pieces still."""
    # `startswith` compares bytes and copies nothing; `==` would compare word by word, and a generator would cost more than both.
    for piece, window in pieces:  # noqa: SIM110
        if not piece.startswith(window):
            return False
    return True


def cut(view: memoryview[int], spans: Iterable[Span]) -> list[Piece]:
    """Return what the memory contains in these spans of words; those that follow one another are one piece."""
    pieces: list[Piece] = []
    first = last = 0
    for start, end in spans:
        if start != last:
            if first < last:
                window = view[first:last]
                pieces.append((window.tobytes(), window))
            first = start
        last = end
    window = view[first:last]
    pieces.append((window.tobytes(), window))
    return pieces


class Plan:
    """What a configuration determines: the contents of vtables and images, and the shape of a value.

    A shape is `(footer, block, align_mask, fields)`: where the footer begins, words of the block with its padding, alignment
    less one, and how many of the first words are owned references. Shapes are found by the distance of their vtable from the
    first one.
    """

    __slots__ = ("images", "shapes", "vtables")

    def __init__(self, config: Config) -> None:
        self.shapes: dict[int, tuple[int, int, int, int]] = {}
        vtables: Words = []
        for size_bytes, align_bytes, fields in config.layouts:
            block_bytes, block_align_bytes, footer_bytes = layout_for(size_bytes, align_bytes)
            block = block_bytes // WORD_BYTES
            shape = footer_bytes // WORD_BYTES, block + (block & 1), block_align_bytes // WORD_BYTES - 1, fields
            self.shapes[len(vtables)] = shape
            vtables += (size_bytes, align_bytes, fields)
        self.vtables = bytes_of(vtables)
        self.images = [bytes_of(image_row(module)) for module in config.modules]


class Part:
    """One part of a memory: the pieces in which it was sound, and starts and ends of the blocks that are its own."""

    __slots__ = ("ends", "pieces", "starts")

    def __init__(self) -> None:
        self.pieces = NEVER
        self.starts: Words = []
        self.ends: Words = []


class Value:
    """An object that was sound.

    Attributes:
        pieces, spans: the words of its block but the count, which is no part of what makes an object sound.
        span: its block.
        fields: the words in which it owns a reference or null.
    """

    __slots__ = ("fields", "pieces", "span", "spans")

    def __init__(self, pieces: list[Piece], spans: list[Span], span: Span, fields: Words) -> None:
        self.pieces = pieces
        self.spans = spans
        self.span = span
        self.fields = fields


class Memo:
    """What one memory of one configuration contained when it was last found sound. `forget` makes it as new.

    Attributes:
        view: the memory.
        config: the configuration; `plan` is what follows from it.
        addresses: the words of the header that never change.
        stack: a part that has those words as well; it yields `in_flight`, `dying`, `canary`.
        free, table, fixed, registry, instances, quarantine: parts, and `parts` is a row of them; the activations table yields
            `chunk`, `over`, `precise` and `sweeping`, the instances `cells`.
        objects: a part about the objects in `externrefs`, which yields `owned`; `values` has more of them, by address.
        held: all words that own a reference or null, or None if any of them has been read again.
        opened, closed: starts and ends of blocks that are new, and ends and starts of those that are gone; none after a check.
    """

    __slots__ = (
        "addresses",
        "canary",
        "cells",
        "chunk",
        "closed",
        "config",
        "dying",
        "externrefs",
        "fixed",
        "free",
        "held",
        "in_flight",
        "instances",
        "objects",
        "opened",
        "over",
        "owned",
        "parts",
        "plan",
        "precise",
        "quarantine",
        "registry",
        "stack",
        "sweeping",
        "table",
        "values",
        "view",
    )

    def __init__(self, view: memoryview[int], config: Config) -> None:
        self.view = view
        self.config = config
        self.plan = Plan(config)
        self.forget()

    def forget(self) -> None:
        """Believe nothing."""
        self.addresses = NEVER
        self.stack, self.objects = Part(), Part()
        self.in_flight: tuple[int, ...] = ()
        self.dying: tuple[int, ...] = ()
        self.canary = 0
        self.free, self.table, self.fixed = Part(), Part(), Part()
        self.registry, self.instances, self.quarantine = Part(), Part(), Part()
        self.parts = (self.free, self.table, self.fixed, self.registry, self.instances, self.quarantine)
        self.chunk: Words = []
        self.over: tuple[int, ...] = ()
        self.precise: tuple[int, ...] = ()
        self.sweeping: tuple[int, ...] = ()
        self.cells: Words = []
        self.values: dict[int, Value] = {}
        self.externrefs: Words = []
        self.owned: Words = []
        self.held: Words | None = None
        self.opened: Words = []
        self.closed: Words = []

    def replace(self, part: Part, starts: Words, ends: Words) -> None:
        """Note that a part has these blocks now."""
        if starts != part.starts or ends != part.ends:
            self.opened += starts
            self.opened += part.ends
            self.closed += ends
            self.closed += part.starts
            part.starts, part.ends = starts, ends

    def spans(self) -> list[Span]:
        """Return all blocks, in the order of their addresses."""
        return sorted(span for part in (*self.parts, self.objects) for span in zip(part.starts, part.ends, strict=True))


_memos: list[Memo] = []


def memo_for(view: memoryview[int], config: Config) -> Memo:
    """Return the memo of a memory; the last few are kept, which keeps their memories, and found by identity."""
    for memo in _memos:
        if memo.view is view and memo.config is config:
            if memo is not _memos[0]:
                _memos.remove(memo)
                _memos.insert(0, memo)
            return memo
    memo = Memo(view, config)
    _memos.insert(0, memo)
    del _memos[MEMOS_MAX:]
    return memo
