"""A finding's folder is whole or not there, says what is needed to see it again, and its test fails until the defect is mended."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz.findings
import fuzz.shrink
from fuzz.driver import Divergence
from fuzz.findings import Finding, Origin, minimise, version, write
from fuzz.narrator import tell
from fuzz.random_engine import run_random
from fuzz.shrink import Shrinker
from fuzz.story import LINES_MAX
from impl.runtime import Runtime
from model.limits import SCOPES
from model.ops import Kind
from model.trace import format_trace, parse_bytes

ROOT = Path(__file__).resolve().parents[2]
ORIGIN = Origin("random", "everything", 5, 3)
MUST_DIE = b"""\
# drc trace v1 scope=reentrancy
instantiate module=0 initial=null segment=0 active=0
new layout=0
call_wasm instance=0 function=0 args=[0]
return results=[]
gc
"""
FILES = {"trace.drc", "story.txt", "test_finding.py", "versions.txt"}


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> Finding:
    """The minimised finding of a planted defect: collections do nothing."""
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    result = run_random(SCOPES["everything"], seconds=None, runs=200, seed=5)
    assert result.finding is not None
    return minimise(result.limits, result.finding, checked=result.checked, origin=ORIGIN)


def test_a_finding_is_minimised_and_told_in_few_lines(finding: Finding) -> None:
    assert not finding.kept_whole
    assert finding.divergence.verdict == "Violation"
    assert len(finding.trace.rows) < 6
    assert len(finding.trace.rows) < finding.operations
    lines = finding.lines(again="PATH")
    assert len(lines) <= LINES_MAX
    assert sum(line.startswith(">") for line in lines) == 1
    assert lines[-1].startswith("again: drc replay PATH")


def test_its_folder_is_complete_and_the_same_again(finding: Finding, tmp_path: Path) -> None:
    folder = write(finding, tmp_path / "deep" / "findings")
    assert folder.name == finding.name
    assert {path.name for path in folder.iterdir()} == FILES
    # The kinds that were enabled are no part of a trace.
    assert format_trace(parse_bytes((folder / "trace.drc").read_bytes())) == format_trace(finding.trace)
    assert (folder / "story.txt").read_text().splitlines() == finding.lines(again=str(folder / "trace.drc"), lines_max=None)
    versions = dict(line.split(": ", 1) for line in (folder / "versions.txt").read_text().splitlines())
    assert versions["seed"] == "5"
    assert versions["run"] == "3"
    assert versions["drc-check"] == version()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert write(finding, tmp_path / "deep" / "findings") == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [finding.name]


def test_its_test_passes_on_mended_code_and_fails_on_broken_code(finding: Finding, tmp_path: Path) -> None:
    folder = write(finding, tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder / "test_finding.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    (tmp_path / "plant.py").write_text("import impl.runtime\nimpl.runtime.Runtime.gc = lambda self: None\n")
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    broken = subprocess.run([*command, "-p", "plant"], env=environment, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "must be dead" in broken.stdout


def test_a_full_disk_leaves_nothing_behind(finding: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(finding, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_kept(finding: Finding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_source: str, target: Path) -> None:
        Path(target).mkdir()
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(os, "rename", other)
    assert write(finding, tmp_path) == tmp_path / finding.name
    assert [path.name for path in tmp_path.iterdir()] == [finding.name]


def test_a_finding_that_does_not_show_again_keeps_its_whole_trace(tmp_path: Path) -> None:
    rows = ((Kind.NEW, 0), (Kind.CLONE, 0), (Kind.DROP, 0))
    divergence = Divergence("Disagreement", "the model says 3, the implementation returned 4", rows, (0, 0, 0), 2)
    found = minimise(SCOPES["counting"], divergence, checked=False, origin=ORIGIN)
    assert found.kept_whole
    assert found.trace.rows == rows[:2]
    assert "it did not show again" in found.lines(again="PATH")[-1]
    folder = write(found, tmp_path)
    assert parse_bytes((folder / "trace.drc").read_bytes()).rows == rows[:2]


def test_an_interruption_ends_the_minimising_and_not_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_self: Shrinker) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Shrinker, "shrink", interrupt)
    rows = ((Kind.NEW, 0), (Kind.DROP, 0))
    divergence = Divergence("Disagreement", "the model says 3, the implementation returned 4", rows, (0, 0), 2)
    found = minimise(SCOPES["counting"], divergence, checked=False, origin=ORIGIN)
    assert found.trace.rows == rows
    assert found.lines(again="PATH")[-1] == "not minimised: interrupted; PATH has the whole trace as it was found"


def test_a_finding_on_the_raw_memory_is_shown_to_the_checked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Runtime) -> None:
        # The last word of the heap belongs to nobody, but the raw memory does not mind.
        _ = self.memory[len(self.memory) - 1]

    monkeypatch.setattr(Runtime, "gc", careless)
    trace = parse_bytes(MUST_DIE)
    divergence = tell(trace, checked=False).divergence
    assert divergence is not None
    found = minimise(trace.limits, divergence, checked=False, origin=ORIGIN)
    assert found.divergence.verdict == "Violation"
    assert found.checked_says.startswith("UseAfterFree: ")
    assert f"checked memory: {found.checked_says}" in found.lines(again="PATH")


def test_a_hang_is_minimised_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(_self: Runtime) -> None:
        while True:
            pass

    monkeypatch.setattr(Runtime, "gc", forever)
    monkeypatch.setattr(fuzz.shrink, "_SECONDS_MAX", 0.1)
    monkeypatch.setattr(fuzz.narrator, "_SECONDS_MAX", 0.1)
    rows = ((Kind.NEW, 0), (Kind.GC,))
    found = minimise(SCOPES["counting"], Divergence("Hang", "no end", rows, (0, 0), 2), checked=False, origin=ORIGIN)
    assert not found.kept_whole
    assert found.trace.rows == ((Kind.GC,),)
    assert found.lines(again="PATH")[0] == "Hang: an operation does not end"
