"""States of the model alone: one byte a word, told apart by these bytes, or by what is left of them when names are not to be seen.

With symmetry two states are one if a permutation of values turns one into the other. The model asks nothing of a name but whether it
is equal to another, and gives out the smallest free one, which is a choice among equals. So symmetry loses nothing of the model. (What it
ignores of an implementation is the order of sweeps: see `fuzz.states`.)
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from fuzz.explore import DIGEST_BYTES
from fuzz.small_steps import (
    DESTROY,
    FINISH,
    OPERATE_FULL,
    Step,
    broken,
    finale,
    first_state,
    names_at,
    pending,
    size,
    steps,
    take,
)
from model.limits import (
    BOOK_WORDS,
    COLLECTS,
    CONTEXT_KIND,
    CONTEXT_OF,
    CONTEXT_WORDS,
    DEPTH,
    DYING,
    LIVE,
    NESTED,
    PANICKED,
    SEEN,
    STACKED,
    UNDER_WAY,
    Limits,
)
from model.ops import Context, Kind
from model.state import State, Violation, describe
from model.trace import format_row
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Sequence

OBJECTS_MAX: Final = 7
"""A mask of names is one signed byte of a packed state."""
NUMBER_MAX: Final = 127
BOUNDED: Final = frozenset({"chunk", "quarantine"})
"""Bounds that are nothing to the model, however large."""
_DESTRUCTOR: Final = int(Context.DESTRUCTOR)
_MASKS: Final = DYING + 1
"""LIVE, LEAKED, DEFERRED and DYING are the first words of a state; a book begins with masks too, up to COLLECTS, and has one more."""
_NAMES: Final = range(OBJECTS_MAX)
_BIT: Final = [bytes(byte >> name & 1 for byte in range(256)) for name in _NAMES]
"""For each name: turns a mask into the name's bit of it."""
_IS: Final = [bytes(byte == name for byte in range(256)) for name in _NAMES]
"""For each name: turns a cell into whether the name stands in it."""
_BLANK: Final = bytes(0 if byte in _NAMES else byte for byte in range(256))
"""Turns a cell into whether it holds a name, and if not, what."""


class Expansion(NamedTuple):
    """All steps from one state.

    Args:
        steps: how many were allowed.
        kinds: operations that began, by kind, and how many.
        shown: masks of sometimes properties, and how many steps showed each.
        found: for each state that was not known: the number of the step, the state's key, and the state.
        violation: the number of the step that violates something (none: the state itself), the verdict and the text.
    """

    steps: int
    kinds: dict[int, int]
    shown: dict[int, int]
    found: list[tuple[int, bytes, bytes]]
    violation: tuple[int | None, str, str] | None


class ModelStates:
    """The model as a transition system over packed states.

    Args:
        limits: bounds of the search.
        symmetry: whether states that differ by a permutation of values count once.
        exact: whether a state's key is its whole identity, or a digest of it.
        finale: whether everything is let go of from each new state at rest, to see that nothing is left behind.

    Raises:
        ValueError: a bound does not fit into a packed state.
    """

    def __init__(self, limits: Limits, *, symmetry: bool, exact: bool = False, finale: bool = False) -> None:
        for name, value in limits.numbers().items():
            most = OBJECTS_MAX if name == "objects" else NUMBER_MAX
            if name not in BOUNDED and value > most:
                raise ValueError(f"{name}={value}: a search of the model alone has room for at most {most}")
        self.limits = limits
        self.symmetry = symmetry and limits.objects > 1
        self.exact = exact
        self.finale = finale
        self.counts = [0] * len(Kind)
        packer = struct.Struct(f"{size(limits)}b")
        self._pack = packer.pack
        self._unpack = packer.unpack
        self._state: State = first_state(limits)
        self._step: Step = (FINISH, ())

    def root(self) -> bytes:
        """Return the first state. All states have as many bytes."""
        return self._pack(*first_state(self.limits))

    def open(self, data: bytes) -> None:
        """Make a state the current one."""
        self._state = list(self._unpack(data))

    def reload(self) -> None:
        """Nothing disturbs the current state."""

    def identity(self) -> bytes:
        """Return what tells the current state from others."""
        return self._identity(self._pack(*self._state))

    def settle(self) -> tuple[bytes, int]:
        """Return the current state, and what it shows, which is nothing."""
        return self._pack(*self._state), 0

    def _identity(self, data: bytes) -> bytes:
        return blind(data, self.limits) if self.symmetry else data

    def expand(self, data: bytes, known: set[bytes]) -> Expansion:
        """Take all steps from a state.

        Args:
            data: the state.
            known: keys of states that need not be told; new ones are added.

        Complexity: O(steps * words).
        """
        limits, pack, exact, symmetry = self.limits, self._pack, self.exact, self.symmetry
        base = list(self._unpack(data))
        taken = 0
        kinds: dict[int, int] = {}
        shown: dict[int, int] = {}
        found: list[tuple[int, bytes, bytes]] = []
        try:
            for step in steps(base, limits):
                state = base[:]
                if not take(state, limits, *step):
                    continue
                seen = state[SEEN]
                if seen:
                    shown[seen] = shown.get(seen, 0) + 1
                    state[SEEN] = 0
                if step[0] <= OPERATE_FULL:
                    kind = step[1][0]
                    kinds[kind] = kinds.get(kind, 0) + 1
                after = key = pack(*state)
                if symmetry:
                    key = blind(after, limits)
                if not exact:
                    key = hashlib.blake2b(key, digest_size=DIGEST_BYTES).digest()
                if key not in known:
                    known.add(key)
                    found.append((taken, key, after))
                    wrong = self.judge(state)
                    if wrong:
                        return Expansion(taken + 1, kinds, shown, found, (taken, "Property", wrong))
                taken += 1
        except Violation as violation:
            return Expansion(taken + 1, kinds, shown, found, (taken, "Violation", str(violation)))
        if not taken and pending(base):
            return Expansion(
                0, kinds, shown, found, (None, "Deadlock", "an operation is under way that can neither destroy anything nor end")
            )
        return Expansion(taken, kinds, shown, found, None)

    def judge(self, state: State) -> str:
        """Name the property that a state breaks; empty if none."""
        wrong = broken(state, self.limits)
        if not wrong and self.finale and not state[UNDER_WAY]:
            wrong = finale(state[:], self.limits)
        return wrong

    def allowed(self) -> list[tuple[Step, State]]:
        """Return the steps allowed in the current state, in order, and where each leads. A step that violates something is the last."""
        found = []
        for step in steps(self._state, self.limits):
            state = self._state[:]
            try:
                if not take(state, self.limits, *step):
                    continue
            except Violation:
                found.append((step, state))
                break
            state[SEEN] = 0
            found.append((step, state))
        return found

    def follow(self, step: Step, state: State) -> None:
        """Make the state that a step leads to the current one."""
        self._step, self._state = step, state

    def described(self) -> list[str]:
        """Say the current state in words, for a graph."""
        lines = describe(self._state, self.limits)
        if pending(self._state):
            lines.append("an operation is under way")
        return lines

    def step_words(self) -> list[str]:
        """Say the last step in words."""
        return [say(self._step, self.limits)]

    def story(self, path: Sequence[Step]) -> list[str]:
        """Return a line for each step of a path from the first state, with bars for the destructors that run around it."""
        state = first_state(self.limits)
        lines = []
        for step in path:
            lines.append("| " * state[NESTED] + say(step, self.limits))
            try:
                take(state, self.limits, *step)
            except Violation:
                break
        return lines


def say(step: Step, limits: Limits) -> str:
    """Say a step in words: an operation as a trace does, what happens to it as a comment.

    >>> from model.limits import SCOPES
    >>> say((DESTROY, (2,)), SCOPES["counting"]), say((OPERATE_FULL, (Kind.GC,)), SCOPES["counting"])
    ('# value 2 is destroyed', 'gc # finds the chunk full')
    """
    what, row = step
    if what == DESTROY:
        return f"# value {row[0]} is destroyed"
    if what == FINISH:
        return "# the operation under way ends"
    return format_row(row, limits) + (" # finds the chunk full" if what == OPERATE_FULL else "")


def blind(data: bytes, limits: Limits) -> bytes:
    """Describe a packed state without names: equal for two states if and only if a permutation of values turns one into the other.

    Each value is described by where it stands; the descriptions are sorted, and what is left has no names any more.
    """
    shape = limits.shape
    masks, rest = [data[:_MASKS]], [data[_MASKS : shape.roots]]
    cells = [data[shape.globals : shape.slots_end], data[names_at(limits) :]]
    contexts = data[shape.slots_end : shape.books]
    if data[NESTED]:
        dying, contexts = _without_dying(data, contexts, limits)
        cells.append(dying)
    rest.append(contexts)
    book = shape.books
    for _ in range(data[UNDER_WAY]):
        masks += (data[book : book + COLLECTS], data[book + STACKED : book + PANICKED])
        rest += (data[book + COLLECTS : book + STACKED], data[book + PANICKED : book + BOOK_WORDS])
        book += BOOK_WORDS
    rest.append(data[shape.size : names_at(limits)])
    mask, cell = b"".join(masks), b"".join(cells)
    rest.append(cell.translate(_BLANK))
    roots = shape.roots
    marks = [
        data[roots + name : roots + name + 1] + mask.translate(_BIT[name]) + cell.translate(_IS[name]) for name in range(limits.objects)
    ]
    if limits.fields and any(byte in _NAMES for byte in data[shape.fields : shape.globals]):
        rest.append(_ownership(data, limits, marks))
    return b"".join((*sorted(marks), *rest))


def _without_dying(data: bytes, contexts: bytes, limits: Limits) -> tuple[bytes, bytes]:
    """Return the names of the destructors that act, and the contexts without them."""
    blank, dying = bytearray(contexts), bytearray()
    first = limits.shape.contexts - limits.shape.slots_end
    for at in range(first, first + data[DEPTH] * CONTEXT_WORDS, CONTEXT_WORDS):
        if blank[at + CONTEXT_KIND] == _DESTRUCTOR:
            dying.append(blank[at + CONTEXT_OF])
            blank[at + CONTEXT_OF] = 0
    return bytes(dying), bytes(blank)


def _ownership(data: bytes, limits: Limits, marks: Sequence[bytes]) -> bytes:
    """Describe who owns whom by places in the order of the marks; ties in it are broken so that the description is the least."""
    order = sorted(bits(data[LIVE] | data[DYING]), key=marks.__getitem__)
    ties = [tuple(group) for _, group in itertools.groupby(order, key=marks.__getitem__)]
    first, count = limits.shape.fields, limits.fields
    described = []
    for choice in itertools.product(*(itertools.permutations(group) for group in ties)):
        ranked = tuple(itertools.chain.from_iterable(choice))
        rank = bytearray(range(256))
        for place, name in enumerate(ranked):
            rank[name] = place
        described.append(b"".join(data[first + name * count : first + (name + 1) * count].translate(rank) for name in ranked))
    return min(described)
