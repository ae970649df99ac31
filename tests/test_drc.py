"""The command line says what it found, in the same bytes for the same work, and its exit code says how it went."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import drc
from fuzz.atheris_engine import TargetFailed
from fuzz.campaign import Task, _share
from fuzz.random_engine import BATCH
from fuzz.results import MissingExtra
from impl.runtime import Runtime
from model.limits import SCOPES
from model.ops import SPECS, Kind
from model.properties import DESCRIPTIONS
from model.trace import SIZE_MAX_BYTES, parse

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "import sys, drc\nif __name__ == '__main__':\n    sys.exit(drc.main())\n"
BROKEN = "import impl.runtime\nimpl.runtime.Runtime.gc = lambda self: None\n" + PLAIN

GOOD = """\
# drc trace v1 scope=reentrancy
instantiate module=0 initial=null segment=0 active=0
new layout=0
call_wasm instance=0 function=0 args=[0]
return results=[]
gc
| gc
| end
clone value=3
"""


def start(script: str, *arguments: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    path = folder / "run_drc.py"
    path.write_text(script)
    return subprocess.Popen(
        [sys.executable, path, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(script: str, *arguments: str, folder: Path, **environment: str) -> tuple[int, str, str]:
    process = start(script, *arguments, folder=folder, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "good.drc"
    path.write_text(GOOD)
    return path


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Usage.


@pytest.mark.parametrize("command", ["fuzz", "replay", "shrink"])
def test_each_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(drc.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: drc {command} " in result.stdout


def test_version_and_help_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("drc-check ")
    assert drc.main(["--help"]) == 0
    assert "replay" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fuzz", "--runs", "many"],
        ["fuzz", "--runs", "0"],
        ["fuzz", "--seconds", "-1"],
        ["fuzz", "--seconds", "inf"],
        ["fuzz", "--seconds", "nan"],
        ["fuzz", "--seed", "-1"],
        ["fuzz", "--scope", "world"],
        ["fuzz", "--engine", "steam"],
        ["fuzz", "--jobs", "0"],
        ["fuzz", "--findings", "/dev/null", "--runs", "1"],
        ["fuzz", "--findings", "/dev/null/findings", "--runs", "1"],
        ["fuzz", "--surprise"],
        ["replay"],
        ["replay", "."],
        ["replay", "missing.drc"],
        ["replay", "/dev/zero"],
        ["replay", "x" * 300],
        ["shrink", "missing.drc"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("drc: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: empty"),
        (b"# drc trace v1 scope=calls\nnew layout=0\ndrop val", "line 3: truncated"),
        (b"# drc trace v1 scope=calls\nnew layout=0\nexplode\n", "line 3: unknown operation 'explode'"),
        (b"\x7fELF\x00\x01\xff\xfe", "line 1: not text"),
        (b"# drc trace v1 scope=calls\n\xff\n", "line 2: not text"),
        (b"# drc trace v9 scope=calls\n", "line 1: trace version 9"),
        (b"hello\n", "line 1: not a trace"),
        (b"# drc trace v1 scope=calls\n" + b"gc\n" * (10 << 20), f"a trace has at most {SIZE_MAX_BYTES}"),
    ],
    ids=["empty", "truncated", "garbled", "binary", "binary later", "future", "other", "huge"],
)
@pytest.mark.parametrize("command", ["replay", "shrink"])
def test_a_file_that_is_no_trace_is_named_with_its_line(
    command: str, content: bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.drc"
    path.write_bytes(content)
    assert drc.main([command, str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"drc: {path}: ")
    assert reason in err
    assert err.count("\n") == 1


def test_a_traceback_is_shown_only_on_demand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise LookupError("two\nlines")

    monkeypatch.setattr(drc, "run_campaign", fail)
    assert drc.main(["fuzz", "--runs", "1"]) == 4
    assert capsys.readouterr().err == "drc: internal error: LookupError: two lines (DRC_TRACEBACK=1 shows where)\n"
    monkeypatch.setenv("DRC_TRACEBACK", "1")
    assert drc.main(["fuzz", "--runs", "1"]) == 4
    assert "Traceback" in capsys.readouterr().err


# drc fuzz


def test_a_campaign_prints_every_kind_and_property_and_its_speed_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["fuzz", "--runs", "40", "--seed", "7"]) == 0
    out, err = capsys.readouterr()
    for kind in Kind:
        assert re.search(rf"\b{SPECS[kind].text} +[\d,]+", out)
    for words in DESCRIPTIONS.values():
        assert words in out
    assert "40 runs, " in out
    assert out.endswith("nothing found\n")
    assert "operations/s" in err
    assert "/s" not in out


def test_the_same_seed_and_runs_give_the_same_bytes(tmp_path: Path) -> None:
    arguments = ("fuzz", "--seed", "3", "--runs", str(2 * BATCH + 3))
    first = run(PLAIN, *arguments, folder=tmp_path, PYTHONHASHSEED="1")
    second = run(PLAIN, *arguments, "--jobs", "2", folder=tmp_path, PYTHONHASHSEED="2", COLUMNS="40", LC_ALL="C")
    assert first[0] == second[0] == 0
    assert first[1] == second[1]
    assert first[1].isascii()


def test_json_has_what_the_tables_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["fuzz", "--runs", "5", "--scope", "calls", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == 5
    assert told["operations"] == sum(told["kinds"].values()) > 0
    assert len(told["kinds"]) == len(Kind)
    assert len(told["sometimes"]) == len(DESCRIPTIONS)
    assert told["tasks"] == [{"engine": "random", "scope": "calls", "runs": 5, "operations": told["operations"]}]
    assert told["finding"] is None


def test_all_scopes_share_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["fuzz", "--scope", "all", "--seconds", "1.4", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [task["scope"] for task in json.loads(out)["tasks"]] == list(SCOPES)
    assert "[7/7] random engine, scope everything" in err


@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_other_engines_report_the_same_way(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(engine)
    assert drc.main(["fuzz", "--engine", engine, "--scope", "reentrancy", "--runs", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] >= 8
    assert told["operations"] == sum(told["kinds"].values()) > 0


def test_a_task_gets_its_part_of_what_others_left() -> None:
    overheads = {"random": 0.0, "atheris": 1.5}
    tasks = [Task(engine, SCOPES["calls"]) for engine in ("random", "random", "atheris", "atheris")]
    assert _share(43, 0, tasks, 0, overheads) == 10
    assert _share(43, 10, tasks, 1, overheads) == 10
    assert _share(43, 31.5, tasks, 3, overheads) == 10
    assert _share(40, 60, tasks, 3, overheads) == 2.5


def test_a_target_that_fails_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_named: object) -> None:
        raise TargetFailed("the target ended with code 1 and no finding. Its last words:\nTraceback\n  line\nImportError: no\n")

    monkeypatch.setattr("fuzz.atheris_engine.run_atheris", fail)
    assert drc.main(["fuzz", "--engine", "atheris", "--runs", "1"]) == 4
    assert capsys.readouterr().err == "drc: the target ended with code 1 and no finding. Its last words: ImportError: no\n"


def test_no_run_is_inconclusive(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["fuzz", "--seconds", "0"]) == 3
    assert "nothing was done" in capsys.readouterr().err


def test_a_long_campaign_on_everything_that_missed_something_is_inconclusive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuzz.campaign.JUDGED_RUNS", 1)
    assert drc.main(["fuzz", "--runs", "1"]) == 3
    out, err = capsys.readouterr()
    assert "never seen: a " in out
    assert "inconclusive" in err
    assert drc.main(["fuzz", "--runs", "1", "--scope", "calls"]) == 0


def test_a_finding_is_told_written_and_replayed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as plant:
        plant.setattr(Runtime, "gc", lambda _self: None)
        assert drc.main(["fuzz", "--seed", "5", "--runs", "100", "--findings", "found"]) == 1
        out = capsys.readouterr().out
        told = out.partition("1 finding\n\n")[2].splitlines()
        assert 5 < len(told) < 15
        assert told[0] == "Violation"
        assert sum(line.startswith("> ") for line in told) == 1
        (folder,) = Path("found").iterdir()
        assert told[-1].startswith(f"again: drc replay {folder}/trace.drc")
        again = told[-1].removeprefix("again: drc ").split()
        assert drc.main(again) == 1
        assert "must be dead" in capsys.readouterr().out
        assert drc.main(["fuzz", "--seed", "5", "--runs", "100", "--findings", "found", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["finding"]["folder"] == str(folder)
    assert drc.main(again) == 0


def test_a_finding_that_cannot_be_written_is_told_with_its_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    monkeypatch.setattr(drc, "write", full)
    assert drc.main(["fuzz", "--seed", "5", "--runs", "100"]) == 4
    out, err = capsys.readouterr()
    assert parse(out[out.index("# drc trace") :]).rows
    assert err.endswith("drc: the finding could not be written: [Errno 28] No space left on device; its trace is above\n")


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: object, **_named: object) -> None:
        raise MissingExtra("hypothesis", "fuzz")

    monkeypatch.setattr("fuzz.campaign._run", missing)
    assert drc.main(["fuzz", "--engine", "hypothesis", "--runs", "1"]) == 2
    assert capsys.readouterr().err == "drc: hypothesis is not installed: pip install 'drc-check[fuzz]'\n"


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_cleanly_with_what_is_known(tmp_path: Path, jobs: str, number: signal.Signals) -> None:
    process = start(PLAIN, "fuzz", "--seconds", "60", "--jobs", jobs, folder=tmp_path)
    _wait_for_its_handler(process.pid)
    time.sleep(3)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "sometimes properties seen; nothing found" in out
    assert err.endswith("drc: interrupted; this is what was done so far\n")
    assert "Traceback" not in err
    assert _group_ends(process.pid)


def _wait_for_its_handler(pid: int) -> None:
    """Wait until a process catches SIGTERM: on a busy machine it may take a while to get so far."""
    for _ in range(600):
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if caught is not None and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.1)
    pytest.fail("the process never caught SIGTERM")


def _group_ends(group: int) -> bool:
    """Wait for the last process of a group; the standard library's resource tracker outlives its parent by a moment."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def children(parent: int) -> list[int]:
    """Return the processes that a process has started; from the kernel, because `ps` cuts its lines."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)


def commandline(process: int) -> bytes:
    """Return the words of a process; empty if it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_killed_worker_is_exit_code_4(tmp_path: Path) -> None:
    process = start(PLAIN, "fuzz", "--seconds", "60", "--jobs", "2", folder=tmp_path)
    worker = None
    for _ in range(100):
        time.sleep(0.1)
        workers = [child for child in children(process.pid) if b"spawn_main" in commandline(child)]
        if workers:
            worker = workers[0]
            break
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 4
    assert out == ""
    assert err == "drc: a worker process died: killed from outside, or out of memory\n"


def test_a_full_stdout_is_exit_code_4(tmp_path: Path) -> None:
    path = tmp_path / "run_drc.py"
    path.write_text(PLAIN)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, path, "fuzz", "--runs", "2"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_planted_defect_is_found_in_a_process_of_its_own(tmp_path: Path) -> None:
    code, out, err = run(BROKEN, "fuzz", "--seconds", "60", "--seed", "9", folder=tmp_path)
    assert code == 1, err
    assert "Violation" in out
    assert len(list((tmp_path / "findings").iterdir())) == 1


def test_a_finding_is_the_same_whatever_the_jobs(tmp_path: Path) -> None:
    """The defect reaches the workers because each of them runs the script again."""
    arguments = ("fuzz", "--runs", "300", "--seed", "9", "--findings")
    alone = run(BROKEN, *arguments, "found", folder=tmp_path)
    shutil.rmtree(tmp_path / "found")
    together = run(BROKEN, *arguments, "found", "--jobs", "3", folder=tmp_path, PYTHONHASHSEED="5")
    assert alone[0] == together[0] == 1
    assert alone[1] == together[1]


# drc replay, drc shrink


def test_a_replay_tells_each_step(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["replay", str(trace)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].endswith("collects; destroys value 0")
    assert lines[5].startswith("   6  | gc ")
    assert lines[7].endswith("skipped: needs root")
    assert lines[-1] == "both sides agree to the end: 7 operations executed, 1 skipped"


def test_a_verbose_replay_shows_the_state_after_each_step(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["replay", str(trace), "-v", "--raw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].strip() == "values:"
    assert "        after 5: values:" in lines
    assert any(line.endswith("takes the store down, collects") for line in lines)


def test_a_replay_as_json(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["replay", str(trace), "--json", "-v"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["agrees"]
    assert told["memory"] == "checked"
    operations = [step for step in told["operations"] if not step["finale"]]
    assert [step["operation"] for step in operations] == [line.lstrip("| ") for line in _full_lines(trace)]
    assert operations[4]["destroyed"] == [0]
    assert operations[4]["state"]
    assert operations[7]["skipped"] == "needs root"


def _full_lines(trace: Path) -> list[str]:
    lines = [line.replace("new layout=0", "new layout=0 owns=[]") for line in trace.read_text().splitlines()[1:]]
    return [line.strip() for line in lines]


def test_a_replay_that_diverges_is_exit_code_1(trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    assert drc.main(["replay", str(trace)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[4].startswith(">  5  gc")
    assert lines[5:] == [
        "Violation",
        "  the model:          value 0 must be dead: nothing owned it and no activation could read it when the collection began",
        "  the implementation: does not destroy it",
    ]
    assert drc.main(["replay", str(trace), "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["agrees"]


def test_a_replay_that_executes_nothing_is_inconclusive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "idle.drc"
    path.write_text("# drc trace v1 scope=calls\ndrop value=0\n")
    assert drc.main(["replay", str(path)]) == 3
    assert capsys.readouterr().err == f"drc: inconclusive: no operation of {path} was executed\n"


def test_shrink_prints_a_smaller_trace(trace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert drc.main(["shrink", str(trace)]) == 2
    assert "nothing to shrink" in capsys.readouterr().err
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    assert drc.main(["shrink", str(trace)]) == 1
    out, err = capsys.readouterr()
    assert len(parse(out).rows) <= 5
    assert err.startswith("Violation\n  found by:           5 of 5 operations\n")
