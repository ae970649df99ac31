"""What checkers print is understood or refused, never guessed; and a checker that counts otherwise is a failure of the benchmark."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from bench.__main__ import PEERS
from bench.peers import checkers, compare
from bench.peers.checkers import Count, PeerBounds, drc_command, parse_drc, parse_spin, parse_tlc, run_drc, spin_defines, tlc_config
from bench.peers.process import PeerFailed, PeerObjects, Ran, run
from fuzz.check_scopes import CHECK_SCOPES
from model.limits import with_numbers
from model.ops import Kind

LEAST = PeerBounds()
TLC = """Computing initial states...
Progress(8) at 2026-01-01 00:00:00: 1,540 states generated (1,540 s/min), 818 distinct states found (818 ds/min), 361 states left on queue.
Model checking completed. No error has been found.
5827 states generated, 2403 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 15.
"""
SPIN = """State-vector 76 byte, depth reached 1608, errors: 0
     2403 states, stored
     3424 states, matched
     5827 transitions (= stored+matched)
    31977 atomic steps

pan: elapsed time 0.01 seconds
"""
DRC = json.dumps({"complete": True, "finding": None, "bound_reached": None, "states": 2403, "transitions": 5826})


def test_totals_are_read() -> None:
    """A first state is no step: TLC and Spin count it as one."""
    assert parse_tlc(TLC) == (2403, 5826)
    assert parse_spin(SPIN) == (2403, 5826, 0.01)
    assert parse_spin(SPIN.replace("     2403 states", "1.2e+08 states"))[0] == 120_000_000
    assert parse_drc(f"peers: a line of progress\n{DRC}\npeers: 0 s\n") == (2403, 5826)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TLC.replace("Model checking completed. No error has been found.\n", "Error: Out of heap.\n"),
            "TLC: Error: Out of heap.",
        ),
        (TLC.replace("0 states left on queue.\nThe", "7 states left on queue.\nThe"), "TLC: 7 states left on the queue"),
        ("", "TLC: no totals"),
    ],
)
def test_a_run_of_tlc_that_did_not_complete_is_refused(text: str, message: str) -> None:
    with pytest.raises(PeerFailed, match=message):
        parse_tlc(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"error: max search depth too small\n{SPIN}", "max search depth too small"),
        (SPIN.replace("errors: 0", "errors: 1"), "Spin: no totals"),
        (SPIN.replace("5827 transitions", "many transitions"), "Spin: no totals"),
        ("", "Spin: no totals"),
    ],
)
def test_a_run_of_spin_that_did_not_see_everything_is_refused(text: str, message: str) -> None:
    with pytest.raises(PeerFailed, match=message):
        parse_spin(text)


@pytest.mark.parametrize("text", ["", "drc: --limit: no such bound", json.dumps({**json.loads(DRC), "complete": False})])
def test_a_run_of_ours_that_is_not_complete_is_refused(text: str) -> None:
    with pytest.raises(PeerFailed, match="drc: "):
        parse_drc(text)


def test_what_a_checker_finds_wrong_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    error = "Error: Invariant NothingIsLost is violated."
    finding = {"verdict": "Deadlock", "text": "no step"}
    for parse, text, message in (
        (parse_tlc, TLC.replace("Model checking completed. No error has been found.", error), f"TLC: {error}"),
        (parse_tlc, "Error: Deadlock reached.\n", "TLC: Error: Deadlock reached."),
        (parse_spin, f"pan:1: assertion violated (at depth 9)\n{SPIN}", "Spin: pan:1: assertion violated"),
        (parse_drc, json.dumps({**json.loads(DRC), "finding": finding}), "drc: Deadlock: no step"),
    ):
        with pytest.raises(PeerObjects, match=message):
            parse(text)

    def objects(_bounds: PeerBounds, _folder: Path) -> Count:
        raise PeerObjects("TLC: Error: Deadlock reached.")

    monkeypatch.setattr(compare, "checkers", lambda: ({compare.TLC: objects}, []))
    assert compare.peers(smoke=True, as_json=False) == 1
    assert capsys.readouterr().err.endswith("bench: TLC: Error: Deadlock reached.\n")


def test_bounds_reach_each_checker_under_its_own_names() -> None:
    bounds = PeerBounds(objects=3, destructor_ops=2)
    config = tlc_config(bounds)
    assert "    Objects = 3\n" in config
    assert "    DestructorOps = 2\n" in config
    assert config.endswith("SPECIFICATION Spec\nINVARIANTS NobodyHoldsTheDead NothingIsLost\n")
    module = (checkers.HERE / "drc.tla").read_text()
    constants = [line.split("=")[0].strip() for line in config.splitlines() if " = " in line]
    assert [name for name in constants if f"    {name}," not in module and f"    {name} " not in module] == []
    assert "-DDESTRUCTOR_OPS=2" in spin_defines(bounds)
    program = (checkers.HERE / "drc.pml").read_text()
    assert [define for define in spin_defines(bounds) if f"#ifndef {define[2:].split('=')[0]}\n" not in program] == []
    assert drc_command(bounds, symmetry=False, jobs=2)[-14:-12] == ["--limit", "objects=3"]
    assert bounds.words() == "objects=3 destructor_ops=2"


def test_the_scope_is_the_one_that_the_specifications_speak_of() -> None:
    limits = with_numbers(CHECK_SCOPES["peers"], {"objects": 2, "roots": 2})
    assert {kind.name for kind in limits.kinds} == {
        *("NEW", "DROP", "INSTANTIATE", "CALL_WASM", "RETURN", "HOST_GLOBAL_GET", "HOST_GLOBAL_SET", "GLOBAL_GET", "GLOBAL_SET", "GC"),
    }
    assert {name: limits.numbers()[name] for name in ("globals", "instances", "functions", "layouts", "table", "segment", "fields")} == {
        "globals": 1,
        "instances": 1,
        "functions": 1,
        "layouts": 1,
        "table": 0,
        "segment": 0,
        "fields": 0,
    }
    assert Kind.SWEEP_ORDER not in limits.kinds


@pytest.mark.parametrize("fast", [False, True])
def test_our_own_command_is_run_and_measured(tmp_path: Path, *, fast: bool) -> None:
    count = run_drc(PeerBounds(objects=1, roots=1), tmp_path, symmetry=False, jobs=1, fast=fast)
    assert (count.states, count.steps) == (169, 432)
    assert count.ran.cpu_seconds > 0
    assert count.ran.peak_bytes > 1 << 20


def fake(states: int, steps: int) -> Count:
    return Count(states, steps, Ran("", 0, 1.0, 1.0, 1 << 20))


@pytest.mark.parametrize(
    ("tlc", "reduced", "code"), [((10, 20), (5, 9), 0), ((11, 20), (5, 9), 1), ((10, 21), (5, 9), 1), ((10, 20), (11, 20), 1)]
)
def test_a_disagreement_is_told_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tlc: tuple[int, int], reduced: tuple[int, int], code: int
) -> None:
    asked = {
        compare.OURS: lambda _bounds, _folder: fake(10, 20),
        "TLC, 2 workers": lambda _bounds, _folder: fake(*tlc),
        compare.REDUCED: lambda _bounds, _folder: fake(*reduced),
    }
    monkeypatch.setattr(compare, "checkers", lambda: (asked, ["Spin is left out: no spin on the path"]))
    assert compare.peers(smoke=True, as_json=False) == code
    captured = capsys.readouterr()
    assert "Spin is left out" in captured.out
    assert ("all agree" in captured.out) == (code == 0)
    assert (f"counts 10 states and 20 steps, {'TLC' if tlc != (10, 20) else 'drc, symmetry'}" in captured.err) == (code == 1)
    assert compare.peers(smoke=True, as_json=True) == code
    assert bool(json.loads(capsys.readouterr().out)["disagreements"]) == (code == 1)


def test_a_peer_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert compare.peers(smoke=True, as_json=False) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "TLC is left out: no java on the path",
        "Spin is left out: no spin on the path (Debian package spin)",
        "bench: no peer is here to be compared with",
    ]


def test_a_failure_of_a_checker_is_exit_code_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_bounds: PeerBounds, _folder: Path) -> Count:
        raise PeerFailed("TLC: Error: out of memory")

    monkeypatch.setattr(compare, "checkers", lambda: ({compare.OURS: fail}, []))
    assert compare.peers(smoke=True, as_json=False) == 4
    assert capsys.readouterr().err == "objects=1 roots=1: drc, 1 process\nbench: TLC: Error: out of memory\n"


def test_a_process_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "import os, time\nopen('child', 'w').write(str(os.fork() or os.getpid()))\ntime.sleep(60)"
    start = time.monotonic()
    with pytest.raises(PeerFailed, match="no end after 1 seconds"):
        run([sys.executable, "-c", script], tmp_path, seconds_max=1)
    assert time.monotonic() - start < 30
    stat = Path("/proc", (tmp_path / "child").read_text(), "stat")
    # What init has not reaped yet is a zombie.
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_process_may_not_take_all_memory(tmp_path: Path) -> None:
    ran = run([sys.executable, "-c", "b = bytearray(16 << 30)"], tmp_path)
    assert ran.code == 1
    assert "MemoryError" in ran.out
    assert run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], tmp_path).code == -signal.SIGTERM
    with pytest.raises(PeerFailed, match="No such file"):
        run(["/nowhere/pan"], tmp_path)


def test_the_benchmark_is_named_alone() -> None:
    ran = run([sys.executable, "-m", "bench", PEERS, "lockstep"], checkers.ROOT)
    assert ran.code == 2
    assert "peers is measured alone" in ran.out
