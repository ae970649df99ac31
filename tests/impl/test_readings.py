"""The text of impl's functions is read in three ways, and none of them asks for a change to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import z3

from impl import arena, externref, hash_set, layout, stack
from impl.arena import POISON, CheckedMemory, carve, initialise, raw_memory
from impl.errors import Aborted, AllocationFailed
from impl.externref import COUNT_MAX, increment_ref_count
from impl.layout import round_up_to_align

MODULES = (layout, stack, arena, hash_set, externref)
WORDS = 1024
STACK_WORDS = 256

SCRIPT = [(size, align) for size in (1, 2, 3, 5) for align in (1, 2, 8)]


def fresh(*, checked: bool = False) -> Any:
    raw = raw_memory(WORDS)
    mem = CheckedMemory(raw) if checked else raw
    initialise(mem, STACK_WORDS, WORDS, 2)
    return mem


def functions_of(module: ModuleType) -> dict[str, FunctionType]:
    """The functions of a module that work on words: none that wants a Python object's help."""
    names = {"raw_memory", "snapshot", "restore", "default_heap"}
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name not in names
    }


def words_of(mem: Any) -> list[int]:
    return list(mem.words) if isinstance(mem, CheckedMemory) else list(mem)


def allocate_and_free(run: dict[str, Any], mem: Any) -> list[int]:
    """Allocations of all sorts, freed in an order that coalesces on either side, with a set built between them."""
    blocks = [(run["alloc"](mem, size, align), size, align) for size, align in SCRIPT]
    s = run["alloc"](mem, hash_set.SET_WORDS, 1)
    run["set_init"](mem, s, 0, 12345)
    answers = [run["set_insert"](mem, s, key) for key in (*range(100, 140, 3), 103, 106)]
    for address, size, align in blocks[::2] + blocks[1::2]:
        run["dealloc"](mem, address, size, align)
    answers += [run["set_remove"](mem, s, key) for key in range(100, 120)]
    answers += [run["set_take"](mem, s, 2), run["set_pop"](mem, s), run["set_pop"](mem, s)]
    return [*[address for address, _, _ in blocks], *answers]


def interpreted() -> dict[str, Any]:
    return {name: function for module in MODULES for name, function in functions_of(module).items()}


def test_the_raw_and_the_checked_memory_end_in_the_same_words() -> None:
    raw = fresh()
    checked = fresh(checked=True)
    assert allocate_and_free(interpreted(), raw) == allocate_and_free(interpreted(), checked)
    assert words_of(raw) == words_of(checked)


class Word:
    """Just enough of an unsigned symbolic word: arithmetic notes when it overflows, and a truth value takes a path."""

    def __init__(self, term: Any, paths: Paths) -> None:
        self.term = term
        self.paths = paths

    def lift(self, other: Any) -> Any:
        if isinstance(other, Word):
            return other.term
        return z3.BitVecVal(other, 64)

    def make(self, term: Any) -> Word:
        return Word(term, self.paths)

    def __add__(self, other: Any) -> Word:
        self.paths.must(z3.BVAddNoOverflow(self.term, self.lift(other), False))
        return self.make(self.term + self.lift(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Word:
        self.paths.must(z3.BVSubNoUnderflow(self.term, self.lift(other), False))
        return self.make(self.term - self.lift(other))

    def __rsub__(self, other: Any) -> Word:
        return self.make(self.lift(other)) - self

    def __and__(self, other: Any) -> Word:
        return self.make(self.term & self.lift(other))

    def __invert__(self) -> Word:
        return self.make(~self.term)

    def __eq__(self, other: object) -> bool:
        return self.paths.take(self.term == self.lift(other))

    def __ne__(self, other: object) -> bool:
        return self.paths.take(self.term != self.lift(other))

    def __gt__(self, other: Any) -> bool:
        return self.paths.take(z3.UGT(self.term, self.lift(other)))

    def __ge__(self, other: Any) -> bool:
        return self.paths.take(z3.UGE(self.term, self.lift(other)))

    __hash__ = None  # type: ignore[assignment]


class SymbolicMemory:
    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.before = z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(64))
        self.now = self.before

    def __getitem__(self, index: Any) -> Word:
        return Word(z3.Select(self.now, as_term(index)), self.paths)

    def __setitem__(self, index: Any, word: Any) -> None:
        self.now = z3.Store(self.now, as_term(index), as_term(word))


def as_term(word: Any) -> Any:
    return word.term if isinstance(word, Word) else z3.BitVecVal(word, 64)


class Paths:
    """Runs a function once for each feasible path, and proves what is asked for on each."""

    def __init__(self) -> None:
        self.solver = z3.Solver()
        self.prefix: list[bool] = []
        self.taken: list[bool] = []

    def word(self, name: str) -> Word:
        return Word(z3.BitVec(name, 64), self)

    def take(self, condition: Any) -> bool:
        position = len(self.taken)
        choice = self.prefix[position] if position < len(self.prefix) else True
        if self.solver.check(condition if choice else z3.Not(condition)) == z3.unsat:
            choice = not choice
            self.closed.add(position)
        self.solver.add(condition if choice else z3.Not(condition))
        self.taken.append(choice)
        return choice

    def must(self, claim: Any) -> None:
        assert self.solver.check(z3.Not(claim)) == z3.unsat, claim

    def explore(self, once: Callable[[], None]) -> int:
        """Take every path through `once`; return how many there are."""
        count = 0
        while True:
            self.taken = []
            self.closed: set[int] = set()
            self.solver.push()
            once()
            self.solver.pop()
            count += 1
            open_choices = [i for i, choice in enumerate(self.taken) if choice and i not in self.closed]
            if not open_choices:
                return count
            self.prefix = [*self.taken[: open_choices[-1]], False]


def test_a_count_is_incremented_on_any_memory_or_the_process_aborts() -> None:
    paths = Paths()

    def once() -> None:
        mem = SymbolicMemory(paths)
        reference = paths.word("reference")
        elsewhere = z3.BitVec("elsewhere", 64)
        count = z3.Select(mem.before, reference.term)
        try:
            increment_ref_count(mem, reference)  # type: ignore[arg-type]
        except Aborted:
            paths.must(z3.UGE(count, COUNT_MAX))
        else:
            paths.must(z3.ULT(count, COUNT_MAX))
            paths.must(z3.Select(mem.now, reference.term) == count + 1)
            paths.must(z3.Or(elsewhere == reference.term, z3.Select(mem.now, elsewhere) == z3.Select(mem.before, elsewhere)))

    assert paths.explore(once) == 2


def test_rounding_is_aligned_and_tight_for_all_sizes_and_alignments() -> None:
    paths = Paths()
    refused = []

    def once() -> None:
        n, align = paths.word("n"), paths.word("align")
        paths.solver.add(align.term != 0, align.term & (align.term - 1) == 0, z3.ULE(align.term, 1 << 63))
        try:
            rounded: Any = round_up_to_align(n, align, COUNT_MAX)  # type: ignore[arg-type]
        except AllocationFailed:
            refused.append(1)
        else:
            paths.must(rounded.term & (align.term - 1) == 0)
            paths.must(z3.UGE(rounded.term, n.term))
            paths.must(z3.ULT(rounded.term - n.term, align.term))

    assert paths.explore(once) == 2
    assert refused == [1]


def test_carving_a_block_writes_its_own_header_and_the_link_and_the_tail_alone() -> None:
    paths = Paths()

    def once() -> None:
        mem = SymbolicMemory(paths)
        block, words, skip, link, x = (paths.word(name) for name in ("block", "words", "skip", "link", "x"))
        size = z3.Select(mem.before, block.term)
        small = [z3.ULT(word, 1 << 32) for word in (block.term, words.term, skip.term, size)]
        paths.solver.add(
            *small, z3.ULE(skip.term + words.term, size), words.term != 0, link.term != block.term, link.term != block.term + 1
        )
        tail = block.term + skip.term + words.term
        # The link lies below the block: a word of the header or of an earlier free block.
        paths.solver.add(z3.ULT(link.term, block.term), z3.UGE(words.term, 2), z3.Or(skip.term == 0, z3.UGE(skip.term, 2)))
        address: Any = carve(mem, link, block, skip, words)  # type: ignore[arg-type]
        paths.must(address.term == block.term + skip.term)
        may = z3.Or(*(x.term == word for word in (link.term, block.term, block.term + 1, tail, tail + 1)))
        paths.must(z3.Or(may, z3.Select(mem.now, x.term) == z3.Select(mem.before, x.term)))
        paths.must(z3.Implies(skip.term == 0, z3.Select(mem.now, block.term) == POISON))
        paths.must(z3.Implies(size != skip.term + words.term, z3.Select(mem.now, tail) == size - skip.term - words.term))

    assert paths.explore(once) == 4
