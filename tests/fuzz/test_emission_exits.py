"""Every way out of a block does as C what it does as Python; what C would do otherwise is refused, by name."""

from __future__ import annotations

import pytest

from fuzz.compiled.inference import Inference
from fuzz.compiled.rewriting import Untranslatable
from fuzz.compiled.world import DIRTY_AT, DIRTY_SHIFT, DIRTY_WORDS, REGISTERS, WILD
from tests.emitting import DONE, ENDED, RAISED, WORDS, Emitted, definitions, emitted

TEXT = """
def log(w, word):
    w[0] = w[0] * 10 + word
    return word

def refuse(w, word):
    log(w, word)
    if word > 5:
        raise Panicked("too much")
    return word

def bits(mask):
    while mask:
        yield 1
        mask &= mask - 1

def difference(a, b):
    return a - b

def finally_within_except(mem, w, x, y):
    found = 0
    try:
        try:
            found = refuse(w, x % 9)
        finally:
            log(w, 8)
        found += 20
    except Exception:
        found += 100
    return found

def finally_within_finally(mem, w, x, y):
    try:
        try:
            refuse(w, x % 9)
        finally:
            log(w, 1)
            refuse(w, y % 9)
            log(w, 2)
    finally:
        log(w, 3)
    return 7

def passed_on(mem, w, x, y):
    try:
        refuse(w, x % 9)
    except Exception:
        log(w, 1)
        if y > 3:
            raise
        log(w, 2)
    return w[0]

def raised_by_itself(mem, w, x, y):
    found = 3
    try:
        if x % 2 == 0:
            raise Panicked("even")
        found = 4
    except Exception:
        found += 10
    if y % 2 == 0:
        raise Panicked("even")
    return found

def caught_in_a_loop(mem, w, x, y):
    found = 0
    for number in range(x % 5, 9):
        try:
            found += refuse(w, number)
            if number == y % 9:
                break
            if found % 2:
                continue
            log(w, 9)
        except Exception:
            found += 50
            if number == y % 7:
                continue
            if found > 90:
                break
    return found * 10 + number

def cleaned_up_in_a_loop(mem, w, x, y):
    found = 0
    for number in bits(x & 255):
        try:
            for other in range(y % 7):
                if other == number:
                    break
                found += other
            refuse(w, number)
        finally:
            found += 1000
    return found

def raised_in_heads(mem, w, x, y):
    found = 0
    try:
        while found + refuse(w, x % 7) < 8:
            found += 3
        for number in range(refuse(w, y % 8)):
            found += number
        if refuse(w, found % 7) == 1 or refuse(w, found % 9) == 2:
            found += 100
    except Exception:
        return -found
    return found

def raised_in_conditions(mem, w, x, y):
    found = 0
    if refuse(w, x % 7) > 2 and refuse(w, y % 9) > 1 and not refuse(w, x % 3):
        found = 1
    if not (x > 0 or refuse(w, y % 8) < 4):
        found += 2
    while found and refuse(w, x % 8) > found:
        found += 1
    return found

def raised_in_a_bound(mem, w, x, y):
    found = 0
    for number in range(refuse(w, x % 9)):
        found += number
    return found

def raised_in_a_test(mem, w, x, y):
    found = 0
    while refuse(w, y % 9) > found:
        found += 1
    return found

def raised_in_parts(mem, w, x, y):
    w[refuse(w, x % 7) + 4] = refuse(w, y % 9)
    w[5] += refuse(w, (x + y) % 8)
    return refuse(w, 1) < refuse(w, y % 7) <= refuse(w, x % 9)

def raised_before_a_return(mem, w, x, y):
    try:
        return refuse(w, x % 9) * 2 + log(w, 4)
    except Exception:
        return refuse(w, y % 9)

def arguments_of_an_instruction(mem, w, x, y):
    return difference(log(w, 1), log(w, 2)) + difference(w[0], log(w, x % 10)) * 3 + difference(x, y)

def raised_in_an_instruction(mem, w, x, y):
    return difference(refuse(w, x % 9), refuse(w, y % 9))

def names_of_c(mem, w, x, y):
    short = x
    raised = y
    linux, unix = 3, 4
    put = short + raised
    landing = 2
    within = w[1:4]
    for default in range(3):
        put += default * landing
    void = log(w, 5) + len(within)
    return put * linux + unix + void

def several_targets(mem, w, x, y):
    w[3] = found = w[4 + log(w, 1)] = x + log(w, 2)
    row = same = w[2:7]
    row[1] += 5
    return found * 3 + same[1] + len(same)

def wide_constants(mem, w, x, y):
    mem[1] = 9223372036854775807
    mem[2] = -9223372036854775808
    mem[3] = (x & 7) - 9223372036854775808
    mem[4] = 0x5BADF00D5BADF00D
    return (mem[1] & 0x7FFFFFFFFFFFFFF0) - (mem[4] & 0x7FFFFFFF00000000) + (mem[2] == mem[3])

def divided_by_words(mem, w, x, y):
    by = y * 2 + 1
    return x // by * 1000 + x % by + (by // -3) * 7 + x // (y - 9)

def ended(w, word):
    if word > 5:
        w[12] = word
        raise CompiledVerdict("")
    return word

def not_caught(w, word):
    try:
        ended(w, word)
    except Exception:
        log(w, 9)
    return log(w, 1)

def boundary(w, word):
    try:
        not_caught(w, word)
        refuse(w, word % 7)
        log(w, 2)
    except Exception:
        log(w, 3)
    return w[0]

def boundary_within(w, word, other):
    try:
        boundary(w, word)
        log(w, 4)
        ended(w, other)
        log(w, 5)
    except Exception:
        log(w, 6)
    return w[0]

def verdicts(mem, w, x, y):
    found = boundary_within(w, x % 13, y % 9)
    found += boundary(w, y % 13)
    ended(w, (x + y) % 9)
    return found
"""
INSIDE = (
    *("finally_within_except", "caught_in_a_loop", "raised_in_heads", "arguments_of_an_instruction", "names_of_c", "several_targets"),
    *("wide_constants", "divided_by_words"),
)
RAISING = (
    *("finally_within_finally", "passed_on", "raised_by_itself", "cleaned_up_in_a_loop", "raised_in_parts", "raised_before_a_return"),
    *("raised_in_an_instruction", "raised_in_conditions", "raised_in_a_bound", "raised_in_a_test"),
)
BOUNDARIES = ("boundary", "boundary_within")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    intrinsics = {"difference": "-{1} + {0}"}
    folder = tmp_path_factory.mktemp("exits")
    return Emitted(folder, TEXT, (*INSIDE, *RAISING, "verdicts"), boundaries=BOUNDARIES, intrinsics=intrinsics)


@pytest.mark.parametrize("name", INSIDE)
def test_what_stays_inside_a_function_does_as_c_what_it_does_as_python(name: str, text: Emitted) -> None:
    assert text.compare(name) == {DONE}


@pytest.mark.parametrize("name", RAISING)
def test_an_exception_that_leaves_a_function_leaves_it_as_in_python(name: str, text: Emitted) -> None:
    assert text.compare(name) == {DONE, RAISED}


def test_a_verdict_passes_all_handlers_up_to_the_nearest_boundary(text: Emitted) -> None:
    assert text.compare("verdicts") == {DONE, ENDED}


def test_which_functions_raise_follows_from_where_their_exceptions_are_caught() -> None:
    known = Inference(definitions(TEXT))
    assert {name for name, function in known.functions.items() if function.raises} == {"refuse", *RAISING}


MEMORY = """
def write(mem, w, x, y):
    mem[x] = y
    mem[x] += 1
    return mem[x]

def write_unmarked(mem, w, x, y):
    mem[x] = y
    mem[x] += 1
    return mem[x]

def divide(mem, w, x, y):
    return x // y

def rest(mem, w, x, y):
    return x % (y - y)

def impossible(mem, w, x, y):
    if x == 0:
        raise ValueError("")
    return x
"""


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    names = ("write", "write_unmarked", "divide", "rest", "impossible")
    return Emitted(tmp_path_factory.mktemp("memory"), MEMORY, names, trusted=("write_unmarked",))


@pytest.mark.parametrize("place", [0, 1, 7, 8, 31, 63])
def test_what_is_written_to_the_memory_is_marked_unless_the_function_is_trusted(place: int, memory: Emitted) -> None:
    world = memory.array("w", DIRTY_AT + DIRTY_WORDS)
    world[DIRTY_AT:] = [0] * DIRTY_WORDS
    assert memory.call("write_unmarked", place, 40) == (41, DONE)
    assert sum(world[DIRTY_AT:]) == 0
    assert memory.call("write", place, 50) == (51, DONE)
    assert list(world[DIRTY_AT:]) == [1 << (place >> DIRTY_SHIFT), *[0] * (DIRTY_WORDS - 1)]


@pytest.mark.parametrize("place", [-1, WORDS, WORDS + 1, 1 << 40, -(1 << 62)])
def test_a_write_outside_of_the_memory_ends_the_run_before_it_is_done(place: int, memory: Emitted) -> None:
    world = memory.array("w", DIRTY_AT + DIRTY_WORDS)
    world[:] = [0] * (DIRTY_AT + DIRTY_WORDS)
    assert memory.call("write", place, 1) == (0, ENDED)
    assert {index: word for index, word in enumerate(world) if word} == {REGISTERS["verdict"]: WILD}


@pytest.mark.parametrize(("name", "x", "y"), [("divide", 7, 0), ("rest", 7, 3), ("impossible", 0, 0)])
def test_what_only_a_defect_can_ask_for_ends_the_run(name: str, x: int, y: int, memory: Emitted) -> None:
    memory.array("w")[:] = [0] * WORDS
    assert memory.call(name, x, y) == (0, ENDED)
    assert memory.array("w")[REGISTERS["verdict"]] == WILD


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("x = [1, 2]", "an expression that C has no word for"),
        ("with x: pass", "a statement that C has no word for"),
        ("x = 1.5", "no word"),
        ("x = 0x10000000000000000", "no word"),
        ("x = 3 ** 2", "an operator that C has no word for"),
        ("x = +y", "an operator that C has no word for"),
        ("x = y is 3", "a comparison that C has no word for"),
        ("x = unknown(3)", "a call of something that is not in the text"),
        ("x = w.count(3)", "no plain call"),
        ("x = min(x, key=y)", "no plain call"),
        ("x = max(w)", "another number of arguments"),
        ("x = abs(x, y)", "another number of arguments"),
        ("x = w[1:9:2]", "a view with steps"),
        ("x, w[1:2] = 1, 2", "no word to store to"),
        ("x = (y, x) = g(3, mem, w)", "a tuple among several targets"),
        ("x = bits(y)", "a generator outside of the head of a loop"),
        ("for x in halves(y): pass", "a generator that C has no word for"),
        ("for x in range(0, 9, y): pass", "a range with a step that is no number"),
        ("for x in range(0, 9, 0): pass", "a range with a step that is no number"),
        ("for x in range(3): pass\n    else: x = 1", "a loop with else"),
        ("while x: pass\n    else: x = 1", "a loop with else"),
        ("for x, y in zip(w, w, w): pass", "a call of something that is not in the text"),
        ("for x, y in enumerate(w, 1): pass", "a call of something that is not in the text"),
        ("g(3, w, w)", "another array passed as mem"),
        ("try: x = 1\n    except Panicked: x = 2", "an except that does not catch everything"),
        ("try: x = 1\n    except Exception as e: x = 2", "an except that does not catch everything"),
        ("try: x = 1\n    except Exception: x = 2\n    finally: x = 3", "a try with else, or with both except and finally"),
        ("try: x = 1\n    except Exception: x = 2\n    else: x = 3", "a try with else, or with both except and finally"),
        ("try: return 1\n    finally: x = 2", "a return out of try and finally"),
        ("for x in w:\n        try: break\n        finally: y = 2", "a break out of try and finally"),
        ("for x in w:\n        try:\n            if x: continue\n        finally: y = 2", "a continue out of try and finally"),
    ],
)
def test_what_c_cannot_say_is_named(body: str, why: str) -> None:
    others = """
def g(a, mem, w):
    return a, a

def bits(mask):
    yield mask

def halves(mask):
    yield mask
"""
    with pytest.raises(Untranslatable, match=f"^f: {why}: "):
        emitted(f"{others}\ndef f(mem, w, x, y):\n    {body}\n")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("try: return 1\n    except Exception: x = 2", "a return out of a boundary"),
        ("for x in w:\n        try: y = 1\n        except Exception: x = 2", "a boundary that is no plain try and except"),
        ("try: y = 1\n    finally: x = 2", "a boundary that is no plain try and except"),
        ("try:\n        try: y = 1\n        except Exception: x = 2\n    except Exception: x = 2", "a boundary that is no plain try and"),
        ("z = 1\n    try: z = 2\n    except Exception: x = 2\n    return z", "a boundary that changes what is read outside of it"),
    ],
)
def test_what_a_jump_would_lose_is_refused_at_a_boundary(body: str, why: str) -> None:
    with pytest.raises(Untranslatable, match=f"^f: {why}"):
        emitted(f"def f(mem, w, x, y):\n    {body}\n", boundaries=("f",))
