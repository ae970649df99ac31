"""Released engines run in processes of their own, and are shown to have the defects that they have."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.releases import wheels
from fuzz.releases.engine import Outcome, Release, Settings, action_at, in_order, plain_verdict
from fuzz.releases.repro import reproduction

Data = dict[str, Any]

# One of each family, on both sides of what was mended in 0.30; the last is the one that is pinned here.
OLD, BROKEN, MENDED, MIDDLE, NEW = "0.24.0", "0.29.0", "0.30.0", "24.0.0", "50.0.1"

EVERYTHING = """
(module
  (import "host" "h2_2" (func $swap (param externref externref) (result externref externref)))
  (import "env" "g" (global $constant externref))
  (import "env" "t" (table $shared 1 externref))
  (global (export "g") (mut externref) (ref.null extern))
  (table (export "t") 2 externref)
  (func (export "f") (param externref externref i32) (result externref externref i32 i64)
    (table.set $shared (i32.const 0) (local.get 0))
    (call $swap (local.get 0) (local.get 1))
    (local.get 2)
    (i64.const -7)))
"""


@pytest.fixture(scope="module")
def engines() -> dict[str, Path]:
    """Folders of the releases under test: from the user's cache, like all else that pip brings fetched once."""
    cache = wheels.cache_folder()
    return {release: wheels.obtain(release, cache) for release in (OLD, BROKEN, MENDED, MIDDLE, NEW)}


def program(wat: str, script: list[Any], imports: list[Any] | None = None, destructors: Data | None = None, values: int = 9) -> Data:
    return {"id": 5, "wat": wat, "values": values, "script": script, "imports": imports or [], "destructors": destructors or {}}


def run(folder: Path, wanted: Data, **settings: Any) -> Outcome:
    with Release(folder, Settings(**settings)) as release:
        return release.run(wanted)


def told(outcome: Outcome, *kinds: str) -> list[Any]:
    return [event for event in outcome.events if event[0] in kinds]


def everything() -> Data:
    """A program with each kind of action and source of an import, whose every event is known."""
    return program(
        EVERYTHING,
        [
            ["new", 0],
            ["new", 1],
            ["instantiate", 0, {"g": ["value", 0], "t": ["fresh", 1, None]}],
            ["instantiate", 1, {"g": ["value", None], "t": ["table", 0, "t"]}],
            ["call", 1, "f", [0, 1, ["i32", 41]], [0]],
            ["table_get", 0, "t", 0],
            ["table_size", 0, "t"],
            ["table_grow", 0, "t", 2, 1],
            ["table_get", 0, "t", 3],
            ["table_set", 0, "t", 3, 2],
            ["table_set", 0, "t", 4, 2],
            ["global_set", 1, "g", 2],
            ["global_get", 1, "g"],
            ["drop", 2],
            ["drop", 2],
            ["drop_instance", 1],
            ["global_get", 1, "g"],
            ["gc"],
            ["drop_store"],
            ["gc"],
        ],
        [[["new", 2], ["return", [2, 0], [2]]]],
        values=3,
    )


def move_pairs(rounds: int) -> Data:
    """CVE-2021-39216: three results of an import move at a time, so that the table of 512 fills up between two of them."""
    wat = """
    (module
      (import "host" "h0_3" (func $fresh (result externref externref externref)))
      (import "host" "h3_0" (func $look (param externref externref externref)))
      (func (export "f") (param $n i32) (local $a externref) (local $b externref) (local $c externref)
        (loop $next
          (call $fresh) (local.set $c) (local.set $b) (local.set $a)
          (call $look (local.get $a) (local.get $b) (local.get $c))
          (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))))
    """
    imports: list[Any] = []
    for first in range(0, 3 * rounds, 3):
        three = [first, first + 1, first + 2]
        imports += [[*(["new", value] for value in three), ["return", three, three]], [["drop", value] for value in three]]
    return program(wat, [["instantiate", 0, {}], ["call", 0, "f", [["i32", rounds]]]], imports, values=3 * rounds)


def stale_map() -> Data:
    """CVE-2021-39218: a safepoint without references takes the map before it, whose slots hold what has died since."""
    wat = """
    (module
      (import "host" "h0_1" (func $one (result externref)))
      (import "host" "h0_2" (func $two (result externref externref)))
      (import "host" "h0_0" (func $collect))
      (import "host" "h1_0" (func $use (param externref)))
      (import "host" "h2_0" (func $use_both (param externref externref)))
      (func (export "f") (local $x externref) (local $y externref) (local $z externref) (local $pc i32)
        (block $out (loop $next
          (block $third (block $second (block $first
            (br_table $first $second $third $out (local.get $pc)))
            (call $two) (local.set $z) (local.set $y) (call $collect) (call $use_both (local.get $y) (local.get $z))
            (local.set $pc (i32.const 2)) (br $next))
            (call $collect)
            (local.set $pc (i32.const 3)) (br $next))
          (local.set $x (call $one)) (call $collect) (call $use (local.get $x))
          (local.set $pc (i32.const 1)) (br $next)))))
    """
    imports = [
        [["new", 0], ["new", 1], ["return", [0, 1], [0, 1]]],
        [["gc"]],
        [["drop", 0], ["drop", 1]],
        [["new", 2], ["return", [2], [2]]],
        [["gc"]],
        [["drop", 2]],
        [["gc"]],
    ]
    return program(wat, [["instantiate", 0, {}], ["call", 0, "f", []], ["gc"]], imports, values=3)


@pytest.mark.parametrize("release", [OLD, BROKEN, NEW])
def test_each_action_does_what_it_says(engines: dict[str, Path], release: str) -> None:
    outcome = run(engines[release], everything())
    assert (outcome.program, outcome.death) == (5, "")
    assert told(outcome, "got", "size", "error", "skipped", "trap") == [
        ["got", ["import", 0, -1], [0, 1]],
        ["got", ["script", 4], [2, 0, ["i32", 41], ["i64", -7]]],
        ["got", ["script", 5], [0]],
        ["size", ["script", 6], 2],
        ["size", ["script", 7], 2],
        ["got", ["script", 8], [1]],
        ["error", ["script", 10], told(outcome, "error")[0][2]],
        ["got", ["script", 12], [2]],
        ["error", ["script", 16], "no instance 1"],
        ["skipped", ["script", 19]],
    ]
    places = [event[1] for event in told(outcome, "at")]
    assert places == [*(["script", n] for n in range(5)), ["import", 0, -1], ["import", 0, 0], *(["script", n] for n in range(5, 19))]
    assert outcome.events[-1] == ["end"]


@pytest.mark.parametrize("release", [BROKEN, NEW])
def test_everything_is_destroyed_once_when_the_store_goes(engines: dict[str, Path], release: str) -> None:
    outcome = run(engines[release], everything())
    assert sorted(event[1] for event in told(outcome, "destroyed")) == [0, 1, 2]
    assert {json.dumps(event[2]) for event in told(outcome, "destroyed")} == {'["script", 18]'}
    assert plain_verdict(everything(), outcome) == ""


@pytest.mark.parametrize(("release", "verdict"), [(OLD, "value 0 is never destroyed"), (BROKEN, ""), (NEW, "")])
def test_what_a_global_holds_leaks_with_its_instance_up_to_0_27(engines: dict[str, Path], release: str, verdict: str) -> None:
    wat = '(module (global (export "g") (mut externref) (ref.null extern)))'
    holding = program(wat, [["instantiate", 0, {}], ["new", 0], ["global_set", 0, "g", 0]])
    assert plain_verdict(holding, run(engines[release], holding)) == verdict


@pytest.mark.parametrize("release", [OLD, BROKEN])
def test_a_collection_between_two_moved_results_is_seen(engines: dict[str, Path], release: str) -> None:
    outcome = run(engines[release], move_pairs(190))
    assert plain_verdict(move_pairs(190), outcome) != ""
    assert outcome.death in {"crash SIGSEGV", "abort SIGABRT"} or "wrong value" in plain_verdict(move_pairs(190), outcome)


@pytest.mark.parametrize("release", [MENDED, NEW])
def test_moved_results_stay_what_they_are_where_that_is_mended(engines: dict[str, Path], release: str) -> None:
    outcome = run(engines[release], move_pairs(190))
    assert plain_verdict(move_pairs(190), outcome) == ""
    seen = [event[2] for event in told(outcome, "got") if event[1][1] % 2 == 1 and event[1][0] == "import"]
    assert seen == [[first, first + 1, first + 2] for first in range(0, 570, 3)]


def test_a_stale_map_keeps_what_is_dead_or_kills(engines: dict[str, Path]) -> None:
    """What a stale slot counts dies later than it must, if the process lives that long; from 0.30 on, at the collection."""
    broken, mended = run(engines[BROKEN], stale_map()), run(engines[MENDED], stale_map())
    assert plain_verdict(stale_map(), mended) == ""
    assert ["destroyed", 2, ["import", 6, 0]] in mended.events
    assert ["destroyed", 2, ["import", 6, 0]] not in broken.events


ACTING = program(
    '(module (global (export "g") (mut externref) (ref.null extern)) (func (export "f") (param externref)))',
    [["instantiate", 0, {}], ["new", 0], ["new", 1], ["drop", 0], ["global_set", 0, "g", None]],
    destructors={"0": [["new", 2], ["call", 0, "f", [2]], ["gc"], ["global_set", 0, "g", 2], ["drop", 2], ["drop", 1]]},
    values=3,
)


@pytest.mark.parametrize(
    ("release", "skipped", "in_destructor"),
    [(OLD, [], [1]), (BROKEN, [1, 2, 3], [2, 1]), (NEW, [0, 1, 2, 3], [])],
)
def test_destructors_act_as_far_as_the_interface_allows(
    engines: dict[str, Path], release: str, skipped: list[int], in_destructor: list[int]
) -> None:
    outcome = run(engines[release], ACTING)
    assert plain_verdict(ACTING, outcome) == ""
    assert [event[1] for event in told(outcome, "skipped")] == [["destructor", 0, n] for n in skipped]
    assert [event[1] for event in told(outcome, "destroyed") if event[2][0] == "destructor"] == in_destructor


IMPORTING = '(module (import "host" "h0_2" (func $h (result externref externref))) (func (export "f") (result externref) (drop (call $h))))'


@pytest.mark.parametrize("release", [OLD, BROKEN, NEW])
def test_imports_trap_and_return_null_beyond_their_list(engines: dict[str, Path], release: str) -> None:
    script = [["instantiate", 0, {}], ["call", 0, "f", []], ["call", 0, "f", []], ["call", 0, "f", []]]
    outcome = run(engines[release], program(IMPORTING, script, [[["raise"]], [["new", 0], ["return", [0], []]]], values=1))
    assert [event[:2] for event in told(outcome, "trap")] == [["trap", ["script", 1]]]
    assert "raised by an import" in told(outcome, "trap")[0][2]
    assert [event[2] for event in told(outcome, "got") if event[1][0] == "script"] == [[0], [None]]


@pytest.mark.parametrize("release", [OLD, BROKEN, MIDDLE, NEW])
def test_what_moved_out_of_an_import_is_not_kept_by_the_interface(engines: dict[str, Path], release: str) -> None:
    """A harness that holds on to everything finds nothing."""
    wat = """(module (import "host" "h0_1" (func $new (result externref))) (import "host" "h1_0" (func $use (param externref)))
                     (func (export "result") (drop (call $new)))
                     (func (export "parameter") (call $use (call $new))))"""
    script = [["instantiate", 0, {}], ["call", 0, "result", []], ["gc"], ["call", 0, "parameter", []], ["gc"], ["new", 2]]
    imports = [[["new", 0], ["return", [0], [0]]], [["new", 1], ["return", [1], [1]]], [["drop", 1]]]
    destroyed = told(run(engines[release], program(wat, script, imports)), "destroyed")
    assert destroyed == [["destroyed", 0, ["script", 2]], ["destroyed", 1, ["script", 4]], ["destroyed", 2, ["script", 6]]]


@pytest.mark.parametrize("release", [OLD, NEW])
def test_what_is_no_module_or_asks_for_too_much_is_an_error(engines: dict[str, Path], release: str) -> None:
    for wat, problem in (("(module (func (drop)))", ""), ('(module (import "env" "g" (global externref)))', "no source")):
        outcome = run(engines[release], program(wat, [["instantiate", 0, {}], ["call", 0, "f", []]]))
        assert [event[:2] for event in told(outcome, "error")] == [["error", ["script", 0]], ["error", ["script", 1]]]
        assert problem in told(outcome, "error")[0][2]
        assert outcome.death == ""


def test_a_panic_of_the_engine_is_named_and_what_it_says_kept(engines: dict[str, Path]) -> None:
    """Initialising a table from a segment that holds null; the panic unwinds into C, and whatever that leads to is not the point."""
    wat = """(module (table $t 1 externref) (elem $seg externref (item (ref.null extern)))
                     (func (export "f") (table.init $t $seg (i32.const 0) (i32.const 0) (i32.const 1))))"""
    initialising = program(wat, [["instantiate", 0, {}], ["call", 0, "f", []]])
    outcome = run(engines[OLD], initialising)
    assert outcome.death == "panic"
    assert "should never panic because we already did the bounds check above" in outcome.stderr
    assert plain_verdict(initialising, run(engines[NEW], initialising)) == ""


def test_stores_do_not_pile_up_in_a_process(engines: dict[str, Path]) -> None:
    """A callback that held its own store would keep it for ever, and some day the process would be out of mappings."""
    wanted = program(IMPORTING, [["instantiate", 0, {}], ["call", 0, "f", []]], [[["new", 0], ["return", [0], [0]]]], values=1)
    with Release(engines[NEW], Settings()) as release:

        def mappings() -> int:
            return len(Path(f"/proc/{release.started()}/maps").read_text(encoding="ascii").splitlines())

        for _ in range(20):
            release.run(wanted)
        before = mappings()
        for _ in range(100):
            assert plain_verdict(wanted, release.run(wanted)) == ""
        assert mappings() <= before + 8


@pytest.mark.parametrize(
    ("events", "verdict"),
    [
        ([["at", ["script", 0]], ["destroyed", 0, ["script", 1]], ["end"]], ""),
        ([["at", ["script", 0]], ["end"]], "value 0 is never destroyed"),
        ([["at", ["script", 0]], ["error", ["script", 0], "no room"], ["end"]], ""),
        ([["at", ["script", 0]], *[["destroyed", 0, ["script", 1]]] * 2, ["end"]], "value 0 is destroyed twice"),
        ([["at", ["script", 0]], ["destroyed", "?0x5a", ["script", 1]]], "value ?0x5a is destroyed, and is no value"),
        ([["at", ["script", 0]], ["got", ["script", 1], ["?0x5a"]]], "wrong value at script 1"),
    ],
)
def test_the_plain_verdict_names_what_is_wrong_in_any_program(events: list[Any], verdict: str) -> None:
    wanted = program("(module)", [["new", 0], ["drop", 0]])
    assert plain_verdict(wanted, Outcome(0, events)) == verdict
    assert plain_verdict(wanted, Outcome(0, events, "crash SIGSEGV")) == "crash SIGSEGV"


def test_destructions_of_one_sweep_are_told_in_order_of_value() -> None:
    """The engine seeds its hash sets anew in each process, so their order says nothing."""
    here, there = ["script", 1], ["script", 2]
    events: list[Any] = [["at", here], *(["destroyed", value, here] for value in ("?0x5a", 10, 9)), ["destroyed", 1, there], ["at", there]]
    assert in_order(events) == [
        ["at", here],
        *(["destroyed", value, here] for value in (9, 10, "?0x5a")),
        ["destroyed", 1, there],
        ["at", there],
    ]
    assert in_order([["destroyed", 2, here], ["at", there], ["destroyed", 1, here]])[0] == ["destroyed", 2, here]


def test_places_name_actions() -> None:
    wanted = program("(module)", [["gc"]], [[], [["raise"]]], {"3": [["new", 4]]})
    places: list[list[Any]] = [["script", 0], ["script", 1], ["import", 1, 0], ["import", 1, -1], ["import", 2, 0], ["destructor", 3, 0]]
    assert [action_at(wanted, place) for place in places] == [["gc"], None, ["raise"], None, None, ["new", 4]]


def run_file(path: Path, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a reproduction as a stranger would: no project, no more than the package."""
    path.write_text(text, encoding="utf-8")
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=variables, timeout=200, check=False, cwd=path.parent
    )


def test_a_reproduction_runs_alone_and_tells_releases_apart(engines: dict[str, Path], tmp_path: Path) -> None:
    text = reproduction(move_pairs(190), BROKEN, "crash SIGSEGV", story="Three references move.", name="pairs.py")
    assert "fuzz" not in text.replace("fuzzing", "")
    assert "pip install wasmtime==0.29.0" in text
    broken, mended, newest = (run_file(tmp_path / "pairs.py", text, engines[release]) for release in (BROKEN, MENDED, NEW))
    assert broken.stdout.startswith("wasmtime 0.29.0\n")
    assert broken.returncode in {-11, -6, 1}, broken.stdout[-500:] + broken.stderr[-500:]
    assert (mended.returncode, mended.stderr) == (0, "")
    assert mended.stdout.endswith('"end"\nnothing wrong here\n')
    assert newest.returncode == 0, newest.stderr


@pytest.mark.parametrize(
    ("facts", "wrong"),
    [
        ({"expected": [(["script", 5], [0]), (["script", 8], [2])]}, "[1] instead of [2] at ['script', 8]"),
        ({"sizes": [(["script", 6], 2), (["script", 7], 1)]}, "2 instead of 1 at ['script', 7]"),
        (
            {"owned": [(0, ["script", 18]), (2, ["script", 19])]},
            "value 2 is destroyed at ['script', 18], and is owned until ['script', 19]",
        ),
        ({"dead": [(["script", 18], [0, 1, 2]), (["script", 17], [2])]}, "value 2 is alive after ['script', 17], and nothing owns it"),
    ],
)
def test_a_reproduction_knows_what_it_expects(engines: dict[str, Path], tmp_path: Path, facts: Data, wrong: str) -> None:
    done = run_file(tmp_path / "repro.py", reproduction(everything(), NEW, "wrong", **facts), engines[NEW])
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.endswith(f"\nwrong: {wrong}\n")


def test_a_reproduction_knows_which_calls_trap(engines: dict[str, Path], tmp_path: Path) -> None:
    raising = program(IMPORTING, [["instantiate", 0, {}], ["call", 0, "f", []]], [[["raise"]]])
    ends = []
    listed: tuple[list[list[str | int]] | None, ...] = (None, [["script", 1]], [])
    for traps in listed:
        done = run_file(tmp_path / "repro.py", reproduction(raising, NEW, "unexpected trap", traps=traps), engines[NEW])
        ends.append((done.returncode, done.stdout.splitlines()[-1]))
    assert ends == [(0, "nothing wrong here"), (0, "nothing wrong here"), (1, "wrong: a trap at ['script', 1]")]
