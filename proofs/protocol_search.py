"""A search of the concrete reading finds a shortest way from the initial state to a bad one, or that there is none within bounds.

The text that is searched is the text that is proved: `proofs.protocol_steps`, with or without a defect put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proofs.protocol import EMPTY, State, Truth, describe
from proofs.protocol_steps import Step

# How far each number may go. What a defect needs beyond that, it says.
CAPS_USUAL: Final[Mapping[str, int]] = {
    "life": 4,
    "ref_count": 4,
    "held": 2,
    "cells": 1,
    "fields": 1,
    "chunk": 1,
    "over": 1,
    "precise": 1,
    "sweeping": 1,
    "carried": 1,
    "owed": 1,
    "live": 1,
    "dead": 1,
    "guest": 1,
    "guest_dead": 0,
    "window": 1,
    "phase": 6,
    "depth": 1,
    "room": 1,
    "touched": 1,
    "destroyed": 2,
}
START: Final = EMPTY._replace(room=1)
# Most steps of the searches here end long before.
STATES_MAX: Final = 1_000_000


class TooManyStates(Exception):
    """A search has met more states than it may; it found nothing and proves nothing."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken, with its parameters, and the state afterwards."""

    step: Step
    arguments: tuple[int, ...]
    state: State

    def text(self) -> str:
        """Say it in a line."""
        shown = f" ({', '.join(map(str, self.arguments))})" if any(self.arguments) else ""
        return f"{self.step.name}{shown}: {describe(self.state)}"


@dataclass(frozen=True)
class Searched:
    """What a search has seen.

    Args:
        states: How many states it has met.
        fired: How often each step could be taken, by name.
        way: A shortest way to a state that was looked for; None if there is none.
    """

    states: int
    fired: dict[str, int]
    way: tuple[Taken, ...] | None


def search(
    steps: Iterable[Step],
    found: Callable[[State], Truth],
    caps: Mapping[str, int] = CAPS_USUAL,
    states_max: int = STATES_MAX,
) -> Searched:
    """Look breadth first for a state, from the initial one on.

    Args:
        steps: What can happen.
        found: Whether this is such a state.
        caps: Largest number for each part of the state; what goes beyond is not looked at.
        states_max: Most states to be met.

    Raises:
        TooManyStates: There are more.

    Complexity: linear in states and transitions.
    """
    taken = tuple(steps)
    limits = State(**caps)
    fired = dict.fromkeys((step.name for step in taken), 0)
    came: dict[State, tuple[State, Step, tuple[int, ...]] | None] = {START: None}
    if found(START):
        return Searched(1, fired, ())
    queue = [START]
    for state in queue:
        for step in taken:
            for arguments, after in step.taken(state, 1):
                fired[step.name] += 1
                if after in came or any(number > limit for number, limit in zip(after, limits, strict=True)):
                    continue
                came[after] = (state, step, arguments)
                if found(after):
                    return Searched(len(came), fired, _way(came, after))
                if len(came) > states_max:
                    raise TooManyStates(f"more than {states_max} states")
                queue.append(after)
    return Searched(len(came), fired, None)


def _way(came: Mapping[State, tuple[State, Step, tuple[int, ...]] | None], last: State) -> tuple[Taken, ...]:
    way: list[Taken] = []
    origin = came[last]
    while origin is not None:
        before, step, arguments = origin
        way.append(Taken(step, arguments, last))
        last = before
        origin = came[before]
    return tuple(reversed(way))
