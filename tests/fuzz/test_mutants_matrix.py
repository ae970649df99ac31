"""The matrix counts who noticed, keeps what it has, and ends what it has started; upstream's oracle counts and no more."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.mutants import log
from fuzz.mutants.automatic import Gaps
from fuzz.mutants.catalogue import ROOT, CatalogueError, Mutant, load
from fuzz.mutants.cell import Outcome
from fuzz.mutants.command import _tell
from fuzz.mutants.log import Log, key_of, sources_digest
from fuzz.mutants.matrix import Matrix, chosen_engines
from fuzz.mutants.names import ENGINES
from fuzz.mutants.operators import changes
from fuzz.mutants.processes import descendants, end, run
from fuzz.mutants.upstream import run_upstream, write_pool
from fuzz.workers import HarnessFailure
from impl.runtime import Runtime

ONE = Mutant("one", "stack", "derived", "leak", "Something.", "a", "b")
TWO = Mutant("two", "stack", "derived", "memory-safety", "Something else.", "a", "c")


def drc(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "DRC_MUTANT"} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "drc", "mutants", *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def matrix(**cells: dict[str, Outcome]) -> Matrix:
    """Mutants one and two, with the cells of each."""
    engines = sorted({engine for row in cells.values() for engine in row}, key=list(ENGINES).index)
    found = Matrix([ONE, TWO], engines)
    found.cells = {(name, engine): outcome for name, row in cells.items() for engine, outcome in row.items()}
    return found


KILL = Outcome(killed=True, verdict="Violation", seconds=1.0, operations=10, story=3)
MISS = Outcome(seconds=30.0, operations=1000)
GONE = Outcome(status="unavailable", text="no such command")


def test_a_mutant_that_one_engine_notices_is_a_survivor(capsys: pytest.CaptureFixture[str]) -> None:
    found = matrix(one={"random": KILL, "check": KILL, "prove": GONE}, two={"random": KILL, "check": MISS, "prove": GONE})
    assert (found.wanted(), found.survivors(), found.kills(ONE)) == (2, [TWO], ["random", "check"])
    assert _tell(found, json_wanted=False) == 1
    said = capsys.readouterr().out
    assert "survivor: two (random): Something else." in said
    assert "prove is not available: no such command" in said
    assert "2 mutants, 1 of them memory-safety; 1 noticed by fewer than 2 of random, check" in said


def test_upstreams_oracle_does_not_count_as_an_engine() -> None:
    found = matrix(one={"random": KILL, "check": MISS, "upstream": KILL, "sanitised": KILL}, two={"random": KILL, "check": KILL})
    assert found.survivors() == [ONE]


def test_one_engine_alone_has_to_notice_every_mutant() -> None:
    found = matrix(one={"random": KILL}, two={"random": MISS})
    assert (found.wanted(), found.survivors()) == (1, [TWO])


def test_the_exit_code_says_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert _tell(matrix(one={"random": KILL}, two={"random": KILL}), json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["survivors"] == []
    assert _tell(matrix(one={"prove": GONE}, two={"prove": GONE}), json_wanted=False) == 3
    stopped = matrix(one={"random": KILL}, two={"random": KILL})
    stopped.interrupted = True
    assert _tell(stopped, json_wanted=False) == 130
    with pytest.raises(HarnessFailure, match="1 cells failed, the first random on two: ended with code 3"):
        _tell(matrix(one={"random": KILL}, two={"random": Outcome(status="failed", text="ended with code 3")}), json_wanted=False)


def test_engines_are_chosen_by_name() -> None:
    assert chosen_engines("all") == list(ENGINES)
    assert chosen_engines("check,random") == ["random", "check"]
    with pytest.raises(KeyError, match="spin"):
        chosen_engines("random,spin")


def test_a_log_that_was_cut_off_loses_one_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(path)
    log.add("a", KILL)
    log.add("b", MISS)
    log.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[1])):
        path.write_bytes(whole[:-cut])
        again = Log(path)
        assert again.results == {"a": KILL}
        again.add("c", GONE)
        again.close()
        final = Log(path)
        assert final.results == {"a": KILL, "c": GONE}
        final.close()


def test_a_file_that_is_no_log_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("remember the milk\n", encoding="utf-8")
    with pytest.raises(CatalogueError, match="line 1 is no result of drc mutants"):
        Log(path)
    assert path.read_text(encoding="utf-8") == "remember the milk\n"


def test_a_result_is_that_of_one_change_one_engine_and_one_state_of_the_code() -> None:
    sources = sources_digest()
    keys = {
        key_of(mutant, engine, seconds, seed, digest)
        for mutant in (None, ONE, TWO)
        for engine in ("random", "check")
        for seconds in (1, 30)
        for seed in (0, 1)
        for digest in (sources, "other")
    }
    assert len(keys) == 48


def test_what_changes_beside_the_code_changes_a_result_that_depends_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ROOT", tmp_path)
    (tmp_path / "impl").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "impl" / "arena.py").write_text("code\n", encoding="utf-8")
    alone, with_tests = sources_digest(), sources_digest("tests")
    (tmp_path / "tests" / "story.drc").write_text("gc\n", encoding="utf-8")
    assert sources_digest() == alone
    assert sources_digest("tests") != with_tests
    (tmp_path / "impl" / "arena.py").write_text("other code\n", encoding="utf-8")
    assert sources_digest() != alone


def test_a_process_ends_with_all_that_it_has_started(tmp_path: Path) -> None:
    """The grandchild is in a session of its own."""
    code = (
        "import subprocess, sys, time; subprocess.Popen(['sleep', '600'], start_new_session=True); print('x', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"x\n"
    children = descendants(process.pid)
    assert len(children) == 1
    end(process)
    process.stdout.close()
    assert process.returncode == -9
    deadline = time.monotonic() + 30
    while Path(f"/proc/{children[0]}").exists() and "\nState:\tZ" not in Path(f"/proc/{children[0]}/status").read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert run(["sleep", "600"], os.environ, tmp_path / "log", 0.1, lambda: False, tmp_path) is None
    assert run(["sleep", "600"], os.environ, tmp_path / "log", 600, lambda: True, tmp_path) is None
    assert run(["false"], os.environ, tmp_path / "log", 600, lambda: False, tmp_path) == 1


def test_counting_finds_nothing_in_the_code_as_it_is(pool: Path) -> None:
    for checked in (False, True):
        outcome = run_upstream(pool, checked=checked)
        assert (outcome.killed, outcome.text) == (False, "25 programs, 0 of them given up half-way")
        assert outcome.operations > 1000


def test_counting_finds_a_leak_and_not_a_wrong_count_that_comes_right(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Runtime.drop
    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "drop", lambda _self, _ref: None)
        leak = run_upstream(pool, checked=False)
    assert (leak.killed, leak.verdict) == (True, "Counted")

    def twice(self: Runtime, ref: int) -> None:
        self.clone(ref)
        keep(self, ref)
        keep(self, ref)

    with monkeypatch.context() as patch:
        patch.setattr(Runtime, "drop", twice)
        assert not run_upstream(pool, checked=False).killed


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool"
    assert write_pool(path, 1.0, 0) > 1000
    return path


def test_a_run_prints_the_matrix_and_another_goes_on_from_its_log(tmp_path: Path) -> None:
    words = ("count-starts-at-two", "--engine", "random,upstream", "--seconds", "1", "--resume", str(tmp_path / "log"))
    done = drc(*words)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("count-starts-at-two"))
    assert row.split()[1] == "leak"
    assert len(done.stderr.splitlines()) == 2
    assert "[1/2] count-starts-at-two, random: InvariantViolated after" in done.stderr
    again = drc(*words)
    assert (again.returncode, again.stdout, again.stderr) == (0, done.stdout, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "there is no mutant 'nobody'"),
        (("--engine", "spin"), "there is no engine 'spin'"),
        (("--seconds", "inf"), "is no time"),
        (("--auto", "errors"), "there is no such module"),
        (("--auto", "stack", "--list"), "neither ids nor --list"),
        (("--resume", "/nowhere/log"), "no file can be there"),
    ],
)
def test_bad_usage_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = drc(*words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert said in done.stderr


def test_the_list_shows_all_and_an_id_its_diff() -> None:
    assert len(drc("--list").stdout.splitlines()) == len(load())
    shown = drc("--list", "CVE-2022-31146").stdout
    assert "    +    while bits > 1:" in shown.splitlines()


CODE = '''"""A docstring."""
LIMIT: Final = 3


def f(a: int, b: int) -> int:
    """Another."""
    if a < b and not a:
        a += 1
    return a + (b)
'''
EXPECTED = [
    "LIMIT: Final = 3 -> LIMIT: Final = 2",
    "LIMIT: Final = 3 -> LIMIT: Final = 4",
    "if a < b and not a: -> if False:",
    "if a < b and not a: -> if True:",
    "if a < b and not a: -> if a <= b and not a:",
    "if a < b and not a: -> if a >= b and not a:",
    "if a < b and not a: -> if a < b or not a:",
    "if a < b and not a: -> if a < b and a:",
    "a += 1 -> pass",
    "a += 1 -> a -= 1",
    "a += 1 -> a += 0",
    "a += 1 -> a += 2",
    "return a + (b) -> pass",
    "return a + (b) -> return a - (b)",
]


def test_every_operator_constant_condition_and_statement_is_changed_once() -> None:
    lines = CODE.splitlines()
    found = [f"{lines[change.line - 1].strip()} -> {change.text.splitlines()[change.line - 1].strip()}" for change in changes(CODE)]
    assert sorted(found) == sorted(EXPECTED)


def test_a_change_that_compiles_to_the_same_code_is_left_out() -> None:
    """`while 1` becomes `while True`, and a constant that nobody reads is not compiled."""
    assert [change.text for change in changes("def f() -> int:\n    7\n    return 0\n")] == [
        "def f() -> int:\n    7\n    pass\n",
        "def f() -> int:\n    7\n    return 1\n",
    ]


def test_a_listed_change_makes_no_difference_and_a_list_entry_can_be_stale() -> None:
    first, second, *_ = changes(CODE)
    brief = first.brief(CODE)
    gaps = Gaps("m", CODE, [(first, MISS), (second, MISS)], {brief: "because", "f: - x + y": "because"})
    assert (gaps.survivors(), gaps.harmless(), gaps.stale()) == ([second], [first], ["f: - x + y"])
