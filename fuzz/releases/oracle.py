"""Holds what an engine did against what the model allows: identities, order, and destructions that are early, double or missing.

A false alarm is worse than a miss. So a destruction is early only if something owned the value at a later place of the host, late
only after a complete collection with no Wasm on the stack, if that is asked for, and missing only when the store is gone. What a destructor
reads must be something that is not destroyed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fuzz.releases.program import Place
    from fuzz.releases.woven import Expected

EARLY: Final = "early destruction"
DOUBLE: Final = "double destruction"
LEAK: Final = "leak"
LATE: Final = "late destruction"
WRONG_VALUE: Final = "wrong value"
WRONG_SIZE: Final = "wrong size"
TRAP: Final = "unexpected trap"
NO_TRAP: Final = "missing trap"
ORDER: Final = "wrong order"
REFUSED: Final = "refused"
"""The engine or its interface does not take the program: no finding by itself."""
UNFINISHED: Final = "unfinished"
HANG: Final = "hang"
DEADLOCK: Final = "deadlock"
"""A process that waits for a lock that nobody gives back: where allocators and signal handlers end up whose memory is corrupt."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong.

    Args:
        kind: one of the words above, or how the process ended.
        text: the particulars, in one line.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"

    @property
    def finding(self) -> bool:
        """Whether it counts against the engine."""
        return self.kind not in {REFUSED, UNFINISHED}


def words(place: Place) -> str:
    """Say a place.

    >>> words(("import", 3, -1)), words(("script", 0))
    ('the arrival of import call 3', 'action 0 of the script')
    """
    if place[0] == "script":
        return f"action {place[1]} of the script"
    if place[0] == "import":
        return f"the arrival of import call {place[1]}" if place[2] == -1 else f"action {place[2]} of import call {place[1]}"
    return f"action {place[2]} of the destructor of value {place[1]}"


def judge(expected: Expected, events: Sequence[Sequence[Any]], *, late: bool = True) -> Verdict | None:
    """Return the first thing that is wrong, or None.

    Args:
        expected: what the program has to show.
        events: what it showed, in order; may end early, which is no verdict if nothing else is wrong (how the process ended is).
        late: whether a complete collection with no Wasm on the stack must destroy what nothing owns.

    Complexity: linear in the events.
    """
    return _Observer(expected, late=late).observe(events)


class _Observer:
    """Follows the events of one program."""

    def __init__(self, expected: Expected, *, late: bool) -> None:
        self.expected = expected
        self.late = late
        self.position = -1
        self.skipped = -1
        self.destroyed: set[int] = set()

    def observe(self, events: Sequence[Sequence[Any]]) -> Verdict | None:
        for event in events:
            step = getattr(self, f"_{event[0]}", None)
            if step is None:
                continue
            verdict: Verdict | None = step(*event[1:])
            if verdict is not None:
                return verdict
        return None

    def _at(self, where: Sequence[Any]) -> Verdict | None:
        place = tuple(where)
        if place[0] == "destructor":
            return None
        verdict = self._owed()
        if verdict is not None:
            return verdict
        self.position += 1
        places = self.expected.places
        if self.position >= len(places):
            return Verdict(ORDER, f"{words(place)} was reached, though the program ends before")
        wanted = places[self.position]
        if place != wanted:
            return Verdict(ORDER, f"{words(place)} was reached instead of {words(wanted)}")
        return None

    def _owed(self) -> Verdict | None:
        """After a place, what it had to destroy must be dead."""
        due = self.expected.due.get(self.position, ()) if self.late and self.skipped != self.position else ()
        left = [value for value in due if value not in self.destroyed]
        if not left:
            return None
        place = words(self.expected.places[self.position])
        return Verdict(LATE, f"value {left[0]} is alive after the collection at {place}, though nothing owns it")

    def _got(self, where: Sequence[Any], seen: list[Any]) -> Verdict | None:
        place = tuple(where)
        for one in seen:
            if isinstance(one, str):
                return Verdict(WRONG_VALUE, f"{words(place)} got {one}, which is no value of the program")
            if one in self.destroyed:
                return Verdict(WRONG_VALUE, f"{words(place)} got value {one}, which had been destroyed")
        if place[0] == "destructor":
            return None
        wanted = self.expected.got.get(place)
        if place in self.expected.traps:
            return Verdict(NO_TRAP, f"the call at {words(place)} returned")
        if wanted is not None and seen != wanted:
            return Verdict(WRONG_VALUE, f"{words(place)} got {_values(seen)} instead of {_values(wanted)}")
        return None

    def _size(self, where: Sequence[Any], size: int) -> Verdict | None:
        place = tuple(where)
        wanted = self.expected.sizes.get(place)
        if wanted is not None and size != wanted:
            return Verdict(WRONG_SIZE, f"{words(place)} was told {size} instead of {wanted}")
        return None

    def _destroyed(self, value: int | str, _where: Sequence[Any]) -> Verdict | None:
        if isinstance(value, str):
            return Verdict(DOUBLE, f"{value} was destroyed, which is no value of the program")
        if value in self.destroyed:
            return Verdict(DOUBLE, f"value {value} was destroyed twice")
        self.destroyed.add(value)
        needed = self.expected.needed[value]
        if self.position < needed:
            until = words(self.expected.places[needed])
            now = words(self.expected.places[self.position]) if self.position >= 0 else "the beginning"
            return Verdict(EARLY, f"value {value} was destroyed at {now}, though it is owned at {until}")
        return None

    def _trap(self, where: Sequence[Any], message: str) -> Verdict | None:
        place = tuple(where)
        if place in self.expected.traps or place[0] == "destructor":
            return None
        return Verdict(TRAP, f"{words(place)}: {message}")

    def _error(self, where: Sequence[Any], message: str) -> Verdict | None:
        return None if where[0] == "destructor" else Verdict(REFUSED, f"{words(tuple(where))}: {message}")

    def _skipped(self, where: Sequence[Any]) -> Verdict | None:
        if where[0] == "destructor":
            return None
        if tuple(where) not in self.expected.collections:
            return Verdict(REFUSED, f"{words(tuple(where))} is not possible with this interface")
        verdict = self._at(where)
        self.skipped = self.position
        return verdict

    def _end(self) -> Verdict | None:
        if self.position != len(self.expected.places) - 1:
            return Verdict(ORDER, f"the program ended before {words(self.expected.places[self.position + 1])}")
        left = [value for value in range(len(self.expected.needed)) if value not in self.destroyed | self.expected.optional]
        if not left:
            return None
        return Verdict(
            LEAK, f"value {left[0]} was never destroyed, though the store is gone" + (f" ({len(left)} such)" if left[1:] else "")
        )


def _values(seen: Sequence[Any]) -> str:
    return f"({', '.join('null' if one is None else f'value {one}' for one in seen)})"
