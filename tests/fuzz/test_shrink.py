"""Shrinking keeps the verdict, ends, is deterministic, and reaches the shortest story of simple defects."""

import pytest

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from fuzz.shrink import Shrinker, diverges, renamed, shrink_limits, simpler
from model.limits import SCOPES, Limits, with_numbers
from model.ops import NULL, Kind
from model.trace import Trace, parse

CALLS = SCOPES["calls"]


def find(limits: Limits) -> Divergence:
    """The first use-after-free in seeded runs. What the host holds as well dies later, and is found by an invariant."""
    for seed in range(200):
        try:
            Driver(limits).run(Seeded(seed), 200)
        except Divergence as found:
            if found.verdict == "Violation":
                return found
    raise AssertionError("the planted defect was not found")


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection that does not look at the stack."""
    monkeypatch.setattr("impl.collector.scan_word", lambda mem, table, address: None)


@pytest.mark.usefixtures("blind")
def test_a_finding_shrinks_to_its_shortest_story() -> None:
    found = find(CALLS)
    trace, divergence = Shrinker(Trace(CALLS, found.rows[: found.chosen]), checked=False, verdict=found.verdict).shrink()
    assert divergence is not None
    assert divergence.verdict == found.verdict
    assert len(trace.rows) < found.chosen
    # A value, an instance, a call with the value, and one collection while it is live: asked for, or by a full chunk.
    assert len(trace.rows) <= 6
    kinds = [row[0] for row in trace.rows]
    assert [kinds.count(kind) for kind in (Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM)] == [1, 1, 1]


@pytest.mark.usefixtures("blind")
def test_a_shrunken_trace_cannot_lose_any_operation() -> None:
    found = find(CALLS)
    trace, _ = Shrinker(Trace(CALLS, found.rows[: found.chosen]), checked=False, verdict=found.verdict).shrink()
    for position in range(len(trace.rows)):
        without = trace.rows[:position] + trace.rows[position + 1 :]
        again = diverges(Driver(CALLS), without)
        assert again is None or again.verdict != found.verdict


@pytest.mark.usefixtures("blind")
def test_shrinking_is_deterministic() -> None:
    found = find(CALLS)
    trace = Trace(CALLS, found.rows[: found.chosen])
    assert len({Shrinker(trace, checked=False, verdict=found.verdict).shrink()[0] for _ in range(2)}) == 1


@pytest.mark.usefixtures("blind")
def test_the_bound_on_replays_is_kept() -> None:
    found = find(CALLS)
    shrinker = Shrinker(Trace(CALLS, found.rows[: found.chosen]), checked=False, verdict=found.verdict, replays_max=3)
    trace, divergence = shrinker.shrink()
    assert shrinker.left == 0
    assert divergence is not None
    assert len(trace.rows) <= found.chosen


@pytest.mark.usefixtures("blind")
def test_another_verdict_is_another_finding() -> None:
    found = find(CALLS)
    trace = Trace(CALLS, found.rows[: found.chosen])
    assert Shrinker(trace, checked=False, verdict="Aborted").shrink() == (trace, None)


def test_what_does_not_diverge_is_not_shrunk() -> None:
    trace = parse("# drc trace v1 scope=calls\nnew layout=0\ngc\n")
    assert Shrinker(trace, checked=False, verdict="Violation").shrink() == (trace, None)


@pytest.mark.usefixtures("blind")
def test_the_chunk_is_made_small_where_the_finding_stays() -> None:
    limits = with_numbers(CALLS, {"chunk": 4})
    text = "# drc trace v1 scope=calls chunk=4\nnew layout=0\ninstantiate module=0 initial=null segment=0 active=0\n"
    text += "call_wasm instance=0 function=0 args=[0]\ncall_import live=1 args=[]\ngc\n"
    trace = parse(text)
    assert trace.limits == limits
    assert shrink_limits(trace, checked=False, verdict="Violation").limits.chunk == 1
    assert shrink_limits(trace, checked=False, verdict="Disagreement") == trace


def test_an_endless_replay_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(_runtime: object) -> None:
        while True:
            pass

    monkeypatch.setattr("fuzz.shrink._SECONDS_MAX", 0.05)
    monkeypatch.setattr("impl.runtime.Runtime.gc", spin)
    found = diverges(Driver(CALLS), ((Kind.GC,),))
    assert found is not None
    assert found.verdict == "Hang"


def test_an_endless_recursion_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def recurse(runtime: object) -> None:
        recurse(runtime)

    monkeypatch.setattr("impl.runtime.Runtime.gc", recurse)
    found = diverges(Driver(CALLS), ((Kind.GC,),))
    assert found is not None
    assert found.verdict == "RecursionError"


def test_simpler_rows_say_less() -> None:
    assert list(simpler((Kind.GC,))) == []
    assert list(simpler((Kind.DROP, 3))) == [(Kind.DROP, NULL), (Kind.DROP, 0), (Kind.DROP, 1), (Kind.DROP, 2)]
    assert list(simpler((Kind.RETURN, 1, 0))) == [
        (Kind.RETURN, 0),
        (Kind.RETURN, 1),
        (Kind.RETURN, NULL, 0),
        (Kind.RETURN, 0, 0),
        (Kind.RETURN, 1, NULL),
    ]


def test_names_move_down_when_a_value_is_taken_out() -> None:
    rows = ((Kind.NEW, 0), (Kind.NEW, 0), (Kind.DROP, 1))
    assert renamed(rows, rows[0], 0) == ((Kind.NEW, 0), (Kind.NEW, 0), (Kind.DROP, 0))
    assert renamed(rows, rows[2], 2) == rows
