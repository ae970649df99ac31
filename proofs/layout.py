"""Value and footer lie in one block, aligned, apart and inside, for all sizes and alignments at 32 and 64 bits, or there is no block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import z3

from impl.errors import AllocationFailed
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
from proofs import defects
from proofs.obligations import Claim, Obligation, Verdict, WitnessRefuted, statement
from proofs.paths import Outcome, Path, always, explore, wrapped
from proofs.replays import Values, needs

SUBJECT = "layout"
WIDTHS = (32, 64)

# What is said of a block: bytes of a pointer, the value's size and alignment, and the block's size, alignment and footer offset.
Promise: TypeAlias = Callable[[int, z3.BitVecRef, z3.BitVecRef, tuple[z3.BitVecRef, ...]], z3.BoolRef]


def power_of_two(term: z3.BitVecRef) -> z3.BoolRef:
    """Say that a word is a power of two."""
    return z3.And(term != 0, term & (term - 1) == 0)


def _wide(term: z3.BitVecRef) -> z3.BitVecRef:
    """Return a word as one of twice the width, in which no sum of a few words overflows."""
    return z3.ZeroExt(term.size(), term)


def _rounded_wide(term: z3.BitVecRef, align: z3.BitVecRef) -> z3.BitVecRef:
    """Return the least multiple of a power of two that is not below a word, in twice the width."""
    mask = _wide(align) - 1
    return (_wide(term) + mask) & ~mask


# --- rounding


def _rounding(width: int) -> tuple[z3.BitVecRef, z3.BitVecRef, z3.BitVecRef, dict[str, z3.BoolRef], list[Outcome]]:
    n, align, limit = z3.BitVecs("n align limit", width)
    assumptions = {
        "the alignment is a power of two": power_of_two(align),
        "the alignment is at most the limit and one": z3.ULE(align - 1, limit),
    }
    outcomes = explore(lambda path: round_up_to_align(path.word(n), path.word(align), path.word(limit)), assumptions.values())
    return n, align, limit, assumptions, outcomes


def _rounding_is_aligned_and_tight(width: int) -> Claim:
    """Rounding up gives a multiple of the alignment, at least n, less than one alignment above it, and within the limit."""
    n, align, limit, assumptions, outcomes = _rounding(width)

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return isinstance(outcome.raised, AllocationFailed)
        rounded = outcome.term
        return z3.And(rounded & (align - 1) == 0, z3.UGE(rounded, n), z3.ULT(rounded - n, align), z3.ULE(rounded, limit))

    return Claim(assumptions, always(outcomes, promise), part=f"{width} bits")


def _rounding_refuses_only_what_has_no_multiple(width: int) -> Claim:
    """Rounding up is refused only if no multiple of the alignment lies between n and the limit; otherwise it gives the least one."""
    n, align, limit, assumptions, outcomes = _rounding(width)
    other = z3.BitVec("other", width)
    assumptions["the limit and one is a multiple of the alignment"] = (limit + 1) & (align - 1) == 0

    def promise(outcome: Outcome) -> z3.BoolRef:
        fits = z3.And(other & (align - 1) == 0, z3.UGE(other, n), z3.ULE(other, limit))
        return z3.Not(fits) if outcome.raised is not None else z3.Implies(fits, z3.ULE(outcome.term, other))

    return Claim(assumptions, always(outcomes, promise), part=f"{width} bits")


def _rounding_twice_is_rounding_once(width: int) -> Claim:
    """What has been rounded up is not changed by rounding up."""
    n, align, limit, assumptions, _ = _rounding(width)

    def run(path: Path) -> tuple[object, object]:
        once = round_up_to_align(path.word(n), path.word(align), path.word(limit))
        assumed = once <= path.word(limit) - (path.word(align) - 1)
        return once, round_up_to_align(once, path.word(align), path.word(limit)) if assumed else once

    outcomes = explore(run, assumptions.values())

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        return True if outcome.raised is not None else outcome.terms()[0] == outcome.terms()[1]

    return Claim(assumptions, always(outcomes, promise), part=f"{width} bits")


# --- layouts


def _layout(width: int) -> tuple[z3.BitVecRef, z3.BitVecRef, dict[str, z3.BoolRef], list[Outcome]]:
    """Explore the layout of any value; at 64 bits through `layout_for`, which the runtime uses."""
    size, align = z3.BitVecs("size align", width)
    assumptions = {"the value's alignment is a power of two": power_of_two(align)}
    if width == 64:
        outcomes = explore(lambda path: layout_for(path.word(size), path.word(align)), assumptions.values())
    else:
        outcomes = explore(lambda path: layout_for_pointer(path.word(size), path.word(align), width // 8), assumptions.values())
    return size, align, assumptions, outcomes


def _layout_claim(promise: Promise, width: int) -> Claim:
    """Claim something of size, alignment and footer offset of every block that there is."""
    size, align, assumptions, outcomes = _layout(width)
    pointer = width // 8

    def each(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return isinstance(outcome.raised, AllocationFailed)
        return promise(pointer, size, align, outcome.terms(width))

    return Claim(assumptions, always(outcomes, each), part=f"{width} bits")


def _apart_and_inside(pointer: int, size: z3.BitVecRef, _align: z3.BitVecRef, block: tuple[z3.BitVecRef, ...]) -> z3.BoolRef:
    """The value ends before the footer begins, and the footer ends inside the block."""
    block_size, _, footer = block
    return z3.And(z3.ULE(size, footer), z3.ULE(_wide(footer) + 3 * pointer, _wide(block_size)))


def _aligned(pointer: int, _size: z3.BitVecRef, align: z3.BitVecRef, block: tuple[z3.BitVecRef, ...]) -> z3.BoolRef:
    """In a block that is aligned as it says, value and footer are aligned; and its alignment is a power of two."""
    _, block_align, footer = block
    base = z3.BitVec("base", footer.size())
    placed = base & (block_align - 1) == 0
    return z3.And(power_of_two(block_align), z3.Implies(placed, z3.And(base & (align - 1) == 0, (base + footer) & (pointer - 1) == 0)))


def _tight(pointer: int, size: z3.BitVecRef, align: z3.BitVecRef, block: tuple[z3.BitVecRef, ...]) -> z3.BoolRef:
    """The padding is less than a pointer, the block ends with the footer, and its alignment is the larger of the two."""
    block_size, block_align, footer = block
    return z3.And(z3.ULT(footer - size, pointer), block_size == footer + 3 * pointer, z3.Or(block_align == align, block_align == pointer))


def _whole_words(_pointer: int, _size: z3.BitVecRef, _align: z3.BitVecRef, block: tuple[z3.BitVecRef, ...]) -> z3.BoolRef:
    """At 64 bits, size, alignment and footer offset are whole numbers of words."""
    return z3.And(*(word & 7 == 0 for word in block), block[1] != 0)


def _refused_exactly(width: int) -> Claim:
    """A layout is refused if and only if its size, rounded up to its alignment, exceeds isize::MAX; no sum overflows on the way."""
    size, align, assumptions, outcomes = _layout(width)
    pointer = z3.BitVecVal(width // 8, width)
    limit = (1 << (width - 1)) - 1
    footer = _rounded_wide(size, pointer)
    block_align = _wide(z3.If(z3.ULT(align, pointer), pointer, align))
    needed = (footer + 3 * (width // 8) + block_align - 1) & ~(block_align - 1)

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.ULE(needed, limit) if outcome.raised is None else z3.UGT(needed, limit)

    return Claim(assumptions, always(outcomes, promise), part=f"{width} bits")


def _words_are_exact() -> Claim:
    """Bytes are converted to words exactly, or refused because they are no whole number of words."""
    size = z3.BitVec("size", 64)
    outcomes = explore(lambda path: words(path.word(size)))

    def promise(outcome: Outcome) -> z3.BoolRef:
        if outcome.raised is not None:
            return size & 7 != 0
        return z3.And(_wide(outcome.term) * 8 == _wide(size))

    return Claim({}, always(outcomes, promise))


def _offsets() -> Claim:
    """The offsets that compiled code has built in are those of a C compiler's structures, for both pointer sizes."""
    pointer = z3.BitVec("pointer", 64)
    assumptions = {"a pointer has 4 or 8 bytes": z3.Or(pointer == 4, pointer == 8)}

    def run(path: Path) -> tuple[object, ...]:
        offsets = VMOffsets(pointer_size=path.word(pointer))
        return (
            offsets.vm_extern_data_ref_count(),
            offsets.vm_extern_data_size(),
            offsets.vm_extern_ref_activation_table_next(),
            offsets.vm_extern_ref_activation_table_end(),
        )

    def promise(outcome: Outcome) -> z3.BoolRef:
        found = outcome.terms()
        same = []
        for size, data, head in ((4, VMExternData32, TableHead32), (8, VMExternData64, TableHead64)):
            data_size, _, data_offsets = c_layout(data)
            _, _, head_offsets = c_layout(head)
            compiled = (data_offsets[0], data_size, *head_offsets)
            same.append(z3.Implies(pointer == size, z3.And(*(mine == theirs for mine, theirs in zip(found, compiled, strict=True)))))
        return z3.And(*same)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


# --- refuted on purpose


def _no_power_of_two() -> Claim:
    """Rounding up works for alignments that are no powers of two."""
    n, align = z3.BitVecs("n align", 64)
    limit = (1 << 63) - 1
    assumptions = {
        "the size is one that a program could have": z3.ULT(n, 1 << 16),
        "the alignment is one that a program could name": z3.And(align != 0, z3.ULT(align, 1 << 8)),
    }
    outcomes = explore(lambda path: round_up_to_align(path.word(n), path.word(align), limit), assumptions.values())

    def replay(values: Values) -> str:
        rounded = round_up_to_align(values["n"], values["align"], limit)
        needs(rounded % values["align"] != 0 or rounded < values["n"], f"{rounded} is a multiple, and large enough")
        return f"round_up_to_align gives {rounded}: no multiple of {values['align']} that is not below {values['n']}"

    goal = wrapped(outcomes, lambda outcome: z3.And(z3.URem(outcome.term, align) == 0, z3.UGE(outcome.term, n)))
    return Claim(assumptions, goal, {"n": n, "align": align}, replay)


def _wrapping() -> Claim:
    """Rounding up without a check for overflow never gives less than n."""
    n, align = z3.BitVecs("n align", 64)
    assumptions = {"the alignment is a power of two": power_of_two(align)}
    outcomes = explore(lambda path: defects.round_up_wrapping(path.word(n), path.word(align)), assumptions.values())

    def replay(values: Values) -> str:
        rounded = defects.round_up_wrapping(values["n"], values["align"])
        needs(rounded < values["n"], f"{rounded} is not below {values['n']}")
        return f"{values['n']} is rounded up to {rounded}"

    return Claim(assumptions, wrapped(outcomes, lambda outcome: z3.UGE(outcome.term, n)), {"n": n, "align": align}, replay)


def _without_mask() -> Claim:
    """Rounding up needs no mask."""
    n, align = z3.BitVecs("n align", 64)
    limit = (1 << 63) - 1
    assumptions = {
        "the alignment is a power of two": power_of_two(align),
        "the sum fits": z3.And(z3.ULE(n, 1 << 32), z3.ULE(align, 1 << 32)),
    }
    outcomes = explore(lambda path: defects.round_up_without_mask(path.word(n), path.word(align), limit), assumptions.values())

    def replay(values: Values) -> str:
        rounded = defects.round_up_without_mask(values["n"], values["align"], limit)
        needs(rounded % values["align"] != 0, f"{rounded} is a multiple of {values['align']}")
        return f"{values['n']} becomes {rounded}, which is no multiple of {values['align']}"

    return Claim(assumptions, always(outcomes, lambda outcome: outcome.term & (align - 1) == 0), {"n": n, "align": align}, replay)


def _unchecked_at_32_bits() -> Claim:
    """The seed's layout of any value of at most isize::MAX bytes is one that an allocator takes."""
    size, align = z3.BitVecs("size align", 32)
    limit = (1 << 31) - 1
    assumptions = {
        "the value's alignment is a power of two": power_of_two(align),
        "the value is no larger than a program can have": z3.And(z3.ULE(size, limit), z3.ULE(align, 16)),
    }
    outcomes = explore(lambda path: defects.layout_unchecked(path.word(size), path.word(align), 4), assumptions.values())

    def replay(values: Values) -> str:
        block_size, _, _ = defects.layout_unchecked(values["size"], values["align"], 4)
        needs(block_size > limit, f"{block_size} is a size that an allocator takes")
        try:
            layout_for_pointer(values["size"], values["align"], 4)
        except AllocationFailed:
            return f"a value of {values['size']} bytes asks for a block of {block_size}, past isize::MAX; layout_for_pointer refuses it"
        raise WitnessRefuted("layout_for_pointer accepts it")

    goal = wrapped(outcomes, lambda outcome: z3.And(z3.ULE(outcome.terms(32)[0], limit), z3.UGE(outcome.terms(32)[0], size)))
    return Claim(assumptions, goal, {"size": size, "align": align}, replay)


def _aligned_as_the_value() -> Claim:
    """A block aligned as its value has an aligned footer."""
    base, size, align = z3.BitVecs("base size align", 64)
    assumptions = {
        "the value's alignment is a power of two": power_of_two(align),
        "the value is small": z3.ULT(size, 1 << 16),
        "the allocator aligns the block as it was asked to": base & (align - 1) == 0,
    }
    outcomes = explore(lambda path: defects.layout_aligned_as_the_value(path.word(size), path.word(align)), assumptions.values())

    def replay(values: Values) -> str:
        _, footer = defects.layout_aligned_as_the_value(values["size"], values["align"])
        address = (values["base"] + footer) % (1 << 64)
        needs(address % 8 != 0, f"the footer at {address} is aligned")
        return (
            f"a value of alignment {values['align']} in a block at {values['base']:#x} has its count at {address:#x}, which is misaligned"
        )

    goal = wrapped(outcomes, lambda outcome: (base + outcome.terms()[1]) & 7 == 0)
    return Claim(assumptions, goal, {"base": base, "size": size, "align": align}, replay)


def obligations() -> list[Obligation]:
    """Return the obligations about layouts."""

    def each_width(build: Callable[[int], Claim]) -> Callable[[], list[Claim]]:
        def build_each() -> list[Claim]:
            return [build(width) for width in WIDTHS]

        build_each.__doc__ = build.__doc__
        return build_each

    def of_blocks(promise: Promise, widths: tuple[int, ...] = WIDTHS) -> Callable[[], list[Claim]]:
        def build_each() -> list[Claim]:
            return [_layout_claim(promise, width) for width in widths]

        build_each.__doc__ = promise.__doc__
        return build_each

    both = (layout_for, layout_for_pointer, round_up_to_align)
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("rounding-is-aligned-and-tight", each_width(_rounding_is_aligned_and_tight), (round_up_to_align,)),
        ("rounding-refuses-only-the-impossible", each_width(_rounding_refuses_only_what_has_no_multiple), (round_up_to_align,)),
        ("rounding-twice-is-rounding-once", each_width(_rounding_twice_is_rounding_once), (round_up_to_align,)),
        ("value-and-footer-are-apart-and-inside", of_blocks(_apart_and_inside), both),
        ("value-and-footer-are-aligned", of_blocks(_aligned), both),
        ("layout-wastes-nothing", of_blocks(_tight), both),
        ("layout-is-refused-exactly-when-too-large", each_width(_refused_exactly), both),
        ("layout-is-whole-words", of_blocks(_whole_words, (64,)), both),
        ("bytes-to-words-is-exact", _words_are_exact, (words,)),
        (
            "offsets-are-those-of-a-c-compiler",
            _offsets,
            (VMOffsets.vm_extern_data_size, VMOffsets.vm_extern_ref_activation_table_end, c_layout),
        ),
    ]
    refuted: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("rounding-to-no-power-of-two", _no_power_of_two, (round_up_to_align,)),
        ("rounding-that-wraps", _wrapping, (defects.round_up_wrapping,)),
        ("rounding-without-mask", _without_mask, (defects.round_up_without_mask,)),
        ("layout-unchecked-at-32-bits", _unchecked_at_32_bits, (defects.layout_unchecked, layout_for_pointer)),
        ("block-aligned-as-the-value", _aligned_as_the_value, (defects.layout_aligned_as_the_value,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved] + [
        Obligation(name, SUBJECT, statement(build), Verdict.REFUTED, build, functions) for name, build, functions in refuted
    ]
