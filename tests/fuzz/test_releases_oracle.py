"""The oracle takes what the model allows, and names each way of departing from it; the minimiser keeps what it is told to keep."""

from dataclasses import replace
from typing import Any

import pytest

from fuzz.releases import oracle, recipe
from fuzz.releases.advisories import Found, Sighting, match
from fuzz.releases.build import Built, build
from fuzz.releases.campaign import verdict_of
from fuzz.releases.engine import Outcome
from fuzz.releases.generate import PROFILES, generate
from fuzz.releases.minimise import family, minimise
from fuzz.releases.oracle import Verdict, judge
from fuzz.releases.recipe import Item, Recipe
from fuzz.releases.woven import Expected
from model.limits import Limits
from model.ops import NULL, Kind

Event = list[Any]
LIMITS = Limits(scope="everything", slots=3, globals=1, table=2, segment=0, fields=0, destructors=0, destructor_ops=0)


def ideal(expected: Expected) -> list[Event]:
    """What an engine would show that destroys each value as soon as it may."""
    events: list[Event] = []
    for number, place in enumerate(expected.places):
        where = list(place)
        events.append(["at", where])
        events += [["destroyed", v, where] for v, last in enumerate(expected.needed) if last == number - 1 and v not in expected.optional]
        if place in expected.traps:
            events.append(["trap", where, "unreachable"])
        elif place in expected.got:
            events.append(["got", where, list(expected.got[place])])
        if place in expected.sizes:
            events.append(["size", where, expected.sizes[place]])
    return [*events, ["end"]]


@pytest.mark.parametrize("seed", range(25))
def test_an_engine_that_destroys_at_once_is_in_order(seed: int) -> None:
    built = generate(seed, PROFILES[seed % len(PROFILES)])
    assert judge(built.expected, ideal(built.expected)) is None


def story() -> Built:
    """Value 0 is in a table, then handed to the host by Wasm; value 1 dies in a collection."""
    rows = (
        (Kind.NEW, 0),
        (Kind.NEW, 0),
        (Kind.INSTANTIATE, 0, NULL, 0, 0),
        (Kind.HOST_TABLE_GROW, 0, 1, NULL),
        (Kind.CALL_WASM, 0, 0, 0),
        (Kind.TABLE_SET, 0, 0, 0, 0b001),
        (Kind.CALL_IMPORT, 0b001, 0),
        (Kind.RETURN_IMPORT, 0),
        (Kind.RETURN,),
        (Kind.DROP, 1),
        (Kind.GC,),
        (Kind.CALL_WASM, 0, 0),
        (Kind.TRAP,),
    )
    return build(Recipe(LIMITS, tuple(Item(row) for row in rows)))


def test_the_story_is_what_the_tests_below_take_it_for() -> None:
    built = story()
    assert len(built.recipe.items) == 13
    assert built.program.script == (
        ["new", 0],
        ["new", 1],
        ["instantiate", 0, {}],
        ["table_grow", 0, "t", 1, None],
        ["call", 0, "f1", [0], [0]],
        ["drop", 1],
        ["gc"],
        ["call", 0, "f0", [], []],
        ["gc"],
        ["drop_store"],
    )
    assert built.expected.due[7] == (1,)
    assert judge(built.expected, ideal(built.expected)) is None


def without(events: list[Event], gone: Event) -> list[Event]:
    assert gone in events
    return [event for event in events if event != gone]


def changed(events: list[Event], old: Event, new: Event) -> list[Event]:
    assert old in events
    return [new if event == old else event for event in events]


def after(events: list[Event], place: Event, more: Event) -> list[Event]:
    index = events.index(place)
    return [*events[: index + 1], more, *events[index + 1 :]]


AT_CALL: Event = ["at", ["script", 4]]
ENTRY: Event = ["at", ["import", 0, -1]]
GOT: Event = ["got", ["import", 0, -1], [0]]
SIZE: Event = ["size", ["script", 3], 1]
TRAP: Event = ["trap", ["script", 7], "unreachable"]
DEAD_0: Event = ["destroyed", 0, ["script", 9]]
DEAD_1: Event = ["destroyed", 1, ["script", 5]]
LAST: Event = ["at", ["script", 9]]


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda e: after(without(e, DEAD_0), AT_CALL, ["destroyed", 0, ["script", 4]]), oracle.EARLY, "value 0 was destroyed at action 4"),
        (lambda e: after(without(e, DEAD_1), SIZE, ["destroyed", 1, ["script", 3]]), oracle.EARLY, "though it is owned at"),
        (lambda e: after(e, LAST, DEAD_1), oracle.DOUBLE, "value 1 was destroyed twice"),
        (lambda e: after(e, LAST, ["destroyed", "?0x5a", ["script", 9]]), oracle.DOUBLE, "?0x5a was destroyed, which is no value"),
        (lambda e: without(e, DEAD_0), oracle.LEAK, "value 0 was never destroyed"),
        (lambda e: after(without(e, DEAD_1), LAST, DEAD_1), oracle.LATE, "value 1 is alive after the collection at action 6 of the script"),
        (lambda e: changed(e, GOT, ["got", GOT[1], [1]]), oracle.WRONG_VALUE, "got (value 1) instead of (value 0)"),
        (lambda e: changed(e, GOT, ["got", GOT[1], [None]]), oracle.WRONG_VALUE, "got (null) instead of (value 0)"),
        (lambda e: changed(e, GOT, ["got", GOT[1], ["?0xfeed"]]), oracle.WRONG_VALUE, "got ?0xfeed, which is no value of the program"),
        (lambda e: after(e, DEAD_1, ["got", ["destructor", 1, 0], [1]]), oracle.WRONG_VALUE, "got value 1, which had been destroyed"),
        (lambda e: changed(e, SIZE, ["size", SIZE[1], 7]), oracle.WRONG_SIZE, "was told 7 instead of 1"),
        (lambda e: changed(e, TRAP, ["got", TRAP[1], []]), oracle.NO_TRAP, "the call at action 7 of the script returned"),
        (lambda e: changed(e, SIZE, ["trap", SIZE[1], "wasm trap"]), oracle.TRAP, "action 3 of the script: wasm trap"),
        (lambda e: without(e, ENTRY), oracle.ORDER, "was reached instead of the arrival of import call 0"),
        (lambda e: after(e, LAST, ["at", ["script", 10]]), oracle.ORDER, "though the program ends before"),
        (lambda e: [*e[: e.index(LAST)], ["end"]], oracle.ORDER, "the program ended before action 9 of the script"),
        (lambda e: changed(e, SIZE, ["error", SIZE[1], "no such thing"]), oracle.REFUSED, "action 3 of the script: no such thing"),
        (lambda e: changed(e, SIZE, ["skipped", SIZE[1]]), oracle.REFUSED, "is not possible with this interface"),
    ],
)
def test_each_departure_has_its_verdict(change: Any, kind: str, text: str) -> None:
    built = story()
    verdict = judge(built.expected, change(ideal(built.expected)))
    assert verdict is not None
    assert (verdict.kind, text in verdict.text) == (kind, True), verdict.text
    assert verdict.finding == (kind != oracle.REFUSED)


def test_late_destruction_is_no_verdict_where_it_is_not_asked_for() -> None:
    built = story()
    events = after(without(ideal(built.expected), DEAD_1), LAST, DEAD_1)
    assert judge(built.expected, events, late=False) is None


def test_an_interface_that_cannot_collect_owes_nothing() -> None:
    built = story()
    events = ideal(built.expected)
    skipped = [["skipped", event[1]] if event[0] == "at" and tuple(event[1]) in built.expected.collections else event for event in events]
    events = after(without(skipped, DEAD_1), LAST, DEAD_1)
    assert judge(built.expected, events) is None


def test_a_program_that_stops_early_is_judged_by_what_it_showed() -> None:
    built = story()
    events = ideal(built.expected)[:4]
    assert judge(built.expected, events) is None
    crash = verdict_of(built, Outcome(0, events, "crash SIGSEGV", "first line\nsecond\n"))
    assert crash == Verdict("crash SIGSEGV", "after action 3 of the script: first line")
    assert verdict_of(built, Outcome(0, events, "out of memory")) == Verdict(oracle.UNFINISHED, "out of memory")
    # What was wrong before says more than the crash.
    wrong = [*events, ["destroyed", 0, ["script", 3]]]
    early = verdict_of(built, Outcome(0, wrong, "crash SIGSEGV"))
    assert early is not None
    assert early.kind == oracle.EARLY


class Planted:
    """A judge that takes a program for wrong when it has what the plant says, and counts what it is asked."""

    def __init__(self, kind: str, *needs: int, pressure: int = 0) -> None:
        self.kind = kind
        self.needs = set(needs)
        self.pressure = pressure
        self.asked = 0

    def __call__(self, built: Built) -> Verdict | None:
        self.asked += 1
        kinds = {item.row[0] for item in built.recipe.items}
        pressed = max((item.pressure for item in built.recipe.items if item.row[0] in self.needs), default=0) >= self.pressure
        return Verdict(self.kind, "planted") if self.needs <= kinds and pressed else None


def test_a_finding_is_cut_down_to_what_it_needs() -> None:
    plant = Planted("crash SIGSEGV", Kind.CALL_IMPORT, Kind.TABLE_GET, recipe.CHURN)
    seed = next(seed for seed in range(1000) if plant(generate(seed, PROFILES[0])) is not None)
    found = generate(seed, PROFILES[0])
    small = minimise(found, Verdict("crash SIGSEGV", ""), plant)
    kinds = [item.row[0] for item in small.built.recipe.items]
    assert len(kinds) < len(found.recipe.items)
    assert plant.needs <= set(kinds)
    # An instance, a call, a value and its way into a cell so that it can be loaded, and the three themselves.
    assert len(kinds) <= 8
    assert all(item.form == 0 for item in small.built.recipe.items)
    assert [item.row[3] for item in small.built.recipe.items if item.row[0] == recipe.CHURN] == [1]
    assert small.runs < plant.asked


def test_what_a_finding_needs_of_a_form_stays() -> None:
    plant = Planted("crash SIGSEGV", Kind.CALL_WASM, pressure=5)
    seed = next(seed for seed in range(1000) if plant(generate(seed, PROFILES[0])) is not None)
    small = minimise(generate(seed, PROFILES[0]), Verdict("crash SIGSEGV", ""), plant).built.recipe
    assert [(item.row[0], item.pressure) for item in small.items] == [(Kind.INSTANTIATE, 0), (Kind.CALL_WASM, 5)]


def test_two_loops_that_fill_a_table_become_one() -> None:
    """What is planted shows when the table of 512 has room for one reference as an import returns two."""
    rows = ((Kind.NEW, 0), (Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.HOST_TABLE_SET, 0, 0, 0), (Kind.CALL_WASM, 0, 0))
    fills = ((recipe.CHURN, recipe.OWN_TABLE, 0, 497), (recipe.FRESH, 2, 9))
    found = build(Recipe(LIMITS, tuple(map(Item, rows + fills))))

    def plant(built: Built) -> Verdict | None:
        fresh = [item.row for item in built.recipe.items if item.row[0] == recipe.FRESH and item.row[1] > 1]
        loads = sum(item.row[3] for item in built.recipe.items if item.row[0] == recipe.CHURN)
        full = any((511 - loads) % row[1] == 0 and loads + row[1] * row[2] > 511 for row in fresh)
        return Verdict("crash SIGSEGV", "planted") if full else None

    assert plant(found) is not None
    small = minimise(found, Verdict("crash SIGSEGV", ""), plant).built.recipe
    assert [item.row for item in small.items if item.row[0] < 0] == [(recipe.CHURN, recipe.OWN_TABLE, 0, 511), (recipe.FRESH, 2, 1)]


def test_minimising_stops_when_it_is_told_to() -> None:
    plant = Planted("crash SIGSEGV", Kind.CALL_WASM)
    found = generate(3, PROFILES[0])
    small = minimise(found, Verdict("crash SIGSEGV", ""), plant, stop=lambda: True)
    assert (small.built, small.runs) == (found, 0)


def test_a_smaller_program_must_show_the_same_family() -> None:
    """A leak is not cut down to a crash."""
    leak = Planted(oracle.LEAK, Kind.CALL_WASM)
    found = generate(3, PROFILES[0])
    assert minimise(found, Verdict("crash SIGSEGV", ""), leak).built == found
    assert family(Verdict("abort SIGABRT", "")) == family(Verdict(oracle.WRONG_VALUE, "")) == "memory"
    assert family(Verdict("hang", "")) == "hang"
    assert family(None) == family(Verdict(oracle.UNFINISHED, "")) == ""


def moves_two(*, fills: int, collects: bool) -> Built:
    rows = [
        (Kind.NEW, 0),
        (Kind.INSTANTIATE, 0, NULL, 0, 0),
        (Kind.HOST_TABLE_SET, 0, 0, 0),
        (Kind.CALL_WASM, 0, 0),
        (recipe.CHURN, recipe.OWN_TABLE, 0, fills),
        (Kind.CALL_IMPORT, 0),
        (Kind.NEW, 0),
        (Kind.NEW, 0),
        *([(Kind.GC,)] if collects else []),
        (Kind.RETURN_IMPORT, 1, 2),
    ]
    built = build(Recipe(LIMITS, tuple(Item(row) for row in rows)))
    assert len(built.recipe.items) == len(rows)
    return built


def passes_twice() -> Built:
    """An import hands back what it was given."""
    rows = (
        (Kind.NEW, 0),
        (Kind.INSTANTIATE, 0, NULL, 0, 0),
        (Kind.CALL_WASM, 0, 0, 0),
        (Kind.CALL_IMPORT, 0, 0),
        (Kind.RETURN_IMPORT, 0),
    )
    return build(Recipe(LIMITS, tuple(Item(row) for row in rows)))


def begins_with() -> Built:
    """A global begins with what an imported one holds."""
    limits = replace(LIMITS, objects=4)
    rows = ((Kind.NEW, 0), (Kind.INSTANTIATE, 0, 0, 0, 0), (Kind.HOST_GLOBAL_SET, 0, 0, NULL), (Kind.GC,))
    return build(Recipe(limits, tuple(Item(row) for row in rows)))


def acts() -> Built:
    """A destructor calls Wasm."""
    rows = ((Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.NEW, 0), (recipe.ACTS, 3, 0), (Kind.GC,))
    return build(Recipe(LIMITS, tuple(Item(row) for row in rows)))


CRASH = Verdict("crash SIGSEGV", "")
BORROWED = Verdict("panic", "thread panicked at 'already borrowed: BorrowMutError'")


@pytest.mark.parametrize(
    ("built", "verdict", "release", "affected", "name"),
    [
        (moves_two(fills=511, collects=False), CRASH, "0.29.0", ["0.24.0", "0.29.0"], "CVE-2021-39216"),
        (moves_two(fills=1, collects=True), CRASH, "0.29.0", ["0.26.0", "0.29.0"], "CVE-2021-39218"),
        (moves_two(fills=1, collects=False), CRASH, "0.29.0", ["0.29.0"], None),
        (moves_two(fills=511, collects=False), CRASH, "0.29.0", ["0.29.0", "0.30.0"], None),
        (moves_two(fills=511, collects=False), Verdict(oracle.LEAK, ""), "0.29.0", [], None),
        (moves_two(fills=1, collects=False), CRASH, "0.38.0", ["0.38.0"], "CVE-2022-31146"),
        (moves_two(fills=511, collects=True), CRASH, "50.0.1", ["50.0.1"], None),
        (moves_two(fills=2, collects=False), Verdict(oracle.EARLY, ""), "25.0.0", ["25.0.0", "30.0.0"], "wt#10456"),
        (moves_two(fills=2, collects=False), Verdict(oracle.EARLY, ""), "25.0.0", ["24.0.0", "25.0.0"], None),
        (begins_with(), Verdict(oracle.EARLY, ""), "0.27.0", ["0.19.0", "0.27.0"], "wt#2897"),
        (begins_with(), Verdict(oracle.LEAK, ""), "0.27.0", ["0.19.0", "0.27.0"], "wt#2897"),
        (begins_with(), Verdict(oracle.LEAK, ""), "0.28.0", ["0.28.0"], None),
        (moves_two(fills=1, collects=False), Verdict(oracle.LEAK, ""), "0.27.0", ["0.27.0"], None),
        (acts(), BORROWED, "0.24.0", ["0.24.0"], "sweep borrows twice"),
        (acts(), CRASH, "0.24.0", ["0.24.0"], None),
        (moves_two(fills=1, collects=False), BORROWED, "0.24.0", ["0.24.0"], None),
        (passes_twice(), Verdict(oracle.LATE, ""), "42.0.0", ["36.0.0", "42.0.0"], "wt#13166"),
        (passes_twice(), Verdict(oracle.LATE, ""), "42.0.0", ["30.0.0", "42.0.0"], None),
    ],
)
def test_what_is_known_is_named_only_where_releases_and_operations_fit(
    built: Built, verdict: Verdict, release: str, affected: list[str], name: str | None
) -> None:
    known = match(built, verdict, release, affected)
    assert (known.name if known else None) == name


def test_a_sighting_says_which_releases_show_the_same() -> None:
    built = moves_two(fills=511, collects=False)
    found = Found("0.29.0", 7, 0, 90, 1.0, CRASH, built, CRASH, "")
    shows = {"0.24.0": oracle.EARLY, "0.26.0": "abort SIGABRT", "0.28.0": oracle.LEAK, "0.29.0": "crash SIGSEGV", "0.30.0": ""}
    sighting = Sighting(found, shows)
    assert sighting.affected == ["0.24.0", "0.26.0", "0.29.0"]
    assert sighting.range() == "0.24.0 to 0.26.0, 0.29.0"
    assert Sighting(found, {"0.29.0": ""}).range() == "none when it was run again"
