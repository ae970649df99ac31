"""The compiled search of the model alone is the interpreted one, state by state and step by step, and so is what it says of a defect."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drc
import model.books
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.checkpoint import CheckpointError, purpose
from fuzz.compiled import seams, small
from fuzz.compiled.keeping import restore
from fuzz.compiled.machine import Machine
from fuzz.compiled.model_search import CompiledModelExplorer
from fuzz.compiled.rows import Row
from fuzz.compiled.world import REGISTERS, STATE_AT
from fuzz.explore import Bounds, Search
from fuzz.model_search import ModelExplorer
from fuzz.model_states import ModelStates, blind
from fuzz.small_steps import closing_row, first_state, kept_row, names_at, names_width, pending
from fuzz.workers import HarnessFailure
from model.limits import Limits, with_numbers
from model.step import closing_kind, closing_name

ROOT = Path(__file__).resolve().parents[2]
PEERS = with_numbers(CHECK_SCOPES["peers"], {"objects": 2, "roots": 2})
SCOPES = {
    **CHECK_SCOPES,
    "peers of two": PEERS,
    # Values own values, and two destructors act inside each other: symmetry has ties to break.
    "owners": with_numbers(CHECK_SCOPES["counting"], {"objects": 3, "roots": 2, "fields": 1, "leaks": 0, "destructors": 0}),
    "owners of two": with_numbers(CHECK_SCOPES["layouts"], {"objects": 3, "roots": 3, "fields": 2}),
    "nested": with_numbers(CHECK_SCOPES["nesting"], {"objects": 3, "roots": 2, "destructor_ops": 1}),
}


def everything(search: Search) -> dict[str, Any]:
    """All that a search has counted and numbered."""
    return {
        "states": search.states,
        "transitions": search.transitions,
        "depth": search.depth,
        "counts": list(search.counts),
        "shown": list(search.shown),
        "parents": list(search.parents),
        "ordinals": list(search.ordinals),
    }


def interpreted(limits: Limits, *, symmetry: bool, finale: bool = False, exact: bool = False) -> ModelExplorer:
    explorer = ModelExplorer(ModelStates(limits, symmetry=symmetry, finale=finale, exact=exact), Search(exact=exact))
    explorer.run()
    return explorer


def compiled(limits: Limits, *, symmetry: bool, finale: bool = False, jobs: int = 1, **others: Any) -> CompiledModelExplorer:
    explorer = CompiledModelExplorer(limits, symmetry=symmetry, finale=finale, jobs=jobs, **others)
    explorer.run()
    return explorer


@pytest.mark.parametrize("symmetry", [False, True])
@pytest.mark.parametrize("name", SCOPES)
def test_both_readings_number_all_states_and_count_all_steps_alike(name: str, *, symmetry: bool) -> None:
    oracle = interpreted(SCOPES[name], symmetry=symmetry, finale=True)
    for finale in (False, True):
        explorer = compiled(SCOPES[name], symmetry=symmetry, finale=finale)
        assert (explorer.violation, oracle.violation) == (None, None)
        assert explorer.search.complete
        assert everything(explorer.search) == everything(oracle.search)


@pytest.mark.parametrize("symmetry", [False, True])
def test_two_workers_and_files_number_all_states_alike(tmp_path: Path, *, symmetry: bool) -> None:
    limits = with_numbers(CHECK_SCOPES["peers"], {"objects": 3, "roots": 3} if not symmetry else {"objects": 4, "roots": 3})
    one, two = (compiled(limits, symmetry=symmetry, jobs=jobs, memory_max=1000, folder=tmp_path) for jobs in (1, 2))
    # Fewer states than this are not worth a second process.
    assert one.search.states > 1 << 14
    assert two.frontier.spilled + two.following.spilled > 0
    assert everything(one.search) == everything(two.search)
    if not symmetry:
        assert (one.search.states, one.search.transitions) == (42_450, 98_064)


def test_a_bound_leaves_a_search_that_ends_as_one_without(tmp_path: Path) -> None:
    whole = everything(compiled(PEERS, symmetry=True).search)
    described = purpose(PEERS, symmetry=True, exact=False, model_only=True, fast=True)
    first = compiled(PEERS, symmetry=True, bounds=Bounds(states=300))
    assert first.reached == "300 states"
    assert 300 <= first.search.states < whole["states"]
    first.save(tmp_path / "search", described)
    second = CompiledModelExplorer(PEERS, symmetry=True)
    restore(tmp_path / "search", second, described)
    second.run()
    assert everything(second.search) == whole
    for other in (purpose(PEERS, symmetry=True, exact=False, model_only=True), purpose(PEERS, symmetry=True, exact=False, fast=True)):
        with pytest.raises(CheckpointError, match="another"):
            restore(tmp_path / "search", CompiledModelExplorer(PEERS, symmetry=True), other)
    assert compiled(PEERS, symmetry=True, bounds=Bounds(depth=3)).reached == "depth 3"


def words_of(state: list[int], machine: Machine) -> "memoryview[int]":
    """Make a state the one in the world; return the world."""
    world = machine.w
    for index, word in enumerate(state):
        world[STATE_AT + index] = word
    return world


def all_states(limits: Limits) -> list[list[int]]:
    """Every state of a scope, from the keys of an exact search."""
    found = interpreted(limits, symmetry=False, exact=True).search.seen
    return [[byte - 256 if byte > 127 else byte for byte in data] for data in found]


def key_of(state: list[int], machine: Machine) -> tuple[int, int]:
    world = words_of(state, machine)
    table, room, control = Row(64), Row(256), Row(64)
    machine.call(small.begin, table, 31, room, control)
    return world[REGISTERS["key_low"]], world[REGISTERS["key_high"]]


@pytest.mark.parametrize("name", ["counting", "rescue", "sweeps", "peers of two", "owners", "owners of two", "nested"])
def test_two_states_have_one_digest_if_and_only_if_they_have_one_description(name: str) -> None:
    limits = SCOPES[name]
    for symmetry in (False, True):
        machine = Machine(limits, symmetry=symmetry, state=first_state(limits))
        digests: dict[bytes, set[tuple[int, int]]] = {}
        for state in all_states(limits)[::2]:
            data = bytes(word & 255 for word in state)
            digests.setdefault(blind(data, limits) if symmetry else data, set()).add(key_of(state, machine))
        assert len(digests) > 5
        assert {len(found) for found in digests.values()} == {1}
        assert len(set.union(*digests.values())) == len(digests)


@pytest.mark.parametrize("name", ["counting", "calls", "globals", "storage", "reentrancy", "rescue", "faults", "peers of two", "nested"])
def test_the_rows_that_are_said_in_other_words_are_the_same_rows(name: str) -> None:
    """The end of an operation and the finale make rows: the plain reading as tuples, the compiled one in the world."""
    limits = SCOPES[name]
    machine = Machine(limits, state=first_state(limits))
    known: dict[str, Any] = {
        "fuzz__small_steps__names_at": lambda _w: names_at(limits),
        "fuzz__small_steps__names_width": lambda _w: names_width(limits),
        "model__step__closing_kind": lambda w: closing_kind(w[STATE_AT:], limits),
        "model__step__closing_name": lambda w: closing_name(w[STATE_AT:], limits),
    }
    for plain in (kept_row, closing_row):
        exec(seams.seams()[plain], known)  # noqa: S102  # a seam is text
    compared = 0
    for state in all_states(limits):
        world = words_of(state, machine).tolist()
        assert tuple(known["closing_row"](world)) == closing_row(state, limits)
        if pending(state):
            assert tuple(known["kept_row"](world)) == kept_row(state, limits)
            compared += 1
    assert compared > 10


# Defects.


def test_a_rule_that_only_the_plain_reading_breaks_shows_in_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.books, "touch", lambda *_: None)
    monkeypatch.setattr("fuzz.model_states.broken", lambda *_: "")
    assert everything(compiled(PEERS, symmetry=False).search) != everything(interpreted(PEERS, symmetry=False).search)


def test_a_violation_that_the_plain_reading_does_not_repeat_is_a_failure_of_the_harness() -> None:
    explorer = compiled(PEERS, symmetry=False)
    for ordinal, words in ((1, "step 1"), (small.DEADLOCK, "the state itself")):
        with pytest.raises(HarnessFailure, match=f"the two readings differ: compiled code finds a violation in state 5, {words}"):
            explorer._repeated(5, ordinal)


def append(text: str) -> Callable[[str], str]:
    return lambda source: f"{source}\n\n{text}"


REENTRANCY = ["--scope", "reentrancy", "--limit", "objects=2", "--limit", "roots=2", "--limit", "destructor_ops=1"]
TWO = ["--scope", "peers", "--limit", "objects=2", "--limit", "roots=2"]
# File, change, search, verdict, text.
DEFECTS: dict[str, tuple[dict[str, Callable[[str], str]], list[str], str, str]] = {
    "a transfer that defers nothing": (
        {"model/calls.py": lambda source: source.replace(" defer, ", " touch as defer, ")},
        TWO,
        "Property",
        "value 0 is lost: nobody owns it, no activation reads it, and its death is not deferred",
    ),
    "a collection that excepts nothing": (
        {"model/books.py": append("def kept_by(state: State, limits: Limits, names: int) -> int:\n    return 0\n")},
        ["--scope", "rescue"],
        "Deadlock",
        "an operation is under way that can neither destroy anything nor end",
    ),
    "deferrals that end unseen": (
        {
            "model/hosting.py": append(
                "from model.limits import CLOSED, DEFERRED\n\n\n"
                "def closed(state, limits, row, result):\n    state[CLOSED] = 0\n    state[DEFERRED] = 0\n"
            )
        },
        REENTRANCY,
        "Property",
        "value 1 is lost: nobody owns it, no activation reads it, and its death is not deferred",
    ),
    "what only a finale finds": (
        {
            "model/hosting.py": append("def release(state, limits, name):\n    pass\n"),
            "fuzz/small_steps.py": append("def check_properties(state, limits):\n    pass\n"),
        },
        [*TWO, "--finale"],
        "Property",
        "value 0 is left after everything was let go of, though it was not forgotten and is in no cycle",
    ),
}


def planted(changes: dict[str, Callable[[str], str]], folder: Path) -> dict[str, str]:
    """Copy the sources with a defect; return an environment in which they are compiled without much care for speed."""
    for package in ("model", "impl", "fuzz"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "drc.py", folder)
    for name, change in changes.items():
        path = folder / name
        source = path.read_text()
        path.write_text(change(source))
        assert path.read_text() != source
    command = folder / "cc"
    command.write_text(f'#!/bin/sh\nexec {shutil.which("cc") or shutil.which("gcc")} "$@" -O1\n')
    command.chmod(0o755)
    # What it says of itself is looked at: a compiler that is not GCC compiles once.
    command.write_text(command.read_text().replace("exec", 'if [ "$1" = --version ]; then exit; fi\nexec', 1))
    return {**os.environ, "CC": str(command), "DRC_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder)}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_has_the_same_first_counterexample_in_both_readings(tmp_path: Path, name: str) -> None:
    changes, arguments, verdict, text = DEFECTS[name]
    environment = planted(changes, tmp_path)
    for symmetry in ("--no-symmetry", "--symmetry"):
        told = []
        for fast in ("--no-fast", "--fast"):
            line = [sys.executable, str(tmp_path / "drc.py"), "check", *arguments, "--model-only", symmetry, fast, "--jobs", "1", "--json"]
            done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 1, done.stderr
            told.append(json.loads(done.stdout))
        assert told[0] == told[1]
        finding = told[1]["finding"]
        assert finding["verdict"] == verdict
        assert finding["text"] == text or symmetry == "--symmetry"


# The command.


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = drc.main(["check", *arguments, "--model-only", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_command_prints_the_same_in_both_readings(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (TWO, [*TWO, "--no-symmetry"], [*TWO, "--finale"], [*TWO, "--max-depth", "3"]):
        assert told(capsys, *arguments, "--fast") == told(capsys, *arguments, "--no-fast")
    assert drc.main(["check", *TWO, "--model-only", "--fast", "--exact"]) == 2
    assert "--fast does not go with --exact" in capsys.readouterr().err
    assert drc.main(["check", *TWO, "--model-only", "--fast", "--limit", "objects=8"]) == 2
    assert "has room for at most 7" in capsys.readouterr().err


def test_a_compiled_search_that_is_killed_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = ["--scope", "peers", "--limit", "objects=3", "--limit", "roots=3", "--no-symmetry", "--fast"]
    path = tmp_path / "search"
    kept = ["--checkpoint", str(path), "--checkpoint-seconds", "0"]
    line = [sys.executable, str(ROOT / "drc.py"), "check", *search, "--model-only", *kept]
    for more in ([], ["--resume"]):
        process = subprocess.Popen(
            [*line, *more], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        seen, changes = path.stat().st_ino if path.exists() else 0, 0
        while changes < 4 and process.poll() is None:
            now = path.stat().st_ino if path.exists() else 0
            changes += now != seen
            seen = now
            time.sleep(0.0005)
        assert process.poll() is None
        process.kill()
        process.communicate()
    assert told(capsys, *search, "--checkpoint", str(path), "--resume") == told(capsys, *search)
