"""A variant of a program takes one thing away and leaves the rest as it is."""

from collections import Counter
from dataclasses import replace

import pytest

from fuzz.releases import recipe
from fuzz.releases.build import Built, build
from fuzz.releases.controls import variants, vary
from fuzz.releases.examined import (
    AFTER,
    ALIVE,
    AS_FOUND,
    BARE,
    BEFORE,
    FILLS,
    FLIPPED,
    GLOBALS,
    KEPT,
    QUIET,
    ROOM,
    SOONER,
)
from fuzz.releases.generate import PROFILES, generate
from fuzz.releases.oracle import judge
from fuzz.releases.recipe import Item, Recipe
from model.limits import Limits
from model.ops import NULL, Kind
from tests.fuzz.test_releases_oracle import ideal

LIMITS = Limits(scope="everything", slots=3, globals=1, table=2, segment=1, fields=0, destructors=0, destructor_ops=0)
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
    made = variants(built, ((BEFORE,), (AFTER,), (ALIVE,)))
    assert {name: varied.program.wat for name, varied in made.items()} == {
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
    assert list(variants(built)) == [AS_FOUND, KEPT, BARE]
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


def test_what_is_in_a_local_is_kept_in_a_global_of_the_function_too() -> None:
    built = program(*TRANSFERS[:5], (Kind.CALL_IMPORT, 0b011), (Kind.RETURN_IMPORT, NULL), (Kind.CALL_FUNCTION, 0, 0, 0b001, 0))
    kept, bare = vary(built, (KEPT,)), vary(built, (BARE,))
    assert kept is not None
    assert bare is not None
    assert kept.program.wat == (
        "(module\n"
        '  (import "host" "h0_1" (func $h0_1 (result externref)))\n'
        '  (import "env" "g" (global $g externref))\n'
        "  (global $kept_f0_0 (mut externref) (ref.null extern))\n"
        "  (global $kept_f1_0 (mut externref) (ref.null extern))\n"
        "  (global $kept_f1_1 (mut externref) (ref.null extern))\n"
        "  (global $kept_f1_2 (mut externref) (ref.null extern))\n"
        "  (func $f0 (param $s0 externref)\n"
        "    (global.set $kept_f0_0 (local.get $s0)))\n"
        '  (func $f1 (export "f1") (param $s0 externref) (param $s1 externref)\n'
        "    (local $s2 externref)\n"
        "    (global.set $kept_f1_0 (local.get $s0))\n"
        "    (global.set $kept_f1_1 (local.get $s1))\n"
        "    (call $h0_1)\n"
        "    (local.set $s2)\n"
        "    (global.set $kept_f1_2 (local.get $s2))\n"
        "    (call $f0 (local.get $s0))))\n"
    )
    stores = [line for line in lines(kept) if line.startswith("(global.set ")]
    assert len(stores) == 4
    for slot in range(3):
        kept_lines = [line.replace(f"(local.get $s{slot})", "(ref.null extern)") if "$kept" in line else line for line in lines(kept)]
        kept = replace(kept, program=replace(kept.program, wat="\n".join(kept_lines)))
    assert lines(bare) == lines(kept)
    assert built.expected.due
    assert (kept.expected.due, bare.expected.due) == ({}, {})


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
    assert added(built, SOONER) == (["(local.set $n (i32.const 50))"], ["(local.set $n (i32.const 40))"]), "8, and a round of two"


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
