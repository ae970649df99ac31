"""Programs for released engines are functions of their numbers, stay programs when anything is taken out, and are read strictly."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.releases import program as seam
from fuzz.releases import recipe as recipes
from fuzz.releases.build import Built, build, collecting
from fuzz.releases.generate import PROFILES, generate
from fuzz.releases.recipe import Item, Recipe, form_of
from model.limits import SCOPES, Limits
from model.ops import NULL, Kind
from model.trace import parse_bytes

TRACES = sorted((Path(__file__).parent.parent / "traces").glob("*/*.drc"))
LIMITS = Limits(scope="everything", slots=3, globals=1, table=2, segment=0, fields=0, destructors=0, destructor_ops=0)


def recipe(*rows: tuple[int, ...], segments: int = recipes.SEGMENTS_NONE, forms: dict[int, int] | None = None) -> Recipe:
    return Recipe(LIMITS, tuple(Item(row, (forms or {}).get(index, 0)) for index, row in enumerate(rows)), segments)


STORY = (
    (Kind.NEW, 0),
    (Kind.INSTANTIATE, 0, NULL, 0, 0),
    (Kind.CALL_WASM, 0, 0, 0),
    (Kind.TABLE_SET, 0, 0, 0, 0b001),
    (Kind.CALL_IMPORT, 0b001, 0),
    (Kind.DROP, 0),
    (Kind.GC,),
    (Kind.RETURN_IMPORT, NULL),
    (Kind.RETURN, 0),
)


def test_a_number_gives_one_program() -> None:
    for profile in PROFILES:
        assert [generate(seed, profile).program.line() for seed in range(5)] == [
            generate(seed, profile).program.line() for seed in range(5)
        ]
    assert len({generate(seed, PROFILES[0]).program.line() for seed in range(20)}) == 20


def test_a_story_becomes_a_function_and_a_script() -> None:
    built = build(recipe(*STORY))
    assert built.program.wat == (
        "(module\n"
        '  (import "host" "h1_1" (func $h1_1 (param externref) (result externref)))\n'
        '  (table $t (export "t") 1 2 externref)\n'
        '  (func $f0 (export "f0") (param $s0 externref) (result externref)\n'
        "    (local $s1 externref)\n"
        "    (table.set $t (i32.const 0) (local.get $s0))\n"
        "    (call $h1_1 (local.get $s0))\n"
        "    (local.set $s1)\n"
        "    (local.get $s0)))\n"
    )
    assert built.program.script == (
        ["new", 0],
        ["instantiate", 0, {}],
        ["call", 0, "f0", [0], [0]],
        ["drop", 0],
        ["gc"],
        ["drop_store"],
    )
    assert built.program.imports == ((["drop", 0], ["gc"], ["return", [None], []]),)
    assert built.expected.got == {("import", 0, -1): [0], ("script", 2): [0]}
    # The host has it back from the call and then drops it; the table owns it until the store goes.
    assert built.expected.needed == [len(built.expected.places) - 2]


def test_what_a_complete_collection_has_to_destroy_is_due_there() -> None:
    built = build(recipe((Kind.NEW, 0), (Kind.NEW, 0), (Kind.DROP, 0), (Kind.GC,)))
    assert built.program.script == (["new", 0], ["new", 1], ["drop", 0], ["gc"], ["drop", 1], ["gc"], ["drop_store"])
    assert built.expected.due == {3: (0,), 5: (1,)}
    assert built.expected.needed == [1, 3]


@pytest.mark.parametrize("seed", range(6))
def test_any_part_of_a_recipe_is_a_recipe(seed: int) -> None:
    whole = generate(seed, PROFILES[seed % len(PROFILES)]).recipe
    for size in (1, 3, 7):
        for start in range(0, len(whole.items), max(1, len(whole.items) // 12)):
            part = replace(whole, items=whole.items[:start] + whole.items[start + size :])
            built = build(part)
            # What is left out was not possible; what remains is, in the same order.
            assert [item for item in part.items if item in built.recipe.items]
            assert build(built.recipe).program == built.program
            assert seam.parse(built.program.line()) == built.program


@pytest.mark.parametrize("seed", range(10))
def test_weaving_a_recipe_again_gives_the_same_program(seed: int) -> None:
    built = generate(seed, PROFILES[seed % len(PROFILES)])
    again = build(recipes.from_json(json.loads(recipes.dumps(built.recipe))))
    # Which operations were enabled is no part of it: a recipe is what was drawn.
    assert (again.program, again.expected, again.recipe.items) == (built.program, built.expected, built.recipe.items)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_recorded_trace_becomes_a_program(path: Path) -> None:
    trace = parse_bytes(path.read_bytes())
    built = build(recipes.of_trace(trace))
    assert seam.parse(built.program.line()) == built.program
    assert {item.row[0] for item in built.recipe.items} <= recipes.SUPPORTED


def test_the_trace_of_an_advisory_keeps_its_point() -> None:
    """Two references are moved in by one call, and the table's chunk is the engine's own."""
    path = next(path for path in TRACES if path.stem == "CVE-2021-39216-arguments")
    calls = [action for action in build(recipes.of_trace(parse_bytes(path.read_bytes()))).program.script if action[0] == "call"]
    assert any(len(action[4]) > 1 for action in calls)


def actions(built: Built) -> list[list[Any]]:
    return [action for part in (built.program.script, *built.program.imports) for action in part]


@pytest.mark.parametrize("collections", [1, 2, 77])
@pytest.mark.parametrize("seed", range(6))
def test_more_collections_change_nothing_else(seed: int, collections: int) -> None:
    plain = generate(seed, PROFILES[0])
    more = collecting(plain, collections)
    assert more.program.wat == plain.program.wat
    assert [a for a in actions(more) if a != ["gc"]] == [a for a in actions(plain) if a != ["gc"]]
    assert len(actions(more)) > len(actions(plain))
    assert list(more.expected.got.values()) == list(plain.expected.got.values())
    assert len(more.expected.places) == len(set(more.expected.places))
    # A value is owned last at the same action, wherever that is now.
    for value, number in enumerate(plain.expected.needed):
        before, after = plain.expected.places[number], more.expected.places[more.expected.needed[value]]
        assert before[:-1] == after[:-1]
        assert action_at(plain, before) == action_at(more, after)
    for place in more.expected.collections:
        assert action_at(more, place) == ["gc"]


def action_at(built: Built, place: tuple[Any, ...]) -> Any:
    part = built.program.script if place[0] == "script" else built.program.imports[place[1]]
    return part[place[-1]] if place[-1] >= 0 else None


def test_profiles_leave_out_what_they_say() -> None:
    for seed in range(30):
        assert "externref (item" not in generate(seed, PROFILES[1]).program.wat
        assert "(table" not in generate(seed, PROFILES[4]).program.wat
        assert not generate(seed, PROFILES[0]).program.destructors
        assert "(item (global.get" not in generate(seed, PROFILES[0]).program.wat
    assert any(generate(seed, PROFILES[3]).program.destructors for seed in range(30))
    assert any("(item (global.get" in generate(seed, PROFILES[2]).program.wat for seed in range(60))


def test_calls_across_instances_are_drawn() -> None:
    wats = [generate(seed, PROFILES[seed % len(PROFILES)]).program.wat for seed in range(120)]
    imported = [wat for wat in wats if '(import "env" "f' in wat]
    assert len(imported) >= 8
    # With references, in both directions.
    assert any("externref" in line for wat in imported for line in wat.splitlines() if '(import "env" "f' in line and "(param" in line)
    assert any("externref" in line for wat in imported for line in wat.splitlines() if '(import "env" "f' in line and "(result" in line)


def test_every_operation_and_every_extra_is_drawn() -> None:
    kinds = {item.row[0] for seed in range(120) for item in generate(seed, PROFILES[seed % len(PROFILES)]).recipe.items}
    assert kinds == recipes.SUPPORTED | set(recipes.EXTRAS)


def test_wraps_and_layouts_keep_what_is_done_and_change_the_text() -> None:
    plain = build(recipe(*STORY))
    texts = {plain.program.wat}
    for wrap in range(1, recipes.WRAPS):
        built = build(recipe(*STORY, forms={3: wrap, 4: wrap}))
        assert (built.program.script, built.program.imports) == (plain.program.script, plain.program.imports)
        assert built.expected == plain.expected
        texts.add(built.program.wat)
    for layout in range(1, 6):
        texts.add(build(recipe(*STORY, forms={2: form_of(0, 0, layout)})).program.wat)
    pressed = build(recipe(*STORY, forms={2: form_of(0, 9, 0)})).program.wat
    assert pressed.count("(global.set $sink") == 9
    # Two of the wraps are for what has a value.
    assert len(texts) >= 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "a program is a JSON object"),
        ({"wat": ""}, "a program needs script, values"),
        ({"wat": 3, "values": 0, "script": []}, "values is a number and wat is text"),
        ({"wat": "", "values": 1, "script": [["new", 1]]}, "script, action 0: 1 is no value"),
        ({"wat": "", "values": 1, "script": [["new"]]}, "script, action 0: new has 1 operands"),
        ({"wat": "", "values": 1, "script": [["sing"]]}, "script, action 0: no such action"),
        ({"wat": "", "values": 1, "script": [["return", []]]}, "script, action 0: return stands last in an import's list, or nowhere"),
        ({"wat": "", "values": 1, "script": [], "imports": [[["raise"], ["gc"]]]}, "import 0, action 0: raise stands last"),
        ({"wat": "", "values": 1, "script": [], "destructors": {"1": []}}, "destructors: '1' is no value"),
        ({"wat": "", "values": 1, "script": [["call", 0, "a b", [], []]]}, "script, action 0: a b is no export"),
        ({"wat": "", "values": 1, "script": [["instantiate", 0, {"g": ["value", 7]}]]}, "is no import sources"),
        ({"wat": "", "values": 1, "script": [["call", 0, "f", [["i32", "x"]], []]]}, "is no arguments"),
        ({"wat": "", "values": True, "script": []}, "values is a number"),
    ],
)
def test_what_is_no_program_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(seam.ProgramError) as error:
        seam.parse(json.dumps(data))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        [],
        {"limits": "", "items": [], "segments": 0},
        {"limits": "# drc trace v1 scope=calls", "items": [["sing", 0]], "segments": 0},
        {"limits": "# drc trace v1 scope=calls", "items": [["churn 1 2", 0]], "segments": 0},
        {"limits": "# drc trace v1 scope=calls", "items": [["gc", -1]], "segments": 0},
        {"limits": "# drc trace v1 scope=calls", "items": [], "segments": 9},
        {"limits": "# drc trace v1 scope=calls", "items": [], "segments": 0, "collections": -4},
    ],
)
def test_what_is_no_recipe_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="recipe"):
        recipes.from_json(data)


def test_a_scope_of_the_model_can_be_woven_as_it_is() -> None:
    """Limits need not be the generator's: values that own values, deep destructors, and the like are just not there."""
    rows = ((Kind.NEW, 0), (Kind.INSTANTIATE, 0, 0, 0, 0), (Kind.FORGET, 0), (Kind.GC,))
    built = build(Recipe(SCOPES["everything"], tuple(Item(row) for row in rows)))
    assert [item.row[0] for item in built.recipe.items] == [Kind.NEW, Kind.INSTANTIATE, Kind.GC]
