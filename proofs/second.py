"""A second solver answers the same SMT-LIB text, and knows nothing of the first: bitwuzla for words, cvc5 for integers."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final

from proofs.obligations import Claim, Obligation, Verdict
from proofs.smtlib import script
from proofs.solving import conjuncts

NAMES: Final = {"words": "bitwuzla", "integers": "cvc5"}
_ANSWERS: Final = {"unsat": Verdict.PROVED, "sat": Verdict.REFUTED}


def missing_solvers() -> list[str]:
    """Return the names of the second solvers that are not installed."""
    return [name for name in NAMES.values() if find_spec(name) is None]


def second_verdict(obligation: Obligation, claim: Claim, seconds: float) -> Verdict:
    """Ask the second solver about a claim.

    Args:
        obligation: Whose claim it is.
        claim: The claim.
        seconds: Limit of the answer.
    """
    parts = [claim.goal] if obligation.expected is Verdict.REFUTED else list(conjuncts(claim.goal))
    verdicts = {_answered(obligation, script(obligation, claim, part), seconds) for part in parts}
    for verdict in (Verdict.REFUTED, Verdict.UNKNOWN):
        if verdict in verdicts:
            return verdict
    return Verdict.PROVED


def _answered(obligation: Obligation, text: str, seconds: float) -> Verdict:
    # The answer that the script expects is no business of the solver's: cvc5 reports another one as an error.
    text = re.sub(r"^\(set-info :status .*\n", "", text, flags=re.MULTILINE)
    answer = _bitwuzla(text, seconds) if obligation.theory == "words" else _cvc5(text, seconds)
    return _ANSWERS.get(answer, Verdict.UNKNOWN)


def _bitwuzla(text: str, seconds: float) -> str:
    import bitwuzla

    options = bitwuzla.Options()
    options.set(bitwuzla.Option.TIME_LIMIT_PER, max(1, int(seconds * 1000)))
    parser = bitwuzla.Parser(bitwuzla.TermManager(), options)
    # Only parsed: to run the script's own `check-sat` would print the answer.
    parser.parse(text, True, False)
    return str(parser.bitwuzla().check_sat())


def _cvc5(text: str, seconds: float) -> str:
    import cvc5

    solver = cvc5.Solver(cvc5.TermManager())
    solver.setOption("tlimit-per", str(max(1, int(seconds * 1000))))
    symbols = cvc5.SymbolManager(solver)
    parser = cvc5.InputParser(solver, symbols)
    parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "claim")
    answer = ""
    while True:
        command = parser.nextCommand()
        if command.isNull():
            return answer
        answer = str(command.invoke(solver, symbols)).strip() or answer
