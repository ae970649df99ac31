"""Stored formulas stand alone: another solver reads them, and clauses made of them are refuted with a proof that is checked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import z3

from impl.layout import round_up_to_align, words
from proofs import certificates
from proofs.certificates import certify, dimacs, missing_tools, without_arrays
from proofs.memory import at, fresh_memory
from proofs.obligations import Claim, Obligation, Verdict, obligations
from proofs.second import missing_solvers, second_verdict
from proofs.smtlib import claim_name, script, source_hash, standard, write_files

A, B = z3.BitVecs("a b", 64)
MEMORY = fresh_memory()
BY_NAME = {obligation.name: obligation for obligation in obligations()}


def obligation_of(claim: Claim, expected: Verdict = Verdict.PROVED) -> Obligation:
    return Obligation("one", "subject", "A statement.", expected, lambda: claim, (round_up_to_align,))


def equivalent(one: z3.ExprRef, other: z3.ExprRef) -> bool:
    solver = z3.Solver()
    solver.add(one != other)
    return bool(solver.check() == z3.unsat)


def test_a_file_says_what_it_is_about_and_its_answer_is_the_one_it_names(tmp_path: Path) -> None:
    chosen = [BY_NAME[name] for name in ("bytes-to-words-is-exact", "naive-midpoint", "increment-counts-one-or-aborts")]
    paths = write_files(chosen, tmp_path / "new")
    assert [path.name for path in paths] == [
        "bytes-to-words-is-exact.smt2",
        "naive-midpoint.smt2",
        "increment-counts-one-or-aborts--increment-ref-count.smt2",
        "increment-counts-one-or-aborts--clone.smt2",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        status = "sat" if path.stem == "naive-midpoint" else "unsat"
        assert f"(set-info :status {status})" in text
        solver = z3.Solver()
        solver.from_string(text)
        assert str(solver.check()) == status
    text = paths[0].read_text(encoding="utf-8")
    assert BY_NAME["bytes-to-words-is-exact"].statement in text
    assert source_hash((words,)) in text
    assert "(set-logic QF_BV)" in text


def test_the_same_obligation_is_the_same_text() -> None:
    for name in ("try-insert-keeps-the-chunk", "seeds-overlap-test"):
        texts = {script(BY_NAME[name], claim) for _ in range(2) for claim in BY_NAME[name].claims()}
        assert len(texts) == len(BY_NAME[name].claims())


def test_a_hash_is_that_of_the_source() -> None:
    assert source_hash((round_up_to_align,)) != source_hash((words,))
    assert source_hash((round_up_to_align,)) == source_hash((round_up_to_align,))


def test_names_of_parts_can_name_files() -> None:
    claim = Claim({}, z3.BoolVal(True), part="32 bits: all/any")
    assert claim_name(obligation_of(claim), claim) == "one--32-bits-all-any"


def test_the_standard_form_has_no_conjunction_of_one_and_is_the_same() -> None:
    formula = z3.Implies(z3.And(z3.Or(z3.And(A == B))), z3.And(z3.Distinct(A, B, A + 1), z3.ULT(at(MEMORY, A), 3)))
    assert equivalent(standard(formula), formula)
    assert "(and (" not in standard(z3.And(A == B)).sexpr()


def test_a_second_solver_confirms_and_contradicts() -> None:
    assert missing_solvers() == []
    for name in ("bytes-to-words-is-exact", "naive-midpoint", "sharing-a-pc-is-exact", "null-is-no-root", "seeds-overlap-test"):
        obligation = BY_NAME[name]
        assert [second_verdict(obligation, claim, 60) for claim in obligation.claims()] == [obligation.expected] * len(obligation.claims())
    wrong = Claim({"a is small": z3.ULT(A, 10)}, z3.ULT(A, 5))
    assert second_verdict(obligation_of(wrong), wrong, 60) is Verdict.REFUTED
    number = z3.Int("number")
    claim = Claim({"positive": number > 0}, number + 1 > 1)
    integers = Obligation("two", "subject", "A statement.", Verdict.PROVED, lambda: claim, (words,), theory="integers")
    assert second_verdict(integers, claim, 60) is Verdict.PROVED
    assert second_verdict(integers, Claim({}, number > 0), 60) is Verdict.REFUTED


def test_loads_become_variables_that_are_equal_where_addresses_are() -> None:
    stored = z3.Store(z3.Store(MEMORY, A, z3.BitVecVal(1, 64)), B, z3.BitVecVal(2, 64))
    for formula, satisfiable in (
        (z3.And(at(stored, A) == 1, A == B), False),
        (z3.And(at(stored, A) == 1, A != B), True),
        (z3.And(at(MEMORY, A) != at(MEMORY, B), A == B), False),
        (z3.And(at(MEMORY, A) != at(MEMORY, B)), True),
        (z3.And(at(MEMORY, at(MEMORY, A)) != at(MEMORY, at(MEMORY, B)), at(MEMORY, A) == at(MEMORY, B)), False),
    ):
        solver = z3.Solver()
        solver.add(without_arrays(formula))
        assert solver.check() == (z3.sat if satisfiable else z3.unsat)
        assert "Array" not in solver.sexpr()


def test_clauses_have_a_header_that_counts_them() -> None:
    lines = dimacs(z3.And(A == B, z3.ULT(A, 3), z3.UGT(B, 1))).splitlines()
    _, _, largest, count = lines[0].split()
    assert int(count) == len(lines) - 1
    assert int(largest) == max(abs(int(literal)) for line in lines[1:] for literal in line.split())


def test_a_proof_is_certified_and_a_false_claim_is_not() -> None:
    if missing_tools():
        # `cadical` comes with a system, not with Python: what a user sees without it is tested with the command.
        assert missing_tools() == ["cadical"]
        return
    came = certify(BY_NAME["null-is-no-root"])
    assert (came.checked, came.rejected, came.reason) == (True, False, "")
    assert came.clauses > 0
    wrong = certify(obligation_of(Claim({"a is small": z3.ULT(A, 10)}, z3.ULT(A, 5))))
    assert (wrong.checked, wrong.rejected, wrong.reason) == (False, True, "cadical ends with 10 instead of 20")


def test_a_certificate_that_proves_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "cadical"
    fake.write_text('#!/bin/sh\n: > "$4"\nexit 20\n', encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(shutil.which('sh') or '/bin/sh').parent}")
    came = certify(obligation_of(Claim({"a is small": z3.ULT(A, 10)}, z3.ULT(A * A, 100))))
    assert (came.checked, came.rejected) == (False, True)
    assert came.reason.startswith("the checker refused: ")


def test_what_has_no_certificate_says_why() -> None:
    assert certify(BY_NAME["naive-midpoint"]).reason == "refuted: its witness was replayed instead"
    integers = Obligation("two", "subject", "A statement.", Verdict.PROVED, list, (words,), theory="integers")
    assert certify(integers).reason == "unbounded integers have no finite number of bits"
    assert certificates.certify(BY_NAME["bytes-to-words-is-exact"], seconds=0.0).reason == "takes more than 0 s"
