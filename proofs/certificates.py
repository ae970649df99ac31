"""A certificate lets anyone check a proof without trusting a solver: clauses, and a DRAT proof that they contradict each other.

Arrays are eliminated first: a load behind stores becomes a choice between what was stored and a load of the content at first, and
such loads become variables that are equal where their addresses are. What is left are words, which the solver's tactics turn into
clauses. `cadical` refutes these and writes down how, and `dratify` checks each step of that.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Final

import z3

from proofs.obligations import Claim, Obligation, Verdict
from proofs.smtlib import rebuilt, standard
from proofs.solving import conjuncts

# All parts of one obligation together.
SECONDS_MAX: Final = 60.0
MEMORY_MAX_BYTES: Final = 4 << 30
CHECKER: Final = """
import sys, dratify
formula = dratify.parse_dimacs_file(sys.argv[1])
with open(sys.argv[2]) as file:
    checked = dratify.check_proof(formula, file.read())
print(checked.reason)
sys.exit(0 if checked.ok and checked.reached_empty else 1)
"""


@dataclass(frozen=True)
class Certificate:
    """What came of the attempt to certify an obligation.

    Args:
        checked: Whether each part has a certificate, and the checker has accepted it.
        rejected: Whether the checker has refused one, or the clauses can be satisfied.
        clauses: How many there are in all parts.
        reason: Why there is none, if there is none.
    """

    checked: bool
    rejected: bool = False
    clauses: int = 0
    reason: str = ""


def missing_tools() -> list[str]:
    """Return the names of what certification needs and is not installed."""
    missing = [] if shutil.which("cadical") else ["cadical"]
    return missing if find_spec("dratify") else [*missing, "dratify"]


def certify(obligation: Obligation, seconds: float = SECONDS_MAX) -> Certificate:
    """Make and check a certificate for each part of an obligation that is proved.

    Args:
        obligation: The obligation.
        seconds: For all of it.
    """
    if obligation.expected is not Verdict.PROVED:
        return Certificate(checked=False, reason="refuted: its witness was replayed instead")
    if obligation.theory != "words":
        return Certificate(checked=False, reason="unbounded integers have no finite number of bits")
    ends = time.monotonic() + seconds
    clauses = 0
    with tempfile.TemporaryDirectory(prefix="drc-certificate-") as folder:
        try:
            for claim in obligation.claims():
                for part in conjuncts(claim.goal):
                    came = _certify_part(claim, part, Path(folder), ends)
                    clauses += came.clauses
                    if not came.checked:
                        return came
        except (subprocess.TimeoutExpired, TimeoutError):
            return Certificate(checked=False, clauses=clauses, reason=f"takes more than {seconds:g} s")
    return Certificate(checked=True, clauses=clauses)


def _certify_part(claim: Claim, part: z3.BoolRef, folder: Path, ends: float) -> Certificate:
    """Certify that the assumptions and the negation of a part of the goal contradict each other."""
    text = dimacs(z3.And(*claim.assumptions.values(), z3.Not(part)), ends)
    formula, proof = folder / "formula.cnf", folder / "proof.drat"
    formula.write_text(text, encoding="ascii")
    clauses = int(text.split(maxsplit=4)[3])
    if "\n0\n" in text:
        # The empty clause is there already: nothing is left to refute.
        return Certificate(checked=True, clauses=clauses)
    solved = _run(["cadical", "-q", "--no-binary", str(formula), str(proof)], ends)
    if solved.returncode != 20:
        return Certificate(checked=False, rejected=True, clauses=clauses, reason=f"cadical ends with {solved.returncode} instead of 20")
    checked = _run([sys.executable, "-c", CHECKER, str(formula), str(proof)], ends)
    if checked.returncode != 0:
        refused = (checked.stdout or checked.stderr).strip().splitlines() or ["nothing said"]
        return Certificate(checked=False, rejected=True, clauses=clauses, reason=f"the checker refused: {refused[-1]}")
    return Certificate(checked=True, clauses=clauses)


def _run(words: list[str], ends: float) -> subprocess.CompletedProcess[str]:
    """Run a program with a limit of time and of memory; it is killed and reaped when its time is over."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    # What these words are is decided above.
    return subprocess.run(words, capture_output=True, text=True, timeout=left, check=False, preexec_fn=_limit)  # noqa: S603


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))


def dimacs(formula: z3.BoolRef, ends: float | None = None) -> str:
    """Return clauses that can be satisfied if and only if a formula over words and arrays of words can.

    Args:
        formula: Arrays are only read, and stored to.
        ends: When to give up, as `time.monotonic` tells it.

    Raises:
        TimeoutError: It takes too long.
    """
    goal = z3.Goal()
    goal.add(without_arrays(standard(formula)))
    blast = z3.Then("simplify", "bit-blast", "tseitin-cnf")
    if ends is not None:
        blast = z3.TryFor(blast, max(1, int((ends - time.monotonic()) * 1000)))
    try:
        (clauses,) = blast(goal)
    except z3.Z3Exception as error:
        raise TimeoutError(str(error)) from error
    lines = str(clauses.dimacs(include_names=False)).splitlines()[1:]
    # The header that comes with them counts variables and leaves gaps between their numbers; the format wants the largest.
    largest = max((abs(int(literal)) for line in lines for literal in line.split()), default=0)
    return "\n".join([f"p cnf {largest} {len(lines)}", *lines, ""])


def without_arrays(formula: z3.BoolRef) -> z3.BoolRef:
    """Return a formula without arrays that can be satisfied if and only if the given one can."""
    loads: dict[int, list[tuple[z3.ExprRef, z3.ExprRef]]] = {}
    done: dict[int, z3.ExprRef] = {}

    def load(array: z3.ExprRef, index: z3.ExprRef) -> z3.ExprRef:
        if z3.is_store(array):
            inner, place, word = array.children()
            return z3.If(index == rewritten(place), rewritten(word), load(inner, index))
        if not z3.is_const(array):
            raise TypeError(f"arrays are only read and stored to, and this is neither: {array.decl()}")
        known = loads.setdefault(array.get_id(), [])
        for other, word in known:
            if other.eq(index):
                return word
        word = z3.BitVec(f"{array.decl().name()} at {len(known)}", array.sort().range().size())
        known.append((index, word))
        return word

    def rewritten(node: z3.ExprRef) -> z3.ExprRef:
        if node.get_id() not in done:
            if z3.is_select(node):
                array, index = node.children()
                done[node.get_id()] = load(array, rewritten(index))
            elif node.num_args() == 0:
                done[node.get_id()] = node
            else:
                children = [rewritten(child) for child in node.children()]
                done[node.get_id()] = rebuilt(node, children)
        return done[node.get_id()]

    plain = rewritten(formula)
    equal = [z3.Implies(a == b, x == y) for known in loads.values() for (a, x), (b, y) in combinations(known, 2)]
    return z3.And(plain, *equal)
