"""`drc prove` says what was proved, on stdout the same each time, and ends in the exit code that fits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import z3

import drc
from proofs import certificates, command, lookup_refuted, obligations, second
from proofs.certificates import Certificate
from proofs.command import Told
from proofs.obligations import Claim, Obligation, Verdict

NAMES = ["bytes-to-words-is-exact", "naive-midpoint"]


def prove(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = drc.main(["prove", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_what_is_as_expected_is_exit_code_zero_and_the_same_bytes_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = prove(capsys, *NAMES)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["subject", "obligation", "verdict", "assumptions"]
    assert [line.split() for line in lines[1:3]] == [["layout", NAMES[0], "proved", "0"], ["lookup", NAMES[1], "refuted", "1"]]
    assert lines[-1] == "2 obligations: 1 proved, 1 refuted on purpose, 0 unknown: all as expected"
    assert "naive-midpoint: Half of a sum of words lies between them." in out
    assert "2 of 2 obligations in" in err
    assert prove(capsys, *reversed(NAMES))[1] == out


def test_several_processes_give_the_same_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert prove(capsys, *NAMES, "--jobs", "2")[:2] == prove(capsys, *NAMES)[:2]


def test_a_subject_stands_for_its_obligations(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = prove(capsys, "registry", "--list")
    assert code == 0
    assert "registry: seeds-overlap-test (refuted)" in out
    assert "layout: " not in out


def test_json_is_one_object_without_times(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = prove(capsys, *NAMES, "--json")
    told = json.loads(out)
    assert (code, told["as_expected"]) == (0, True)
    proved, refuted = told["obligations"]
    assert (proved["name"], proved["verdict"], proved["witnesses"]) == (NAMES[0], "proved", [])
    assert (refuted["verdict"], refuted["assumptions"], refuted["problems"]) == ("refuted", ["low < high"], [])
    ((low, high),) = [(witness["values"]["low"], witness["values"]["high"]) for witness in refuted["witnesses"]]
    assert low + high >= 1 << 64
    assert "second_solver" not in proved
    listed = json.loads(prove(capsys, "--list", "--json")[1])
    assert [entry["name"] for entry in listed] == [obligation.name for obligation in obligations.obligations()]


def test_smt2_writes_each_claim(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = prove(capsys, *NAMES, "--smt2", str(tmp_path / "out"))
    assert code == 0
    assert f"2 files written to {tmp_path / 'out'}" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.smt2" for name in NAMES]


def test_a_second_solver_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = prove(capsys, *NAMES, "--second-solver")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["agrees", "agrees"]


def plant(monkeypatch: pytest.MonkeyPatch, *planted: Obligation) -> None:
    monkeypatch.setattr(lookup_refuted, "obligations", lambda: list(planted))


def claim(least: int) -> Claim:
    a = z3.BitVec("a", 64)
    return Claim({"a is small": z3.ULT(a, 10)}, z3.ULT(a, least), {"a": a}, lambda values: f"a is {values['a']}")


def obligation(least: int, expected: Verdict) -> Obligation:
    return Obligation("planted", "lookup", "A statement.", expected, lambda: claim(least), (command.answer,))


@pytest.mark.parametrize(("least", "expected"), [(5, Verdict.PROVED), (20, Verdict.REFUTED)])
def test_a_surprise_is_exit_code_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, least: int, expected: Verdict
) -> None:
    plant(monkeypatch, obligation(least, expected))
    code, out, _ = prove(capsys, "planted")
    assert code == 1
    assert f"where {expected.value} was expected: A statement." in out
    assert out.splitlines()[-1].endswith("not all as expected")


def test_a_disagreement_of_solvers_is_exit_code_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, obligation(20, Verdict.PROVED))
    monkeypatch.setattr(second, "second_verdict", lambda *_: Verdict.REFUTED)
    code, out, _ = prove(capsys, "planted", "--second-solver")
    assert code == 1
    assert "planted: the solvers disagree" in out


def test_a_refused_certificate_is_exit_code_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, obligation(20, Verdict.PROVED))
    monkeypatch.setattr(certificates, "missing_tools", list)
    monkeypatch.setattr(certificates, "certify", lambda _: Certificate(checked=False, rejected=True, reason="step 1 does not follow"))
    code, out, _ = prove(capsys, "planted", "--certify")
    assert code == 1
    assert "planted: the certificate is refused: step 1 does not follow" in out


def test_a_solver_that_gives_up_is_inconclusive(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = z3.BitVecs("a b", 64)
    factors = z3.And(z3.UGT(a, 1), z3.UGT(b, 1), z3.ULT(a, 1 << 31), z3.ULT(b, 1 << 31))
    hard = Claim({"both are factors": factors}, a * b != 2305843009213693951)
    plant(monkeypatch, Obligation("planted", "lookup", "A statement.", Verdict.PROVED, lambda: hard, (command.answer,)))
    code, out, err = prove(capsys, "planted", "--seconds", "0.2")
    assert code == 3
    assert "drc: inconclusive" in err
    assert out.splitlines()[-1].endswith("not all as expected")


def test_an_interruption_tells_what_is_known(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = command._answers

    def first_of(*arguments: Any) -> Iterator[Told]:
        yield next(iter(real(*arguments)))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_answers", first_of)
    code, out, err = prove(capsys, *NAMES)
    assert code == 130
    assert NAMES[0] in out
    assert "1 of 2 obligations" in err
    assert "interrupted" in err


@pytest.mark.parametrize(("ends", "told"), [(lambda: os._exit(9), "died with exit code 9"), (lambda: 1 // 0, "ZeroDivisionError")])
def test_a_process_that_fails_is_a_failure_of_the_harness(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ends: Any, told: str
) -> None:
    monkeypatch.setattr(command, "answer", lambda *_: ends())
    code, _, err = prove(capsys, NAMES[0])
    assert code == 4
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "drc: 'nonsense' is no obligation and no subject: drc prove --list shows what there is"),
        (["--seconds", "inf"], "drc: --seconds inf is no time"),
        (["--jobs", "0"], "drc: Invalid value for '--jobs'"),
        (["--smt2", __file__, NAMES[0]], f"drc: --smt2 {__file__}: is no folder"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_two(capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    code, out, err = prove(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_what_is_not_installed_is_named_with_its_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second, "find_spec", lambda _name: None)
    code, _, err = prove(capsys, "--second-solver")
    assert (code, "needs bitwuzla and cvc5, the extra `solvers`" in err) == (2, True)
    monkeypatch.setattr(certificates, "missing_tools", lambda: ["cadical"])
    code, _, err = prove(capsys, "--certify")
    assert (code, "--certify needs cadical" in err) == (2, True)
    monkeypatch.setattr(command, "find_spec", lambda _name: None)
    code, out, err = prove(capsys)
    assert (code, out) == (2, "")
    assert "needs z3, the extra `proofs`" in err
    assert err.count("\n") == 1
