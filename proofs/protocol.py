"""The counting protocol as one object sees it: a state of integers, and what it means for such a state to be sound.

Everything here and in `proofs.protocol_steps` has two readings of one text: over Python's ints it runs, over z3's integers it is a formula.
The other objects, the host and compiled code are the environment, and may do at any moment whatever the code lets them do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import z3

from impl.externref import COUNT_MAX

Term: TypeAlias = "int | z3.ArithRef"
Truth: TypeAlias = "bool | z3.BoolRef"

# What has become of the object.
UNBORN: Final = 0
ALIVE: Final = 1
CONDEMNED: Final = 2  # its count is 0 and its destructor has yet to begin
DYING: Final = 3
FREED: Final = 4
LIVES: Final = ("not made yet", "alive", "condemned", "under destruction", "freed")

# Where the collector is. Foreign code, which is a destructor's, runs in `IDLE` and `SWEEP` alone.
IDLE: Final = 0
WALK: Final = 1
FAILED: Final = 2  # the walk did not reach the canary
CLOSED: Final = 3  # the chunk counts as full
SWEEP: Final = 4  # and the old set is out of reach
OPENED: Final = 5  # all entries are released, the chunk may be filled again
MERGE: Final = 6  # the precise set is the table's, and takes up what was inserted meanwhile
PHASES: Final = ("no collection", "walking the stack", "the walk failed", "chunk closed", "sweeping", "chunk opened", "merging")


class State(NamedTuple):
    """One object, and what of the table, the stack and the collector matters to it. All are integers, and none has a bound.

    Attributes:
        life: One of `UNBORN` to `FREED`.
        ref_count: The word behind the reference.
        held: References in the host's hands: roots, words of host frames, variables of a function under way.
        cells: Words of globals, tables and segments that own it.
        fields: Words of other values that own it.
        chunk: Slots of the bump chunk that hold it.
        over, precise, sweeping: Whether it is a member of the over-approximated set, of the precise one, of the one being released.
        carried: 1 while the collector has it out of a set, and its count is neither in a set again nor given back.
        owed: 1 while it is in the precise set, and its count is yet to follow.
        live: Locals that hold it and will be read. During a collection: of the activations that it found on the stack.
        dead: Other words of these frames that hold its address.
        guest, guest_dead: The same of activations that were entered by destructors of this collection.
        window: Copies that Wasm is about to get: the table has them already, no local does yet.
        phase: One of `IDLE` to `MERGE`.
        depth: Destructors that run inside this collection.
        room: Free slots of the chunk.
        touched: Whether it was inserted again while this collection released entries.
        destroyed: How often its destructor has run.
    """

    life: Term
    ref_count: Term
    held: Term
    cells: Term
    fields: Term
    chunk: Term
    over: Term
    precise: Term
    sweeping: Term
    carried: Term
    owed: Term
    live: Term
    dead: Term
    guest: Term
    guest_dead: Term
    window: Term
    phase: Term
    depth: Term
    room: Term
    touched: Term
    destroyed: Term


MEMBERSHIPS: Final = ("over", "precise", "sweeping", "carried", "owed", "touched")
EMPTY: Final = State(*[0] * len(State._fields))


def every(*truths: Truth) -> Truth:
    """Say whether all hold."""
    if any(truth is False for truth in truths):
        return False
    if all(truth is True for truth in truths):
        return True
    return z3.And(*truths)


def either(*truths: Truth) -> Truth:
    """Say whether any holds."""
    if any(truth is True for truth in truths):
        return True
    if all(truth is False for truth in truths):
        return False
    return z3.Or(*truths)


def implies(condition: Truth, conclusion: Truth) -> Truth:
    """Say whether the conclusion holds if the condition does."""
    if isinstance(condition, bool):
        return conclusion if condition else True
    return z3.Implies(condition, conclusion)


def choose(condition: Truth, yes: Term, no: Term) -> Term:
    """Return one of two numbers."""
    if isinstance(condition, bool):
        return yes if condition else no
    return z3.If(condition, yes, no)


def initial(s: State) -> Truth:
    """Say whether nothing has happened yet: no object, an empty table, an empty stack."""
    return every(*(getattr(s, name) == 0 for name in State._fields if name != "room"), s.room >= 1)


def idle(s: State) -> Truth:
    """Say whether foreign code may run outside a collection. Nothing comes between a count of 0 and the destructor."""
    return every(s.phase == IDLE, s.life != CONDEMNED)


def inside(s: State) -> Truth:
    """Say whether foreign code may run in a destructor that a sweep runs."""
    return every(s.phase == SWEEP, s.depth >= 1, s.life != CONDEMNED)


def mutating(s: State) -> Truth:
    """Say whether foreign code may run."""
    return either(idle(s), inside(s))


def sweeping(s: State) -> Truth:
    """Say whether the sweep itself may take its next step: every destructor that it has called is over."""
    return every(s.phase == SWEEP, s.depth == 0, s.life != CONDEMNED)


def owners(s: State) -> Term:
    """Count the owners outside the activations table."""
    return s.held + s.cells + s.fields


def entries(s: State) -> Term:
    """Count the entries of the activations table, each of which owns one count."""
    return s.chunk + s.over + s.precise + s.sweeping + s.carried


def on_stack(s: State) -> Term:
    """Count the words from which Wasm may still read the reference, those that are about to be written included."""
    return s.live + s.guest + s.window


@dataclass(frozen=True)
class Property:
    """Something that holds in a state, or not.

    Args:
        name: In a word or two.
        statement: In words.
        holds: Both readings of it.
    """

    name: str
    statement: str
    holds: Callable[[State], Truth]


def _balance(s: State) -> Truth:
    return s.ref_count + s.owed == owners(s) + entries(s)


def _life(s: State) -> Truth:
    return every(
        s.life >= UNBORN,
        s.life <= FREED,
        (s.life == ALIVE) == (s.ref_count >= 1),
        s.ref_count <= COUNT_MAX,
        s.destroyed == choose(s.life >= DYING, 1, 0),
        implies(s.life != ALIVE, every(on_stack(s) == 0, s.owed == 0)),
    )


def _shelter(s: State) -> Truth:
    """What Wasm may read is in a part of the table that survives what the collector is about to do."""
    before = either(s.phase == IDLE, s.phase == WALK, s.phase == FAILED)
    during = either(s.phase == CLOSED, s.phase == SWEEP, s.phase == OPENED)
    return every(
        implies(every(before, s.live + s.window >= 1), s.chunk + s.over >= 1),
        implies(every(during, s.live >= 1), s.precise == 1),
        implies(every(s.phase == SWEEP, s.guest + s.window >= 1), s.over == 1),
        implies(every(s.phase == MERGE, s.live >= 1), s.over == 1),
    )


def _shape(s: State) -> Truth:
    """Which parts of the state are in use in which phase."""
    return every(
        *(getattr(s, name) >= 0 for name in State._fields),
        *(getattr(s, name) <= 1 for name in MEMBERSHIPS),
        s.phase <= MERGE,
        implies(s.phase == IDLE, s.precise == 0),
        implies(s.phase != SWEEP, every(s.sweeping == 0, s.depth == 0)),
        implies(s.depth == 0, every(s.guest == 0, s.guest_dead == 0)),
        implies(s.carried == 1, every(either(s.phase == FAILED, s.phase == MERGE), s.precise == 0)),
        implies(s.owed == 1, every(s.phase == WALK, s.precise == 1)),
        implies(either(s.phase == CLOSED, s.phase == SWEEP), s.room == 0),
        implies(either(s.phase == OPENED, s.phase == MERGE), s.chunk == 0),
    )


def _windows(s: State) -> Truth:
    return implies(every(s.phase != IDLE, s.depth == 0), s.window == 0)


def _precision(s: State) -> Truth:
    """Nothing is kept without a reason: a root is on a frame, and a new entry was inserted meanwhile."""
    return every(
        implies(every(s.phase != MERGE, s.precise + s.carried >= 1), s.live >= 1),
        implies(every(either(s.phase == SWEEP, s.phase == OPENED), s.over == 1), s.touched == 1),
        implies(every(s.phase == MERGE, s.over == 1), either(s.live >= 1, s.touched == 1)),
        implies(every(s.phase == MERGE, s.precise + s.carried >= 1), s.touched == 1),
    )


INVARIANT: Final = (
    Property("balance", "the count is the number of owners and of entries of the table", _balance),
    Property(
        "life", "the object is alive exactly while its count is not 0, was destroyed at most once, and is on no stack but alive", _life
    ),
    Property("shelter", "what Wasm may read is in a part of the table that outlives the collection under way", _shelter),
    Property("shape", "each set and flag is in use in its own phases alone, and the chunk is closed during a sweep", _shape),
    Property("windows", "no transfer is between its two halves while the collector itself is at work", _windows),
    Property("precision", "a precise root is on a frame; what else a sweep leaves was inserted meanwhile", _precision),
)


def invariant(s: State) -> Truth:
    """Say whether all of `INVARIANT` holds."""
    return every(*(part.holds(s) for part in INVARIANT))


def _is_alive(s: State) -> Truth:
    return every(s.life == ALIVE, s.ref_count >= 1)


SAFETY: Final = (
    Property("owned-is-alive", "what anybody owns is alive", lambda s: implies(owners(s) >= 1, _is_alive(s))),
    Property("stack-is-alive", "what Wasm may read is alive", lambda s: implies(on_stack(s) >= 1, _is_alive(s))),
    Property("entry-is-alive", "what the activations table holds is alive", lambda s: implies(entries(s) >= 1, _is_alive(s))),
    Property(
        "destroyed-once",
        "the destructor runs once, and only when the count has reached 0 and nobody owns the object",
        lambda s: every(s.destroyed <= 1, implies(s.destroyed == 1, every(s.ref_count == 0, owners(s) + entries(s) + on_stack(s) == 0))),
    ),
    Property("no-abort", "no reference is given up whose count is 0 already", lambda s: implies(s.held + s.carried >= 1, s.ref_count >= 1)),
    Property(
        "sets-empty-outside",
        "outside a collection the precise set and the one being released are empty",
        lambda s: implies(s.phase == IDLE, s.precise + s.sweeping + s.carried + s.owed == 0),
    ),
    Property(
        "no-leak",
        "between collections, what is alive has an owner or an entry that the next collection finds",
        lambda s: implies(every(s.phase == IDLE, s.life == ALIVE), owners(s) + s.chunk + s.over >= 1),
    ),
    Property(
        "foreign-code-in-sweeps-alone",
        "no destructor runs while sets are exchanged, merged or being filled with roots",
        lambda s: implies(s.depth >= 1, s.phase == SWEEP),
    ),
)


def symbolic() -> State:
    """Return the state whose parts are z3's integers of the same names."""
    return State(*(z3.Int(name) for name in State._fields))


def broken(properties: tuple[Property, ...], s: State) -> list[Property]:
    """Return those that do not hold in a concrete state."""
    return [part for part in properties if part.holds(s) is not True]


def describe(s: State) -> str:
    """Say in words what a concrete state is."""
    owned = [(s.held, "by the host"), (s.cells, "in globals, tables and segments"), (s.fields, "in values")]
    owned += [(s.chunk, "in the chunk"), (s.over, "in the set"), (s.precise, "in the precise set"), (s.sweeping, "in the old set")]
    owned += [(s.carried, "in the collector's hands")]
    places = ", ".join(f"{number} {where}" for number, where in owned if number) or "by nobody"
    seen = [(s.live, "live locals"), (s.guest, "live locals of a destructor's activations"), (s.window, "copies on their way to Wasm")]
    seen += [(s.dead + s.guest_dead, "stale words")]
    frames = "".join(f"; {what}: {number}" for number, what in seen if number)
    inside = f", destructors running inside: {s.depth}" if s.depth else ""
    counted = ", the root's count yet to follow" if s.owed else ""
    return f"{LIVES[s.life]}, count {s.ref_count}, owned {places}{frames}; {PHASES[s.phase]}{inside}{counted}, room for {s.room}"
