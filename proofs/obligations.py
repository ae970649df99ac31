"""An obligation is a statement, the verdict that is expected of a solver, and how to build the formulas from the functions it is about.

A subject is a module with a function `obligations`; `obligations` here collects them all. Formulas are built when they are asked for:
to list what there is costs no solver's time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Final, Literal, TypeAlias

import z3

Replay: TypeAlias = Callable[[Mapping[str, int | bool]], str]
Theory: TypeAlias = Literal["words", "integers"]


class Verdict(Enum):
    """What a solver says of a claim: it holds always, it fails somewhere, or the solver gave up."""

    PROVED = "proved"
    REFUTED = "refuted"
    UNKNOWN = "unknown"


class WitnessRefuted(Exception):
    """A witness did not show on the concrete function what the solver said it would. The message tells what happened instead."""


@dataclass(frozen=True)
class Claim:
    """Whenever the assumptions hold, the goal holds.

    Args:
        assumptions: By name; together they must be satisfiable. A name is a statement in words.
        goal: What follows from them.
        terms: What a witness is told in, by name, in the order in which it is told: words, integers or truth values.
        replay: Takes the values of `terms` in a witness, runs the concrete function on them, and returns what that showed in one
            line. Raises `WitnessRefuted` if it does not show it. Needed where a claim is expected to be refuted.
        part: Which part of the obligation this is, if there are several.
    """

    assumptions: dict[str, z3.BoolRef]
    goal: z3.BoolRef
    terms: dict[str, z3.ExprRef] = field(default_factory=dict)
    replay: Replay | None = None
    part: str = ""


@dataclass(frozen=True)
class Obligation:
    """One statement about functions, to be proved, or to be refuted on purpose.

    Args:
        name: Unique among all obligations: lower case, words joined by hyphens.
        subject: The chapter it belongs to.
        statement: In words, for a reader who does not know the code.
        expected: `PROVED` if every claim must hold, `REFUTED` if every claim must fail.
        build: Makes the claims. May raise what the functions under proof raise on words that they cannot handle.
        functions: What it is about; their source is hashed, so that a stored formula can be told from an outdated one.
        theory: "words" for bit vectors and arrays of them, "integers" for what has unbounded integers in it.
    """

    name: str
    subject: str
    statement: str
    expected: Verdict
    build: Callable[[], Claim | list[Claim]]
    functions: tuple[Callable[..., object], ...]
    theory: Theory = "words"

    def claims(self) -> list[Claim]:
        """Build the claims; at least one.

        Raises:
            ValueError: There is none, two parts have one name, or a claim that is expected to be refuted cannot be replayed.
        """
        built = self.build()
        claims = built if isinstance(built, list) else [built]
        if not claims:
            raise ValueError(f"{self.name}: no claim was built")
        if len({claim.part for claim in claims}) != len(claims):
            raise ValueError(f"{self.name}: two parts have one name")
        if self.expected is Verdict.REFUTED and any(claim.replay is None or not claim.terms for claim in claims):
            raise ValueError(f"{self.name}: its witness could be neither told nor replayed")
        return claims


def statement(about: Callable[..., object]) -> str:
    """Return the first paragraph of a docstring, on one line: the statement of the obligation that the function builds.

    Raises:
        ValueError: There is none.
    """
    paragraph = (about.__doc__ or "").partition("\n\n")[0]
    if not paragraph.strip():
        raise ValueError(f"{about.__name__} states nothing")
    return " ".join(paragraph.split())


# Modules with a function `obligations() -> list[Obligation]`, in the order in which they are reported.
SUBJECTS: Final = (
    "proofs.layout",
    "proofs.memory_operations",
    "proofs.chunk",
    "proofs.allocator",
    "proofs.walk",
    "proofs.memory_refuted",
    "proofs.lookup",
    "proofs.lookup_refuted",
    "proofs.registration",
    "proofs.registry_arrays",
    "proofs.images",
    "proofs.image_loops",
    "proofs.registry_growth",
    "proofs.registry_refuted",
    "proofs.counting",
)


def obligations() -> list[Obligation]:
    """Return the obligations of all subjects, in a fixed order.

    Raises:
        ValueError: Two have one name.
    """
    found: list[Obligation] = []
    for subject in SUBJECTS:
        found += import_module(subject).obligations()
    twice = [name for name, count in Counter(obligation.name for obligation in found).items() if count > 1]
    if twice:
        raise ValueError(f"two obligations have one name: {', '.join(twice)}")
    return found
