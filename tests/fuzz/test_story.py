"""A story says what happened: each kind has words, destructors have bars, the failing step is marked, long ones are cut."""

import pytest

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.narrator import Telling, tell, tell_unreplayed
from fuzz.story import LINES_MAX, sides, step_lines, story
from fuzz.words import UNKNOWN, did, values
from impl.runtime import Runtime
from model.limits import SCOPES
from model.ops import NULL, SPECS, Kind, Row
from model.trace import Trace, parse

REENTRANCY = SCOPES["reentrancy"]

NESTED = """\
# drc trace v1 scope=reentrancy
instantiate module=0 initial=null segment=0 active=0
new layout=0
call_wasm instance=0 function=0 args=[0]
return results=[]
gc
| new layout=1
| gc
| end
drop value=7
"""


def told(text: str) -> Telling:
    return tell(parse(text), checked=True, states=True)


def test_a_telling_names_what_was_made_read_and_destroyed_and_why_a_line_was_skipped() -> None:
    assert step_lines(told(NESTED)) == [
        "   1  instantiate module=0 initial=null segment=0 active=0  makes instance 0, global 0 holds null",
        "   2  new layout=0 owns=[]                                  makes value 0",
        "   3  call_wasm instance=0 function=0 args=[0]              enters function 0 with value 0",
        "   4  return results=[]                                     returns nothing",
        "   5  gc                                                    collects; destroys value 0",
        "   6  | new layout=1 owns=[]                                makes value 1",
        "   7  | gc                                                  collects",
        "   8  | end                                                 the destructor returns",
        "   9  drop value=7                                          skipped: value is out of its domain",
        "      then the host lets go of everything (drop, end, teardown_store)",
    ]


def test_steps_finish_from_the_inside_out_and_have_the_state_after_them() -> None:
    telling = told(NESTED)
    assert [index for index, ended in telling.events if ended][:7] == [0, 1, 2, 3, 5, 6, 4]
    assert telling.steps[5].state[0] == "values: 1 0(dying)"
    assert telling.steps[4].state[0] == "values: 1"


def test_a_telling_does_what_a_replay_does() -> None:
    for seed in range(20):
        rows = Driver(SCOPES["everything"]).run(Seeded(seed), 150).rows
        telling = tell(Trace(SCOPES["everything"], rows), checked=False)
        outcome = Driver(SCOPES["everything"]).replay(rows)
        assert telling.divergence is None
        assert tuple(step.row for step in telling.steps if not step.finale and step.skipped is None) == outcome.rows
        assert tuple(step.depth for step in telling.steps if not step.finale) == outcome.depths
        assert len(telling.steps) == outcome.steps


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_words_before_and_after_it_has_finished(kind: Kind) -> None:
    row: Row = (kind, *[0] * len(SPECS[kind].operands))
    for result in (UNKNOWN, NULL, 0):
        assert did(row, result, [0, 0, 0], REENTRANCY)
    assert "panic" in did(row, 0, [0, 0, 0], REENTRANCY, panicked=True)


def test_many_values_are_counted_instead_of_listed() -> None:
    assert values([]) == "nothing"
    assert values([3]) == "value 3"
    assert values(range(100)) == "value 0, value 1, value 2 and 97 more"


@pytest.mark.parametrize(
    ("verdict", "text", "expected"),
    [
        (
            "Violation",
            "value 1 is destroyed while it must live: held by the host",
            ("value 1 must live: held by the host", "destroys value 1"),
        ),
        ("Violation", "value 1 is destroyed, but it is dead already", ("it is dead already", "destroys value 1 once more")),
        (
            "Violation",
            "value 1 is destroyed by an operation that can release nothing",
            ("value 1 may not die in an operation that can release nothing", "destroys value 1"),
        ),
        ("Violation", "value 1 must be dead: reasons", ("value 1 must be dead: reasons", "does not destroy it")),
        (
            "Disagreement",
            "slot 1 of the activation: the model says value 0, the implementation has null",
            ("slot 1 of the activation: says value 0", "slot 1 of the activation: has null"),
        ),
        ("Disagreement", "the model says 3, the implementation returned 4", ("says 3", "returned 4")),
        ("UseAfterFree", "word 7 of a free block", ("agreed with every operation before", "word 7 of a free block")),
    ],
)
def test_both_sides_have_their_words(verdict: str, text: str, expected: tuple[str, str]) -> None:
    assert sides(Divergence(verdict, text, (), (), 0)) == expected


def test_the_failing_step_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    telling = told(NESTED)
    assert telling.divergence is not None
    assert telling.divergence.verdict == "Violation"
    lines = story(telling, where="by hand")
    assert lines[:4] == [
        "Violation",
        "  found by:           by hand",
        "  the model:          value 0 must be dead: nothing owned it and no activation could read it when the collection began",
        "  the implementation: does not destroy it",
    ]
    assert [line for line in lines if line.startswith(">")] == [">  5  gc                                                    collects"]


def test_a_failure_inside_a_destructor_marks_the_step_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "clone", lambda _self, externref: externref)
    telling = told(NESTED.replace("| gc", "| clone value=1"))
    failing = telling.failing()
    assert failing is not None
    assert failing.row == (Kind.CLONE, 1)


def test_a_failure_in_the_finale_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "drop", lambda _self, _externref: None)
    lines = step_lines(told("# drc trace v1 scope=counting\nnew layout=0\nnew layout=0\n"))
    assert lines[2:] == [">     then the host lets go of everything (drop); drop value=0: the host lets go of value 0"]


def test_a_story_is_cut_in_its_middle_and_keeps_the_failing_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "gc", lambda _self: None)
    begin, end = NESTED.split("gc\n", 1)
    telling = told(begin + "register module=0\n" * 40 + "gc\n" + end)
    cut = story(telling, where="by hand", notes=("the end",), lines_max=LINES_MAX)
    assert len(cut) == LINES_MAX
    assert "operations more" in cut[7]
    assert cut[-1] == "the end"
    assert cut[-2].startswith("> 45")
    assert len(story(telling, where="by hand")) == 4 + 45


def test_a_divergence_that_does_not_show_again_is_told_without_words() -> None:
    trace = parse("# drc trace v1 scope=counting\nnew layout=0\ndrop value=0\n")
    divergence = Divergence("Disagreement", "the model says 3, the implementation returned 4", trace.rows, (0, 0), 2)
    telling = tell_unreplayed(trace, divergence, checked=False)
    assert step_lines(telling) == ["   1  new layout=0 owns=[]", ">  2  drop value=0"]


def test_a_story_needs_a_divergence() -> None:
    with pytest.raises(ValueError, match="nothing to tell"):
        story(told(NESTED), where="by hand")
