"""A variant of a program takes one thing away and leaves the rest; an engine is found out by which variants show its error."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from fuzz.releases import controls, oracle, recipe
from fuzz.releases.advisories import KNOWN, named
from fuzz.releases.build import Built, build
from fuzz.releases.controls import ENGINE, PROCESS, SAME, applies, examine, variants, vary
from fuzz.releases.examined import (
    AFTER,
    ALIVE,
    AS_FOUND,
    BEFORE,
    FILLS,
    FLIPPED,
    GLOBALS,
    PADDED,
    PASSES,
    QUIET,
    ROOM,
    SOONER,
    Cause,
    Count,
    Examination,
)
from fuzz.releases.generate import PROFILES, generate
from fuzz.releases.oracle import Verdict, judge
from fuzz.releases.recipe import Item, Recipe
from model.limits import Limits
from model.ops import NULL, Kind
from tests.fuzz.test_releases_oracle import ideal

LIMITS = Limits(scope="everything", slots=3, globals=1, table=2, segment=1, fields=0, destructors=0, destructor_ops=0)
CRASH = Verdict("crash SIGSEGV", "after action 0 of import call 0")
RELEASE = "0.27.0"
Rows = tuple[tuple[int, ...], ...]


def program(*rows: tuple[int, ...], segments: int = recipe.SEGMENTS_NULL, collections: int = 0) -> Built:
    built = build(Recipe(LIMITS, tuple(map(Item, rows)), segments, collections))
    assert [item.row for item in built.recipe.items] == [*rows], "the program is what the test says"
    return built


CALLS: Rows = (
    (Kind.INSTANTIATE, 0, NULL, 0, 0),
    (Kind.CALL_WASM, 0, 0),
    (recipe.GHOST, 1),
    (Kind.CALL_IMPORT, 0),
    (Kind.GC,),
    (Kind.RETURN_IMPORT, NULL),
    (Kind.RETURN, 0),
)
"""An import collects at a call where nothing is live; there is a map before it."""
TRANSFERS: Rows = (
    (Kind.NEW, 0),
    (Kind.NEW, 0),
    (Kind.NEW, 0),
    (Kind.INSTANTIATE, 0, 2, 0, 0),
    (Kind.CALL_WASM, 0, 0, 0, 1),
    (recipe.CHURN, recipe.OWN_GLOBAL, 0, 40),
    (Kind.TABLE_INIT, 0, 0, 0, 0, 1, 0b11),
    (recipe.FRESH, 2, 1),
    (Kind.CALL_IMPORT, 0),
    (Kind.RETURN_IMPORT,),
)
"""Two references go to Wasm as arguments, and two as results."""


def lines(built: Built) -> list[str]:
    return [line.strip() for line in built.program.wat.splitlines()]


def added(built: Built, name: str) -> tuple[list[str], list[str]]:
    """Lines that a variant has more than the program, and less."""
    varied = variants(built)[name]
    more, less = Counter(lines(varied)), Counter(lines(built))
    return sorted((more - less).elements()), sorted((less - more).elements())


# The variants.


def test_a_reference_is_live_from_the_beginning_to_the_end_of_each_function_that_calls() -> None:
    built = program(*CALLS)
    body = (
        "    (local $s0 externref) (local $r0 externref) (local $held externref)\n"
        "{before}"
        "    (if (global.get $zero) (then\n"
        "      (local.set $r0 (call $h0_1))\n"
        "      (call $h0_0)\n"
        "      (call $h1_0 (local.get $r0))))\n"
        "    (call $h0_1)\n"
        "    (local.set $s0)\n"
        "{after}"
        "    (local.get $s0)))\n"
    )
    head = (
        "(module\n"
        '  (import "host" "h0_0" (func $h0_0))\n'
        '  (import "host" "h0_1" (func $h0_1 (result externref)))\n'
        '  (import "host" "h1_0" (func $h1_0 (param externref)))\n'
        "  (global $null (mut externref) (ref.null extern))\n"
        "  (global $seen (mut i32) (i32.const 0))\n"
        "  (global $zero (mut i32) (i32.const 0))\n"
        '  (func $f0 (export "f0") (result externref)\n'
    )
    hold, use = "    (local.set $held (global.get $null))\n", "    (global.set $seen (ref.is_null (local.get $held)))\n"
    made = variants(built)
    assert {name: varied.program.wat for name, varied in made.items() if name != AS_FOUND} == {
        ALIVE: head + body.format(before=hold, after=use),
        BEFORE: head + body.format(before=hold + use, after=""),
        AFTER: head + body.format(before="", after=hold + use),
    }
    for varied in made.values():
        assert replace(varied.program, wat="") == replace(built.program, wat="")
        assert varied.expected == built.expected


def test_the_reference_is_used_before_a_trap_as_nothing_is_reached_behind_it() -> None:
    built = program(*CALLS[:-1], (Kind.TRAP,))
    varied = vary(built, (ALIVE,))
    assert varied is not None
    assert lines(varied)[-3:] == ["(local.set $s0)", "(global.set $seen (ref.is_null (local.get $held)))", "(unreachable)))"]


def test_the_reference_is_used_before_a_trap_in_a_piece_of_its_own() -> None:
    layout = Item((Kind.CALL_WASM, 0, 0), recipe.form_of(0, 0, 1))
    items = (Item(CALLS[0]), layout, *map(Item, (*CALLS[2:-1], (Kind.TRAP,))))
    varied = vary(build(Recipe(LIMITS, items, recipe.SEGMENTS_NULL)), (ALIVE,))
    assert varied is not None
    text = lines(varied)
    assert "(br_table" in varied.program.wat
    use = "(global.set $seen (ref.is_null (local.get $held)))"
    places = [number for number, line in enumerate(text) if line in {"(unreachable)", "(unreachable)))"}]
    assert [text[number - 1] for number in places] == [use, use]


def test_helpers_that_call_hold_a_reference_too() -> None:
    built = program(
        (Kind.NEW, 0), (Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.NEW, 0), (recipe.ACTS, 3, 0), (Kind.CALL_WASM, 0, 0, 0), (recipe.RECURSE, 1)
    )
    varied = vary(built, (ALIVE,))
    assert varied is not None
    text = varied.program.wat
    assert '(func $touch (export "touch") (local $n i32) (local $held externref)\n    (local.set $held (global.get $null))' in text
    assert "(func $rec1 (param $n i32) (param externref) (local $held externref)\n    (local.set $held (global.get $null))" in text
    assert text.count("(global.set $seen (ref.is_null (local.get $held)))") == 3
    assert '(func $take (export "take") (param externref))\n' in text, "it has no safepoint"


def test_a_program_without_calls_has_no_variant_that_holds_a_reference() -> None:
    built = program((Kind.NEW, 0), (Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.CALL_WASM, 0, 0, 0), (Kind.LOCAL_COPY, 0, 1))
    assert list(variants(built)) == [AS_FOUND]
    assert vary(built, (), padding=3) is None


def test_padding_makes_integers_live_over_the_whole_function() -> None:
    built = program(*CALLS)
    varied = vary(built, (), padding=2)
    assert varied is not None
    more = Counter(lines(varied)) - Counter(lines(built))
    assert sorted(more.elements()) == [
        "(global $seen (mut i32) (i32.const 0))",
        "(global.set $seen (i32.xor (global.get $seen) (local.get $p0)))",
        "(global.set $seen (i32.xor (global.get $seen) (local.get $p1)))",
        "(local $s0 externref) (local $r0 externref) (local $p0 i32) (local $p1 i32)",
        "(local.set $p0 (i32.add (global.get $seen) (i32.const 1)))",
        "(local.set $p1 (i32.add (global.get $seen) (i32.const 2)))",
    ]


def test_functions_stand_in_the_opposite_order_each_as_it_is() -> None:
    built = program(*CALLS[:2], (Kind.CALL_FUNCTION, 0, 0, 0b000), *CALLS[2:5], (Kind.RETURN_IMPORT,))
    varied = vary(built, (FLIPPED,))
    assert varied is not None
    head, *functions = built.program.wat.removesuffix(")\n").split("\n  (func ")
    assert len(functions) == 2
    assert varied.program.wat == "\n  (func ".join([head, *reversed(functions)]) + ")\n"
    assert vary(program(*CALLS), (FLIPPED,)) is None, "one function has no order"


def test_room_is_made_before_several_references_go_to_wasm_and_before_nothing_else() -> None:
    built = program(*TRANSFERS)
    varied = vary(built, (ROOM,))
    assert varied is not None
    assert varied.program.wat == built.program.wat
    assert built.program.script[4:6] == (["drop", 2], ["call", 0, "f0", [0, 1], [0, 1]])
    assert varied.program.script == (*built.program.script[:5], ["gc"], *built.program.script[5:])
    assert built.program.imports == ((["new", 3], ["new", 4], ["return", [3, 4], [3, 4]]), (["drop", 3], ["drop", 4]), ())
    assert varied.program.imports == ((["new", 3], ["new", 4], ["gc"], ["return", [3, 4], [3, 4]]), (["drop", 3], ["drop", 4]), ())


@pytest.mark.parametrize("collections", [1, 313])
def test_room_leaves_other_collections_where_they_are(collections: int) -> None:
    built = program(*TRANSFERS, collections=collections)
    varied = vary(built, (ROOM,))
    assert varied is not None
    script, (first, *imports) = list(varied.program.script), varied.program.imports
    call = next(place for place, action in enumerate(script) if action[0] == "call")
    assert (script.pop(call - 1), first[-2]) == (["gc"], ["gc"])
    assert (tuple(script), ((*first[:-2], first[-1]), *imports)) == (built.program.script, built.program.imports)


def test_loops_fill_the_table_sooner_and_short_loops_stay_as_they_are() -> None:
    built = program(*TRANSFERS, (recipe.CHURN, recipe.OWN_GLOBAL, 0, 5))
    assert added(built, SOONER) == (["(local.set $n (i32.const 48))"], ["(local.set $n (i32.const 40))"])


def test_the_host_stores_what_a_global_would_begin_with() -> None:
    built = program(*TRANSFERS)
    assert added(built, GLOBALS) == (
        ['(global $g0 (export "g0") (mut externref) (ref.null extern))'],
        ['(global $g0 (export "g0") (mut externref) (global.get $g))', '(import "env" "g" (global $g externref))'],
    )
    varied = variants(built)[GLOBALS]
    assert varied.program.script[3:6] == (["instantiate", 0, {}], ["global_set", 0, "g0", 2], ["drop", 2])
    assert built.program.script[3:5] == (["instantiate", 0, {"g": ["value", 2]}], ["drop", 2])


def test_a_global_that_begins_with_one_of_another_instance_is_stored_by_the_host_too() -> None:
    linked = replace(LIMITS, instances=2)
    rows = ((Kind.NEW, 0), (Kind.INSTANTIATE, 0, 0, 0, 0), (Kind.INSTANTIATE, 0, linked.objects, 0, 0), (Kind.HOST_GLOBAL_GET, 1, 0))
    built = build(Recipe(linked, tuple(map(Item, rows))))
    varied = vary(built, (GLOBALS,))
    assert varied is not None
    assert varied.program.script == (
        ["new", 0],
        ["instantiate", 0, {}],
        ["global_set", 0, "g0", 0],
        ["drop", 0],
        ["instantiate", 1, {}],
        ["global_get", 0, "g0"],
        ["global_set", 1, "g0", 0],
        ["drop", 0],
        ["global_get", 1, "g0"],
        ["drop", 0],
        ["gc"],
        ["drop_store"],
    )


def test_destructors_only_count() -> None:
    built = program((Kind.NEW, 0), (recipe.ACTS, 0, 0), (Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.DROP, 0))
    varied = vary(built, (QUIET,))
    assert varied is not None
    assert (built.program.destructors, varied.program.destructors) == ({0: (["gc"],)}, {})
    assert replace(varied.program, destructors={}) == replace(built.program, destructors={})


def test_a_fill_with_null_stands_for_an_init_from_nulls_alone() -> None:
    built = program(*TRANSFERS)
    more, less = added(built, FILLS)
    assert more == ["(table.fill $t (i32.const 0) (ref.null extern) (i32.const 1))"]
    assert less == ["(elem $seg externref (item (ref.null extern)))", "(table.init $t $seg (i32.const 0) (i32.const 0) (i32.const 1))"]
    references = replace(
        built, program=replace(built.program, wat=built.program.wat.replace("(item (ref.null extern))", "(item (global.get $g))"))
    )
    assert vary(references, (FILLS,)) is None


@pytest.mark.parametrize("seed", range(30))
def test_an_engine_that_is_right_is_in_order_on_each_variant(seed: int) -> None:
    built = generate(seed, PROFILES[seed % len(PROFILES)], operations=30)
    made = variants(built)
    assert len(made) > 2
    assert {name: judge(varied.expected, ideal(varied.expected)) for name, varied in made.items()} == dict.fromkeys(made)


# Examining.


class Engine:
    """An engine that shows an error where a program has what it takes; keeps in what kind of process each was run.

    Args:
        shows: whether a program shows it, given how often programs were run in this process before.
    """

    def __init__(self, shows: Callable[[Built, int], Verdict | None]) -> None:
        self.shows = shows
        self.runs: Counter[int] = Counter()
        self.here = 0

    def __call__(self, built: Built, fresh: int) -> Verdict | None:
        self.runs[fresh] += 1
        self.here = 0 if fresh else self.here + 1
        return self.shows(built, self.here)


def holds(built: Built) -> bool:
    """Say whether a reference is live over the import call at the end."""
    text = built.program.wat
    use = "(global.set $seen (ref.is_null (local.get $held)))"
    return "(call $h0_1)\n    (local.set $s0)\n    " + use in text and "(local.set $held (global.get $null))\n    (if" in text


def test_an_engine_that_takes_the_map_of_the_safepoint_before_is_found_out() -> None:
    built = program(*CALLS)
    engine = Engine(lambda candidate, _before: None if holds(candidate) else CRASH)
    examination = examine(built, CRASH, RELEASE, engine)
    shown = Count(3, 3, str(CRASH))
    what = "at a safepoint without live references the previous safepoint's map is taken"
    assert examination == Examination(
        {AS_FOUND: shown, BEFORE: shown, AFTER: shown, ALIVE: Count(0, 3)}, (ALIVE,), causes=(Cause("CVE-2021-39218", what),)
    )
    assert examination.told() == f"CVE-2021-39218: {what} (3 of 3 as found, 3 of 3 with before, 3 of 3 with after, 0 of 3 with alive)"
    assert engine.runs == {ENGINE: 3, PROCESS: 9}, "three rounds of four programs, each round on an engine of its own"


def test_an_error_that_no_control_takes_away_is_not_explained() -> None:
    """The canary: an engine that fails whatever one does."""
    engine = Engine(lambda _candidate, _before: CRASH)
    examination = examine(program(*TRANSFERS), CRASH, RELEASE, engine)
    assert (examination.controls, examination.causes, examination.name) == ((), (), "")
    assert examination.told().startswith("not explained by controls (3 of 3 as found, 3 of 3 with before, ")
    tried = {AS_FOUND, BEFORE, AFTER, ALIVE, ROOM, GLOBALS, FILLS, SOONER, "alive + room", "alive + sooner"}
    assert set(examination.counts) == tried | {"alive + globals", "alive + fills", "room + globals", "room + fills", "globals + fills"}


def test_a_mechanism_that_a_release_has_not_is_not_named() -> None:
    built = program(*CALLS)
    engine = Engine(lambda candidate, _before: None if holds(candidate) else CRASH)
    examination = examine(built, CRASH, "0.37.0", engine)
    assert (examination.controls, examination.causes) == ((), ())
    assert examination.told() == "not explained by controls (3 of 3 as found, 3 of 3 with before, 3 of 3 with after, 0 of 3 with alive)"


def test_what_shows_only_in_a_process_that_has_run_it_before_is_run_again_and_again() -> None:
    engine = Engine(lambda candidate, before: CRASH if before == 4 and not holds(candidate) else None)
    examination = examine(program(*CALLS), CRASH, RELEASE, engine)
    assert (examination.name, examination.passes) == ("CVE-2021-39218", PASSES)
    assert examination.told().endswith("0 of 3 with alive; each 20 times in one process)")
    assert engine.runs == {ENGINE: 6, PROCESS: 18, SAME: 3 * (3 * 4 + PASSES - 1)}


def test_what_does_not_show_each_time_is_run_more_often() -> None:
    turn = iter(range(1000))
    engine = Engine(lambda candidate, _before: CRASH if not holds(candidate) and next(turn) % 4 else None)
    examination = examine(program(*CALLS), CRASH, RELEASE, engine)
    assert {name: str(count) for name, count in examination.counts.items()} == {
        AS_FOUND: "9 of 12",
        BEFORE: "9 of 12",
        AFTER: "9 of 12",
        ALIVE: "0 of 12",
    }
    assert examination.name == "CVE-2021-39218"


def test_an_error_that_any_new_line_takes_away_is_looked_for_in_other_frames() -> None:
    built = program(*CALLS)

    def shows(candidate: Built, _before: int) -> Verdict | None:
        odd = candidate.program.wat.count("(local $p") % 2
        return CRASH if candidate is built or ("$held" not in candidate.program.wat and not odd) else None

    examination = examine(built, CRASH, RELEASE, Engine(shows))
    assert {name: str(count) for name, count in examination.counts.items()} == {
        AS_FOUND: "3 of 3",
        BEFORE: "0 of 3",
        AFTER: "0 of 3",
        ALIVE: "0 of 3",
        PADDED: "12 of 24",
        "alive + padded": "0 of 24",
    }
    assert examination.name == "CVE-2021-39218"


def test_an_error_that_goes_with_any_new_line_and_with_the_order_of_functions_is_one_of_the_map_before() -> None:
    built = program(*CALLS[:2], (Kind.CALL_FUNCTION, 0, 0, 0b000), *CALLS[2:5], (Kind.RETURN_IMPORT,))

    def counts(shows: Callable[[Built, int], Verdict | None]) -> tuple[str, dict[str, str]]:
        examination = examine(built, CRASH, RELEASE, Engine(shows))
        return examination.name, {name: str(count) for name, count in examination.counts.items()}

    away = {AS_FOUND: "3 of 3", BEFORE: "0 of 3", AFTER: "0 of 3", ALIVE: "0 of 3", PADDED: "0 of 24", "alive + padded": "0 of 24"}
    assert counts(lambda candidate, _before: CRASH if candidate is built else None) == ("CVE-2021-39218", away | {FLIPPED: "0 of 3"})
    same = sorted(lines(built))
    assert counts(lambda candidate, _before: CRASH if len(lines(candidate)) == len(same) else None) == ("", away | {FLIPPED: "3 of 3"})


def test_a_variant_that_the_release_refuses_says_nothing() -> None:
    refused = Verdict(oracle.REFUSED, "no such thing")
    trap = Verdict(oracle.TRAP, "action 1 of the script: call stack exhausted\nwasm backtrace:\n  0: f0")
    engine = Engine(lambda candidate, _before: refused if "$held" in candidate.program.wat else trap)
    examination = examine(program(*CALLS), trap, RELEASE, engine)
    assert examination == Examination({AS_FOUND: Count(3, 3, "unexpected trap: action 1 of the script: call stack exhausted")})


def test_an_examination_that_is_stopped_keeps_its_counts_and_concludes_nothing() -> None:
    engine = Engine(lambda candidate, _before: None if holds(candidate) else CRASH)
    examination = examine(program(*CALLS), CRASH, RELEASE, engine, stop=lambda: True)
    assert {name: str(count) for name, count in examination.counts.items()} == {
        AS_FOUND: "1 of 1",
        BEFORE: "1 of 1",
        AFTER: "1 of 1",
        ALIVE: "0 of 1",
    }
    assert examination.causes == ()


def test_a_release_that_cannot_be_asked_to_collect_has_no_control_that_collects() -> None:
    engine = Engine(lambda candidate, _before: CRASH if "(i32.const 40)" in candidate.program.wat else None)
    examination = examine(program(*TRANSFERS), CRASH, "0.19.0", engine, collects=False)
    assert not [name for name in examination.counts if ROOM in name]
    assert examination.name == "CVE-2021-39216"


@pytest.mark.parametrize(
    ("release", "kind", "is_examined"),
    [
        ("0.19.0", "crash SIGSEGV", True),
        ("0.29.0", oracle.DEADLOCK, True),
        ("0.29.0", oracle.LEAK, False),
        ("0.29.0", oracle.REFUSED, False),
        ("0.30.0", "crash SIGSEGV", False),
        ("25.0.0", oracle.EARLY, False),
    ],
)
def test_memory_errors_of_releases_with_a_known_mechanism_are_examined(release: str, kind: str, is_examined: bool) -> None:
    assert applies(release, Verdict(kind, "")) == is_examined


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("panicked at 'already borrowed: BorrowMutError'", "sweep borrows twice"),
        ("panicked at 'already mutably borrowed: BorrowError'", "table borrowed"),
        ("value 0 was destroyed twice", "slot dropped in place"),
        ("something else", "a destructor that acts"),
    ],
)
def test_what_a_destructor_does_is_called_by_what_it_shows(text: str, name: str) -> None:
    built = program(
        (Kind.NEW, 0),
        (recipe.ACTS, 0, 0),
        (Kind.INSTANTIATE, 0, NULL, 0, 0),
        (Kind.HOST_TABLE_SET, 0, 0, 0),
        (Kind.HOST_TABLE_SET, 0, 0, NULL),
    )
    known = named(QUIET, Verdict("panic", text), "0.24.0", built)
    assert known is not None
    assert known.name == name
    assert named(QUIET, Verdict("panic", text), "0.28.0", built) is None


def test_each_mechanism_has_a_name() -> None:
    assert {known.control for known in KNOWN} - {""} == {ALIVE, ROOM, GLOBALS, QUIET, FILLS}
    assert set(controls.FIRST) >= {(name,) for name in (ALIVE, ROOM, GLOBALS, QUIET, FILLS)}
