"""A registration visits every function of an image and every safepoint of a function once, in order, and answers when all are visited.

Each loop is cut: where it begins and how many rounds it makes is said here, and so is what follows its last round. What a round does is
said in `registration` and `registry_arrays`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3

from impl.stack_maps import (
    ENTRIES,
    ENTRY_COUNT,
    FUNCTION_END,
    FUNCTION_INFOS,
    FUNCTION_START,
    FUNCTION_WORDS,
    INFO_OFFSET,
    INFO_WORDS,
    count_entries,
    has_safepoints,
    image_range,
    next_function,
    overlaps_earlier,
    register_stack_maps,
    repeats_earlier,
    same_maps,
    write_entries,
)
from proofs.cuts import Again, Cut, Reached, Returned
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, statement
from proofs.paths import Outcome, Path, always, explore
from proofs.words import term

SUBJECT = "registry"
SMALL = 1 << 32
COUNT_MAX = 1 << 26

MEMORY = fresh_memory()
IMAGE, FUNCTION, INFO, MODULE, ENTRIES_AT, REGISTRY = z3.BitVecs("image function info module entries registry", 64)
START, END, COUNT, ENTRY_TOTAL, ANSWER = z3.BitVecs("start end count entry_count answer", 64)
FIRST_FUNCTION = IMAGE + 1

# What is said of the local variables where a loop begins, and of how often it goes round.
Beginning = Callable[[dict[str, z3.BitVecRef], z3.BitVecRef], z3.BoolRef]


def _terms(state: dict[str, Any]) -> dict[str, z3.BitVecRef]:
    """Return the terms of the local variables that are words."""
    return {name: term(value) for name, value in state.items() if name not in {"mem", "_"}}


def _beginning(cut: Cut, arguments: Callable[[Path], tuple[Any, ...]], says: Beginning, assumptions: dict[str, z3.BoolRef]) -> Claim:
    """Claim something of where a loop begins; that nothing is written before; and that the function does not return before."""

    def run(path: Path) -> tuple[dict[str, z3.BitVecRef], z3.BitVecRef]:
        reached = cut.entry(path.mem, *arguments(path))
        if not isinstance(reached, Reached):
            raise TypeError(f"{cut.function.__name__} returned before its loop")
        (rounds,) = cut.bounds(reached.state)
        return _terms(reached.state), term(rounds)

    def promise(outcome: Outcome) -> z3.BoolRef:
        return z3.And(says(*outcome.value), outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise), part=cut.function.__name__)


def _loops_begin_at_the_first() -> list[Claim]:
    """A loop over the functions of an image begins at the first and goes round once for each, and one over the safepoints of a function
    begins at the first and goes round once for each.

    The parts of the functions before their loops, and the ranges of these. `overlaps_earlier` asks as many as it is told to.
    """
    assumptions = {"the image lies in the memory": z3.ULT(IMAGE, SMALL)}
    functions = at(MEMORY, IMAGE)
    first_start = at(MEMORY, FIRST_FUNCTION + FUNCTION_START)

    def image(path: Path) -> tuple[Any, ...]:
        return (path.word(IMAGE),)

    def function_start(state: dict[str, z3.BitVecRef], rounds: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(state["function"] == FIRST_FUNCTION, rounds == functions)

    def ranged(state: dict[str, z3.BitVecRef], rounds: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(function_start(state, rounds), state["lowest"] == first_start, state["highest"] == first_start)

    def earlier(state: dict[str, z3.BitVecRef], rounds: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(state["function"] == FIRST_FUNCTION, rounds == COUNT)

    def written(state: dict[str, z3.BitVecRef], rounds: z3.BitVecRef) -> z3.BoolRef:
        return z3.And(function_start(state, rounds), state["count"] == 0, state["entries"] == ENTRIES_AT)

    start, end = at(MEMORY, FUNCTION + FUNCTION_START), at(MEMORY, FUNCTION + FUNCTION_END)
    of_function = {
        "the function lies in the memory": z3.ULT(FUNCTION, SMALL),
        # `image_range` has refused any other.
        "the function does not end before it starts": z3.ULE(start, end),
    }

    def counted(state: dict[str, z3.BitVecRef], rounds: z3.BitVecRef) -> z3.BoolRef:
        first = z3.And(state["first"] == FUNCTION + FUNCTION_WORDS, state["info"] == state["first"])
        nothing_yet = z3.And(state["count"] == 0, state["past_highest"] == 0)
        return z3.And(first, nothing_yet, state["length"] == end - start, rounds == at(MEMORY, FUNCTION + FUNCTION_INFOS))

    return [
        _beginning(Cut(has_safepoints), image, function_start, assumptions),
        _beginning(Cut(image_range), image, ranged, assumptions),
        _beginning(
            Cut(overlaps_earlier),
            lambda path: (path.word(IMAGE), path.word(COUNT), path.word(START), path.word(END)),
            earlier,
            assumptions,
        ),
        _beginning(Cut(write_entries), lambda path: (path.word(ENTRIES_AT), path.word(IMAGE)), written, assumptions),
        _beginning(Cut(count_entries), lambda path: (path.word(FUNCTION),), counted, of_function),
    ]


def _registration_begins_with_the_range() -> Claim:
    """A module without safepoints registers nothing; of any other the range is asked for, and its entries are counted from the first
    function on, from none.

    The part of `register_stack_maps` before its loop.
    """
    any_safepoints = z3.Bool("a function has a safepoint")
    assumptions = {"the image lies in the memory": z3.ULT(IMAGE, SMALL)}

    def run(path: Path) -> tuple[object, list[z3.BoolRef], Any]:
        asked: list[z3.BoolRef] = []

        def has(_mem: object, image: Any) -> int:
            asked.append(image.term == IMAGE)
            return int(path.take(any_safepoints))

        def extent(_mem: object, image: Any) -> tuple[Any, Any]:
            asked.append(image.term == IMAGE)
            return path.word(START), path.word(END)

        cut = Cut(register_stack_maps, has_safepoints=has, image_range=extent)
        came = cut.entry(path.mem, path.word(REGISTRY), path.word(IMAGE))
        return came, asked, cut.bounds(came.state) if isinstance(came, Reached) else None

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came, asked, rounds = outcome.value
        right = z3.And(*asked, outcome.mem.wrote_only([]))
        if isinstance(came, Returned):
            return z3.And(right, z3.Not(any_safepoints), len(asked) == 1)
        state = _terms(came.state)
        begun = z3.And(state["function"] == FIRST_FUNCTION, state["entry_count"] == 0, rounds[0].term == at(MEMORY, IMAGE))
        kept = z3.And(state["start"] == START, state["end"] == END, state["registry"] == REGISTRY, state["image"] == IMAGE)
        return z3.And(right, any_safepoints, len(asked) == 2, len(rounds) == 1, begun, kept)

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _comparison_begins_with_the_count() -> Claim:
    """A module with another number of entries has other maps; with the same number, each function is compared, from the first on.

    The part of `same_maps` before its loops.
    """
    assumptions = {"image and module lie in the memory": z3.And(z3.ULT(IMAGE, SMALL), z3.ULT(MODULE, SMALL))}
    same_count = at(MEMORY, MODULE + ENTRY_COUNT) == ENTRY_TOTAL

    def run(path: Path) -> tuple[object, Any]:
        cut = Cut(same_maps)
        came = cut.entry(path.mem, path.word(MODULE), path.word(IMAGE), path.word(ENTRY_TOTAL))
        return came, cut.bounds(came.state) if isinstance(came, Reached) else None

    def promise(outcome: Outcome) -> z3.BoolRef:
        came, rounds = outcome.value
        if isinstance(came, Returned):
            return z3.And(z3.Not(same_count), came.value == 0, outcome.mem.wrote_only([]))
        state = _terms(came.state)
        begun = z3.And(state["function"] == FIRST_FUNCTION, rounds[0].term == at(MEMORY, IMAGE), len(rounds) == 1)
        kept = z3.And(state["entries"] == at(MEMORY, MODULE + ENTRIES), state["entry_count"] == ENTRY_TOTAL)
        return z3.And(same_count, begun, kept, outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _entries_of_each_function_are_counted() -> Claim:
    """A round over the functions of an image adds the entries of this one, and goes on to the next.

    One round of the loop of `register_stack_maps`.
    """
    assumptions = {"counts are small": z3.And(z3.ULT(ENTRY_TOTAL, COUNT_MAX), z3.ULT(ANSWER, COUNT_MAX))}

    def run(path: Path) -> tuple[object, list[z3.BoolRef]]:
        asked: list[z3.BoolRef] = []

        def count(_mem: object, function: Any) -> Any:
            asked.append(function.term == FUNCTION)
            return path.word(ANSWER)

        def following(_mem: object, function: Any) -> Any:
            asked.append(function.term == FUNCTION)
            return path.word("next")

        cut = Cut(register_stack_maps, count_entries=count, next_function=following)
        state = {"mem": path.mem, "registry": 0, "image": 0, "start": 0, "end": 0}
        return cut.step(state | {"entry_count": path.word(ENTRY_TOTAL), "function": path.word(FUNCTION)}), asked

    def promise(outcome: Outcome) -> z3.BoolRef | bool:
        came, asked = outcome.value
        if not isinstance(came, Again):
            return False
        state = _terms(came.state)
        moved = z3.And(state["entry_count"] == ENTRY_TOTAL + ANSWER, state["function"] == z3.BitVec("next", 64))
        return z3.And(len(asked) == 2, *asked, moved, outcome.mem.wrote_only([]))

    return Claim(assumptions, always(explore(run, assumptions.values()), promise))


def _safepoints_lead_to_the_next_function() -> list[Claim]:
    """A round over the functions of an image visits the safepoints of this one, once each from the first on, under its own start; behind
    the last is the next function.

    The rounds of the outer loops of `write_entries` and `same_maps`, before and after their inner loops, of which each round goes one
    safepoint on.
    """
    infos = at(MEMORY, FUNCTION + FUNCTION_INFOS)
    assumptions = {"the function lies in the memory": z3.And(z3.ULT(FUNCTION, SMALL), z3.ULT(infos, COUNT_MAX))}

    def claim(function: Callable[..., object], names: tuple[str, ...]) -> Claim:
        kept = {name: z3.BitVec(f"{name} there", 64) for name in names}

        def run(path: Path) -> tuple[dict[str, z3.BitVecRef], z3.BitVecRef, object, z3.BitVecRef]:
            cut = Cut(function, 1, within=0)
            state = {"mem": path.mem, "image": 0, "function": path.word(FUNCTION)}
            reached = cut.before(state | {name: path.word(value) for name, value in kept.items()})
            if not isinstance(reached, Reached):
                raise TypeError(f"{function.__name__} returned before it looked at a safepoint")
            (rounds,) = cut.bounds(reached.state)
            begun = _terms(reached.state)
            ended = {**reached.state, "info": reached.state["info"] + rounds * INFO_WORDS}
            return begun, term(rounds), cut.after(ended), term(next_function(path.mem, path.word(FUNCTION)))

        def promise(outcome: Outcome) -> z3.BoolRef | bool:
            begun, rounds, came, following = outcome.value
            if not isinstance(came, Again):
                return False
            ended = _terms(came.state)
            first = z3.And(begun["info"] == FUNCTION + FUNCTION_WORDS, begun["start"] == at(MEMORY, FUNCTION + FUNCTION_START))
            alike = [z3.And(begun[name] == value, ended[name] == value) for name, value in kept.items()]
            return z3.And(first, rounds == infos, ended["function"] == following, *alike, outcome.mem.wrote_only([]))

        return Claim(assumptions, always(explore(run, assumptions.values()), promise), part=function.__name__)

    return [claim(write_entries, ("entries", "count")), claim(same_maps, ("entries", "entry_count"))]


def _repetition_is_looked_for_from_the_first() -> Claim:
    """The search for a repeated safepoint begins at the function's first safepoint, with the offset of the one in question."""
    first = z3.BitVec("first", 64)

    def run(path: Path) -> dict[str, z3.BitVecRef]:
        reached = Cut(repeats_earlier).entry(path.mem, path.word(first), path.word(INFO))
        if not isinstance(reached, Reached):
            raise TypeError("repeats_earlier returned before its loop")
        return _terms(reached.state)

    def promise(outcome: Outcome) -> z3.BoolRef:
        state = outcome.value
        begun = z3.And(state["earlier"] == first, state["info"] == INFO, state["offset"] == at(MEMORY, INFO + INFO_OFFSET))
        return z3.And(begun, outcome.mem.wrote_only([]))

    return Claim({}, always(explore(run), promise))


def _loops_end_with_their_answer() -> list[Claim]:
    """After its last round each loop over functions or safepoints gives what its rounds found: no safepoint, no overlap, no repetition,
    the same maps, the range, the count.

    The parts of the functions after their loops.
    """
    lowest, highest = z3.BitVecs("lowest highest", 64)

    def claim(function: Callable[..., object], expected: tuple[z3.BitVecRef | int, ...], **state: z3.BitVecRef) -> Claim:
        def run(path: Path) -> tuple[Any, ...]:
            answer = Cut(function).after({"mem": path.mem, **{name: path.word(value) for name, value in state.items()}})
            return answer if isinstance(answer, tuple) else (answer,)

        def promise(outcome: Outcome) -> z3.BoolRef:
            found = outcome.terms()
            same = [mine == theirs for mine, theirs in zip(found, expected, strict=True)]
            return z3.And(*same, outcome.mem.wrote_only([]))

        return Claim({}, always(explore(run), promise), part=function.__name__)

    return [
        claim(has_safepoints, (0,)),
        claim(overlaps_earlier, (0,)),
        claim(repeats_earlier, (0,)),
        claim(same_maps, (1,)),
        claim(image_range, (lowest, highest), lowest=lowest, highest=highest),
        claim(count_entries, (COUNT,), count=COUNT),
    ]


def obligations() -> list[Obligation]:
    """Return the obligations about the loops over an image."""
    over_functions = (has_safepoints, image_range, overlaps_earlier, write_entries, count_entries)
    answering = (has_safepoints, overlaps_earlier, repeats_earlier, same_maps, image_range, count_entries)
    proved: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("loops-begin-at-the-first", _loops_begin_at_the_first, over_functions),
        ("registration-begins-with-the-range", _registration_begins_with_the_range, (register_stack_maps,)),
        ("comparison-begins-with-the-count", _comparison_begins_with_the_count, (same_maps,)),
        ("entries-of-each-function-are-counted", _entries_of_each_function_are_counted, (register_stack_maps,)),
        ("safepoints-lead-to-the-next-function", _safepoints_lead_to_the_next_function, (write_entries, same_maps, next_function)),
        ("repetition-is-looked-for-from-the-first", _repetition_is_looked_for_from_the_first, (repeats_earlier,)),
        ("loops-end-with-their-answer", _loops_end_with_their_answer, answering),
    ]
    return [Obligation(name, SUBJECT, statement(build), Verdict.PROVED, build, functions) for name, build, functions in proved]
