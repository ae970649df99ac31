"""`drc check` survives being killed, says plainly what it did not settle, and refuses what it cannot use in one line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import drc
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.checkpoint import CheckpointError, load, purpose, save
from fuzz.driver import Divergence, Driver
from fuzz.explore import Bounds, Explorer, Search
from fuzz.states import JointStates
from impl import collector
from model.limits import Limits, with_numbers
from model.trace import parse

ROOT = Path(__file__).resolve().parents[2]


def described(limits: Limits) -> dict[str, Any]:
    return purpose(limits, symmetry=True, exact=False)


def test_a_search_goes_on_from_any_checkpoint_and_ends_with_the_same_counts(tmp_path: Path) -> None:
    limits = CHECK_SCOPES["nesting"]
    paths: list[Path] = []

    def between(found: Search) -> None:
        paths.append(tmp_path / str(len(paths)))
        save(paths[-1], found, described(limits))

    undisturbed = Explorer(JointStates(limits, symmetry=True), between=between)
    undisturbed.run()
    assert len(paths) == undisturbed.search.states
    for path in paths:
        resumed = Explorer(JointStates(limits, symmetry=True), load(path, described(limits)))
        assert resumed.run() == undisturbed.search


@pytest.mark.parametrize("exact", [False, True])
def test_a_checkpoint_keeps_everything(tmp_path: Path, exact: bool) -> None:
    limits = CHECK_SCOPES["calls"]
    explorer = Explorer(JointStates(limits, symmetry=True), Search(exact=exact), Bounds(states=200))
    found = explorer.run()
    about = purpose(limits, symmetry=True, exact=exact)
    save(tmp_path / "search", found, about)
    assert load(tmp_path / "search", about) == found
    assert [path.name for path in tmp_path.iterdir()] == ["search"]


def test_a_checkpoint_that_is_damaged_or_of_another_search_is_refused(tmp_path: Path) -> None:
    limits, path = CHECK_SCOPES["calls"], tmp_path / "search"
    save(path, Explorer(JointStates(limits, symmetry=True), bounds=Bounds(states=50)).run(), described(limits))
    whole = path.read_bytes()
    for data, message in (
        (b"", "not a checkpoint"),
        (whole[:-1], "damaged"),
        (whole[: len(whole) // 2], "damaged"),
        (whole[:1000] + b"X" + whole[1001:], "damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            load(path, described(limits))
    path.write_bytes(whole)
    for other, message in (
        (described(CHECK_SCOPES["faults"]), "another scope"),
        (described(with_numbers(limits, {"objects": 2})), "another bounds"),
        (purpose(limits, symmetry=False, exact=False), "another symmetry"),
        ({**described(limits), "code": "0"}, "made by other code"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load(path, other)


# The command.


def drc_check(*arguments: str, folder: Path, prelude: str = "") -> subprocess.Popen[str]:
    script = f"import sys\nimport drc\n{prelude}\nsys.exit(drc.main(['check', *sys.argv[1:]]))\n"
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = drc.main(["check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_search_that_is_killed_three_times_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, undisturbed = told(capsys, "--scope", "storage")
    assert code == 0
    path = tmp_path / "search"
    arguments = ["--scope", "storage", "--json", "--checkpoint", str(path), "--checkpoint-seconds", "0"]
    for number in (1, 2, 3):
        process = drc_check(*arguments, *(["--resume"] if path.exists() else []), folder=tmp_path)
        seen = path.stat().st_ino if path.exists() else 0
        changes = 0
        while changes < 20 * number and process.poll() is None:
            now = path.stat().st_ino if path.exists() else 0
            changes += now != seen
            seen = now
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = drc_check(*arguments, "--resume", folder=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out) == undisturbed


def test_the_command_says_plainly_that_it_is_not_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["check", "--scope", "calls", "--max-depth", "4"]) == 3
    captured = capsys.readouterr()
    assert "not complete: depth 4 reached; complete to depth 4" in captured.out
    assert "drc: inconclusive: depth 4 reached before every state was seen" in captured.err
    code, found = told(capsys, "--scope", "calls", "--max-depth", "4")
    assert (code, found["complete"], found["complete_to_depth"], found["bound_reached"]) == (3, False, 4, "depth 4")


def test_the_command_writes_a_violation_as_any_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(collector, "scan_word", lambda *_: None)
    assert drc.main(["check", "--scope", "calls", "--findings", str(tmp_path)]) == 1
    assert "violated after 5 operations; no violation has fewer" in capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    trace = parse((folder / "trace.drc").read_text())
    with pytest.raises(Divergence):
        Driver(trace.limits).replay(trace.rows)
    code, found = told(capsys, "--scope", "calls", "--findings", str(tmp_path))
    assert (code, found["finding"]["steps"], found["finding"]["folder"]) == (1, 5, str(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scope", "nowhere"], "there is no such scope (there are: counting,"),
        (["--resume"], "--resume needs --checkpoint"),
        (["--checkpoint", "missing/search"], "no file can be there"),
        (["--checkpoint", "absent", "--resume"], "absent is not there"),
        (["--max-seconds", "inf"], "is no time"),
        (["--max-states", "0"], "--max-states"),
    ],
)
def test_bad_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert drc.main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_checkpoint_is_not_overwritten_by_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "search")
    assert drc.main(["check", "--scope", "nesting", "--checkpoint", path]) == 0
    assert drc.main(["check", "--scope", "nesting", "--checkpoint", path]) == 2
    assert "is there already" in capsys.readouterr().err
    assert drc.main(["check", "--scope", "nesting", "--checkpoint", path, "--resume"]) == 0


def test_an_interruption_ends_the_search_cleanly_and_it_can_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt: Callable[[int], str] = (
        "import os, signal\nfrom fuzz.states import JointStates\nopen_ = JointStates.open\nleft = [{}]\n"
        "def open_one(self, state):\n    left[0] -= 1\n    left[0] or os.kill(os.getpid(), signal.SIGINT)\n    open_(self, state)\n"
        "JointStates.open = open_one"
    ).format
    path = str(tmp_path / "search")
    process = drc_check("--scope", "storage", "--checkpoint", path, folder=tmp_path, prelude=interrupt(50))
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "drc: interrupted; this is what was done so far" in err
    code, found = told(capsys, "--scope", "storage", "--checkpoint", path, "--resume")
    assert (code, found) == told(capsys, "--scope", "storage")


def test_a_graph_is_dumped_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("graph.json", "graph.dot"):
        assert drc.main(["check", "--scope", "nesting", "--dump", str(tmp_path / name)]) == 0
    graph = json.loads((tmp_path / "graph.json").read_text())
    assert len(graph["states"]) == 20
    assert sum(len(edge["steps"]) for edge in graph["edges"]) == 1156
    assert {edge[end] for edge in graph["edges"] for end in ("from", "to")} == set(range(20))
    assert graph["states"][0] == ["values:", "host holds: nothing"]
    assert ["drop value=0", "| end"] in [step for edge in graph["edges"] for step in edge["steps"]]
    dot = (tmp_path / "graph.dot").read_text()
    assert dot.startswith("digraph states {")
    assert dot.count(" -> ") == len(graph["edges"])
    capsys.readouterr()


@pytest.mark.parametrize(("name", "message"), [("graph.png", "a name in .dot or .json"), ("missing/graph.dot", "a folder that is there")])
def test_a_graph_that_cannot_be_dumped_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    assert drc.main(["check", "--scope", "nesting", "--dump", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_graph_that_nobody_can_look_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fuzz.graph.STATES_MAX", 10)
    assert drc.main(["check", "--scope", "nesting", "--dump", str(tmp_path / "graph.dot")]) == 2
    assert "too large to be dumped" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_finding_can_be_written_to_is_refused_before_the_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert drc.main(["check", "--scope", "nesting", "--findings", "/dev/null/findings"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--findings /dev/null/findings: /dev/null is no folder" in err
