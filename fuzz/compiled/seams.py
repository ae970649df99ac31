"""What the compiled reading must say in other words than the plain one: one function of text for each name.

A seam is source over the lowered parameters: `mem`, the memory, and `w`, the world. It may call any function by its generated name,
which is that of its module and its own, joined by two underscores.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from fuzz import bindings, observe, small_steps
from fuzz.choosers import INCREMENT, MULTIPLIER
from fuzz.compiled import small, words_compiled
from fuzz.compiled.lowering import lowered
from fuzz.compiled.translate import Translator
from fuzz.compiled.world import (
    ADDRESSES_AT,
    BROKEN,
    DIGITS_AT,
    DISAGREES,
    DRAWN_AT,
    DRAWN_MAX,
    DRAWN_ROW,
    DRAWN_WORDS,
    FORGOTTEN_AT,
    LEVELS,
    NAMES_AT,
    RADIXES_AT,
    REFS_AT,
    REGISTERS,
    ROW_WORDS,
    ROWS_AT,
    STATE_AT,
    TARGETS_AT,
    bound_at,
)
from fuzz.driver import ALWAYS, INSIDE_DESTRUCTORS, Driver
from impl import externref
from impl.header import FAIL_AFTER, REGISTRY, SWEEP_ORDER, WALK_LIMIT
from impl.runtime import Runtime
from impl.stack_maps import BITS, MAPPED_WORDS
from model import words
from model.domains import DRAW, DRAWS
from model.limits import BOOK_WORDS, DEPTH, KIND, LIVE, REGISTERED, UNDER_WAY
from model.ops import DEAD, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_R: Final = REGISTERS

_RUN_DESTRUCTOR: Final = """
def run_destructor(mem, w, externref):
    fuzz__driver__Driver__destroy(mem, w, externref)
"""

_RUN_CONSTRUCTOR: Final = """
def run_constructor(mem, w, value, vtable):
    fuzz__driver__Driver__construct(mem, w, value, vtable)
"""

_NAME_OF: Final = f"""
def name_of(mem, w, externref):
    if externref != 0:
        for name in range(w[{bound_at("objects")}]):
            if w[{ADDRESSES_AT} + name] == externref:
                return name
    return -1
"""

_DIVERGE: Final = f"""
def diverge(mem, w):
    w[{_R["verdict"]}] = {DISAGREES}
    raise CompiledVerdict("")
"""

_NEXT: Final = f"""
def next_row(mem, w):
    first = {ROWS_AT} + w[{_R["level"]}] * {ROW_WORDS}
    if w[{_R["level"]}] >= {LEVELS} or w[{_R["steps"]}] >= w[{_R["steps_max"]}]:
        w[{_R["verdict"]}] = {DISAGREES}
        raise CompiledVerdict("")
    row = w[first : first + {ROW_WORDS}]
    length = 0
    if w[{_R["closing"]}] == 0:
        if w[{_R["steps"]}] < w[{_R["operations_max"]}]:
            length = draw_again(w, row)
        if length == 0:
            w[{_R["closing"]}] = 1
    if w[{_R["closing"]}] != 0:
        length = closing(w, row)
    w[{_R["steps"]}] += 1
    if length > 0:
        w[{_R["last_kind"]}] = row[0]
        if w[{_R["seeded"]}] != 0:
            fuzz__compiled__runs__note(w, w[first : first + length])
    return w[first : first + length]
"""

# A campaign's generator is `fuzz.choosers.Seeded`; a search's answers are the digits of an odometer.
_ASK: Final = f"""
def ask(w, count):
    if w[{_R["seeded"]}] != 0:
        w[{_R["dice"]}] = w[{_R["dice"]}] * {MULTIPLIER} + {INCREMENT}
        return ((w[{_R["dice"]}] >> 32) & {0xFFFF_FFFF}) * count >> 32
    digit = w[{_R["digit"]}]
    if digit >= w[{_R["digits"]}]:
        w[{DIGITS_AT} + digit] = 0
        w[{_R["digits"]}] = digit + 1
    w[{RADIXES_AT} + digit] = count
    w[{_R["digit"]}] = digit + 1
    return w[{DIGITS_AT} + digit]
"""

# What a step does until the first question with another answer was compared when the step before it did that.
_IS_OBSERVED: Final = f"""
def is_observed(mem, w):
    if w[{_R["digit"]}] < w[{_R["repeats"]}]:
        fuzz__observe__observe_coverage(mem, w)
        return 0
    return w[{_R["verify"]}] == {ALWAYS} or (w[{_R["verify"]}] == {INSIDE_DESTRUCTORS} and w[{_R["nesting"]}] > 0)
"""

_LISTS: Final[dict[Callable[..., Any], str]] = {
    # Each level of nesting has lists of its own, since an operation may need them after destructors ran.
    Driver.refs: f"""
def refs(mem, w, names):
    first = {REFS_AT} + w[{_R["level"]}] * {ROW_WORDS}
    for index in range(len(names)):
        w[first + index] = w[{ADDRESSES_AT} + names[index]]
    return w[first : first + len(names)]
""",
    Driver.top_slots: f"""
def top_slots(mem, w, slots):
    first = {NAMES_AT} + w[{_R["level"]}] * {ROW_WORDS}
    cells = {STATE_AT} + w[{bound_at("shape.slots")}] + (w[{STATE_AT + DEPTH}] - 1) * w[{bound_at("slots")}]
    for index in range(len(slots)):
        w[first + index] = w[cells + slots[index]]
    return w[first : first + len(slots)]
""",
    bindings.targets: f"""
def targets(mem, w, context, count):
    first = {TARGETS_AT} + w[{_R["level"]}] * {ROW_WORDS}
    cells = {STATE_AT} + w[{bound_at("shape.slots")}] + context * w[{bound_at("slots")}]
    found = 0
    for index in range(w[{bound_at("slots")}]):
        if w[cells + index] == {DEAD} and found < count:
            w[first + found] = index
            found += 1
    return w[first : first + found]
""",
    Runtime.call_import: f"""
def call_import(mem, w, pc, slots):
    first = {REFS_AT} + w[{_R["level"]}] * {ROW_WORDS}
    for index in range(len(slots)):
        w[first + index] = impl__transfers__clone_local(mem, slots[index])
    impl__transfers__enter_import(mem, pc)
    return w[first : first + len(slots)]
""",
    Runtime.return_to_host: f"""
def return_to_host(mem, w, slots):
    first = {REFS_AT} + w[{_R["level"]}] * {ROW_WORDS}
    for index in range(len(slots)):
        w[first + index] = impl__transfers__clone_local(mem, slots[index])
    impl__transfers__leave_wasm(mem)
    return w[first : first + len(slots)]
""",
}

# A step does what the one before it did until the first question with another answer. So what was drawn before that is drawn again, and
# among the same kinds comes the draw with that question.
_DRAW_AGAIN: Final = f"""
def draw_again(w, row):
    turn = w[{_R["steps"]}]
    if turn >= {DRAWN_MAX} or w[{_R["seeded"]}] != 0:
        return draw(w, row, model__choose__kinds_mask(w))
    drawn = {DRAWN_AT} + turn * {DRAWN_WORDS}
    if w[{_R["digit"]}] >= w[{_R["repeats"]}]:
        w[drawn + 2] = model__choose__kinds_mask(w)
    elif w[drawn] < w[{_R["repeats"]}]:
        w[{_R["digit"]}] = w[drawn]
        for index in range(w[drawn + 1]):
            row[index] = w[drawn + {DRAWN_ROW} + index]
        return w[drawn + 1]
    length = draw(w, row, w[drawn + 2])
    w[drawn] = w[{_R["digit"]}]
    w[drawn + 1] = length
    for index in range(length):
        w[drawn + {DRAWN_ROW} + index] = row[index]
    return length
"""

_DRAW: Final = """
def draw(w, row, kinds):
    count = model__words__popcount(kinds)
    if count == 0:
        return 0
    chosen = 0
    if count > 1:
        chosen = model__words__ask(w, count)
    return draw_operands(w, row, model__words__nth(kinds, chosen))
"""

_CLOSING: Final = f"""
def closing(w, row):
    kind = model__step__closing_kind(w)
    if kind < 0:
        # Always the last, so that what is left can be compared with the beginning.
        if w[{_R["last_kind"]}] == {int(Kind.TEARDOWN_STORE)}:
            return 0
        kind = {int(Kind.TEARDOWN_STORE)}
    row[0] = kind
    if kind == {int(Kind.DROP)}:
        row[1] = model__step__closing_name(w)
        return 2
    return 1
"""

_CHECK_INVARIANTS: Final = f"""
def check_invariants(mem, w):
    owners = w[{_R["owners_at"]}]
    count = 0
    roots = {STATE_AT} + w[{bound_at("shape.roots")}]
    for name in range(w[{bound_at("objects")}]):
        if (w[{STATE_AT + LIVE}] >> name) & 1 != 0:
            w[owners + 2 * count] = w[{ADDRESSES_AT} + name]
            w[owners + 2 * count + 1] = w[roots + name] + w[{FORGOTTEN_AT} + name]
            count += 1
    live = w[{_R["live_at"]}]
    slots = {STATE_AT} + w[{bound_at("shape.slots")}]
    lives = 0
    for slot in range(slots, slots + w[{STATE_AT + DEPTH}] * w[{bound_at("slots")}]):
        if w[slot] >= 0:
            w[live + lives] = w[{ADDRESSES_AT} + w[slot]]
            lives += 1
    nested = 0
    if w[{_R["nesting"]}] > 0:
        nested = 1
    plan = w[w[{_R["plan_at"]}] : owners]
    scratch = w[w[{_R["scratch_at"]}] : w[{_R["described_at"]}]]
    bad = impl__audit__audit(mem, plan, w[owners:live], count, w[live : w[{_R["scratch_at"]}]], lives, nested, scratch)
    if bad != 0:
        w[{_R["verdict"]}] = {BROKEN} + bad
        raise CompiledVerdict("")
"""

# The rows of the model alone: one that is drawn, and one each for the finale and for the end of an operation.
_DRAW_ROW: Final = f"""
def draw_row(w):
    w[{_R["digit"]}] = 0
    w[{_R["cut_short"]}] = 0
    length = draw(w, w[{ROWS_AT} : {ROWS_AT + ROW_WORDS}], model__choose__kinds_mask(w))
    return w[{ROWS_AT} : {ROWS_AT} + length]
"""

_CLOSING_ROW: Final = f"""
def closing_row(w):
    first = {ROWS_AT + ROW_WORDS}
    kind = model__step__closing_kind(w)
    if kind < 0:
        return w[first : first]
    w[first] = kind
    if kind == {int(Kind.DROP)}:
        w[first + 1] = model__step__closing_name(w)
        return w[first : first + 2]
    return w[first : first + 1]
"""

_KEPT_ROW: Final = f"""
def kept_row(w):
    first = {ROWS_AT + 2 * ROW_WORDS}
    level = w[{STATE_AT + UNDER_WAY}] - 1
    kind = w[{STATE_AT} + w[{bound_at("shape.books")}] + level * {BOOK_WORDS} + {KIND}]
    at = {STATE_AT} + w[{bound_at("shape.size")}] + level * {small_steps.PENDING_WORDS}
    names = {STATE_AT} + fuzz__small_steps__names_at(w) + level * fuzz__small_steps__names_width(w)
    w[first] = kind
    end = first + 1
    if kind == {int(Kind.GLOBAL_GET)} or kind == {int(Kind.TABLE_GET)}:
        w[first + 1] = 0
        w[first + 2] = 0
        w[first + 3] = w[at + {small_steps.WHAT}]
        w[first + 4] = 0
        return w[first : first + 5]
    if kind == {int(Kind.CALL_WASM)}:
        w[first + 1] = w[at + {small_steps.WHERE}]
        w[first + 2] = w[at + {small_steps.WHAT}]
        end = first + 3
    for index in range(w[at + {small_steps.COUNT}]):
        w[end] = w[names + index]
        end += 1
    return w[first:end]
"""

# A campaign compares a window of lookups that wanders with the run, as the interpreted reading does; a search compares all of a module's.
_CHECK_LOOKUPS: Final = f"""
def check_lookups(mem, w, module):
    first = w[{_R["pcs_at"]}]
    while w[first] != module:
        first += 2
    count = 1
    while first + 2 * count < w[{_R["pcs_end"]}] and w[first + 2 * count] == module:
        count += 1
    window = count
    start = 0
    if w[{_R["thorough"]}] == 0:
        window = min(count, {bindings.WINDOW})
        start = w[{_R["steps"]}] * {bindings.WINDOW} % count
    for index in range(start, start + window):
        check_lookup(mem, w, w[first + 2 * (index % count) + 1])
"""

_CHECK_LOOKUP: Final = f"""
def check_lookup(mem, w, pc):
    registered = w[{STATE_AT + REGISTERED}]
    words = -1
    map_bits = 0
    for row in range(w[{_R["lookups_count"]}]):
        known = w[{_R["lookups_at"]}] + 4 * row
        if w[known + 1] == pc and (registered >> w[known]) & 1 != 0:
            words = w[known + 2]
            map_bits = w[known + 3]
            break
    entry = impl__stack_maps__lookup_stack_map(mem, mem[{REGISTRY}], pc)
    if entry == 0:
        if words != -1:
            fuzz__driver__Driver__diverge(mem, w)
    elif words != mem[entry + {MAPPED_WORDS}] or map_bits != mem[entry + {BITS}]:
        fuzz__driver__Driver__diverge(mem, w)
"""

_COMPARE_WITH_BEGINNING: Final = f"""
def compare_with_beginning(mem, w):
    mem[{WALK_LIMIT}] = 0
    mem[{FAIL_AFTER}] = 0
    mem[{SWEEP_ORDER}] = 0
    first = w[{_R["root_at"]}]
    for index in range(len(mem)):
        if mem[index] != w[first + index]:
            fuzz__driver__Driver__diverge(mem, w)
"""


def seams() -> dict[Callable[..., Any], str]:
    """Return the source of what stands in for each function that has a seam."""
    found: dict[Callable[..., Any], str] = {
        **_LISTS,
        externref.run_destructor: _RUN_DESTRUCTOR,
        externref.run_constructor: _RUN_CONSTRUCTOR,
        Driver.name_of: _NAME_OF,
        Driver.diverge: _DIVERGE,
        Driver.next_row: _NEXT,
        Driver._is_observed: _IS_OBSERVED,  # noqa: SLF001  # a part of what is translated
        Driver.compare_with_beginning: _COMPARE_WITH_BEGINNING,
        words.ask: _ASK,
        observe.check_invariants: _CHECK_INVARIANTS,
        bindings.check_lookups: _CHECK_LOOKUPS,
        small.draw_row: _DRAW_ROW,
        small_steps.closing_row: _CLOSING_ROW,
        small_steps.kept_row: _KEPT_ROW,
    }
    for name, twin in vars(words_compiled).items():
        if inspect.isfunction(twin) and hasattr(words, name):
            found[getattr(words, name)] = inspect.getsource(twin)
    return found


INTRINSICS: Final = {
    "model__words__popcount": "(word)__builtin_popcountll({0})",
    "model__words__lowest": "lowest_bit({0})",
    "fuzz__compiled__joint__lap": "lap({0})",
    "fuzz__compiled__joint__count_step": "(void)steps_taken++",
    "fuzz__compiled__joint__copy": "copy_words({0}, {1}, {2}, {3}, {4})",
    "fuzz__compiled__joint__differing": "differing_words({0}, {1}, {2}, {3})",
    "fuzz__compiled__joint__exchange": "exchange_words({0}, {1}, {2}, {3}, {4}, {5})",
    "fuzz__compiled__joint__copy_line": "copy_one_line({0}, {1}, {2}, {3})",
    "fuzz__compiled__joint__prefetch": "prefetch_word({0}, {1})",
    "fuzz__compiled__joint__clear": "clear_words({0}, {1}, {2})",
}
"""Functions that are one instruction."""


def draw_functions(translator: Translator) -> str:
    """Return the source of `draw_operands` and of a function for each kind, which draws from its own domains without a table."""
    for text in (_DRAW_AGAIN, _DRAW, _CLOSING, _CHECK_LOOKUP):
        translator.reach(text)
    parts = []
    for kind, (domains, items, longest) in enumerate(DRAWS):
        lines = [f"def draw_{kind}(w, row):", f"    row[0] = {kind}"]
        for position, (domain, form) in enumerate(domains, start=1):
            value = _call(translator, domain, {"row": f"row[:{position}]"})
            lines.append(f"    row[{position}] = {translator.add(DRAW[form])}({value}, w)")
        length = 1 + len(domains)
        if items is not None and longest is not None:
            domain, form = items
            lines += [
                f"    length = {length}",
                f"    most = {_call(translator, longest, {})}",
                "    count = 0",
                "    if most > 0:",
                f"        count = {translator.add(words.ask)}(w, most + 1)",
                "    for _ in range(count):",
                f"        values = {_call(translator, domain, {'row': 'row[:length]'})}",
                "        if values == 0:",
                f"            w[{_R['cut_short']}] = 1",
                "            break",
                f"        row[length] = {translator.add(DRAW[form])}(values, w)",
                "        length += 1",
                "    return length",
            ]
        else:
            lines.append(f"    return {length}")
        parts.append("\n".join(lines))
    lines = ["def draw_operands(w, row, kind):", *_tree(0, len(DRAWS), 1)]
    return "\n\n\n".join((*parts, "\n".join(lines), _DRAW_AGAIN.strip(), _DRAW.strip(), _CLOSING.strip(), _CHECK_LOOKUP.strip())) + "\n"


def _call(translator: Translator, function: Callable[..., Any], given: dict[str, str]) -> str:
    arguments = [given.get(param.lstrip("_"), param) for param in lowered(function)]
    return f"{translator.add(function)}({', '.join(arguments)})"


def _tree(low: int, high: int, depth: int) -> list[str]:
    pad = "    " * depth
    if high - low == 1:
        return [f"{pad}return draw_{low}(w, row)"]
    middle = (low + high) // 2
    return [f"{pad}if kind < {middle}:", *_tree(low, middle, depth + 1), *_tree(middle, high, depth)]
