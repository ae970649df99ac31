"""What control experiments say: how often each variant of a program showed a memory error, and which cause these counts establish.

A mechanism is the cause if the error is there with it, and away without it each time. A program that shows its error only now and then
proves less: what its absence is worth follows from how often it was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final

ROUNDS: Final = 3
"""Times that each variant is run, as often as a smallest program has shown its finding when it counts."""
ROUNDS_MORE: Final = 12
"""The same where a program does not show the same each time."""
PASSES: Final = 20
"""Times that a program runs in one process, if none of several processes showed anything at its first time."""
PADDINGS: Final = range(1, 9)
"""Integers by which frames are made others, where the placebos take the error away."""
SHIFT: Final = 8
"""Loads by which `sooner` fills the activations table too soon: more references than a transfer has. Loops of transfers add theirs."""
CHANCE_MAX: Final = 0.01
"""Most probability that an error which shows k of n times stays away n times by chance, for its absence to count."""

AS_FOUND: Final = "as found"
BEFORE: Final = "before"
AFTER: Final = "after"
PADDED: Final = "padded"
FLIPPED: Final = "flipped"
ALIVE: Final = "alive"
ROOM: Final = "room"
SOONER: Final = "sooner"
GLOBALS: Final = "globals"
QUIET: Final = "quiet"
FILLS: Final = "fills"
KEPT: Final = "kept"
BARE: Final = "bare"

WORDS: Final = {
    AS_FOUND: "the program as it is",
    BEFORE: "the lines of `alive` before everything else, so the reference is live over nothing",
    AFTER: "the lines of `alive` after everything else",
    PADDED: f"other frames: {PADDINGS[0]} to {PADDINGS[-1]} more integers are live over every call",
    FLIPPED: "the functions in the opposite order, each as it is, so other maps are the ones before",
    ALIVE: "one more reference, always null, is live over every call",
    ROOM: "the host collects before it passes several references to Wasm at once",
    SOONER: "loops that fill the activations table load a few times more, so it is full before the transfer",
    GLOBALS: "no global begins with an imported one: the host stores the value",
    QUIET: "destructors do nothing but count",
    KEPT: "what a function gets into a local is in a global too, which nobody reads",
    BARE: "the stores of `kept`, but of null",
    FILLS: "`table.fill` with null instead of `table.init` from nulls",
}
"""What each variant is."""
PLACEBOS: Final = (BEFORE, AFTER, PADDED)
"""Variants that have what `alive` has, but for the reference that is live."""
ALIVE_PADDED: Final = f"{ALIVE} + {PADDED}"
MECHANISMS: Final = (ALIVE, ROOM, GLOBALS, QUIET, FILLS, KEPT)
"""Variants that take a mechanism away, and so name a cause. `sooner` stands for `room` where a release cannot be asked to collect."""
_BESIDES: Final = {KEPT: (BARE,), ALIVE: (*PLACEBOS, ALIVE_PADDED, FLIPPED), ROOM: (ALIVE, SOONER)}
"""Counts that a conclusion rests on besides its own."""


@dataclass(frozen=True, slots=True)
class Count:
    """How often a variant showed a memory error.

    Args:
        shown: processes that did.
        runs: all processes that ran it.
        example: what it showed first, whatever it was; empty if nothing was ever wrong.
        kinds: of the errors, each once, sorted.
    """

    shown: int
    runs: int
    example: str = ""
    kinds: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.shown} of {self.runs}"

    def away(self, present: Count) -> bool:
        """Say whether an error that shows as often as in `present` is away here, and not by chance.

        >>> Count(0, 3).away(Count(3, 3)), Count(0, 12).away(Count(4, 12)), Count(0, 12).away(Count(3, 12)), Count(1, 3).away(Count(3, 3))
        (True, True, False, False)
        """
        if self.shown or not present.shown or min(self.runs, present.runs) < ROUNDS:
            return False
        return (1 - present.shown / present.runs) ** self.runs <= CHANCE_MAX

    def differs(self, present: Count) -> bool:
        """Say whether there is an error each time, here and in `present`, and never of a kind that is in both."""
        each = 0 < self.shown == self.runs and 0 < present.shown == present.runs
        return each and bool(self.kinds and present.kinds) and not {*self.kinds} & {*present.kinds}


@dataclass(frozen=True, slots=True)
class Cause:
    """What a mechanism is called.

    Args:
        name: of the advisory or bug.
        what: in a few words.
    """

    name: str
    what: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What control experiments on one release said.

    Args:
        counts: by variant: names joined by " + ".
        controls: variants that take the error away; empty if nothing explains it.
        together: whether it takes all of them.
        passes: how often each process ran the program.
        causes: what the mechanisms are called that the variants take away.
        release: on which it was run, if not the one that the finding is of.
        instead: kinds of error that `alive` leaves, all others than those found; the second control takes them away.
    """

    counts: dict[str, Count]
    controls: tuple[str, ...] = ()
    together: bool = False
    passes: int = 1
    causes: tuple[Cause, ...] = ()
    release: str = ""
    instead: tuple[str, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether anything showed the error again."""
        return any(count.shown for count in self.counts.values())

    @property
    def name(self) -> str:
        """The cause's name, or nothing."""
        return " and ".join(cause.name for cause in self.causes)

    def told(self) -> str:
        """Return the conclusion in one line, with the counts that it rests on."""
        conditions = f"; each {self.passes} times in one process" if self.passes > 1 else ""
        conditions += f"; on {self.release}" if self.release else ""
        conditions += f"; with {ALIVE} it is {' or '.join(self.instead)} instead" if self.instead else ""
        rests = self._rests_on() if self.causes else [name for name in self.counts if name != AS_FOUND]
        counts = ", ".join([f"{self.counts[AS_FOUND]} as found", *(f"{self.counts[name]} with {name}" for name in rests)])
        if self.causes:
            what = (" and " if self.together else ", and ").join(f"{cause.name}: {cause.what}" for cause in self.causes)
        else:
            what = "not explained by controls" if self.seen else "not seen again"
        return f"{what} ({counts}{conditions})"

    def _rests_on(self) -> list[str]:
        wanted = {*self.controls, " + ".join(self.controls), *(name for control in self.controls for name in _BESIDES.get(control, ()))}
        wanted |= {f"{ALIVE} + {name}" for name in (ROOM, SOONER) if ROOM in self.controls}
        return [name for name in self.counts if name in wanted]

    def table(self) -> list[str]:
        """Return all counts, a line for each variant."""
        width = max(map(len, self.counts))
        return [
            f"{name:{width}}  {count!s:>8}  {', and '.join(WORDS[part] for part in name.split(' + '))}"
            + (f" ({count.example})" if count.example else "")
            for name, count in self.counts.items()
        ]

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "is": self.name or None,
            "controls": list(self.controls),
            "together": self.together,
            "passes": self.passes,
            "release": self.release or None,
            "instead": list(self.instead),
            "counts": {name: [count.shown, count.runs] for name, count in self.counts.items()},
        }


def conclude(counts: Mapping[str, Count]) -> Examination:
    """Say what counts establish.

    `alive` is held against its placebos, of which one that shows the error is enough: an error that each of them takes away may be away
    because of any new line, in frames of any size. Such an error is one of the map before if it also goes when the same functions stand
    in the opposite order: then it is no matter of their code. A placebo that shows the error stands for the program if that does not
    show it by itself. If `alive` leaves an error, but always one of another kind than what was found and what its placebos show, it has
    taken away one of two. `kept` has `bare` as a placebo in the same way. The other variants have none, so they say nothing of a program
    that a new line changes.

    Args:
        counts: by variant; `AS_FOUND` is among them.
    """
    placebos = {name: counts[name] for name in PLACEBOS if name in counts}
    shown = counts[AS_FOUND]
    if not shown.shown:
        shown = max([shown, *placebos.values()], key=lambda count: count.shown)

    def gone(*names: str) -> bool:
        count = counts.get(" + ".join(names))
        return count is not None and count.away(shown)

    controls = []
    alive = counts.get(ALIVE)
    if alive is not None and not alive.shown:
        against = {name: counts.get(ALIVE_PADDED, alive) if name == PADDED else alive for name in placebos}
        held = any(against[name].away(count) for name, count in placebos.items())
        ordered = not any(count.shown for count in placebos.values()) and gone(FLIPPED)
        if all(not count.shown for count in against.values()) and (held or ordered):
            controls.append(ALIVE)
    if gone(KEPT) and BARE in counts and counts[KEPT].away(counts[BARE]):
        controls.append(KEPT)
    examination = Examination(dict(counts), tuple(controls))
    if any(gone(name) for name in (BEFORE, AFTER, BARE)):
        # What a new line takes away, other changes may take away just so, and they have no placebos.
        return examination
    instead: tuple[str, ...] = ()
    if (alive is None or alive.shown) and _roomless(counts):
        controls.append(ROOM)
        same = [counts[name].kinds == shown.kinds for name in (BEFORE, AFTER) if name in counts]
        if alive is not None and same and all(same) and alive.differs(shown):
            # What was found is gone, and something else has come to light.
            controls[:0], instead = [ALIVE], alive.kinds
    controls += [name for name in (GLOBALS, QUIET, FILLS) if gone(name)]
    if controls:
        return replace(examination, controls=tuple(controls), instead=instead)
    single = [name for name in MECHANISMS if name != KEPT and not gone(name)]
    pair = next((pair for pair in combinations(single, 2) if gone(*pair)), ())
    return replace(examination, controls=pair, together=bool(pair))


def _roomless(counts: Mapping[str, Count]) -> bool:
    """Say whether the error is one of a transfer that finds no room.

    A collection before the transfer takes it away, by itself or beside `alive`: that collection is at a safepoint of its own. Where a
    release cannot be asked to collect, to fill the table before the transfer does.
    """
    for beside, base in (("", AS_FOUND), (f"{ALIVE} + ", ALIVE)):
        room = counts.get(beside + ROOM, counts.get(beside + SOONER))
        if base in counts and room is not None and room.away(counts[base]):
            return True
    return False
