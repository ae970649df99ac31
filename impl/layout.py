"""Byte layouts exist only here: value and footer in one allocation, and where compiled code finds its fields.

Everything but the `ctypes` structures uses additions, comparisons, shifts and masks alone, so that symbolic words can run it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from impl.errors import AllocationFailed, Misaligned

# A word of a memory, and so a pointer of the simulated machine, has 8 bytes.
WORD_BYTES: Final = 8
WORD_SHIFT: Final = 3

# `VMExternData` is a count and a fat pointer: three pointers, aligned as one.
EXTERN_DATA_POINTERS: Final = 3


def round_up_to_align(n: int, align: int, limit: int) -> int:
    """Return the least multiple of `align` that is not below `n`.

    Args:
        n: Any size, in the unit of `align`.
        align: A power of two, at most ``limit + 1``.
        limit: What the sum on the way must not exceed.

    Raises:
        AllocationFailed: It would.

    Source: seed `round_up_to_align`, where the overflow is `None`.
    """
    mask = align - 1
    if n > limit - mask:
        raise AllocationFailed("the size is too large for the pointer width")
    return (n + mask) & ~mask


def layout_for_pointer(size_bytes: int, align_bytes: int, pointer_bytes: int) -> tuple[int, int, int]:
    """Return size, alignment and footer offset of the allocation for a value and its footer, all in bytes.

    Args:
        size_bytes: The value's size.
        align_bytes: The value's alignment, a power of two.
        pointer_bytes: 4 or 8.

    Raises:
        AllocationFailed: The size, rounded up to the alignment, exceeds the pointer width's `isize::MAX`.

    Source: seed `VMExternData::layout_for`, which checks only in debug builds, and `Layout::from_size_align`.
    """
    limit = (1 << ((pointer_bytes << 3) - 1)) - 1
    footer_size = pointer_bytes + pointer_bytes + pointer_bytes
    footer_offset = round_up_to_align(size_bytes, pointer_bytes, limit)
    align = align_bytes
    if align < pointer_bytes:
        align = pointer_bytes
    if footer_offset > limit - footer_size:
        raise AllocationFailed("the size is too large for the pointer width")
    alloc_size = footer_offset + footer_size
    if alloc_size > limit - (align - 1):
        raise AllocationFailed("the size is too large for the pointer width")
    return alloc_size, align, footer_offset


def layout_for(size_bytes: int, align_bytes: int) -> tuple[int, int, int]:
    """Return size, alignment and footer offset, in bytes, for the simulated machine's 64-bit pointers.

    Raises:
        AllocationFailed: The size is too large.

    Source: seed `VMExternData::layout_for`.
    """
    return layout_for_pointer(size_bytes, align_bytes, WORD_BYTES)


def words(size_bytes: int) -> int:
    """Convert bytes to words.

    Raises:
        Misaligned: They are not a whole number of words.
    """
    if size_bytes & (WORD_BYTES - 1) != 0:
        raise Misaligned("the bytes are not a whole number of words")
    return size_bytes >> WORD_SHIFT


@dataclass(frozen=True)
class VMOffsets:
    """Offsets in bytes that compiled code has built in.

    Args:
        pointer_size: 4 or 8 bytes.

    Source: `wasmtime_environ::VMOffsets`, the parts that concern external references.

    >>> VMOffsets(pointer_size=8).vm_extern_ref_activation_table_end()
    8
    """

    pointer_size: int

    def vm_extern_data_ref_count(self) -> int:
        """Return the offset of the count in `VMExternData`."""
        return 0

    def vm_extern_data_size(self) -> int:
        """Return the size of `VMExternData`."""
        return EXTERN_DATA_POINTERS * self.pointer_size

    def vm_extern_ref_activation_table_next(self) -> int:
        """Return the offset of the bump finger in the activations table."""
        return 0

    def vm_extern_ref_activation_table_end(self) -> int:
        """Return the offset of the end of the bump chunk in the activations table."""
        return self.pointer_size


class VMExternData64(ctypes.Structure):
    """`VMExternData` as a C compiler lays it out for 8-byte pointers."""

    _fields_ = (("ref_count", ctypes.c_uint64), ("value_ptr", ctypes.c_uint64), ("vtable", ctypes.c_uint64))


class VMExternData32(ctypes.Structure):
    """`VMExternData` as a C compiler lays it out for 4-byte pointers."""

    _fields_ = (("ref_count", ctypes.c_uint32), ("value_ptr", ctypes.c_uint32), ("vtable", ctypes.c_uint32))


class TableHead64(ctypes.Structure):
    """What compiled code uses of the activations table, for 8-byte pointers."""

    _fields_ = (("next", ctypes.c_uint64), ("end", ctypes.c_uint64))


class TableHead32(ctypes.Structure):
    """What compiled code uses of the activations table, for 4-byte pointers."""

    _fields_ = (("next", ctypes.c_uint32), ("end", ctypes.c_uint32))


def c_layout(structure: type[ctypes.Structure]) -> tuple[int, int, tuple[int, ...]]:
    """Return size, alignment and the offsets of the fields, in bytes, as a C compiler has them.

    >>> c_layout(VMExternData32)
    (12, 4, (0, 4, 8))
    """
    offsets = tuple(getattr(structure, name).offset for name, *_ in structure._fields_)
    return ctypes.sizeof(structure), ctypes.alignment(structure), offsets
