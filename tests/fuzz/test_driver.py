"""The driver agrees on a right implementation, and each kind of wrong answer from a planted defect becomes a divergence."""

from collections.abc import Callable
from typing import Any

import pytest

from fuzz.choosers import Recorded, Seeded
from fuzz.driver import Divergence, Driver, Outcome
from impl import activations_table, collector, externref, instance
from impl import runtime as runtime_module
from impl.runtime import Runtime
from model.choose import Exhausted
from model.limits import SCOPES, Limits, with_numbers
from model.ops import Kind, Row
from model.properties import Sometimes
from model.trace import parse

HEAD = "# drc trace v1 scope=everything chunk=2 instances=2\n"
INSTANCE = "instantiate module=0 initial=null segment=0 active=0\n"


def rows_of(text: str) -> tuple[Row, ...]:
    return parse(HEAD + text).rows


LIMITS = parse(HEAD).limits


def replay(text: str, *, checked: bool = False, limits: Limits = LIMITS) -> Outcome:
    return Driver(limits, checked=checked).replay(rows_of(text))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("checked", [False, True], ids=["raw", "checked"])
def test_both_sides_agree_on_random_runs(scope: str, checked: bool) -> None:
    driver = Driver(SCOPES[scope], checked=checked)
    for seed in range(3):
        driver.reset()
        outcome = driver.run(Seeded(1000 + seed), 150)
        assert outcome.steps >= 150
        assert sum(outcome.counts) == outcome.steps
        assert outcome.skipped == ()


def test_both_memories_do_the_same() -> None:
    limits = SCOPES["everything"]
    for seed in range(3):
        raw, checked = (Driver(limits, checked=side).run(Seeded(seed), 200) for side in (False, True))
        assert raw == checked


def test_a_run_replays_to_itself() -> None:
    driver = Driver(SCOPES["everything"])
    run = driver.run(Seeded(5), 200)
    driver.reset()
    assert driver.replay(run.rows) == run


def test_any_operations_may_be_taken_out_of_a_replay() -> None:
    driver = Driver(SCOPES["everything"])
    rows = driver.run(Seeded(8), 120).rows
    for step in (2, 3, 7):
        driver.reset()
        kept = rows[::step]
        outcome = driver.replay(kept)
        assert len(outcome.rows) + len(outcome.skipped) == len(kept)


def test_an_outcome_says_what_was_done() -> None:
    outcome = replay(
        f"new layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0]\nreturn results=[]\ndrop value=0\ngc\n| gc\n| end\n"
    )
    assert len(outcome.rows) == 7
    assert outcome.depths == (0, 0, 0, 0, 0, 1, 1)
    # The finale tears the store down.
    assert outcome.steps == 8
    assert {Kind(kind).name: count for kind, count in enumerate(outcome.counts) if count} == {
        "NEW": 1,
        "INSTANTIATE": 1,
        "CALL_WASM": 1,
        "RETURN": 1,
        "GC": 2,
        "END": 1,
        "TEARDOWN_STORE": 1,
    }
    assert outcome.skipped == ((4, "needs root"),)
    seen = {what for what in Sometimes if outcome.seen >> what & 1}
    assert seen == {Sometimes.COLLECTION_KILLED, Sometimes.COLLECTION_NESTED}


def test_a_driver_that_was_reset_is_as_new() -> None:
    driver = Driver(SCOPES["everything"])
    fresh = (list(driver.state), driver.runtime.snapshot())
    driver.run(Seeded(2), 100)
    driver.reset()
    assert (driver.state, driver.runtime.snapshot()) == fresh


def test_the_step_hook_hears_of_each_operation_when_it_is_finished() -> None:
    driver = Driver(LIMITS)
    heard: list[tuple[str, int]] = []
    driver.on_step = lambda row, result: heard.append((Kind(row[0]).name, result))
    driver.replay(rows_of("new layout=0\nnew layout=0\ndrop value=0\n| gc\n| end\nhost_table_get table=0 element=0\ndrop value=1\n| end\n"))
    assert heard == [("NEW", 0), ("NEW", 1), ("GC", 0), ("DROP", 0), ("DROP", 0), ("TEARDOWN_STORE", 0)]


def test_a_joint_state_can_be_saved_and_loaded() -> None:
    driver = Driver(LIMITS)
    for row in rows_of(f"new layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0]\n"):
        driver.perform(row)
    saved = driver.save()
    for row in rows_of("local_null target=0\nreturn results=[]\nnew layout=1\n"):
        driver.perform(row)
    changed = driver.save()
    driver.load(saved)
    assert driver.save() == saved
    assert changed != saved
    for row in rows_of("local_null target=0\nreturn results=[]\nnew layout=1\n"):
        driver.perform(row)
    assert driver.save() == changed


def test_a_state_inside_a_destructor_cannot_be_saved() -> None:
    driver = Driver(LIMITS)

    def save(_row: Row, _result: int) -> None:
        if driver.nesting:
            driver.save()

    driver.on_step = save
    with pytest.raises(Divergence, match="a state inside a destructor cannot be saved"):
        driver.replay(rows_of("new layout=0\ndrop value=0\n| gc\n| end\n"))


def test_a_run_ends_at_its_bound_and_lets_go_of_everything() -> None:
    driver = Driver(SCOPES["everything"])
    outcome = driver.run(Seeded(11), 50)
    assert len(outcome.rows) == 50
    assert outcome.steps > 50


def test_a_run_without_choices_does_nothing_but_the_finale() -> None:
    outcome = Driver(LIMITS).run(Recorded([]))
    assert (outcome.rows, outcome.steps, outcome.counts[Kind.TEARDOWN_STORE]) == ((), 1, 1)


def test_an_exception_of_the_source_itself_is_no_quiet_end() -> None:
    def broken(_state: Any, _limits: Limits) -> Row:
        raise ValueError("the source is broken")

    with pytest.raises(Divergence, match="the source is broken"):
        Driver(LIMITS).run_source(broken)


def test_exhaustion_inside_a_destructor_lets_it_end() -> None:
    driver = Driver(LIMITS)
    rows = list(rows_of("new layout=0\ndrop value=0\n"))

    def draw(_state: Any, _limits: Limits) -> Row:
        if rows:
            return rows.pop(0)
        raise Exhausted

    assert driver.run_source(draw).counts[Kind.END] == 1


PASS = f"new layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0]\n"
"""Value 0 is in slot 0 of an activation."""


def nothing(*_: Any) -> None:
    return


def plant(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, change: Callable[[Any], Any]) -> None:
    """Replace a function by what `change` makes of it, in every module that has it under its name."""
    original = getattr(owner, name)
    changed = change(original)
    for module in (externref, activations_table, collector, instance, runtime_module):
        if getattr(module, name, None) is original:
            monkeypatch.setattr(module, name, changed)
    monkeypatch.setattr(owner, name, changed)


CASES: list[tuple[str, object, str, Callable[[Any], Any], str, str, str]] = [
    (
        "a live reference is not found",
        collector,
        "scan_word",
        lambda _: nothing,
        f"{PASS}call_import live=1 args=[]\ngc\n",
        "Violation",
        "value 0 is destroyed while it must live: held by slot 0 of activation 1",
    ),
    (
        "a dead value is kept",
        activations_table,
        "sweep_slot",
        lambda _: lambda *_: 0,
        f"{PASS}return results=[]\ngc\n",
        "Violation",
        "value 0 must be dead: nothing owned it and no activation could read it when the collection began",
    ),
    (
        "a collection does nothing",
        collector,
        "gc",
        lambda _: nothing,
        f"{PASS}return results=[]\ngc\n",
        "Violation",
        "value 0 must be dead",
    ),
    (
        "a count is too high",
        Runtime,
        "clone",
        lambda old: lambda self, ref: old(self, old(self, ref)),
        "new layout=0\nclone value=0\n",
        "InvariantViolated",
        "(1)",
    ),
    (
        "another reference is returned",
        Runtime,
        "clone",
        lambda old: lambda self, ref: old(self, ref) + 2,
        "new layout=0\nclone value=0\n",
        "Disagreement",
        "the model says value 0, the implementation returned word",
    ),
    (
        "a store is lost",
        Runtime,
        "host_global_set",
        lambda _: lambda self, _i, _g, ref: self.drop(ref),
        f"new layout=0\n{INSTANCE}host_global_set instance=0 global=0 value=0\n",
        "Violation",
        "value 0 is destroyed while it must live: held by global 0 of instance 0",
    ),
    (
        "a local is not written",
        Runtime,
        "local_copy",
        lambda _: nothing,
        f"{PASS}local_copy source=0 target=1\n",
        "Disagreement",
        "slot 1 of the activation: the model says value 0, the implementation has null",
    ),
    (
        "a bound is not checked",
        Runtime,
        "host_table_get",
        lambda _: lambda *_: 0,
        f"{INSTANCE}host_table_get table=0 element=1\n",
        "Disagreement",
        "host_table_get: the model says out of bounds, the implementation says success",
    ),
    (
        "a registration is not refused",
        Runtime,
        "register",
        lambda _: nothing,
        "register module=10\n",
        "Disagreement",
        "register: the model says the registration is refused, the implementation says success",
    ),
    (
        "a registration is forgotten",
        Runtime,
        "register",
        lambda _: nothing,
        "register module=8\n" * 8,
        "Disagreement",
        "by linear scan, but the registry finds None",
    ),
    (
        "a panic is swallowed",
        Runtime,
        "drop",
        lambda old: lambda self, ref: swallow(old, self, ref),
        "new layout=0\ndrop value=0\n| panic\n",
        "Disagreement",
        "drop: the model says a destructor panicked, so it must raise, the implementation says success",
    ),
    (
        "a table has another size",
        Runtime,
        "host_table_grow",
        lambda _: lambda *_: 1,
        f"{INSTANCE}host_table_grow table=0 delta=1 value=null\n",
        "Disagreement",
        "instance 0 is missing, or its table or segment has not the model's size 2, 2",
    ),
    (
        "a growth is answered wrongly",
        Runtime,
        "host_table_grow",
        lambda old: lambda *args: old(*args) + 1,
        f"{INSTANCE}host_table_grow table=0 delta=1 value=null\n",
        "Disagreement",
        "the model says 1, the implementation returned 2",
    ),
    (
        "a value is overwritten",
        Runtime,
        "clone",
        lambda old: lambda self, ref: scribble(old, self, ref),
        "new layout=0\nclone value=0\ndrop value=0\ndrop value=0\n",
        "Disagreement",
        "the destructor of value 0 finds word 2 of its value overwritten",
    ),
    (
        "the implementation fails",
        Runtime,
        "gc",
        lambda _: lambda self: self.memory[1 << 60],
        "gc\n",
        "IndexError",
        "the implementation failed",
    ),
]


def swallow(old: Callable[..., None], *args: Any) -> None:
    try:
        old(*args)
    except Exception:  # noqa: BLE001  # this is the defect
        return


def scribble(old: Callable[..., int], runtime: Runtime, ref: int) -> int:
    runtime.memory[runtime.value_of(ref) + 2] = 1
    return old(runtime, ref)


@pytest.mark.parametrize(
    ("owner", "name", "change", "text", "verdict", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_planted_defect_is_a_divergence(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, change: Callable[[Any], Any], text: str, verdict: str, said: str
) -> None:
    limits = with_numbers(LIMITS, {"modules": 16})
    assert replay(text, limits=limits).skipped == ()
    plant(monkeypatch, owner, name, change)
    with pytest.raises(Divergence) as raised:
        replay(text, limits=limits)
    assert raised.value.verdict == verdict
    assert said in raised.value.text
    assert str(raised.value) == f"{verdict}: {raised.value.text}"


def test_a_divergence_carries_the_trace_that_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says it chose is enough to see it again."""
    monkeypatch.setattr(Runtime, "teardown_store", nothing)
    with pytest.raises(Divergence) as raised:
        replay(f"{PASS}return results=[]\n")
    found = raised.value
    assert [Kind(row[0]).name for row in found.rows] == ["NEW", "INSTANTIATE", "CALL_WASM", "RETURN", "TEARDOWN_STORE"]
    assert (found.chosen, found.depths) == (4, (0, 0, 0, 0, 0))
    with pytest.raises(Divergence) as again:
        Driver(LIMITS).replay(found.rows[: found.chosen])
    assert (again.value.rows, again.value.text) == (found.rows, found.text)


def test_checked_memory_names_the_access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runtime, "raw_round_trip", lambda self, ref: (self.drop(ref), self.memory[ref])[0])
    text = "new layout=0\nraw_round_trip value=0\n"
    with pytest.raises(Divergence) as raised:
        replay(text, checked=True)
    assert raised.value.verdict == "Violation"
