"""`drc check --model-only` is `drc check` in all that a user sees: it resumes, gives up plainly, dumps graphs, and tells what it found."""

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
import model.calls
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.checkpoint import CheckpointError, load, purpose, save
from fuzz.explore import Bounds
from fuzz.model_search import ModelExplorer
from fuzz.model_states import ModelStates
from model.books import touch
from model.limits import Limits
from model.state import State
from model.trace import parse

ROOT = Path(__file__).resolve().parents[2]
PEERS = ["--scope", "peers", "--model-only", "--limit", "objects=2", "--limit", "roots=2"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = drc.main(["check", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_search_says_what_it_has_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, *PEERS, "--no-symmetry")
    assert (code, found["states"], found["transitions"], found["depth"]) == (0, 2403, 5826, 14)
    assert (found["model_only"], found["complete"], found["finding"], found["bounds"]["roots"]) == (True, True, None, 2)
    assert drc.main(["check", *PEERS, "--finale"]) == 0
    assert "the model breaks no property of its own, and what is under way can always go on" in capsys.readouterr().out


def test_any_number_of_jobs_prints_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for jobs in ("1", "2"):
        assert drc.main(["check", *PEERS, "--jobs", jobs]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_a_bound_is_inconclusive(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, *PEERS, "--max-depth", "3")
    assert (code, found["complete"], found["bound_reached"], found["complete_to_depth"]) == (3, False, "depth 3", 3)


def killed(arguments: list[str], path: Path) -> None:
    """Run a search and kill it once it has written some checkpoints."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "drc.py"), "check", *arguments],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    seen, changes = 0, 0
    while changes < 20 and process.poll() is None:
        now = path.stat().st_ino if path.exists() else 0
        changes += now != seen
        seen = now
        time.sleep(0.001)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_search_that_is_killed_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: str) -> None:
    arguments = [*PEERS, "--json", "--jobs", jobs, "--checkpoint", str(tmp_path / "search"), "--checkpoint-seconds", "0"]
    killed(arguments, tmp_path / "search")
    killed([*arguments, "--resume"], tmp_path / "search")
    assert told(capsys, *PEERS, "--checkpoint", str(tmp_path / "search"), "--resume") == told(capsys, *PEERS)


def test_a_checkpoint_of_joint_states_is_none_of_the_model_alone(tmp_path: Path) -> None:
    limits = CHECK_SCOPES["sweeps"]
    explorer = ModelExplorer(ModelStates(limits, symmetry=True), bounds=Bounds(states=100))
    alone = purpose(limits, symmetry=True, exact=False, model_only=True)
    save(tmp_path / "search", explorer.run(), alone)
    assert load(tmp_path / "search", alone) == explorer.search
    for other, message in (
        (purpose(limits, symmetry=True, exact=False), "another model_only"),
        (purpose(limits, symmetry=True, exact=False, model_only=True, finale=True), "another finale"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "search", other)


def test_a_violation_is_told_as_a_trace_with_what_an_implementation_would_decide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def not_deferred(state: State, limits: Limits, name: int) -> None:
        touch(state, limits, name)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model.calls, "defer", not_deferred)
    assert drc.main(["check", *PEERS, "--no-symmetry"]) == 1
    out = capsys.readouterr().out
    assert "violated after 4 steps; no violation has fewer" in out
    assert "Property: value 0 is lost" in out
    code, found = told(capsys, *PEERS, "--no-symmetry")
    assert code == 1
    trace = parse(found["finding"]["trace"])
    assert (found["finding"]["steps"], found["finding"]["operations"], len(trace.rows)) == (4, 4, 4)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_shows_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--scope", "nesting", "--model-only", "--no-symmetry"]
    assert drc.main(["check", *arguments, "--dump", str(tmp_path / "graph.json")]) == 0
    graph = json.loads((tmp_path / "graph.json").read_text())
    capsys.readouterr()
    code, found = told(capsys, *arguments)
    assert (code, len(graph["states"])) == (0, found["states"])
    assert sum(len(edge["steps"]) for edge in graph["edges"]) == found["transitions"]
    assert ["# value 0 is destroyed"] in [step for edge in graph["edges"] for step in edge["steps"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limit", "objects"], "a bound is given as in objects=3"),
        (["--limit", "objects=-1"], "a bound is given as in objects=3"),
        (["--limit", "widgets=1"], "'widgets' is no bound"),
        (["--limit", "objects=8", "--model-only"], "has room for at most 7"),
        (["--limit", "roots=128", "--model-only"], "has room for at most 127"),
        (["--jobs", "2"], "--jobs is for --fast and --model-only"),
        (["--finale"], "--finale is for --model-only"),
        (["--model-only", "--jobs", "2", "--dump", "graph.dot"], "--dump needs one job"),
    ],
)
def test_bad_usage_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert drc.main(["check", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert message in captured.err
