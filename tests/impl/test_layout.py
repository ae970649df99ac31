"""Layouts: aligned, tight, refused where they do not fit, and as a C compiler has them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impl.errors import AllocationFailed, Misaligned
from impl.externref import EXTERN_DATA_WORDS, REF_COUNT, VALUE_PTR, VTABLE
from impl.layout import (
    TableHead32,
    TableHead64,
    VMExternData32,
    VMExternData64,
    VMOffsets,
    c_layout,
    layout_for,
    layout_for_pointer,
    round_up_to_align,
    words,
)

SIZES = st.integers(0, 2**64 - 1) | st.integers(0, 300) | st.integers(2**63 - 100, 2**63 + 100) | st.integers(2**31 - 100, 2**31 + 100)
ALIGNS = st.integers(0, 63).map(lambda shift: 1 << shift)


@given(SIZES, ALIGNS)
def test_rounding_is_the_least_multiple_or_a_refusal(n: int, align: int) -> None:
    limit = 2**64 - 1
    expected = -(-n // align) * align
    # As in the seed, the sum on the way must fit, which is exactly when the multiple does.
    if n + align - 1 > limit:
        with pytest.raises(AllocationFailed):
            round_up_to_align(n, align, limit)
    else:
        assert round_up_to_align(n, align, limit) == expected


@pytest.mark.parametrize("limit", [127, 255])
def test_rounding_is_right_up_to_the_very_limit(limit: int) -> None:
    for align in (1, 2, 8, 64, 128):
        for n in range(limit + 1):
            if n + align - 1 > limit:
                with pytest.raises(AllocationFailed, match="too large"):
                    round_up_to_align(n, align, limit)
            else:
                assert round_up_to_align(n, align, limit) == -(-n // align) * align


@pytest.mark.parametrize("pointer", [4, 8])
@pytest.mark.parametrize("align", [1, 4, 8, 16, 1 << 20])
def test_a_layout_is_right_up_to_the_very_limit(align: int, pointer: int) -> None:
    limit = 2 ** (8 * pointer - 1) - 1
    wider = max(align, pointer)
    largest = (limit // wider) * wider - 3 * pointer
    accepted = [size for size in range(largest - 9, largest + 10) if -(-size // pointer) * pointer + 3 * pointer <= limit - wider + 1]
    assert accepted == list(range(largest - 9, largest + 1))
    for size in range(largest - 9, largest + 10):
        if size in accepted:
            footer = -(-size // pointer) * pointer
            assert layout_for_pointer(size, align, pointer) == (footer + 3 * pointer, wider, footer)
        else:
            with pytest.raises(AllocationFailed):
                layout_for_pointer(size, align, pointer)


@given(SIZES, ALIGNS, st.sampled_from([4, 8]))
def test_a_layout_fits_and_is_aligned_or_is_refused(size: int, align: int, pointer: int) -> None:
    limit = 2 ** (8 * pointer - 1) - 1
    alloc_align = max(align, pointer)
    footer = -(-size // pointer) * pointer
    total = footer + 3 * pointer
    rounded = -(-total // alloc_align) * alloc_align
    if rounded > limit:
        with pytest.raises(AllocationFailed):
            layout_for_pointer(size, align, pointer)
    else:
        assert layout_for_pointer(size, align, pointer) == (total, alloc_align, footer)


@pytest.mark.parametrize(
    ("size", "align", "layout"),
    [
        (0, 1, (24, 8, 0)),
        (1, 1, (32, 8, 8)),
        (8, 8, (32, 8, 8)),
        (9, 2, (40, 8, 16)),
        (16, 64, (40, 64, 16)),
    ],
)
def test_layouts_of_small_values(size: int, align: int, layout: tuple[int, int, int]) -> None:
    assert layout_for(size, align) == layout


@pytest.mark.parametrize("short", range(13))
def test_a_value_within_twelve_bytes_of_the_maximum_is_refused_at_32_bits(short: int) -> None:
    with pytest.raises(AllocationFailed):
        layout_for_pointer(2**31 - 1 - short, 1, 4)


def test_the_largest_value_at_32_bits_is_accepted() -> None:
    assert layout_for_pointer(2**31 - 16, 4, 4) == (2**31 - 4, 4, 2**31 - 16)


@pytest.mark.parametrize(("pointer", "structure"), [(4, VMExternData32), (8, VMExternData64)])
def test_the_footer_is_as_a_c_compiler_has_it(pointer: int, structure: Any) -> None:
    size, align, (ref_count, value_ptr, vtable) = c_layout(structure)
    offsets = VMOffsets(pointer)
    assert (offsets.vm_extern_data_ref_count(), offsets.vm_extern_data_size()) == (ref_count, size)
    assert layout_for_pointer(0, 1, pointer) == (size, align, 0)
    assert [pointer * field for field in (REF_COUNT, VALUE_PTR, VTABLE)] == [ref_count, value_ptr, vtable]
    assert size == pointer * EXTERN_DATA_WORDS


@pytest.mark.parametrize(("pointer", "structure"), [(4, TableHead32), (8, TableHead64)])
def test_compiled_code_finds_next_and_end_at_the_start_of_the_table(pointer: int, structure: Any) -> None:
    offsets = VMOffsets(pointer)
    found = (offsets.vm_extern_ref_activation_table_next(), offsets.vm_extern_ref_activation_table_end())
    assert found == c_layout(structure)[2]


def test_only_whole_words_are_words() -> None:
    assert [words(n) for n in (0, 8, 64)] == [0, 1, 8]
    for n in (1, 7, 12):
        with pytest.raises(Misaligned):
            words(n)
