"""The checked memory finds a bad access at the access, and a bad deallocation before it changes anything.

It has a shadow state for each word and the layout of each live block, and learns of blocks from the allocator's requests.
"""

from __future__ import annotations

from array import array
from typing import Final, NoReturn

from impl.errors import (
    AccessOutOfBounds,
    DoubleFree,
    Misaligned,
    UninitialisedRead,
    UseAfterFree,
    WrongLayout,
)
from impl.header import (
    DOORBELL,
    HEAP_END,
    HEAP_START,
    NULL,
    REQUEST_ALIGN_SHIFT,
    REQUEST_ALLOCATED,
    REQUEST_BLOCK_SHIFT,
    REQUEST_CLOSE,
    REQUEST_DEALLOCATE,
    REQUEST_FORMATTED,
    REQUEST_KIND_MASK,
    REQUEST_OPEN,
)

# Shadow states of a word.
OUTSIDE: Final = 0
FREE: Final = 1
UNINITIALISED: Final = 2
INITIALISED: Final = 3
BELL: Final = 4

WORD_BYTES: Final = 8
WORD_LIMIT: Final = 1 << 64
BLOCK_SIZE_MASK: Final = (1 << REQUEST_BLOCK_SHIFT) - 1


class CheckedMemory:
    """A memory that raises a `MemoryVerdict` at the access that commits the error.

    A good access costs one look at the shadow. The allocator alone may touch words of free blocks, between the request that
    opens and the one that closes its privilege.

    Args:
        words: The memory to watch, for instance of `impl.arena.raw_memory`.
    """

    __slots__ = ("_block", "_freed", "_layouts", "_open", "_shadow", "words")

    def __init__(self, words: memoryview[int]) -> None:
        """Watch `words`; until `impl.arena.initialise` formats the heap, every word but the null word may be used."""
        count = len(words)
        self.words = words
        # As many bytes again that say `OUTSIDE`: negative indices count from the end, and so land there without a comparison.
        self._shadow = bytearray([INITIALISED]) * count + bytearray(count)
        self._shadow[NULL] = OUTSIDE
        self._shadow[DOORBELL] = BELL
        # By address: size << 32 | align of the block that starts there, or 0.
        self._layouts = array("Q", bytes(count * WORD_BYTES))
        self._block = 0
        self._freed = (0, 0)
        self._open = False

    def __len__(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def __getitem__(self, index: int) -> int:
        """Read a word.

        Raises:
            UseAfterFree, UninitialisedRead, AccessOutOfBounds, Misaligned: What is wrong with the access.
        """
        try:
            state = self._shadow[index]
            if state == INITIALISED or (state == FREE and self._open):
                return self.words[index]
        except (IndexError, TypeError):
            pass
        return self._misread(index)

    def __setitem__(self, index: int, word: int) -> None:
        """Write a word, which is then initialised; a write to the doorbell is a request.

        Raises:
            UseAfterFree, AccessOutOfBounds, Misaligned: What is wrong with the access.
            DoubleFree, WrongLayout: What is wrong with the request.
        """
        try:
            state = self._shadow[index]
            if state == INITIALISED or (state == FREE and self._open):
                self.words[index] = word
                return
            if state == UNINITIALISED:
                self.words[index] = word
                self._shadow[index] = INITIALISED
                return
            if state == BELL and word >= 0:
                self._request(word)
                return
        except (IndexError, TypeError, ValueError):
            pass
        self._miswrite(index, word)

    def snapshot(self) -> bytes:
        """Copy the words, then the shadow and the layouts of the live blocks."""
        return b"".join((self.words, self._shadow, self._layouts))

    def restore(self, state: bytes) -> None:
        """Put back what `snapshot` of a checked memory of this size has copied.

        Raises:
            ValueError: The state is of another size or sort of memory.
        """
        count = len(self.words)
        shadow_start = count * WORD_BYTES
        layouts_start = shadow_start + 2 * count
        if len(state) != layouts_start + count * WORD_BYTES:
            text = f"a checked memory of {count} words cannot take a state of {len(state)} bytes"
            raise ValueError(text)
        self.words[:] = memoryview(state)[:shadow_start].cast("Q")
        self._shadow[:] = state[shadow_start:layouts_start]
        self._layouts = array("Q", state[layouts_start:])
        self._block = 0
        self._freed = (0, 0)
        self._open = False

    def is_open(self) -> bool:
        """Say whether the allocator is at work."""
        return self._open

    def live_blocks(self) -> dict[int, tuple[int, int]]:
        """Return the live blocks: size and alignment, both in words, by address."""
        return {
            address: (layout >> REQUEST_BLOCK_SHIFT, layout & BLOCK_SIZE_MASK) for address, layout in enumerate(self._layouts) if layout
        }

    def _state(self, index: int, access: str) -> int:
        """Return the shadow state of any index at all."""
        if not hasattr(index, "__index__"):
            text = f"{access} index {index!r}, which is not a whole number of words"
            raise Misaligned(text)
        if 0 <= index < len(self.words):
            return self._shadow[index]
        return OUTSIDE

    def _misread(self, index: int) -> int:
        """Say why a word cannot be read; the doorbell alone can, and says nothing."""
        state = self._state(index, "read of")
        if state == BELL:
            return 0
        where = self._describe("read", index)
        if state == FREE:
            raise UseAfterFree(where)
        if state == UNINITIALISED:
            raise UninitialisedRead(f"{where}, and nobody has written it since it was allocated")
        raise AccessOutOfBounds(where)

    def _miswrite(self, index: int, word: int) -> NoReturn:
        """Say why a word cannot be written."""
        state = self._state(index, "write to")
        where = self._describe("write", index)
        if not hasattr(word, "__index__") or not 0 <= word < WORD_LIMIT:
            raise AccessOutOfBounds(f"{where}: {word!r} is not an unsigned 64-bit word")
        if state == FREE:
            raise UseAfterFree(where)
        raise AccessOutOfBounds(where)

    def _describe(self, access: str, index: int) -> str:
        """Say where an access went, in terms of the nearest block below it."""
        if index == NULL:
            return f"{access} through the null reference"
        start = min(index, len(self.words) - 1)
        while start > 0 and not self._layouts[start]:
            start -= 1
        where = f"{access} of word {index} in a memory of {len(self.words)} words"
        if start <= 0:
            return f"{where}; no live block is below it"
        size = self._layouts[start] >> REQUEST_BLOCK_SHIFT
        return f"{where}; the nearest live block below is [{start}, {start + size})"

    def _request(self, word: int) -> None:
        """Serve one store to the doorbell."""
        if word >> REQUEST_BLOCK_SHIFT:
            self._block = word
            return
        kind = word & REQUEST_KIND_MASK
        address = self._block >> REQUEST_BLOCK_SHIFT
        size = self._block & BLOCK_SIZE_MASK
        self._block = 0
        if kind == REQUEST_CLOSE:
            address, padded = self._freed
            self._shadow[address : address + padded] = bytes([FREE]) * padded
            self._freed = (0, 0)
            self._open = False
        elif kind == REQUEST_OPEN:
            self._open = True
        elif kind == REQUEST_ALLOCATED:
            self._allocated(address, size, word >> REQUEST_ALIGN_SHIFT)
        elif kind == REQUEST_DEALLOCATE:
            self._deallocate(address, size, word >> REQUEST_ALIGN_SHIFT)
        elif kind == REQUEST_FORMATTED:
            self._formatted()
        else:
            text = f"request {word} at the doorbell has no meaning"
            raise AccessOutOfBounds(text)

    def _allocated(self, address: int, size: int, align: int) -> None:
        """Take note of a block that the allocator hands out."""
        if size == 0 or align == 0 or align & (align - 1):
            text = f"allocation of {size} words aligned to {align}: no layout"
            raise WrongLayout(text)
        if address & (align - 1):
            text = f"the allocator answered {address} for {size} words aligned to {align}"
            raise Misaligned(text)
        padded = size + (size & 1)
        if self._shadow[address : address + padded] != bytes([FREE]) * padded:
            text = f"the allocator answered [{address}, {address + padded}), which is not all free"
            raise AccessOutOfBounds(text)
        self._shadow[address : address + padded] = bytes([UNINITIALISED]) * size + bytes(padded - size)
        self._layouts[address] = size << REQUEST_BLOCK_SHIFT | align

    def _deallocate(self, address: int, size: int, align: int) -> None:
        """Judge a deallocation before it happens, and make the block's words free."""
        layout = self._layouts[address] if address < len(self.words) else 0
        if layout == 0 and self._state(address, "deallocation of") == FREE:
            text = f"deallocation of {address} (size {size}, align {align}), which is free already"
            raise DoubleFree(text)
        if layout != size << REQUEST_BLOCK_SHIFT | align:
            was = f"was allocated with size {layout >> REQUEST_BLOCK_SHIFT}, align {layout & BLOCK_SIZE_MASK}"
            text = f"deallocation of {address} with size {size}, align {align}; it {was if layout else 'is no block'}"
            raise WrongLayout(text)
        # The words stay accessible until the allocator closes: it is about to poison every one of them, on the fast path.
        padded = size + (size & 1)
        self._shadow[address : address + padded] = bytes([INITIALISED]) * padded
        self._freed = (address, padded)
        self._layouts[address] = 0
        self._open = True

    def _formatted(self) -> None:
        """Start afresh: everything below the heap may be used, the heap is free, and what follows it is nobody's."""
        count = len(self.words)
        start = self.words[HEAP_START]
        end = self.words[HEAP_END]
        self._shadow[:] = bytes([INITIALISED]) * start + bytes([FREE]) * (end - start) + bytes(2 * count - end)
        self._shadow[NULL] = OUTSIDE
        self._shadow[DOORBELL] = BELL
        self._layouts = array("Q", bytes(count * WORD_BYTES))
        self._freed = (0, 0)
        self._open = False
