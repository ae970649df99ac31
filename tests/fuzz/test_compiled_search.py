"""The compiled search counts what the interpreted one counts, whatever its workers, its memory and its interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import drc
from fuzz.check_scopes import CHECK_SCOPES, DEEP_SCOPES
from fuzz.compiled import crew, kernel
from fuzz.compiled import search as search_module
from fuzz.compiled.search import CompiledExplorer
from fuzz.compiled.world import REGISTERS
from fuzz.explore import Bounds, Explorer, Search
from fuzz.states import JointStates
from fuzz.workers import HarnessFailure

ROOT = Path(__file__).resolve().parents[2]
# `rescue` takes the interpreted search a minute; its first levels are compared below.
SCOPES = tuple(name for name in CHECK_SCOPES if name != "rescue")


def told(found: Search) -> tuple[object, ...]:
    return found.states, found.transitions, found.depth, found.waiting, found.arriving, found.counts, list(map(bool, found.shown))


@pytest.mark.parametrize("symmetry", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
def test_states_steps_depth_and_executions_are_those_of_the_interpreted_search(scope: str, symmetry: bool) -> None:
    explorer = CompiledExplorer(CHECK_SCOPES[scope], symmetry=symmetry)
    oracle = Explorer(JointStates(CHECK_SCOPES[scope], symmetry=symmetry))
    assert told(explorer.run()) == told(oracle.run())
    assert (explorer.violation, explorer.search.complete) == (None, True)


def test_the_first_levels_of_a_search_with_many_destructors_are_counted_alike() -> None:
    limits, bounds = CHECK_SCOPES["rescue"], Bounds(depth=6)
    explorer = CompiledExplorer(limits, symmetry=True, bounds=bounds)
    oracle = Explorer(JointStates(limits, symmetry=True), bounds=bounds)
    assert told(explorer.run()) == told(oracle.run())
    assert explorer.reached == oracle.reached == "depth 6"


def test_each_state_has_the_parent_and_the_step_that_the_interpreted_search_gives_it() -> None:
    found = CompiledExplorer(CHECK_SCOPES["calls"], symmetry=False).run()
    oracle = Explorer(JointStates(CHECK_SCOPES["calls"], symmetry=False)).run()
    assert (list(found.parents), list(found.ordinals)) == (list(oracle.parents), list(oracle.ordinals))


@pytest.mark.parametrize(("jobs", "memory_max"), [(2, None), (3, 0)])
def test_neither_workers_nor_files_change_a_count(
    jobs: int, memory_max: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = CompiledExplorer(DEEP_SCOPES["deep-calls"], symmetry=True).run()
    monkeypatch.setattr(search_module, "_MANY_STATES", 100)
    explorer = CompiledExplorer(DEEP_SCOPES["deep-calls"], symmetry=True, jobs=jobs, memory_max=memory_max, folder=tmp_path)
    found = explorer.run()
    assert (told(found), found.shown) == (told(alone), alone.shown)
    assert (explorer.frontier.spilled + explorer.following.spilled > 0) == (memory_max == 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_blocks_that_are_left_midway_are_expanded_again_and_change_no_count(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = CompiledExplorer(CHECK_SCOPES["calls"], symmetry=False).run()
    monkeypatch.setattr(search_module, "_MANY_STATES", 0)
    monkeypatch.setattr(crew, "BUDGET", 37)
    explorer = CompiledExplorer(CHECK_SCOPES["calls"], symmetry=False, jobs=jobs)
    looks, stops, left_midway = 0, [3], 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        if looks < stops[-1]:
            return False
        stops.append(looks + 2 + looks // 5)
        return True

    monkeypatch.setattr(explorer, "_stop", stop)
    while not explorer.search.complete:
        explorer.run()
        left_midway += any(part.status == kernel.BUDGET_SPENT and part.control.words[kernel.MIDWAY] for part in explorer.parts)
    assert left_midway > 10
    assert (told(explorer.search), explorer.search.shown) == (told(undisturbed), undisturbed.shown)
    assert (list(explorer.search.parents), list(explorer.search.ordinals)) == (list(undisturbed.parents), list(undisturbed.ordinals))


def test_a_bound_ends_a_search_and_is_named() -> None:
    explorer = CompiledExplorer(DEEP_SCOPES["deep-calls"], symmetry=True, bounds=Bounds(states=1000))
    found = explorer.run()
    assert explorer.reached == "1,000 states"
    assert 1000 <= found.states < 2000
    assert not found.complete
    explorer = CompiledExplorer(DEEP_SCOPES["deep-calls"], symmetry=True, bounds=Bounds(seconds=0))
    assert (explorer.run().transitions, explorer.reached) == (0, "0 seconds")


def test_a_violation_that_only_one_reading_finds_is_a_failure_of_the_harness() -> None:
    explorer = CompiledExplorer(CHECK_SCOPES["calls"], symmetry=False)
    # An invariant that compiled code compares with other words: those that never change, of which one is changed.
    plan = explorer.machine.w[REGISTERS["plan_at"]]
    explorer.machine.w[plan] += 1
    with pytest.raises(HarnessFailure, match="the two readings differ"):
        explorer.run()


# The command.


def check(*arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "drc.py"), "check", "--fast", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def found_by(*arguments: str, folder: Path, **environment: str) -> tuple[int, dict[str, Any]]:
    process = check(*arguments, "--json", folder=folder, **environment)
    out, err = process.communicate(timeout=240)
    assert out, err
    return process.returncode, json.loads(out)


def test_a_search_that_is_killed_three_times_ends_as_one_that_was_not(tmp_path: Path) -> None:
    arguments: tuple[str, ...] = ("--scope", "deep-globals", "--no-symmetry")
    code, undisturbed = found_by(*arguments, folder=tmp_path)
    assert (code, undisturbed["states"], undisturbed["transitions"]) == (0, 242_040, 2_204_802)
    path = tmp_path / "search"
    arguments += ("--checkpoint", str(path), "--checkpoint-seconds", "0")
    for number in (1, 2, 3):
        process = check(*arguments, *(["--resume"] if path.exists() else []), folder=tmp_path)
        seen = path.stat().st_ino if path.exists() else 0
        changes = 0
        while changes < 6 * number and process.poll() is None:
            now = path.stat().st_ino if path.exists() else 0
            changes += now != seen
            seen = now
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert found_by(*arguments, "--resume", "--jobs", "2", "--spill-after", "0", folder=tmp_path) == (0, undisturbed)


def test_an_interruption_ends_the_search_cleanly_and_it_can_be_resumed(tmp_path: Path) -> None:
    path = tmp_path / "search"
    arguments = ("--scope", "deep-globals", "--no-symmetry", "--checkpoint", str(path), "--checkpoint-seconds", "0")
    process = check(*arguments, "--jobs", "2", folder=tmp_path)
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; this is what was done so far" in err
    code, found = found_by(*arguments, "--resume", folder=tmp_path)
    assert (code, found["states"], found["complete"]) == (0, 242_040, True)


def test_a_checkpoint_of_the_other_reading_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "search")
    assert drc.main(["check", "--fast", "--scope", "modules", "--checkpoint", path]) == 0
    assert drc.main(["check", "--no-fast", "--scope", "modules", "--checkpoint", path, "--resume"]) == 2
    assert "of a search with another reading" in capsys.readouterr().err
    assert drc.main(["check", "--fast", "--scope", "modules", "--checkpoint", path, "--resume"]) == 0


@pytest.mark.parametrize(("mutant", "scope"), [("CVE-2021-39216", "transfers"), ("sweep-never-over", "calls")])
def test_both_readings_tell_the_same_first_violation_of_a_mutant(mutant: str, scope: str, tmp_path: Path) -> None:
    """Its trace, its verdict, and how many states and steps came before it."""
    arguments = ("--scope", scope, "--no-symmetry")
    fast = found_by(*arguments, folder=tmp_path / "..", DRC_MUTANT=mutant, DRC_MUTANT_QUIET="1")
    plain = found_by(*arguments, "--no-fast", folder=tmp_path / "..", DRC_MUTANT=mutant, DRC_MUTANT_QUIET="1")
    assert fast[0] == plain[0] == 1
    for name in ("verdict", "text", "trace", "steps", "operations"):
        assert fast[1]["finding"][name] == plain[1]["finding"][name]
    assert (fast[1]["states"], fast[1]["transitions"], fast[1]["depth"]) == (plain[1]["states"], plain[1]["transitions"], plain[1]["depth"])


@pytest.mark.parametrize("arguments", [("--exact",), ("--dump", "graph.dot")])
def test_what_compiled_code_cannot_do_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["check", "--fast", *arguments]) == 2
    assert f"--fast does not go with {arguments[0]}" in capsys.readouterr().err
