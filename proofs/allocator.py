"""The allocator's steps keep the free list sorted and its neighbours apart, lose no word, and take the lowest place that is aligned."""

from __future__ import annotations

from typing import Any

import z3

from impl.arena import FREE_LIST, FREE_NEXT, POISON, alloc, block_words, carve, dealloc, join, try_alloc
from impl.errors import AllocationFailed
from impl.header import FAIL_AFTER, HEADER_WORDS
from proofs.cuts import Again, Cut, Left, with_contracts
from proofs.layout import power_of_two
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "memory operations"
SMALL = 1 << 32

MEMORY = fresh_memory()
X = z3.BitVec("x", 64)


def granular(*terms: z3.BitVecRef) -> z3.BoolRef:
    """Say that addresses or sizes are whole granules of two words, and small."""
    return z3.And(*(z3.And(term & 1 == 0, z3.ULT(term, SMALL)) for term in terms))


def _free_block(block: z3.BitVecRef) -> z3.BoolRef:
    """Say of an address that a free block is there, and that its successor comes after a gap."""
    size, following = at(MEMORY, block), at(MEMORY, block + FREE_NEXT)
    return z3.And(
        granular(block, size, following), z3.UGE(block, HEADER_WORDS), size != 0, z3.Or(following == 0, z3.ULT(block + size, following))
    )


def _carving() -> tuple[dict[str, z3.BoolRef], list[Outcome]]:
    link, block, skip, words = z3.BitVecs("link block skip words", 64)
    assumptions = {
        "the block is free": _free_block(block),
        "the link lies below the block": z3.ULT(link, block),
        "skip and words are whole granules, and words is not 0": z3.And(granular(skip, words), words != 0),
        "the block has room for both": z3.ULE(skip + words, at(MEMORY, block)),
    }
    outcomes = explore(
        lambda path: carve(path.mem, path.word(link), path.word(block), path.word(skip), path.word(words)), assumptions.values()
    )
    return assumptions, outcomes


def _carve_writes_headers_only() -> Claim:
    """Carving a block out of a free one writes the link and the headers of what stays free, inside that block, and leaves what is taken
    poisoned.
    """
    link, block, skip, words = z3.BitVecs("link block skip words", 64)
    assumptions, outcomes = _carving()
    tail = block + skip + words

    def promise(outcome: Outcome) -> z3.BoolRef:
        taken = z3.And(z3.ULE(block + skip, X), z3.ULT(X, tail))
        poisoned = z3.Or(at(MEMORY, X) == POISON, block == X, block + FREE_NEXT == X)
        return z3.And(
            outcome.term == block + skip,
            outcome.mem.wrote_only([link, block, block + FREE_NEXT, tail, tail + FREE_NEXT]),
            # A tail is only written inside the block.
            z3.Implies(z3.And(z3.UGE(X, block + at(MEMORY, block))), outcome.mem.kept(X)),
            z3.Implies(z3.And(taken, poisoned), at(outcome.mem.now, X) == POISON),
        )

    return Claim(assumptions, always(outcomes, promise))


def _carve_keeps_the_list() -> Claim:
    """After carving, what is left in front and behind is in the list in order, with its sizes; no word is lost."""
    link, block, skip, words = z3.BitVecs("link block skip words", 64)
    assumptions, outcomes = _carving()
    size, following = at(MEMORY, block), at(MEMORY, block + FREE_NEXT)
    tail, rest = block + skip + words, at(MEMORY, block) - skip - words

    def promise(outcome: Outcome) -> z3.BoolRef:
        now = outcome.mem.now
        after = z3.If(rest == 0, following, tail)
        front = z3.And(outcome.mem.kept(link), at(now, block) == skip, at(now, block + FREE_NEXT) == after)
        left = z3.If(skip == 0, z3.BitVecVal(0, 64), at(now, block)) + z3.If(rest == 0, z3.BitVecVal(0, 64), at(now, tail))
        return z3.And(
            z3.If(skip == 0, at(now, link) == after, front),
            z3.Implies(rest != 0, z3.And(at(now, tail) == rest, at(now, tail + FREE_NEXT) == following)),
            left + words == size,
            z3.Implies(skip != 0, z3.ULT(block + skip, z3.If(after == 0, z3.BitVecVal(-1, 64), after))),
        )

    return Claim(assumptions, always(outcomes, promise))


def _joining(left: bool, right: bool) -> tuple[dict[str, z3.BoolRef], list[Outcome]]:
    """Explore `join` where the block touches the free block below, or not, and the one above, or not."""
    previous, address, words, following = z3.BitVecs("previous address words following", 64)
    touches_below = z3.And(previous != 0, previous + at(MEMORY, previous) == address)
    touches_above = z3.And(following != 0, address + words == following)
    below = z3.And(_free_block(previous), z3.ULE(previous + at(MEMORY, previous), address), at(MEMORY, previous + FREE_NEXT) == following)
    above = z3.And(_free_block(following), z3.ULE(address + words, following))
    assumptions = {
        "what is freed is whole granules, and not 0": z3.And(granular(address, words), words != 0, z3.UGE(address, HEADER_WORDS)),
        "previous is the free block below, or 0": below if left else z3.Or(previous == 0, below),
        "following is the free block above, or 0": above if right else z3.Or(following == 0, above),
        "the block touches the one below": touches_below if left else z3.Not(touches_below),
        "the block touches the one above": touches_above if right else z3.Not(touches_above),
    }
    if not left:
        assumptions["the block does not touch the one below"] = assumptions.pop("the block touches the one below")
    if not right:
        assumptions["the block does not touch the one above"] = assumptions.pop("the block touches the one above")
    outcomes = explore(
        lambda path: join(path.mem, path.word(previous), path.word(address), path.word(words), path.word(following)),
        assumptions.values(),
    )
    return assumptions, outcomes


JOINS = {
    "touching none": (False, False),
    "touching the one below": (True, False),
    "touching the one above": (False, True),
    "touching both": (True, True),
}


def _join_loses_no_word() -> list[Claim]:
    """Joining a freed block merges it with a neighbour exactly when they touch; sizes add up, the list stays sorted, and no two free
    blocks touch.
    """
    previous, address, words, following = z3.BitVecs("previous address words following", 64)
    claims = []
    for part, (left, right) in JOINS.items():
        assumptions, outcomes = _joining(left, right)
        start, size, after = previous if left else address, words, following
        if left:
            size = at(MEMORY, previous) + size
        if right:
            size, after = size + at(MEMORY, following), at(MEMORY, following + FREE_NEXT)

        def promise(
            outcome: Outcome,
            left: bool = left,
            right: bool = right,
            start: z3.BitVecRef = start,
            size: z3.BitVecRef = size,
            after: z3.BitVecRef = after,
        ) -> z3.BoolRef:
            now = outcome.mem.now
            kept = [at(now, start) == size, at(now, start + FREE_NEXT) == after, z3.Or(after == 0, z3.ULT(start + size, after))]
            if not left:
                kept.append(z3.If(previous == 0, at(now, FREE_LIST) == start, at(now, previous + FREE_NEXT) == start))
                kept.append(z3.Or(previous == 0, z3.And(outcome.mem.kept(previous), z3.ULT(previous + at(MEMORY, previous), start))))
            if right:
                kept += [at(now, following) == POISON, at(now, following + FREE_NEXT) == POISON]
            return z3.And(*kept)

        claims.append(Claim(assumptions, always(outcomes, promise), part=part))
    return claims


def _join_writes_headers_only() -> list[Claim]:
    """Joining a freed block writes the headers of three free blocks at most, and the list's head."""
    previous, address, following = z3.BitVecs("previous address following", 64)
    blocks = [z3.And(block != 0, z3.Or(block == X, block + FREE_NEXT == X)) for block in (previous, address, following)]

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.Or(outcome.mem.kept(X), z3.And(previous == 0, X == FREE_LIST), *blocks)

    claims = []
    for part, (left, right) in JOINS.items():
        assumptions, outcomes = _joining(left, right)
        claims.append(Claim(assumptions, always(outcomes, promise), part=part))
    return claims


def _search_takes_the_lowest_aligned_place() -> Claim:
    """A round of the search takes the lowest aligned place of a free block that has room, and passes a block over only if it has none.

    One round of the loop of `alloc`, at any free block.
    """
    block, align, words, other, link = z3.BitVecs("block align words other link", 64)
    size = at(MEMORY, block)
    assumptions = {
        "the alignment is a power of two": z3.And(power_of_two(align), z3.ULT(align, SMALL)),
        "the block is free": _free_block(block),
        "words is small": z3.ULT(words, SMALL),
    }

    def run(path: Path) -> Again | Left | object:
        state = {"mem": path.mem, "size": 0, "align": path.word(align), "words": path.word(words), "mask": path.word(align) - 1}
        return Cut(alloc).step(state | {"skip": 0, "link": path.word(link), "block": path.word(block)})

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came = outcome.value
        # Any place in this block that is aligned and has room.
        place = z3.And(z3.ULT(other, SMALL), (block + other) & (align - 1) == 0, z3.ULE(other + words, size))
        if isinstance(came, Left) and came.broken:
            skip = came.state["skip"].term
            found = z3.And((block + skip) & (align - 1) == 0, z3.ULE(skip + words, size), z3.Implies(place, z3.ULE(skip, other)))
            return z3.And(found, came.state["block"].term == block, came.state["link"].term == link)
        if isinstance(came, Again):
            following = z3.And(came.state["block"].term == at(MEMORY, block + FREE_NEXT), came.state["link"].term == block + FREE_NEXT)
            return z3.And(z3.Not(place), following)
        return False

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _search_asks_for_whole_granules() -> Claim:
    """The search begins at the head of the list and asks for the size rounded up to two words.

    What `alloc` does before its loop, and `block_words`.
    """
    size, align = z3.BitVecs("size align", 64)
    assumptions = {"the size is small": z3.ULT(size, SMALL), "the alignment is not 0": align != 0}

    def run(path: Path) -> tuple[Any, ...]:
        came = Cut(alloc).entry(path.mem, path.word(size), path.word(align))
        state: dict[str, Any] = getattr(came, "state", {})
        return state["words"], state["mask"], state["block"], state["link"], block_words(path.word(size))

    def promise(outcome: Outcome) -> z3.BoolRef:
        words, mask, block, link, whole = outcome.terms()
        return z3.And(
            words & 1 == 0,
            z3.ULE(size, words),
            z3.ULE(words - size, 1),
            mask == align - 1,
            block == at(MEMORY, FREE_LIST),
            link == FREE_LIST,
            words == whole,
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _place_to_free_is_between_neighbours() -> Claim:
    """A round of the search for the place of a freed block stays below it, and ends at its neighbours.

    One round of the search in `dealloc`: `previous` is below the address, and `following` succeeds it.
    """
    address, previous, following = z3.BitVecs("address previous following", 64)
    assumptions = {
        "following is a free block, or 0": z3.Or(following == 0, _free_block(following)),
        "the address is in no free block": z3.Or(
            following == 0, z3.ULT(address, following), z3.ULE(following + at(MEMORY, following), address)
        ),
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, "size": 0, "align": 0, "address": path.word(address)}
        return Cut(dealloc, 1).step(state | {"previous": path.word(previous), "following": path.word(following)})

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came = outcome.value
        if isinstance(came, Left):
            return z3.And(not came.broken, z3.Or(following == 0, z3.UGE(following, address)))
        if isinstance(came, Again):
            now_previous, now_following = came.state["previous"].term, came.state["following"].term
            return z3.And(
                now_previous == following,
                now_following == at(MEMORY, following + FREE_NEXT),
                z3.ULE(following + at(MEMORY, following), address),
                z3.Or(now_following == 0, z3.UGT(now_following, now_previous)),
            )
        return False

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _armed_allocation_fails_once() -> Claim:
    """An allocation fails exactly when the environment's count has run down, and is then disarmed."""
    armed = at(MEMORY, FAIL_AFTER)

    def run(path: Path) -> list[int]:
        asked: list[int] = []

        def contract(_mem: object, size: int, align: int) -> int:
            asked.append(size + align)
            return 64

        with_contracts(try_alloc, alloc=contract)(path.mem, 3, 2)
        return asked

    def promise(outcome: Outcome) -> z3.BoolRef:
        now = at(outcome.mem.now, FAIL_AFTER)
        counted = z3.And(now == z3.If(armed == 0, armed, armed - 1), outcome.mem.wrote_only([FAIL_AFTER]))
        if isinstance(outcome.raised, AllocationFailed):
            return z3.And(counted, armed == 1)
        return z3.And(counted, armed != 1, outcome.value == [5])

    return Claim({}, always(explore(run), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about the allocator."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("carve-writes-headers-only", _carve_writes_headers_only, (carve,)),
        ("carve-keeps-the-free-list", _carve_keeps_the_list, (carve,)),
        ("join-loses-no-word", _join_loses_no_word, (join,)),
        ("join-writes-headers-only", _join_writes_headers_only, (join,)),
        ("allocation-takes-the-lowest-place", _search_takes_the_lowest_aligned_place, (alloc,)),
        ("allocation-asks-for-whole-granules", _search_asks_for_whole_granules, (alloc, block_words)),
        ("freed-blocks-find-their-neighbours", _place_to_free_is_between_neighbours, (dealloc,)),
        ("armed-allocation-fails-once", _armed_allocation_fails_once, (try_alloc,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
