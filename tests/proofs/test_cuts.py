"""The pieces of a function, put together again, are the function; a contract takes the place of a callee."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from impl.activations_table import sweep
from impl.arena import alloc, dealloc, initialise, raw_memory
from impl.collector import scan_frame
from impl.errors import RegistrationRefused
from impl.layout import layout_for
from impl.stack_maps import (
    count_entries,
    entry_at,
    image_row,
    insert_entry,
    module_index,
    move_up,
    repeats_earlier,
    same_maps,
    write_entries,
)
from proofs.cuts import Again, CannotCut, Cut, Left, Reached, Returned, with_contracts
from proofs.replays import SparseMemory


def put_together(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function with a `while` loop piece by piece."""
    cut = Cut(function)
    came: Any = cut.entry(*arguments)
    if isinstance(came, Returned):
        return came.value
    came = Again(came.state)
    while isinstance(came, Again):
        came = cut.step(came.state)
    if isinstance(came, Returned):
        return came.value
    assert isinstance(came, Left)
    return cut.after(came.state)


@pytest.mark.parametrize("function", [entry_at, module_index])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_bisection_in_pieces_is_the_bisection(function: Callable[..., int], count: int) -> None:
    mem = SparseMemory({100 + word: 10 * (word // 3) for word in range(4 * count)})
    for pc in range(0, 75, 5):
        assert put_together(function, mem, 100, count, pc) == function(mem, 100, count, pc)


def test_an_insertion_in_pieces_leaves_the_same_words() -> None:
    for pc in range(5, 60, 5):
        whole, pieces = (SparseMemory({64 + 3 * entry: 10 * entry + 10 for entry in range(5)}) for _ in range(2))
        assert put_together(insert_entry, pieces, 64, 5, pc, 500) == insert_entry(whole, 64, 5, pc, 500)
        assert {address: word for address, word in pieces.items() if word} == {address: word for address, word in whole.items() if word}


def test_moves_and_scans_in_pieces_do_the_same() -> None:
    whole, pieces = (SparseMemory({address: address for address in range(10, 20)}) for _ in range(2))
    move_up(whole, 10, 20, 3)
    assert put_together(move_up, pieces, 10, 20, 3) is None
    assert pieces == whole
    scanned: list[int] = []
    cut = Cut(scan_frame, scan_word=lambda _mem, _table, address: scanned.append(address))
    came: Any = Again(getattr(cut.entry(SparseMemory({302: 0b1011}), 0, 300, 50), "state", {}))
    while isinstance(came, Again):
        came = cut.step(came.state)
    assert scanned == [50, 51, 53]


def test_an_allocation_in_pieces_is_the_allocation() -> None:
    memories = [raw_memory(512) for _ in range(2)]
    for mem in memories:
        initialise(mem, 64, 512, 0)
        first = alloc(mem, 5, 1)
        alloc(mem, 3, 1)
        dealloc(mem, first, 5, 1)
    for size, align in ((2, 1), (4, 8), (7, 2), (1, 16)):
        assert put_together(alloc, memories[0], size, align) == alloc(memories[1], size, align)
    assert list(memories[0]) == list(memories[1])


def test_a_return_inside_a_loop_and_one_before_it_are_told_apart_from_its_end() -> None:
    mem = SparseMemory({10: 4, 13: 5, 16: 4})
    assert Cut(repeats_earlier).step({"mem": mem, "info": 16, "offset": 4, "earlier": 10}) == Returned(1)
    assert Cut(repeats_earlier).step({"mem": mem, "info": 16, "offset": 4, "earlier": 13}) == Again(
        {"mem": mem, "info": 16, "offset": 4, "earlier": 16}
    )
    assert Cut(repeats_earlier).step({"mem": mem, "info": 16, "offset": 4, "earlier": 16}) == Left(
        {"mem": mem, "info": 16, "offset": 4, "earlier": 16}, broken=False
    )


def test_a_break_is_told_apart_from_a_condition_that_failed() -> None:
    mem = SparseMemory({100: 8})
    state = {"mem": mem, "align": 1, "words": 4, "mask": 0, "skip": 0, "link": 4, "block": 100}
    assert isinstance(Cut(alloc).step(state), Left)
    assert Cut(alloc).step(state) == Left(state, broken=True)
    assert Cut(alloc).step({**state, "block": 0}) == Left({**state, "block": 0}, broken=False)


def test_a_loop_over_a_range_is_one_round_for_its_variable() -> None:
    state = {"mem": SparseMemory({5: 9}), "length": 10, "first": 5, "info": 5, "count": 0, "past_highest": 0}
    came = Cut(count_entries).step(state)
    assert came == Again({**state, "offset": 9, "count": 1, "past_highest": 10, "info": 8})
    with pytest.raises(RegistrationRefused):
        Cut(count_entries).step({**state, "length": 9})


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(CannotCut, match="has 0 loops"):
        Cut(layout_for)
    with pytest.raises(CannotCut, match="has 1 loops"):
        Cut(entry_at, 1)
    with pytest.raises(CannotCut, match="inside another statement"):
        Cut(dealloc, 1).entry(None, 0, 0, 0)
    with pytest.raises(CannotCut, match="an `else` or a `continue`"):
        Cut(with_continue)
    with pytest.raises(CannotCut, match="does not call absent"):
        with_contracts(entry_at, absent=len)


def with_continue(count: int) -> int:
    while count > 0:
        count -= 1
        if count == 3:
            continue
    return count


def test_a_contract_takes_the_place_of_a_callee_and_leaves_the_function_itself_alone() -> None:
    halved = with_contracts(entry_at, entry_bisect_step=lambda _mem, _entries, _low, high, _pc: (high, high))
    mem = SparseMemory({100: 5})
    assert halved(mem, 100, 1, 5) == 0
    assert entry_at(mem, 100, 1, 5) == 100


def test_an_entry_piece_gives_the_local_variables_where_the_loop_begins() -> None:
    assert Cut(entry_at).entry("mem", 100, 7, 5) == Reached({"mem": "mem", "entries": 100, "count": 7, "pc": 5, "low": 0, "high": 7})


FUNCTIONS = [(100, 110, [(8, 2, 1), (3, 4, 5)]), (110, 110, []), (90, 95, [(0, 1, 1), (4, 3, 7), (0, 1, 1)])]


def image_memory() -> SparseMemory:
    """Hold the image of `FUNCTIONS` at 1000."""
    return SparseMemory({1000 + place: word for place, word in enumerate(image_row(FUNCTIONS))})


def rounds(cut: Cut, came: Any) -> Any:
    """Go round a loop over a range as often as it says, from where it was reached."""
    (count,) = cut.bounds(came.state)
    for _ in range(count):
        came = cut.step(came.state)
        if isinstance(came, Returned):
            return came
    return came


def nested(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function with a loop over a range within another one, piece by piece."""
    outer, inner = Cut(function), Cut(function, 1, within=0)
    came: Any = outer.entry(*arguments)
    if isinstance(came, Returned):
        return came.value
    (count,) = outer.bounds(came.state)
    for _ in range(count):
        came = rounds(inner, inner.before(came.state))
        if isinstance(came, Returned):
            return came.value
        came = inner.after(came.state)
    return outer.after(came.state)


def test_a_loop_within_a_loop_in_pieces_is_the_function() -> None:
    whole, pieces = image_memory(), image_memory()
    write_entries(whole, 64, 1000)
    assert nested(write_entries, pieces, 64, 1000) is None
    assert {address: word for address, word in pieces.items() if word} == {address: word for address, word in whole.items() if word}
    for wrong in (None, 64, 65):
        mem = SparseMemory({**whole, 502: 64, 503: 4})
        if wrong is not None:
            mem[wrong] += 1
        assert nested(same_maps, mem, 500, 1000, 4) == same_maps(mem, 500, 1000, 4) == (wrong is None)
    assert nested(same_maps, image_memory(), 500, 1000, 4) == 0


def test_a_loop_over_a_range_in_pieces_is_the_function() -> None:
    mem = image_memory()
    for function in (1001, 1010, 1013):
        cut = Cut(count_entries)
        came = rounds(cut, cut.entry(mem, function))
        assert cut.after(came.state) == count_entries(mem, function)


def test_a_loop_over_a_range_says_where_it_starts_and_stops() -> None:
    assert Cut(sweep).bounds({"start": 5, "filled": 9}) == (5, 9)
    with pytest.raises(CannotCut, match="none over a range"):
        Cut(entry_at).bounds({})
    with pytest.raises(CannotCut, match="has 1 loops"):
        Cut(entry_at, 0, within=1)
