"""Registration keeps ranges disjoint and sorted for any number of modules, and refuses only what overlaps."""

from __future__ import annotations

from typing import Any

import z3

from impl.errors import RegistrationRefused
from impl.stack_maps import (
    BITS,
    END,
    ENTRIES,
    ENTRY_COUNT,
    ENTRY_WORDS,
    FUNCTION_END,
    FUNCTION_INFOS,
    FUNCTION_START,
    FUNCTION_WORDS,
    INFO_BITS,
    INFO_MAPPED_WORDS,
    INFO_OFFSET,
    INFO_WORDS,
    MAPPED_WORDS,
    MODULE_WORDS,
    MODULES,
    MODULES_CAPACITY,
    MODULES_COUNT,
    PC,
    REGISTRY_WORDS,
    START,
    count_entries,
    has_safepoints,
    image_range,
    next_function,
    overlaps_earlier,
    register_stack_maps,
    registry_init,
    repeats_earlier,
    share_a_pc,
)
from proofs.cuts import Again, Cut, Left, Returned
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore

SUBJECT = "registry"
SMALL = 1 << 32
COUNT_MAX = 1 << 26

MEMORY = fresh_memory()
NEW_START, NEW_END, REGISTRY, INDEX, ITEM, J, X, PLACE, PC_WANTED = z3.BitVecs("start end registry index i j x place pc", 64)
FUNCTION, INFO, IMAGE = z3.BitVecs("function info image", 64)


# --- ranges


def _sharing_is_exact() -> Claim:
    """Two half-open ranges are said to share a pc if and only if some pc lies in both."""
    other_start, other_end, pc = z3.BitVecs("other_start other_end pc", 64)
    outcomes = explore(lambda path: share_a_pc(path.word(NEW_START), path.word(NEW_END), path.word(other_start), path.word(other_end)))

    def within(number: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(z3.ULE(NEW_START, number), z3.ULT(number, NEW_END), z3.ULE(other_start, number), z3.ULT(number, other_end))

    def promise(outcome: Outcome) -> z3.BoolRef:
        later = z3.If(z3.ULT(NEW_START, other_start), other_start, NEW_START)
        return z3.Not(within(pc)) if outcome.value == 0 else z3.And(outcome.value == 1, within(later))

    return Claim({}, always(outcomes, promise))


def _first_module(modules: z3.BitVecRef, number: z3.BitVecRef) -> tuple[z3.BitVecRef, z3.BitVecRef]:
    """Return start and end of a module of the array at `modules`."""
    module = modules + number * MODULE_WORDS
    return at(MEMORY, module + START), at(MEMORY, module + END)


def _registering(sorted_modules: bool) -> tuple[dict[str, z3.BoolRef], list[Outcome]]:
    """Explore `register_stack_maps` from behind its loop: the new range is known, and callees keep what is proved of them.

    The value of a path is whether the image was entered, and where, none if the module was there already; and whether the callees were
    given the words that they are about.
    """
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    equal = z3.Bool("the maps are the same")

    def ordered(a: z3.BitVecRef, b: z3.BitVecRef) -> z3.BoolRef:
        return z3.Implies(z3.And(z3.ULT(a, b), z3.ULT(b, count)), z3.ULE(_first_module(modules, a)[1], _first_module(modules, b)[0]))

    index_start, index_end = _first_module(modules, INDEX)
    _, i_end = _first_module(modules, ITEM)
    assumptions = {
        "the registry fits in the memory": z3.And(z3.ULT(REGISTRY, SMALL), z3.ULT(modules, SMALL), z3.ULT(count, COUNT_MAX)),
        "the new range is not empty": z3.ULT(NEW_START, NEW_END),
        "the module found ends past the start": z3.Implies(z3.ULT(INDEX, count), z3.ULT(NEW_START, index_end)),
        "the module's place is in the memory, and so are its entries": z3.And(
            z3.ULT(PLACE, SMALL), z3.ULT(z3.BitVec("entry_count", 64), COUNT_MAX)
        ),
    }
    if sorted_modules:
        assumptions |= {
            "the module found is one of the array or past it": z3.ULE(INDEX, count),
            "modules before the one found do not (of i)": z3.Implies(z3.ULT(ITEM, INDEX), z3.ULE(i_end, NEW_START)),
            "modules are disjoint and sorted (of i and the one found)": ordered(INDEX, ITEM),
            "no module is empty (of the one found)": z3.Implies(z3.ULT(INDEX, count), z3.ULT(index_start, index_end)),
        }

    entry_count, entries = z3.BitVecs("entry_count entries", 64)

    def run(path: Path) -> tuple[list[Any], list[z3.BoolRef]]:
        entered: list[Any] = []
        given: list[z3.BoolRef] = []

        def place(_mem: object, registry: Any, index: Any) -> Any:
            given.append(z3.And(registry.term == REGISTRY, len(given) == 3))
            entered.append(index)
            return path.word(PLACE)

        def search(_mem: object, base: Any, number: Any, pc: Any) -> Any:
            given.append(z3.And(base.term == modules, number.term == count, pc.term == NEW_START))
            return path.word(INDEX)

        def compare(_mem: object, module: Any, image: Any, number: Any) -> int:
            given.append(z3.And(module.term == modules + INDEX * MODULE_WORDS, image.term == IMAGE, number.term == entry_count))
            return int(path.take(equal))

        # Entries are allocated and written before the registry is changed: where there is no room for them, nothing is.
        def allocate(_mem: object, size: Any, align: int) -> Any:
            given.append(z3.And(size.term == entry_count * ENTRY_WORDS, align == 1))
            return path.word(entries)

        def write(_mem: object, base: Any, image: Any) -> None:
            given.append(z3.And(base.term == entries, image.term == IMAGE, len(given) == 2))

        contracts: dict[str, Any] = {
            "module_index": search,
            "same_maps": compare,
            "alloc": allocate,
            "write_entries": write,
            "insert_module": place,
        }
        state = {"mem": path.mem, "registry": path.word(REGISTRY), "image": path.word(IMAGE), "start": path.word(NEW_START)}
        state |= {"end": path.word(NEW_END), "entry_count": path.word("entry_count"), "function": 0}
        Cut(register_stack_maps, **contracts).after(state)
        return entered, given

    return assumptions, explore(run, assumptions.values())


def _registration_keeps_ranges_disjoint() -> Claim:
    """A range that is entered lies after all modules before its place and before all modules from it on, for any number of modules, and
    its entries have exactly the room that they need; what is refused changes nothing.
    """
    assumptions, outcomes = _registering(sorted_modules=True)
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    start, end = _first_module(modules, ITEM)

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return isinstance(outcome.raised, RegistrationRefused) and outcome.mem.wrote_only([])
        entered, given = outcome.value
        if not entered:
            return z3.And(*given, outcome.mem.wrote_only([]))
        inside = z3.ULT(ITEM, count)
        return z3.And(
            len(entered) == 1,
            *given,
            len(given) == 4,
            entered[0].term == INDEX,
            z3.Implies(z3.And(inside, z3.ULT(ITEM, INDEX)), z3.ULE(end, NEW_START)),
            z3.Implies(z3.And(inside, z3.UGE(ITEM, INDEX)), z3.ULE(NEW_END, start)),
            outcome.mem.wrote_only([(PLACE, PLACE + MODULE_WORDS)]),
            at(outcome.mem.now, PLACE + START) == NEW_START,
            at(outcome.mem.now, PLACE + END) == NEW_END,
            at(outcome.mem.now, PLACE + ENTRIES) == z3.BitVec("entries", 64),
            at(outcome.mem.now, PLACE + ENTRY_COUNT) == z3.BitVec("entry_count", 64),
        )

    return Claim(assumptions, always(outcomes, promise))


def _registration_refuses_only_overlaps() -> Claim:
    """A range is refused only if it shares a pc with a module and is not the very same module again: touching ranges are accepted."""
    assumptions, outcomes = _registering(sorted_modules=False)
    modules, count = at(MEMORY, REGISTRY + MODULES), at(MEMORY, REGISTRY + MODULES_COUNT)
    start, end = _first_module(modules, INDEX)
    overlap = z3.And(z3.ULT(INDEX, count), z3.ULT(start, NEW_END), z3.ULT(NEW_START, end))
    very_same = z3.And(z3.ULT(INDEX, count), start == NEW_START, end == NEW_END)

    def promise(outcome: Outcome) -> z3.BoolRef:
        equal = z3.Bool("the maps are the same")
        if outcome.raised is not None:
            return z3.And(overlap, z3.Not(z3.And(very_same, equal)))
        entered, _ = outcome.value
        return z3.Not(overlap) if entered else z3.And(very_same, equal)

    return Claim(assumptions, always(outcomes, promise))


# --- images


def _range_covers_all_functions() -> Claim:
    """A round over a module's functions keeps the range the smallest that covers them, and refuses a function that shares a pc with an
    earlier one.

    One round of `image_range`: what holds of an earlier function, `i`, and what is to hold of the one looked at.
    """
    lowest, highest, earlier_start, earlier_end = z3.BitVecs("lowest highest earlier_start earlier_end", 64)
    overlaps = z3.Bool("shares a pc with an earlier function")
    start, end = at(MEMORY, FUNCTION + FUNCTION_START), at(MEMORY, FUNCTION + FUNCTION_END)
    shares = z3.And(z3.ULT(start, end), z3.ULT(earlier_start, earlier_end), z3.ULT(start, earlier_end), z3.ULT(earlier_start, end))
    assumptions = {
        "the function lies in the memory": z3.ULT(FUNCTION, SMALL),
        "the range covers an earlier function": z3.And(z3.ULE(lowest, earlier_start), z3.ULE(earlier_end, highest)),
        "overlaps_earlier is exact (of that function)": z3.Implies(z3.Not(overlaps), z3.Not(shares)),
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, "image": 0, "function": path.word(FUNCTION), "index": 0}
        cut = Cut(image_range, overlaps_earlier=lambda *_: int(path.take(overlaps)), next_function=lambda *_: path.word("next"))
        return cut.step(state | {"lowest": path.word(lowest), "highest": path.word(highest)})

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        if outcome.raised is not None:
            return z3.Or(z3.ULT(end, start), z3.And(overlaps, z3.ULT(start, highest)))
        came = outcome.value
        if not isinstance(came, Again):
            return False
        low, high = came.state["lowest"].term, came.state["highest"].term
        covers = z3.And(z3.ULE(low, start), z3.ULE(end, high), z3.ULE(low, earlier_start), z3.ULE(earlier_end, high))
        tight = z3.And(z3.Or(low == lowest, low == start), z3.Or(high == highest, high == end))
        return z3.And(covers, tight, z3.ULE(start, end), z3.Not(shares), came.state["function"].term == z3.BitVec("next", 64))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _overlap_is_asked_of_each() -> Claim:
    """A round of the search for overlapping functions answers exactly, and goes on to the next function."""
    start, end = at(MEMORY, FUNCTION + FUNCTION_START), at(MEMORY, FUNCTION + FUNCTION_END)
    assumptions = {"the function lies in the memory": z3.And(z3.ULT(FUNCTION, SMALL), z3.ULT(at(MEMORY, FUNCTION + FUNCTION_INFOS), SMALL))}

    def run(path: Path) -> object:
        state = {"mem": path.mem, "image": 0, "count": 0, "function": path.word(FUNCTION)}
        return Cut(overlaps_earlier).step(state | {"start": path.word(NEW_START), "end": path.word(NEW_END)})

    def promise(outcome: Outcome) -> z3.BoolRef:
        came = outcome.value
        shares = z3.And(z3.ULT(start, end), z3.ULT(NEW_START, NEW_END), z3.ULT(start, NEW_END), z3.ULT(NEW_START, end))
        if isinstance(came, Returned):
            return z3.And(shares, came.value == 1)
        following = FUNCTION + 3 + 3 * at(MEMORY, FUNCTION + FUNCTION_INFOS)
        return z3.And(z3.Not(shares), came.state["function"].term == following)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _safepoints_are_noticed() -> Claim:
    """A round over a module's functions notices one that has a safepoint, and goes on to the next if it has none."""
    infos = at(MEMORY, FUNCTION + FUNCTION_INFOS)
    assumptions = {"the function lies in the memory": z3.ULT(FUNCTION, SMALL)}

    def run(path: Path) -> object:
        cut = Cut(has_safepoints, next_function=lambda _mem, function: function + 1000)
        return cut.step({"mem": path.mem, "image": 0, "function": path.word(FUNCTION)})

    def promise(outcome: Outcome) -> z3.BoolRef:
        came = outcome.value
        if isinstance(came, Returned):
            return z3.And(infos != 0, came.value == 1)
        return z3.And(infos == 0, came.state["function"].term == FUNCTION + 1000)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _fields_are_apart() -> Claim:
    """The fields of a record are its words, one each: no two have one word, each lies inside the record, and none is wasted."""
    records: tuple[tuple[tuple[int, ...], int], ...] = (
        # A registry has a word to spare.
        ((MODULES, MODULES_COUNT, MODULES_CAPACITY), REGISTRY_WORDS - 1),
        ((START, END, ENTRIES, ENTRY_COUNT), MODULE_WORDS),
        ((PC, MAPPED_WORDS, BITS), ENTRY_WORDS),
        ((FUNCTION_START, FUNCTION_END, FUNCTION_INFOS), FUNCTION_WORDS),
        ((INFO_OFFSET, INFO_MAPPED_WORDS, INFO_BITS), INFO_WORDS),
    )
    apart = []
    for fields, size in records:
        words = [z3.BitVecVal(field, 64) for field in fields]
        apart += [z3.Distinct(*words), *(z3.ULT(word, size) for word in words), z3.BoolVal(size == len(fields))]
    return Claim({}, z3.And(*apart))


def _new_registry_is_empty() -> Claim:
    """A new registry has no modules and no room for any, and nothing but its own words is written."""
    assumptions = {"the registry fits in the memory": z3.ULT(REGISTRY, SMALL)}

    def promise(outcome: Outcome) -> z3.BoolRef:
        empty = [at(outcome.mem.now, REGISTRY + word) == 0 for word in range(REGISTRY_WORDS)]
        return z3.And(*empty, outcome.mem.wrote_only([(REGISTRY, REGISTRY + 4)]))

    return Claim(assumptions, always(explore(lambda path: registry_init(path.mem, path.word(REGISTRY)), assumptions.values()), promise))


def _functions_follow_each_other() -> Claim:
    """The next function of an image begins right after the last safepoint of this one."""
    infos = at(MEMORY, FUNCTION + FUNCTION_INFOS)
    assumptions = {"the function lies in the memory": z3.And(z3.ULT(FUNCTION, SMALL), z3.ULT(infos, COUNT_MAX))}
    last = FUNCTION + FUNCTION_WORDS + (infos - 1) * INFO_WORDS

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.And(
            z3.Implies(infos == 0, outcome.term == FUNCTION + 3),
            # The words of the last safepoint are the last before the next function.
            z3.Implies(infos != 0, outcome.term == last + INFO_BITS + 1),
            outcome.mem.read_only([FUNCTION + 2]),
        )

    outcomes = explore(lambda path: next_function(path.mem, path.word(FUNCTION)), assumptions.values())
    return Claim(assumptions, always(outcomes, promise))


def _safepoints_are_counted_once() -> Claim:
    """A round counts a safepoint if and only if none before it has its offset, and refuses one outside its function.

    One round of `count_entries`, with `e`, the offset of an earlier safepoint.
    """
    length, past_highest, count, earlier = z3.BitVecs("length past_highest count earlier", 64)
    repeats = z3.Bool("an earlier safepoint has this offset")
    offset = at(MEMORY, INFO + INFO_OFFSET)
    assumptions = {
        "addresses and counts are small": z3.And(z3.ULT(INFO, SMALL), z3.ULT(count, SMALL), z3.ULT(length, z3.BitVecVal(1 << 63, 64))),
        "past_highest lies past an earlier offset": z3.ULT(earlier, past_highest),
        "repeats_earlier is exact (of that safepoint)": z3.Implies(earlier == offset, repeats),
    }

    def run(path: Path) -> object:
        state = {"mem": path.mem, "function": 0, "length": path.word(length), "first": 0, "info": path.word(INFO)}
        cut = Cut(count_entries, repeats_earlier=lambda *_: int(path.take(repeats)))
        return cut.step(state | {"count": path.word(count), "past_highest": path.word(past_highest)})

    def promise(outcome: Outcome) -> z3.BoolRef:
        if outcome.raised is not None:
            return z3.UGE(offset, length)
        state = outcome.value.state
        new = z3.Or(z3.UGE(offset, past_highest), z3.Not(repeats))
        return z3.And(
            z3.ULT(offset, length),
            state["count"].term == z3.If(new, count + 1, count),
            z3.Implies(earlier == offset, state["count"].term == count),
            # No more than that: safepoints in order are to be counted without a search.
            state["past_highest"].term == z3.If(z3.UGE(offset, past_highest), offset + 1, past_highest),
            z3.ULT(earlier, state["past_highest"].term),
            state["info"].term == INFO + INFO_WORDS,
        )

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _repetition_is_exact() -> Claim:
    """A round of the search for a repeated safepoint passes over none, and refuses one pc with two maps.

    One round of `repeats_earlier`: nothing is passed over that has the offset, and a contradiction is refused.
    """
    earlier = z3.BitVec("earlier", 64)
    fields = [(at(MEMORY, earlier + field), at(MEMORY, INFO + field)) for field in (INFO_OFFSET, INFO_MAPPED_WORDS, INFO_BITS)]
    (offset, wanted), *maps = fields
    same_map = z3.And(*(mine == theirs for mine, theirs in maps))
    assumptions = {"addresses are small": z3.And(z3.ULT(INFO, SMALL), z3.ULT(earlier, SMALL))}

    def run(path: Path) -> object:
        state = {"mem": path.mem, "first": 0, "info": path.word(INFO), "offset": path.word(wanted)}
        return Cut(repeats_earlier).step(state | {"earlier": path.word(earlier)})

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came = outcome.value
        if outcome.raised is not None:
            return z3.And(offset == wanted, z3.Not(same_map), z3.ULT(earlier, INFO))
        if isinstance(came, Returned):
            return z3.And(offset == wanted, same_map, z3.ULT(earlier, INFO), came.value == 1)
        if isinstance(came, Left):
            return z3.UGE(earlier, INFO)
        return z3.And(offset != wanted, z3.ULT(earlier, INFO), came.state["earlier"].term == earlier + INFO_WORDS)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def obligations() -> list[Obligation]:
    """Return the obligations about registration."""
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("sharing-a-pc-is-exact", _sharing_is_exact, (share_a_pc,)),
        ("registration-keeps-ranges-disjoint", _registration_keeps_ranges_disjoint, (register_stack_maps,)),
        ("registration-refuses-only-overlaps", _registration_refuses_only_overlaps, (register_stack_maps,)),
        ("range-covers-all-functions", _range_covers_all_functions, (image_range,)),
        ("overlap-is-asked-of-each-function", _overlap_is_asked_of_each, (overlaps_earlier, share_a_pc, next_function)),
        ("safepoints-are-noticed", _safepoints_are_noticed, (has_safepoints,)),
        ("fields-are-apart", _fields_are_apart, (register_stack_maps,)),
        ("new-registry-is-empty", _new_registry_is_empty, (registry_init,)),
        ("functions-follow-each-other", _functions_follow_each_other, (next_function,)),
        ("safepoints-are-counted-once", _safepoints_are_counted_once, (count_entries,)),
        ("repetitions-are-found-exactly", _repetition_is_exact, (repeats_earlier,)),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
