"""A cause is named where counts establish it, and nowhere else; an engine is found out by which variants show its error."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from fuzz.releases import controls, oracle, recipe
from fuzz.releases.advisories import KNOWN, Found, Sighting, named
from fuzz.releases.build import Built, build
from fuzz.releases.controls import ENGINE, PROCESS, SAME, applies, examine
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
    MECHANISMS,
    PADDED,
    PASSES,
    QUIET,
    ROOM,
    SOONER,
    Cause,
    Count,
    Examination,
)
from fuzz.releases.examined import conclude as concluded
from fuzz.releases.folder import controls_text, files, story
from fuzz.releases.oracle import Verdict
from fuzz.releases.recipe import Item, Recipe
from model.limits import Limits
from model.ops import NULL, Kind
from tests.fuzz.test_releases_controls import CALLS, TRANSFERS, lines, program

CRASH = Verdict("crash SIGSEGV", "after action 0 of import call 0")
RELEASE = "0.27.0"
NEVER, ALWAYS, SOME, FEW = Count(0, 3), Count(3, 3), Count(7, 12), Count(2, 12)
FEW_AWAY = Count(0, 12)


@pytest.mark.parametrize(
    ("counts", "causes"),
    [
        ({AS_FOUND: ALWAYS, BEFORE: ALWAYS, AFTER: ALWAYS, ALIVE: NEVER}, (ALIVE,)),
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: ALWAYS, ALIVE: NEVER}, (ALIVE,)),
        # Any new line takes it away.
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: NEVER, ALIVE: NEVER}, ()),
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: NEVER, ALIVE: NEVER, PADDED: Count(9, 24), "alive + padded": Count(0, 24)}, (ALIVE,)),
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: NEVER, ALIVE: NEVER, PADDED: Count(9, 24), "alive + padded": Count(1, 24)}, ()),
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: NEVER, ALIVE: NEVER, PADDED: Count(2, 24), "alive + padded": Count(0, 24)}, ()),
        # A placebo stands for a program that does not show it by itself.
        ({AS_FOUND: NEVER, BEFORE: ALWAYS, AFTER: NEVER, ALIVE: NEVER}, (ALIVE,)),
        ({AS_FOUND: NEVER, BEFORE: NEVER, AFTER: NEVER, ALIVE: NEVER}, ()),
        ({AS_FOUND: SOME, BEFORE: SOME, AFTER: SOME, ALIVE: FEW_AWAY}, (ALIVE,)),
        ({AS_FOUND: FEW, BEFORE: FEW, AFTER: FEW, ALIVE: FEW_AWAY}, ()),
        ({AS_FOUND: SOME, BEFORE: SOME, AFTER: SOME, ALIVE: FEW}, ()),
        ({AS_FOUND: ALWAYS, ALIVE: ALWAYS, ROOM: NEVER, "alive + room": NEVER}, (ROOM,)),
        # More collections are more safepoints for the other one.
        ({AS_FOUND: ALWAYS, ALIVE: ALWAYS, ROOM: ALWAYS, "alive + room": NEVER}, (ROOM,)),
        ({AS_FOUND: ALWAYS, ALIVE: ALWAYS, ROOM: ALWAYS, "alive + room": ALWAYS}, ()),
        ({AS_FOUND: ALWAYS, ALIVE: NEVER, BEFORE: ALWAYS, ROOM: NEVER, "alive + room": NEVER}, (ALIVE,)),
        # Filling the table sooner says it only where there is nothing to collect with.
        ({AS_FOUND: ALWAYS, ALIVE: ALWAYS, SOONER: NEVER, "alive + sooner": NEVER}, (ROOM,)),
        ({AS_FOUND: ALWAYS, ALIVE: ALWAYS, ROOM: ALWAYS, "alive + room": ALWAYS, SOONER: NEVER, "alive + sooner": NEVER}, ()),
        ({AS_FOUND: ALWAYS, GLOBALS: NEVER}, (GLOBALS,)),
        ({AS_FOUND: ALWAYS, GLOBALS: NEVER, QUIET: NEVER, FILLS: ALWAYS}, (GLOBALS, QUIET)),
        ({AS_FOUND: ALWAYS, KEPT: NEVER, BARE: ALWAYS}, (KEPT,)),
        ({AS_FOUND: ALWAYS, KEPT: NEVER, BARE: NEVER}, ()),
        ({AS_FOUND: ALWAYS, KEPT: ALWAYS, BARE: ALWAYS}, ()),
        # A program that a new line changes may be changed by anything.
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: ALWAYS, ALIVE: NEVER, GLOBALS: NEVER}, (ALIVE,)),
        ({AS_FOUND: ALWAYS, BEFORE: NEVER, AFTER: ALWAYS, ALIVE: ALWAYS, GLOBALS: NEVER, ROOM: NEVER}, ()),
        ({AS_FOUND: ALWAYS, BEFORE: ALWAYS, AFTER: ALWAYS, ALIVE: ALWAYS, GLOBALS: NEVER, ROOM: NEVER}, (ROOM, GLOBALS)),
        # Cut short: once is not enough.
        ({AS_FOUND: Count(1, 1), GLOBALS: Count(0, 1)}, ()),
    ],
)
def test_a_cause_is_what_takes_the_error_away(counts: dict[str, Count], causes: tuple[str, ...]) -> None:
    examination = concluded(counts)
    assert (examination.controls, examination.together, examination.counts) == (causes, False, counts)


def test_two_mechanisms_that_only_together_take_it_away_are_both_said() -> None:
    counts = {AS_FOUND: ALWAYS, GLOBALS: ALWAYS, QUIET: ALWAYS, f"{GLOBALS} + {QUIET}": NEVER}
    examination = concluded(counts)
    assert (examination.controls, examination.together) == ((GLOBALS, QUIET), True)
    told = replace(examination, causes=(Cause("one", "the first"), Cause("other", "the second"))).told()
    assert (
        told
        == "one: the first and other: the second (3 of 3 as found, 3 of 3 with globals, 3 of 3 with quiet, 0 of 3 with globals + quiet)"
    )


def test_an_error_of_another_kind_that_comes_to_light_is_told_apart() -> None:
    double, early = (Count(3, 3, kinds=(kind,)) for kind in (oracle.DOUBLE, oracle.EARLY))
    counts = {AS_FOUND: double, BEFORE: double, AFTER: double, ALIVE: early, ROOM: early, "alive + room": NEVER}
    examination = concluded(counts)
    assert (examination.controls, examination.instead) == ((ALIVE, ROOM), (oracle.EARLY,))
    causes = (Cause("one", "the first"), Cause("other", "the second"))
    assert replace(examination, causes=causes).told() == (
        "one: the first, and other: the second (3 of 3 as found, 3 of 3 with before, 3 of 3 with after, 3 of 3 with alive, "
        "3 of 3 with room, 0 of 3 with alive + room; with alive it is early destruction instead)"
    )
    for name, count in (
        (AFTER, early),
        (BEFORE, early),
        (ALIVE, Count(3, 3, kinds=(oracle.DOUBLE, oracle.EARLY))),
        (ALIVE, Count(11, 12, kinds=(oracle.EARLY,))),
    ):
        other = concluded(counts | {name: count})
        assert (other.controls, other.instead) == ((ROOM,), ()), "one run of the kind that was found is enough"


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
    shown = Count(3, 3, str(CRASH), (CRASH.kind,))
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
    tried = {AS_FOUND, BEFORE, AFTER, ALIVE, ROOM, GLOBALS, SOONER, "alive + room", "alive + sooner"}
    assert set(examination.counts) == tried | {"alive + globals", "room + globals"}, "0.27.0 has no panic at table.init of null"


def test_a_mechanism_that_a_release_has_not_is_not_named() -> None:
    built = program(*CALLS)
    engine = Engine(lambda candidate, _before: None if holds(candidate) else CRASH)
    examination = examine(built, CRASH, "0.37.0", engine)
    assert (examination.controls, examination.causes) == ((), ())
    assert examination.told() == "not explained by controls (3 of 3 as found, 3 of 3 with kept, 3 of 3 with bare)"


def test_a_name_that_does_not_fit_what_is_shown_is_not_taken() -> None:
    built = program(*TRANSFERS)
    engine = Engine(lambda candidate, _before: None if "(table.fill " in candidate.program.wat else CRASH)
    examination = examine(built, CRASH, "0.26.0", engine)
    assert (examination.controls, examination.causes) == ((), ()), "the panic that it is known by says something else"
    panic = Verdict("panic", "should never panic because we already did the bounds check above")
    assert examine(built, panic, "0.26.0", engine).name == "table.init of null"


def test_an_engine_whose_maps_lack_a_reference_is_found_out() -> None:
    built = program(*CALLS)
    store = "(global.set $kept_f0_0 (local.get $s0))"
    engine = Engine(lambda candidate, _before: None if store in candidate.program.wat else CRASH)
    examination = examine(built, CRASH, "0.37.0", engine)
    told = "CVE-2022-31146: a live reference is missing from a stack map (3 of 3 as found, 0 of 3 with kept, 3 of 3 with bare)"
    assert examination.told() == told


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
    assert examination == Examination(
        {AS_FOUND: Count(3, 3, "unexpected trap: action 1 of the script: call stack exhausted", (oracle.TRAP,))}
    )


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
        ("25.0.0", oracle.EARLY, True),
        ("25.0.0", oracle.LATE, False),
        ("32.0.0", oracle.EARLY, False),
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
    assert {known.control for known in KNOWN} - {""} == {*MECHANISMS}
    assert set(controls.FIRST) >= {(name,) for name in MECHANISMS}


# How it is told.


def sighting(examination: Examination | None) -> Sighting:
    limits = Limits(scope="everything", slots=3, globals=1, table=2, segment=0, fields=0, destructors=0, destructor_ops=0)
    rows = ((Kind.INSTANTIATE, 0, NULL, 0, 0), (Kind.CALL_WASM, 0, 0), (Kind.CALL_IMPORT, 0), (Kind.GC,))
    built = build(Recipe(limits, tuple(map(Item, rows))))
    found = Found(RELEASE, 3, 0, 40, 1.0, CRASH, built, CRASH, "")
    return Sighting(found, {RELEASE: CRASH.kind}, examination)


def test_a_finding_says_what_it_is_where_controls_say_so_and_what_it_looks_like_where_there_are_none() -> None:
    counts = {AS_FOUND: ALWAYS, ALIVE: NEVER}
    cause = Cause("CVE-0", "what it is")
    known = Examination(counts, (ALIVE,), causes=(cause,))
    unknown, unseen = Examination(counts), Examination({AS_FOUND: NEVER}, passes=PASSES, release="0.26.0")
    looks = "  looks like:    CVE-2021-39218: at a safepoint without live references the previous safepoint's map is taken"
    told = {name: story(sighting(one), 1)[4:] for name, one in {"": None, "known": known, "unknown": unknown, "unseen": unseen}.items()}
    assert told == {
        "": [looks],
        "known": ["  is:            CVE-0: what it is (3 of 3 as found, 0 of 3 with alive)"],
        "unknown": ["  examined:      not explained by controls (3 of 3 as found, 0 of 3 with alive)"],
        "unseen": [looks, "  examined:      not seen again (0 of 3 as found; each 20 times in one process; on 0.26.0)"],
    }


def test_a_folder_has_the_counts_of_all_variants() -> None:
    examination = Examination({AS_FOUND: Count(3, 3, str(CRASH)), ALIVE: NEVER}, (ALIVE,), causes=(Cause("CVE-0", "what it is"),))
    assert "controls.txt" not in files(sighting(None), 1)
    assert files(sighting(examination), 1)["controls.txt"] == controls_text(examination)
    assert controls_text(examination).splitlines() == [
        "CVE-0: what it is (3 of 3 as found, 0 of 3 with alive)",
        "",
        "as found    3 of 3  the program as it is (crash SIGSEGV: after action 0 of import call 0)",
        "alive       0 of 3  one more reference, always null, is live over every call",
    ]
    assert examination.as_json() == {
        "is": "CVE-0",
        "controls": ["alive"],
        "together": False,
        "passes": 1,
        "release": None,
        "instead": [],
        "counts": {"as found": [3, 3], "alive": [0, 3]},
    }
