"""Every kept trace replays on both memories without a divergence, does all that it says, and what it expects holds.

They are grouped by where they come from: upstream's own scenarios, advisories, defects that were found by reading or reported,
and the model's own rules.
"""

from functools import cache
from pathlib import Path

import pytest

from fuzz.driver import Divergence, Driver
from model.ops import Kind
from model.properties import Sometimes
from model.trace import SIZE_MAX_BYTES, TraceError, parse_bytes
from tests.traces.expectations import Expectation, Unmet, canonical, hold, story
from tests.traces.generate import files

FOLDER = Path(__file__).parent / "traces"
PATHS = sorted(FOLDER.rglob("*.drc"))
NAMES = [path.relative_to(FOLDER).as_posix() for path in PATHS]

SHORT = [path.relative_to(FOLDER).as_posix() for path in PATHS if path.stat().st_size < 10_000]

# Of a longer trace each operation is compared on one of the two memories, and its expectations on both.
LONG = 3000


@cache
def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("checked", [False, True], ids=["raw", "checked"])
def test_a_kept_trace_holds(name: str, checked: bool) -> None:
    told = story(text_of(name))
    _, depths = hold(told, checked=checked, verify=checked or len(told.trace.rows) < LONG)
    lines = text_of(name).splitlines()
    assert canonical(told, depths) == [lines[0], *(lines[number - 1] for number in told.lines)]


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_trace_is_small_enough_and_states_a_fact(name: str) -> None:
    data = (FOLDER / name).read_bytes()
    assert len(data) < SIZE_MAX_BYTES
    told = story(text_of(name))
    assert parse_bytes(data) == told.trace
    # What a trace of lookups alone says is said by the comparison with the linear scan.
    assert told.expectations or "lookup" in name


def test_each_group_has_traces() -> None:
    """An empty folder would pass every other test."""
    groups = [name.partition("/")[0] for name in NAMES]
    assert {group: groups.count(group) > 3 for group in groups} == dict.fromkeys(
        ["advisories", "defects", "mutants", "rules", "upstream"], True
    )


def test_the_short_traces_show_every_sometimes_property_and_every_kind() -> None:
    """So each has an example that a person can read."""
    seen = 0
    kinds: set[int] = set()
    for name in SHORT:
        trace = story(text_of(name)).trace
        outcome = Driver(trace.limits).replay(trace.rows)
        seen |= outcome.seen
        kinds.update(kind for kind, count in enumerate(outcome.counts) if count)
    assert [what.name for what in Sometimes if not seen >> what & 1] == []
    assert [kind.name for kind in Kind if kind not in kinds] == []


def test_the_generated_traces_are_what_the_script_writes() -> None:
    assert {name: text_of(f"upstream/{name}") == text for name, text in files().items()} == dict.fromkeys(files(), True)


def altered(expectation: Expectation) -> str:
    """Another value of the same sort, which cannot hold."""
    what, value = expectation.what, expectation.value
    if what == "seen":
        return f"{value} cycle_left"
    if what in {"alive", "order"}:
        return f"{value} 9999".strip()
    if what == "result":
        return "raised" if value != "raised" else "refused"
    return str(int(value) + 1)


@pytest.mark.parametrize("name", SHORT)
def test_each_fact_of_a_kept_trace_could_fail(name: str) -> None:
    """The finale of a run alone can see a cycle, so no line of a trace has seen one."""
    told = story(text_of(name))
    lines = text_of(name).splitlines()
    for expectation in told.expectations:
        index = expectation.line - 1
        start, _, _ = lines[index].partition("=")
        text = "\n".join([*lines[:index], f"{start}={altered(expectation)}", *lines[index + 1 :]]) + "\n"
        with pytest.raises(Unmet) as raised:
            hold(story(text), checked=False, verify=False)
        assert str(raised.value).startswith(f"line {expectation.line}: ")


HEAD = "# drc trace v1 scope=everything chunk=2 objects=3 destructors=0\n# A test.\n# source: none\n# must: hold.\n"
STORY = """\
new layout=0
instantiate module=0 initial=null segment=0 active=0
new layout=0
call_wasm instance=0 function=0 args=[0]
return results=[]
gc
"""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("alive=1", ""),
        ("alive=0", "alive is 1, expected 0"),
        ("alive=", "alive is 1, expected nothing"),
        ("destroyed=1", ""),
        ("destroyed=2", "destroyed is 1, expected 2"),
        ("order=0", ""),
        ("order=1", "order is 0, expected 1"),
        ("order=", "order is 0, expected nothing"),
        ("count 1=1", ""),
        ("count 1=2", "count 1 is 1, expected 2"),
        ("count 0=1", "count 0 is dead, expected 1"),
        ("result=ok", ""),
        ("result=0", ""),
        ("result=1", "result is 0, expected 1"),
        ("result=refused", "result is 0, expected refused"),
        ("seen=collection_killed", ""),
        ("seen=chunk_full collection_killed", "seen is collection_killed, expected chunk_full collection_killed"),
        ("seen=nonsense", "no sometimes property: 'nonsense'"),
        ("dead=0", "no expectation: '# expect: dead=0'"),
        ("destroyed = 1", "no expectation: '# expect: destroyed = 1'"),
        ("count=1", "no expectation: '# expect: count=1'"),
    ],
)
def test_each_expectation_is_held_to(line: str, reason: str) -> None:
    text = f"{HEAD}{STORY}# expect: {line}\n"
    if reason:
        with pytest.raises(Unmet) as raised:
            hold(story(text), checked=True)
        assert str(raised.value) == f"line 11: {reason}"
    else:
        hold(story(text), checked=True)


def test_an_expectation_speaks_of_the_moment_at_which_it_stands() -> None:
    before, after = STORY.split("gc\n")
    hold(story(f"{HEAD}{before}# expect: alive=0 1\ngc\n# expect: alive=1\n{after}"), checked=True)


def test_an_expectation_inside_a_destructor_is_held_to() -> None:
    text = f"{HEAD.replace('destructors=0', 'destructors=1')}{STORY}| new layout=0\n| # expect: alive=1 2\n| end\n# expect: alive=1\n"
    with pytest.raises(Unmet) as raised:
        hold(story(text), checked=False)
    assert str(raised.value) == "line 14: alive is 1 2, expected 1"


def test_an_impossible_operation_in_a_kept_trace_is_told() -> None:
    with pytest.raises(Unmet) as raised:
        hold(story(f"{HEAD}new layout=0\ndrop value=1\n"), checked=False)
    assert str(raised.value) == "line 6: not possible: value is out of its domain"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD.replace("# A test.\n", ""), "line 2: after the header come a description, '# source: ...' and '# must: ...'"),
        (HEAD.replace("source", "sauce"), "line 2: after the header come a description, '# source: ...' and '# must: ...'"),
        (HEAD.replace("must", "may"), "line 2: after the header come a description, '# source: ...' and '# must: ...'"),
        (HEAD + "#expect: alive=0\n", "line 5: no expectation: '#expect: alive=0'"),
        (HEAD + "\n", "line 1: 1 lines of operations, but 0 operations: blank lines are not kept"),
    ],
)
def test_a_kept_trace_without_its_words_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unmet) as raised:
        story(text)
    assert str(raised.value) == reason


def test_what_is_no_trace_is_no_story() -> None:
    with pytest.raises(TraceError):
        story("hello\n")


def test_a_divergence_is_not_taken_for_an_unmet_expectation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that forgets the precise roots destroys what a frame still reads."""
    monkeypatch.setattr("impl.collector.scan_word", lambda mem, table, address: None)
    with pytest.raises(Divergence) as raised:
        hold(story(text_of("upstream/recursion-five-deep-collects-at-the-bottom.drc")), checked=False)
    assert raised.value.verdict == "Violation"
