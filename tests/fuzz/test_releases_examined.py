"""A cause is named where counts establish it, and nowhere else; a finding tells it with the counts."""

from dataclasses import replace

import pytest

from fuzz.releases.advisories import Found, Sighting
from fuzz.releases.build import build
from fuzz.releases.examined import (
    AFTER,
    ALIVE,
    AS_FOUND,
    BEFORE,
    FILLS,
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
from fuzz.releases.examined import conclude as concluded
from fuzz.releases.folder import controls_text, files, story
from fuzz.releases.oracle import Verdict
from fuzz.releases.recipe import Item, Recipe
from model.limits import Limits
from model.ops import NULL, Kind

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
        "counts": {"as found": [3, 3], "alive": [0, 3]},
    }
