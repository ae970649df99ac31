"""A machine that fails, a proof that fails and a proof that cannot be stated are three things; components are asked before the runtime."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import fuzz.machines.hash_set
from fuzz.machines.components import COMPONENTS, run_component
from fuzz.mutants.catalogue import load
from fuzz.mutants.cell import Orders, Outcome
from fuzz.mutants.engines import ALL_SUBJECTS, RUN, SUBJECTS
from fuzz.mutants.hook import VARIABLE
from impl.hash_set import set_insert
from proofs.obligations import obligations


def cell(engine: str, seconds: float = 0.0) -> Outcome:
    kept: list[Outcome] = []
    RUN[engine](Orders(engine, seconds, 0, ""), kept.append)
    return kept[-1]


def answering(code: int, stdout: str, stderr: str, asked: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:  # as `subprocess.run` has them
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, code, stdout, stderr)

    return run


def test_the_subjects_that_a_mutant_is_held_against_are_those_of_the_proofs() -> None:
    known = {obligation.subject for obligation in obligations()}
    assert set(ALL_SUBJECTS) == known
    assert {subject for subjects in SUBJECTS.values() for subject in subjects} == known - {"counting"}


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "expected"),
    [
        (0, "", "", ("ran", False, "")),
        (1, '{"obligations": [{"name": "tight", "verdict": "refuted", "expected": "proved"}]}', "", ("ran", True, "Refuted")),
        (4, "", "drc: internal error: RuntimeError: tight: KeyError", ("ran", True, "Unstated")),
        (4, "", "drc: the machine failed: the process for tight died with exit code 1", ("failed", False, "")),
        (2, "", "drc: drc prove needs z3", ("unavailable", False, "")),
    ],
)
def test_only_what_a_proof_says_is_a_kill(
    code: int, stdout: str, stderr: str, expected: tuple[str, bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setenv(VARIABLE, "layout-footer-misaligned")
    monkeypatch.setattr(subprocess, "run", answering(code, stdout, stderr, asked))
    outcome = cell("prove")
    assert (outcome.status, outcome.killed, outcome.verdict) == expected
    assert asked == list(SUBJECTS["layout"] if code == 0 else SUBJECTS["layout"][:1])


def test_no_proof_is_about_a_module_without_obligations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setenv(VARIABLE, next(mutant.name for mutant in load().values() if mutant.module == "transfers"))
    monkeypatch.setattr(subprocess, "run", answering(1, "", "", asked))
    assert (cell("prove").status, asked) == ("unavailable", [])


@pytest.mark.parametrize("module", COMPONENTS)
def test_the_machine_of_a_component_finds_nothing_in_the_code_as_it_is(module: str) -> None:
    assert run_component(module, seconds=0.0, seed=0) == ("", "")


def test_the_machine_of_the_mutated_component_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def always_new(mem: Any, s: int, key: int) -> int:  # any memory
        set_insert(mem, s, key)
        return 1

    monkeypatch.setattr(fuzz.machines.hash_set, "set_insert", always_new)
    monkeypatch.setenv(VARIABLE, "set-members-misplaced")
    outcome = cell("hypothesis")
    assert (outcome.killed, outcome.verdict, outcome.where) == (True, "Finding", "hash_set")
    assert outcome.text.startswith("insertion of ")


def test_a_component_that_never_answers_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_mem: Any, s: int, _key: int) -> int:  # any memory
        while s:
            pass
        return 0

    monkeypatch.setattr(fuzz.machines.hash_set, "set_contains", never)
    monkeypatch.setattr("fuzz.machines.components.BATCH_SECONDS_MAX", 0.2)
    assert run_component("hash_set", seconds=0.0, seed=0) == ("Hang", "no end after 0.2 seconds")
