"""Which published advisory or known bug a finding matches: a table of releases and of what a smallest program has to contain.

A match says "this looks like": the releases that show the finding, what it shows, and the operations that it takes all fit. Where control
experiments have established the cause (`fuzz.releases.controls`), the table only says what it is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fuzz.releases import oracle, recipe
from fuzz.releases.examined import ALIVE, FILLS, GLOBALS, KEPT, QUIET, ROOM
from fuzz.releases.minimise import MEMORY, family
from fuzz.releases.wheels import key
from model.ops import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.releases.build import Built
    from fuzz.releases.examined import Examination
    from fuzz.releases.oracle import Verdict

Release = tuple[int, ...]
_MANY: Final = 32
"""Loads or calls that fill an activations table, rather than happen to be there."""


@dataclass(frozen=True, slots=True)
class Known:
    """An advisory or a bug.

    Args:
        name: its identifier.
        what: in a few words.
        first, fixed: releases that have it: from the first, before the fixed one.
        family: of verdicts, see `minimise.family`; empty for any.
        fits: whether a smallest program contains what it takes.
        says: what the verdict's text has to contain.
        control: the variant of a program that takes its mechanism away; empty if there is none.
    """

    name: str
    what: str
    first: Release
    fixed: Release
    family: str
    fits: Callable[[Built], bool]
    says: str = ""
    control: str = ""

    def has(self, release: str) -> bool:
        """Say whether a release has it."""
        return self.first <= key(release) < self.fixed


def _kinds(built: Built) -> set[int]:
    return {item.row[0] for item in built.recipe.items}


def _fills(built: Built) -> bool:
    """Say whether a program fills the activations table."""
    rows = [item.row for item in built.recipe.items]
    return any((row[0] == recipe.CHURN and row[3] >= _MANY) or (row[0] == recipe.FRESH and row[1] * row[2] >= _MANY) for row in rows)


def _transfers(built: Built) -> bool:
    """Say whether two references at once go from the host to Wasm."""
    rows = [item.row for item in built.recipe.items]
    return any(
        (row[0] == recipe.FRESH and row[1] > 1)
        or (row[0] == Kind.CALL_WASM and sum(name >= 0 for name in row[3:]) > 1)
        or (row[0] == Kind.RETURN_IMPORT and sum(name >= 0 for name in row[1:]) > 1)
        for row in rows
    )


def _collects_on_purpose(built: Built) -> bool:
    return any(action == ["gc"] for actions in built.program.imports for action in actions)


def _has(*kinds: int) -> Callable[[Built], bool]:
    return lambda built: set(kinds) <= _kinds(built)


def _passes_twice(built: Built) -> bool:
    """Say whether references go from the host to Wasm more than once."""
    actions = [action for part in (built.program.script, *built.program.imports) for action in part]
    passed = [value for action in actions if action[0] in {"call", "return"} for value in action[3 if action[0] == "call" else 1]]
    passed = [value for value in passed if isinstance(value, int)]
    return len(passed) > len(set(passed))


def _initialised(built: Built) -> bool:
    """Say whether a global begins with an imported one."""
    lines = [line.strip() for line in built.program.wat.splitlines()]
    return any(line.startswith("(global ") and "(global.get $g)" in line for line in lines)


KNOWN: Final = (
    Known(
        "sweep borrows twice",
        "a destructor in a sweep fills the activations table and inserts once more: the old set is cleared while the new one is borrowed",
        (0, 19),
        (0, 28),
        MEMORY,
        lambda built: bool(built.program.destructors),
        "BorrowMutError",
        QUIET,
    ),
    Known(
        "table borrowed",
        "the host's store to a table element destroys the old value while the table is borrowed, and the destructor reads the table",
        (0, 19),
        (0, 28),
        MEMORY,
        lambda built: bool(built.program.destructors),
        "already mutably borrowed",
        QUIET,
    ),
    Known(
        "slot dropped in place",
        "the host's store to a table element destroys the old value while the slot still has it, and the destructor loads it there",
        (0, 19),
        (0, 25),
        MEMORY,
        lambda built: bool(built.program.destructors) and Kind.HOST_TABLE_SET in _kinds(built),
        "destroyed",
        QUIET,
    ),
    Known(
        "a destructor that acts",
        "the engine is not ready for what a destructor does",
        (0, 19),
        (0, 28),
        MEMORY,
        lambda _built: False,
        "",
        QUIET,
    ),
    Known(
        "table.init of null",
        "table.init of null from an externref segment panics in the host; the assertion went with wt#2847",
        (0, 19),
        (0, 27),
        MEMORY,
        _has(Kind.TABLE_INIT),
        "should never panic because we already did the bounds check above",
        FILLS,
    ),
    Known(
        "wt#2897",
        "a global initialised by an imported one takes its reference without counting it; the API of 0.28 counts",
        (0, 19),
        (0, 28),
        MEMORY,
        _initialised,
        "",
        GLOBALS,
    ),
    Known(
        "wt#2897",
        "what a global holds is not released with its store; the API of 0.28 drops globals",
        (0, 19),
        (0, 28),
        oracle.LEAK,
        lambda built: "(global " in built.program.wat,
    ),
    Known(
        "CVE-2021-39216",
        "references moved from the host to Wasm are on no stack yet when the second one finds the activations table full",
        (0, 19),
        (0, 30),
        MEMORY,
        lambda built: _fills(built) and _transfers(built) and not _collects_on_purpose(built),
        "",
        ROOM,
    ),
    Known(
        "CVE-2021-39218",
        "at a safepoint without live references the previous safepoint's map is taken",
        (0, 19),
        (0, 30),
        MEMORY,
        lambda built: _collects_on_purpose(built) or _fills(built),
        "",
        ALIVE,
    ),
    Known(
        "CVE-2022-24791",
        "safepoints in blocks emitted out of order lose their maps",
        (0, 34),
        (0, 35, 2),
        MEMORY,
        lambda _built: True,
        "",
        KEPT,
    ),
    Known("CVE-2022-31146", "a live reference is missing from a stack map", (0, 37), (0, 38, 2), MEMORY, lambda _built: True, "", KEPT),
    Known(
        "CVE-2024-30266",
        "table.init from a dropped segment panics",
        (19, 0, 0),
        (19, 0, 1),
        MEMORY,
        lambda built: "(table.init " in built.program.wat,
        "",
        FILLS,
    ),
    Known(
        "CVE-2025-61670",
        "giving up a handle of the host does nothing",
        (37, 0, 0),
        (37, 0, 2),
        oracle.LATE,
        lambda built: not _kinds(built) & {Kind.CALL_WASM, Kind.HOST_TABLE_SET, Kind.HOST_GLOBAL_SET},
    ),
    Known(
        "wt#10456",
        "block parameters that stand for a local are left out of stack maps, so a live reference is collected",
        (25, 0, 0),
        (32, 0, 0),
        MEMORY,
        lambda built: any(word in built.program.wat for word in ("(block ", "(loop ", "(if ")),
        "",
        KEPT,
    ),
    Known("wt#1923", "table.set releases the old element before the new one is there", (0, 16), (0, 19), MEMORY, _has(Kind.TABLE_SET)),
    Known("wt#11416", "table.init does not count what it stores", (22, 0), (37, 0), MEMORY, _has(Kind.TABLE_INIT)),
    Known("wt#11416", "the host's store to a table element has no barrier", (20, 0), (37, 0), oracle.LATE, _has(Kind.HOST_TABLE_SET)),
    Known(
        "wt#13166",
        "a value that is passed to Wasm twice between two collections is counted twice and given up once",
        (35, 0),
        (45, 0),
        oracle.LATE,
        _passes_twice,
    ),
    Known(
        "wt#13179",
        "passive element segments do not own their references",
        (22, 0),
        (45, 0),
        MEMORY,
        lambda built: built.recipe.segments == recipe.SEGMENTS_REFERENCES and "(item (global.get" in built.program.wat,
    ),
)
"""Public record; the ranges are those that the records give, as far back as the scheme goes where they say "all before"."""


@dataclass(frozen=True, slots=True)
class Found:
    """A finding.

    Args:
        release: that showed it.
        number: of the module in the campaign.
        profile: that it was drawn with, an index.
        operations: items of the program as it was found.
        seconds: from the beginning of the release's campaign until it was minimised.
        first: what the program showed as it was found.
        built, verdict: the smallest program, and what it shows.
        stderr: what the process wrote then.
        seen: seconds from the beginning until the program as it was found had shown it.
        processor: processor time of the worker and its engine in `seconds`.
    """

    release: str
    number: int
    profile: int
    operations: int
    seconds: float
    first: Verdict
    built: Built
    verdict: Verdict
    stderr: str
    seen: float = 0.0
    processor: float = 0.0

    @property
    def size(self) -> int:
        """How much there is to read, in characters of the module and of the script."""
        return len(self.built.program.line())

    def shape(self) -> tuple[str, tuple[int, ...]]:
        """Return what findings of one kind have in common: the family of verdicts, and the operations that it takes."""
        return family(self.verdict), tuple(sorted({item.row[0] for item in self.built.recipe.items}))


@dataclass(frozen=True, slots=True)
class Sighting:
    """A kind of finding and where it shows.

    Args:
        found: with its smallest program.
        shows: for each release of the campaign, the verdict's kind, empty if nothing is wrong there.
        examination: what control experiments say, if there were any.
    """

    found: Found
    shows: dict[str, str]
    examination: Examination | None = None

    @property
    def affected(self) -> list[str]:
        """Releases on which the program shows a verdict of the same family, oldest first."""
        found = family(self.found.verdict)
        return [name for name, kind in self.shows.items() if kind and family(oracle.Verdict(kind, "")) == found]

    def range(self) -> str:
        """Say which releases are affected, runs of neighbours in short.

        >>> LEAKS = oracle.Verdict("leak", "")
        >>> shows = {"0.24.0": "leak", "0.26.0": "leak", "0.30.0": "", "1.0.0": "leak"}
        >>> found = Found("1.0.0", 0, 0, 0, 0.0, LEAKS, None, LEAKS, "")
        >>> Sighting(found, shows).range()
        '0.24.0 to 0.26.0, 1.0.0'
        """
        affected = set(self.affected)
        runs: list[list[str]] = []
        fresh = True
        for name in self.shows:
            if name in affected:
                if fresh:
                    runs.append([])
                runs[-1].append(name)
            fresh = name not in affected
        return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs) or "none when it was run again"

    def known(self) -> Known | None:
        """Return the first entry of the table that fits, or None."""
        return match(self.found.built, self.found.verdict, self.found.release, self.affected)


def match(built: Built, verdict: Verdict, release: str, affected: list[str]) -> Known | None:
    """Return the known bug that a finding looks like, or None.

    Args:
        built: its smallest program.
        verdict: what it shows.
        release: where it was found.
        affected: releases that show it.
    """
    names = {release, *affected}
    for known in KNOWN:
        if known.family not in {"", family(verdict)} or not all(map(known.has, names)):
            continue
        if known.says in verdict.text and known.fits(built):
            return known
    return None


def named(control: str, verdict: Verdict, release: str, built: Built) -> Known | None:
    """Return what the mechanism is called that a control takes away, or None if the release is not known to have it.

    Args:
        control: the variant.
        verdict: what the program shows.
        release: where.
        built: the program.
    """
    fit = [known for known in KNOWN if known.control == control and known.has(release) and known.says in verdict.text]
    return next((known for known in fit if known.fits(built)), fit[-1] if fit else None)
