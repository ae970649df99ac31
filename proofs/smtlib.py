"""Each claim is a self-contained SMT-LIB 2 file: what it says in words, which answer is expected, and of which source it speaks."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import z3

from proofs.obligations import Claim, Obligation, Verdict

STATUS: Final = {Verdict.PROVED: "unsat", Verdict.REFUTED: "sat"}


def claim_name(obligation: Obligation, claim: Claim) -> str:
    """Return a name for a claim that can name a file."""
    part = re.sub(r"[^a-z0-9]+", "-", claim.part.lower()).strip("-")
    return f"{obligation.name}--{part}" if part else obligation.name


def source_hash(functions: tuple[Callable[..., object], ...]) -> str:
    """Return a hash of the source of functions: 16 hex digits."""
    digest = hashlib.sha256()
    for function in functions:
        digest.update(inspect.getsource(function).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def standard(formula: z3.ExprRef) -> z3.ExprRef:
    """Return an equal formula without conjunctions and disjunctions of one: the standard has none, and other solvers refuse them."""
    done: dict[int, z3.ExprRef] = {}
    waiting = [formula]
    while waiting:
        node = waiting[-1]
        missing = [child for child in node.children() if child.get_id() not in done]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        children = [done[child.get_id()] for child in node.children()]
        if len(children) == 1 and (z3.is_and(node) or z3.is_or(node)):
            done[node.get_id()] = children[0]
        elif all(new.eq(old) for new, old in zip(children, node.children(), strict=True)):
            done[node.get_id()] = node
        else:
            done[node.get_id()] = rebuilt(node, children)
    return done[formula.get_id()]


def rebuilt(node: z3.ExprRef, children: list[z3.ExprRef]) -> z3.ExprRef:
    """Return a term with the same function at its top, and other arguments."""
    if z3.is_and(node):
        return z3.And(*children)
    if z3.is_or(node):
        return z3.Or(*children)
    if z3.is_distinct(node):
        return z3.Distinct(*children)
    return node.decl()(*children)


def logic(obligation: Obligation, script: str) -> str:
    """Return the SMT-LIB name of the smallest usual logic that a script is in."""
    if obligation.theory == "integers":
        return "ALL"
    return "QF_ABV" if "(Array " in script else "QF_BV"


def script(obligation: Obligation, claim: Claim, goal: z3.BoolRef | None = None) -> str:
    """Return the text of a file that asks whether the assumptions hold and the goal fails.

    Args:
        obligation: Whose claim it is.
        claim: The claim.
        goal: A part of the claim's goal; all of it by default.
    """
    asked = z3.Solver()
    failing = z3.Not(claim.goal if goal is None else goal)
    asked.add(*(standard(condition) for condition in claim.assumptions.values()), standard(failing))
    body: str = asked.sexpr()
    head = [
        f"; {obligation.name}{f' ({claim.part})' if claim.part else ''}",
        f"; {obligation.statement}",
        *(f"; assuming: {name}" for name in claim.assumptions),
        f"; about: {', '.join(function.__qualname__ for function in obligation.functions)}",
        f"; expected: {obligation.expected.value}",
        f'(set-info :source "drc-check, functions of hash {source_hash(obligation.functions)}")',
        f"(set-info :status {STATUS[obligation.expected]})",
        f"(set-logic {logic(obligation, body)})",
    ]
    return "\n".join([*head, body.rstrip(), "(check-sat)", ""])


def write_files(obligations: list[Obligation], folder: Path) -> list[Path]:
    """Write one file for each claim, each whole or not at all, and return their paths.

    Args:
        obligations: What to write.
        folder: Is made if it is not there.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for obligation in obligations:
        for claim in obligation.claims():
            path = folder / f"{claim_name(obligation, claim)}.smt2"
            _replace(path, script(obligation, claim))
            written.append(path)
    return written


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".smt2-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
