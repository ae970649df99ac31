"""What a text does as C is what it does as Python: order of evaluation, exceptions, views, words that wrap."""

from __future__ import annotations

import pytest

from fuzz.compiled.inference import VIEW, WORD, Inference
from fuzz.compiled.world import REGISTERS, WILD
from tests.emitting import DONE, ENDED, RAISED, WORDS, Emitted, definitions

TEXT = """
def log(w, word):
    w[0] = w[0] * 10 + word
    return word

def refuse(mem, w, word):
    log(w, word)
    if word > 5:
        raise Panicked("too much")
    return word

def bits(mask):
    while mask:
        yield 1
        mask &= mask - 1

def pair(w, a, b):
    return log(w, b), log(w, a)

def part(w, first, last):
    return w[first:last]

def total(row):
    found = 0
    for word in row:
        found = found * 3 + word
    return found

def order_of_operands(mem, w, x, y):
    return log(w, 1) - log(w, 2) * log(w, 3) + w[0] * x + y

def order_of_arguments(mem, w, x, y):
    return total(part(w, log(w, 1), log(w, 4) + 2)) + total(w[x % 4 : 6])

def order_of_comparison(mem, w, x, y):
    return (log(w, x % 7) < log(w, y % 7) <= log(w, 5)) + 2 * (w[0] < log(w, 1))

def order_of_assignment(mem, w, x, y):
    w[8 + log(w, 1)] = log(w, 2)
    w[3] += log(w, 4)
    w[0] += log(w, 7)
    return w[9] + w[3] * 100

def reads_before_a_call(mem, w, x, y):
    return w[0] + log(w, x % 10) + w[0]

def values_of_conditions(mem, w, x, y):
    return (x and y) * 7 + (x or y) * 3 + (not x) + (x and not y or 9)

def conditional(mem, w, x, y):
    return (log(w, 1) if x > y else log(w, 2)) + (x if y else -x)

def parallel(mem, w, x, y):
    a, b = x, y
    a, b = b, a + 1
    c, d = pair(w, a & 7, b & 7)
    a = e = c + d
    return a * 2 + b * 3 + e + d

def division(mem, w, x, y):
    return x // 7 * 100 + x % 7 * 10 + (-x) // 5 + (-x) % 5 + x // -3 + y % -4

def shifts(mem, w, x, y):
    return (x >> 3) + (x << 2) + (1 << 40) + (-1 >> 1) + ((x % 65536) * 0x5DEECE66D >> 17) + (~x ^ y | 4 & y)

def large_constants(mem, w, x, y):
    return 9223372036854775807 - (x & 255) + (0x7FFFFFFFF if x > y else -0x7FFFFFFFF)

def small_functions(mem, w, x, y):
    return min(x, y) * 5 + max(x, y) + abs(x) + len(TABLE) + TABLE[x % 5] + int(x > y) + bool(x)

def ranges(mem, w, x, y):
    found = 0
    for i in range(4):
        found = found * 5 + i
        i = 9
    for i in range(2, 9, 3):
        found += i * i
    for i in range(5, 0, -2):
        found = found * 2 + i
    for i in range(x % 3, x % 3 - 1):
        found = 0
    return found * 10 + i

def views(mem, w, x, y):
    row = w[8:13]
    for index in range(len(row)):
        row[index] = index * x
    found = total(row[1:]) + total(row[:3]) + total(row[2:2]) + len(row[1:4])
    for number, word in enumerate(row[2:]):
        found += number * word
    for a, b in zip(row, w[9:12]):
        found += a * b
    return found

def masks(mem, w, x, y):
    found = 0
    for number in bits(x & 1023):
        found = found * 3 + number
        if found > 200:
            break
    return found

def loops(mem, w, x, y):
    found = 0
    while found < 50:
        found += 7
        if found % 5 == x % 5:
            continue
        if found > y:
            break
        log(w, 1)
    return found

def caught(mem, w, x, y):
    found = 0
    try:
        found = refuse(mem, w, x % 9) + refuse(mem, w, y % 9)
    except Exception:
        found = 100
    return found

def cleaned_up(mem, w, x, y):
    try:
        refuse(mem, w, x % 9)
        log(w, 4)
    finally:
        log(w, 8)
        w[5] = 3
    return 1

def outer(mem, w, x, y):
    found = 0
    try:
        try:
            found = cleaned_up(mem, w, x, y)
            refuse(mem, w, y % 9)
        except Exception:
            log(w, 2)
            refuse(mem, w, x % 11)
            found += 10
    except Exception:
        found += 1000
    return found

def passes_on(mem, w, x, y):
    return 1 + refuse(mem, w, x % 9)

def memory(mem, w, x, y):
    mem[3] = x
    mem[mem[3] % 4 + 8] += y
    return mem[8] + mem[9] * 2 + mem[10] * 3 + mem[11] * 4 + len(mem)

def leaves_the_memory(mem, w, x, y):
    return mem[64 + x]
"""
TRIED = (
    *(
        "order_of_operands",
        "order_of_arguments",
        "order_of_comparison",
        "order_of_assignment",
        "reads_before_a_call",
        "values_of_conditions",
    ),
    *("conditional", "parallel", "division", "shifts", "large_constants", "small_functions", "ranges", "views", "masks"),
    *("loops", "caught", "cleaned_up", "outer", "passes_on", "memory"),
)
RAISING = ("cleaned_up", "passes_on")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    return Emitted(tmp_path_factory.mktemp("emission"), TEXT, (*TRIED, "leaves_the_memory"))


@pytest.mark.parametrize("name", TRIED)
def test_a_function_does_as_c_what_it_does_as_python(name: str, text: Emitted) -> None:
    assert text.compare(name) == ({DONE, RAISED} if name in RAISING else {DONE})


@pytest.mark.parametrize("x", [0, 1, 1 << 40, -65])
def test_an_access_that_leaves_the_memory_ends_the_run(x: int, text: Emitted) -> None:
    text.array("w")[:] = [0] * WORDS
    assert text.call("leaves_the_memory", x, 0) == (0, ENDED)
    assert text.array("w")[REGISTERS["verdict"]] == WILD


def test_what_may_raise_is_known_and_what_is_caught_is_not_counted() -> None:
    known = Inference(definitions(TEXT))
    assert {name for name, function in known.functions.items() if function.raises} == {"refuse", "cleaned_up", "passes_on"}


def test_views_words_and_tuples_are_told_apart() -> None:
    known = Inference(definitions(TEXT))
    assert known.functions["total"].names["row"] == VIEW
    assert known.functions["views"].names["row"] == VIEW
    assert [known.functions[name].returns for name in ("part", "pair", "total")] == [VIEW, "words2", WORD]
