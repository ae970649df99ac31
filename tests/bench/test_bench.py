"""Every benchmark works in its smoke size, and what it times is what it says: no statement here is about a time."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bench import __main__ as command
from bench import clock, engines, lockstep, parts
from bench.alone import ImplAlone, ModelAlone, ReplayMismatch
from bench.clock import Times, measure
from bench.recording import CONSTRUCTED, DESTROYED, OPERATIONS, Recorder
from bench.report import Report, say
from bench.workload import FULL_SIZE, SMOKE_SIZE, Workload, result_hash, workloads
from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.results import EngineResult, MissingExtra
from impl.runtime import Runtime
from model.limits import SCOPES
from model.ops import Kind

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = SCOPES["everything"]


def _smoke(scope: str = "everything") -> dict[str, Workload]:
    return {scope: Workload(SCOPES[scope], SMOKE_SIZE)}


def _python(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("scope", SCOPES)
def test_each_side_alone_goes_through_the_states_of_the_lockstep_run(scope: str) -> None:
    recorder = Recorder(SCOPES[scope])
    recordings = [recorder.record(seed, 150) for seed in range(3)]
    impl, model = ImplAlone(SCOPES[scope], recordings), ModelAlone(SCOPES[scope], recordings)
    for _ in range(2):  # what a replay leaves behind does not disturb the next one
        impl.verify()
        model.verify()
        impl.play()
        model.play()
        impl.verify_end()


def test_recording_changes_nothing_about_a_run() -> None:
    recording = Recorder(EVERYTHING).record(5, 150)
    driver = Driver(EVERYTHING)
    assert driver.run(Seeded(5), 150) == recording.outcome
    assert driver.runtime.snapshot() == recording.memory_end


def test_a_recording_hears_destructors_constructors_and_every_kind_of_step() -> None:
    recorder = Recorder(EVERYTHING)
    recordings = [recorder.record(seed, 200) for seed in range(6)]
    heard = {name for recording in recordings for name, _ in recording.events}
    assert {CONSTRUCTED, DESTROYED, "gc", "unwind", "calm"} <= heard
    assert heard <= {CONSTRUCTED, DESTROYED, *OPERATIONS}
    assert any(depth for recording in recordings for depth in recording.outcome.depths)
    ended = sum(recording.outcome.counts[Kind.END] for recording in recordings)
    assert ended > 0


@pytest.mark.parametrize("position", [0, 1, 2, 3])
def test_a_replay_that_leaves_a_call_out_is_found(position: int) -> None:
    recording = Recorder(SCOPES["counting"]).record(1, 60)
    clones = [index for index, (name, _) in enumerate(recording.events) if name == "clone"]
    left_out = clones[position]
    events = recording.events[:left_out] + recording.events[left_out + 1 :]
    broken = ImplAlone(SCOPES["counting"], [dataclasses.replace(recording, events=events)])
    with pytest.raises(ReplayMismatch, match="the implementation alone"):
        broken.verify()


def test_a_replay_that_ends_in_another_memory_is_found() -> None:
    recordings = [Recorder(EVERYTHING).record(seed, 60) for seed in (1, 2)]
    foreign = dataclasses.replace(recordings[0], memory_end=b"")
    impl = ImplAlone(EVERYTHING, [recordings[1], foreign])
    impl.play()
    with pytest.raises(ReplayMismatch, match="ended in another state"):
        impl.verify_end()


def test_a_model_that_goes_through_other_states_is_found() -> None:
    first, second = (Recorder(EVERYTHING).record(seed, 60) for seed in (1, 2))
    model = ModelAlone(EVERYTHING, [dataclasses.replace(first, script=second.script)])
    with pytest.raises(ReplayMismatch, match="the model alone"):
        model.verify()


def test_subjects_take_turns_after_one_turn_that_does_not_count() -> None:
    calls: list[str] = []
    times = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in times.seconds.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for values in times.seconds.values() for value in values)


def test_a_ratio_compares_the_same_turn() -> None:
    """A machine that becomes ten times slower between two turns leaves the ratio alone."""
    times = Times({"a": (3.0, 30.0, 31.0), "b": (1.0, 10.0, 10.0)})
    assert times.ratio("a", "b") == 3.0
    assert times.median("a") == 30.0


def test_the_calibration_counts_its_accesses() -> None:
    accesses = 0

    class Counting:
        def __getitem__(self, index: object) -> int:
            nonlocal accesses
            accesses += 1
            return 0

        def __setitem__(self, index: object, word: object) -> None:
            nonlocal accesses
            accesses += 1

    calibration = clock.Calibration()
    calibration._memory = Counting()  # type: ignore[assignment]
    calibration.accesses()
    assert clock.Calibration.nanoseconds(accesses * 1e-9) == pytest.approx(1.0)


def test_a_speed_counts_operations_of_the_driver() -> None:
    found = _smoke()
    report = lockstep.run(found)
    expected = sum(Driver(EVERYTHING).run(Seeded(seed), SMOKE_SIZE.operations_max).steps for seed in range(SMOKE_SIZE.runs))
    [row] = report.rows
    assert (row[0], row[-1]) == ("everything", expected)
    assert all(isinstance(cell, float) and cell > 0 for cell in row[1:-1])
    assert report.access_ns > 0


def test_the_parts_of_a_lockstep_run_are_named_and_add_up_in_one_turn() -> None:
    report = parts.run(_smoke())
    assert [row[1] for row in report.rows] == [*parts.PARTS, "all"]
    turn = {"full": (10.0,), "unchecked": (6.0,), "unverified": (5.0,), "given": (4.0,), "impl": (1.0,), "model": (2.0,)}
    assert parts.shares(Times(turn)) == {
        "choosing": 1.0,
        "model": 2.0,
        "implementation": 1.0,
        "driver": 1.0,
        "observing": 1.0,
        "checking": 4.0,
    }


def test_a_run_without_checks_does_not_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("checked")

    monkeypatch.setattr(Runtime, "check", refuse)
    workload = Workload(SCOPES["counting"], SMOKE_SIZE)
    driver = parts._driver(workload.limits, verify=True, check=False)
    assert driver.run(Seeded(0), 20).steps > 0
    with pytest.raises(Divergence, match="checked"):
        parts._driver(workload.limits, verify=True).run(Seeded(0), 20)


def test_hypothesis_steps_are_measured() -> None:
    pytest.importorskip("hypothesis")
    report = engines.run_hypothesis_steps(_smoke())
    [row] = report.rows
    assert row[0] == "everything"
    assert all(isinstance(cell, float | int) and cell > 0 for cell in row[1:])


def test_atheris_executions_are_measured() -> None:
    pytest.importorskip("atheris")
    report = engines.run_atheris_executions(_smoke())
    [row] = report.rows
    assert row[0] == "everything"
    assert all(isinstance(cell, float | int) and cell > 0 for cell in row[1:])


def test_an_engine_that_is_not_installed_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def absent(*_arguments: object) -> EngineResult:
        raise MissingExtra("hypothesis", "fuzz")

    monkeypatch.setattr(engines, "hypothesis_runs", absent)
    report = engines.run_hypothesis_steps(_smoke())
    assert (report.rows, report.missing) == ((), "hypothesis is not installed: pip install 'drc-check[fuzz]'")
    command._print([report], "0" * 32, {})
    assert "not measured: hypothesis is not installed: pip install 'drc-check[fuzz]'" in capsys.readouterr().out


def test_a_finding_is_no_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def diverge(_found: dict[str, Workload]) -> Report:
        raise Divergence("Disagreement", "this and that", (), (), 0)

    monkeypatch.setitem(command.BENCHMARKS, "lockstep", diverge)
    with pytest.raises(typer.Exit) as ended:
        command.main(["lockstep"], smoke=True)
    assert ended.value.exit_code == 1
    assert "the two sides disagree, so there is nothing to time: Disagreement: this and that" in capsys.readouterr().err


def test_the_result_hash_is_the_same_in_any_process_and_depends_on_the_runs() -> None:
    program = "from bench.workload import *; print(result_hash(workloads(SMOKE_SIZE)))"
    printed = [_python("-c", program, hash_seed=seed) for seed in ("1", "2")]
    assert [process.stdout.strip() for process in printed] == [result_hash(workloads(SMOKE_SIZE))] * 2, printed[0].stderr
    other = dataclasses.replace(SMOKE_SIZE, operations_max=SMOKE_SIZE.operations_max + 1)
    assert result_hash(workloads(other, ("counting",))) != result_hash(workloads(SMOKE_SIZE, ("counting",)))
    assert FULL_SIZE.runs > SMOKE_SIZE.runs


def test_the_command_prints_one_json_object() -> None:
    process = _python("-m", "bench", "lockstep", "parts", "--smoke", "--json")
    assert (process.returncode, process.stderr) == (0, "")
    found = json.loads(process.stdout)
    assert [report["name"] for report in found["reports"]] == ["lockstep", "parts"]
    assert [row["scope"] for row in found["reports"][0]["rows"]] == list(SCOPES)
    assert {row["scope"] for row in found["reports"][1]["rows"]} == {"everything"}
    assert len(found["hash"]) == 32


def test_the_command_prints_tables_and_the_result_hash() -> None:
    process = _python("-m", "bench", "lockstep", "--smoke", "--scope", "counting")
    assert (process.returncode, process.stderr) == (0, "")
    assert "lockstep / impl" in process.stdout
    assert "counting" in process.stdout
    assert "everything" not in process.stdout
    assert f"result hash over {sum(one.steps for one in workloads(SMOKE_SIZE).values()):,} operations of 7 scopes: " in process.stdout


@pytest.mark.parametrize("arguments", [("lockstpe",), ("lockstep", "--scope", "all")])
def test_an_unknown_name_is_refused_with_the_names_that_there_are(arguments: tuple[str, ...]) -> None:
    process = _python("-m", "bench", *arguments)
    assert process.returncode == 2
    assert "is none of" in process.stderr


@pytest.mark.parametrize(("cell", "text"), [(3.14159, "3.14"), (123456.7, "123,457"), (4044, "4,044"), ("counting", "counting")])
def test_a_cell_is_rounded_for_people(cell: float | str, text: str) -> None:
    assert say(cell) == text
