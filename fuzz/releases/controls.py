"""A finding is examined by control experiments: the same program, each time without one mechanism, on the release that showed it.

Variants are made from the recipe of the smallest program, so they say what it says; what they have to show follows from their own
weaving. They run in rounds: each round starts a new engine, and each variant runs in a process of its own that is forked from it, so all
variants of a round see the same addresses.

What a program shows also depends on what memory held before. So one that shows nothing when it runs alone is run many times in each
process; and since a new line in a function moves what its frame has, the line that keeps a reference live has placebos, which have it,
but keep nothing live.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

from fuzz.releases import recipe
from fuzz.releases.advisories import KNOWN, named
from fuzz.releases.build import build
from fuzz.releases.examined import (
    AFTER,
    ALIVE,
    ALIVE_PADDED,
    AS_FOUND,
    BARE,
    BEFORE,
    FILLS,
    FLIPPED,
    GLOBALS,
    KEPT,
    MECHANISMS,
    PADDED,
    PADDINGS,
    PASSES,
    PLACEBOS,
    QUIET,
    ROOM,
    ROUNDS,
    ROUNDS_MORE,
    SHIFT,
    SOONER,
    Cause,
    Count,
    Examination,
    conclude,
)
from fuzz.releases.minimise import MEMORY, family
from fuzz.releases.weave import Weaver
from fuzz.releases.woven import HELD_AFTER, HELD_BEFORE, HELD_OVER, KEPT_NULL, KEPT_VALUE, Emission
from model.ops import NULL, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fuzz.releases.build import Built
    from fuzz.releases.oracle import Verdict
    from fuzz.releases.recipe import Recipe

    Run = Callable[[Built, int], Verdict | None]
    """Runs a program and judges it: in the process that ran the one before, or in a new one: `SAME`, `PROCESS`, `ENGINE`."""

SAME: Final = 0
PROCESS: Final = 1
"""Forked from the engine that is there."""
ENGINE: Final = 2
"""Forked from an engine that is started anew."""
COLLECTION: Final[dict[str, Any]] = {"id": 0, "wat": "(module)", "values": 0, "script": [["gc"]]}
"""A program that does nothing but collect: a release that cannot be asked to says that it has skipped it."""
FILLS_MIN: Final = 32
"""Loads of a loop that is there to fill the table."""
_EMISSIONS: Final = {
    ALIVE: Emission(HELD_OVER),
    BEFORE: Emission(HELD_BEFORE),
    AFTER: Emission(HELD_AFTER),
    FLIPPED: Emission(flipped=True),
    ROOM: Emission(room=True),
    FILLS: Emission(fills=True),
    KEPT: Emission(kept=KEPT_VALUE),
    BARE: Emission(kept=KEPT_NULL),
}
FIRST: Final = ((), (BEFORE,), (AFTER,), *((name,) for name in (*MECHANISMS, BARE, SOONER)), (ALIVE, ROOM), (ALIVE, SOONER))
"""What is tried at first; then, where nothing explains it, what is left of all pairs."""
_FOR: Final = {BEFORE: ALIVE, AFTER: ALIVE, SOONER: ROOM, BARE: KEPT}
"""The mechanism that a variant is there for which takes none away itself."""
if not {known.control for known in KNOWN} <= {"", *MECHANISMS}:
    raise ImportError("fuzz.releases.advisories names a control that there is not")


def mechanisms(release: str) -> list[str]:
    """Return the variants that take a mechanism away which a release is known to have."""
    return [name for name in MECHANISMS if any(known.control == name and known.has(release) for known in KNOWN)]


def applies(release: str, verdict: Verdict) -> bool:
    """Say whether there is anything to examine: a memory error of a release that has one of the mechanisms."""
    return family(verdict) == MEMORY and bool(mechanisms(release))


def vary(built: Built, names: tuple[str, ...], padding: int = 0) -> Built | None:
    """Return a program without some mechanisms; None if that is the same program, or cannot be said.

    Args:
        built: the program.
        names: of variants.
        padding: integers that are live over every call besides.
    """
    whole = built.recipe
    for name, change in ((QUIET, _quiet), (SOONER, _sooner), (GLOBALS, _stored)):
        if name in names:
            changed = change(whole)
            if changed == whole:
                return None
            whole = changed
    if FILLS in names and "(item (global.get" in built.program.wat:
        return None
    plain = build(whole, built.program.id)
    if len(plain.recipe.items) != len(whole.items):
        return None
    parts = [_EMISSIONS[name] for name in names if name in _EMISSIONS]
    if any(build(whole, built.program.id, part).program == plain.program for part in parts):
        return None
    emission = Emission(
        next((part.held for part in parts if part.held), ""),
        padding,
        kept=next((part.kept for part in parts if part.kept), ""),
        flipped=any(part.flipped for part in parts),
        room=any(part.room for part in parts),
        fills=any(part.fills for part in parts),
    )
    varied = build(whole, built.program.id, emission)
    return None if padding and varied.program == plain.program else varied


def _quiet(whole: Recipe) -> Recipe:
    return replace(whole, items=tuple(item for item in whole.items if item.row[0] != recipe.ACTS))


def _sooner(whole: Recipe) -> Recipe:
    """Let loops fill the table that much sooner that it is full before references come from loops which ask for fresh ones, too."""
    more = SHIFT + sum(item.row[1] * item.row[2] for item in whole.items if item.row[0] == recipe.FRESH)
    return replace(
        whole,
        items=tuple(
            replace(item, row=(*item.row[:-1], item.row[-1] + more)) if item.row[0] == recipe.CHURN and item.row[-1] >= FILLS_MIN else item
            for item in whole.items
        ),
    )


def _stored(whole: Recipe) -> Recipe:
    """Let the host store what globals begin with. Its handle goes with the store, as it would with the instantiation."""
    weaver = Weaver(whole)
    items = []
    for item in whole.items:
        row, before = item.row, set(weaver.instances)
        source = row[2] - weaver.limits.objects if row[0] == Kind.INSTANTIATE else -1
        name = row[2] if row[0] == Kind.INSTANTIATE else NULL
        if source >= 0:
            name = weaver.state[weaver.limits.shape.globals + source * weaver.limits.globals]
        weaver.perform(item)
        if name == NULL:
            items.append(item if source < 0 else replace(item, row=(*row[:2], NULL, *row[3:])))
            continue
        items.append(replace(item, row=(row[0], row[1], NULL, 0, row[4])))
        for instance in set(weaver.instances) - before:
            if source >= 0:
                items.append(recipe.Item((Kind.HOST_GLOBAL_GET, source, 0)))
            items.append(recipe.Item((Kind.HOST_GLOBAL_SET, instance, 0, name)))
    return replace(whole, items=tuple(items))


def variants(built: Built, wanted: tuple[tuple[str, ...], ...] = FIRST) -> dict[str, Built]:
    """Return the variants that a program has, by name; the program itself comes first."""
    found = {}
    for names in wanted:
        varied = vary(built, names) if names else built
        if varied is not None:
            found[" + ".join(names) or AS_FOUND] = varied
    return found


def examine(
    built: Built, verdict: Verdict, release: str, run: Run, *, collects: bool = True, stop: Callable[[], bool] = lambda: False
) -> Examination:
    """Run the variants of a program, and conclude.

    Args:
        built: the smallest program of a memory error.
        verdict: what it shows.
        release: on which it runs.
        run: runs and judges a program there.
        collects: whether the release can be asked to collect.
        stop: asked between rounds; True ends the work with the counts so far.

    Complexity: some ten programs a round, three rounds; twelve where not all rounds show the same; each program twenty times where none
    shows anything at first. Where nothing explains it, as much again for frames of other sizes, and for pairs of mechanisms.
    """
    has = {*mechanisms(release)} - (set() if collects else {ROOM})
    # Where nothing can be asked to collect, `sooner` is what there is.
    first = tuple(names for names in FIRST if {_FOR.get(name, name) for name in names} <= has or (not collects and SOONER in names))
    programs = variants(built, first)
    passes = 1
    counts = _rounds(programs, run, passes, stop)
    if not counts[AS_FOUND].shown and not stop():
        passes = PASSES
        counts = _rounds(programs, run, passes, stop)
    shown = any(count.shown for count in counts.values())
    if shown and ALIVE in counts and not any(counts[name].shown for name in (ALIVE, *PLACEBOS) if name in counts) and not stop():
        counts |= _padded(built, run, passes, stop)
        if not counts[PADDED].shown:
            counts |= _rounds(variants(built, ((FLIPPED,),)), run, passes, stop)
    examination = conclude(counts)
    if shown and not examination.controls and not stop():
        single = [name for name in MECHANISMS if name in counts]
        pairs = variants(built, tuple(pair for pair in combinations(single, 2) if " + ".join(pair) not in counts))
        examination = conclude(counts | _rounds(pairs, run, passes, stop))
    # What the release is not known to have may go with something else, and explains nothing.
    known = {control: one for control in examination.controls if (one := named(control, verdict, release, built)) is not None}
    if examination.together and len(known) < len(examination.controls):
        known = {}
    causes = tuple(Cause(one.name, one.what) for one in known.values())
    instead = examination.instead if ALIVE in known else ()
    return replace(
        examination, controls=(*known,), instead=instead, together=examination.together and bool(known), passes=passes, causes=causes
    )


def _rounds(programs: Mapping[str, Built], run: Run, passes: int, stop: Callable[[], bool]) -> dict[str, Count]:
    """Run each program in so many processes as it takes; leave out what the release refuses."""
    verdicts: dict[str, list[Verdict | None]] = {name: [] for name in programs}
    done, wanted = 0, ROUNDS
    while done < wanted and programs and not (done and stop()):
        fresh = ENGINE
        for name, program in programs.items():
            verdicts[name].append(_process(program, run, fresh, passes))
            fresh = PROCESS
        done += 1
        if done == ROUNDS and any(len({family(verdict) == MEMORY for verdict in seen}) > 1 for seen in verdicts.values()):
            wanted = ROUNDS_MORE
    return {name: _count(seen) for name, seen in verdicts.items() if name == AS_FOUND or not any(map(_refused, seen))}


def _padded(built: Built, run: Run, passes: int, stop: Callable[[], bool]) -> dict[str, Count]:
    """Run the program, and the one with a reference live over every call, with frames of other sizes; return a count for each of both."""
    counts = {}
    for name, names in ((PADDED, ()), (ALIVE_PADDED, (ALIVE,))):
        varied = {str(padding): vary(built, names, padding) for padding in PADDINGS}
        parts = _rounds({padding: program for padding, program in varied.items() if program is not None}, run, passes, stop).values()
        example = next((part.example for part in parts if part.shown), "")
        kinds = tuple(sorted({kind for part in parts for kind in part.kinds}))
        counts[name] = Count(sum(part.shown for part in parts), sum(part.runs for part in parts), example, kinds)
    return counts


def _process(program: Built, run: Run, fresh: int, passes: int) -> Verdict | None:
    """Run a program several times in one process, until it shows a memory error."""
    verdict = None
    for number in range(passes):
        verdict = run(program, SAME if number else fresh)
        if family(verdict) == MEMORY:
            break
    return verdict


def _refused(verdict: Verdict | None) -> bool:
    return verdict is not None and not verdict.finding


def _count(seen: list[Verdict | None]) -> Count:
    wrong = [verdict for verdict in seen if verdict is not None]
    shown = [verdict for verdict in wrong if family(verdict) == MEMORY]
    # A trap has its backtrace in lines of their own.
    example = str([*shown, *wrong][0]).partition("\n")[0] if wrong else ""
    return Count(len(shown), len(seen), example, tuple(sorted({verdict.kind for verdict in shown})))
