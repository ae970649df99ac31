"""What is proved of the protocol is proved of this code: lockstep runs follow it word by word, and planted defects do not."""

import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzz.choosers import Seeded
from fuzz.driver import Divergence, Driver
from impl import activations_table, collector, externref, instance, transfers
from model.limits import DEPTH, LIVE, SCOPES, Limits
from model.ops import Row
from model.trace import parse
from model.words import bits
from proofs.conformance import Conformance
from proofs.protocol import EMPTY, IDLE
from proofs.protocol_steps import STEPS, Step
from proofs.simulation import Nonconforming, Simulation, seen_of

TRACES = Path(__file__).parent.parent / "traces"
# The three longest repeat one thing some thousand times.
BYTES_MAX = 10_000
OPERATIONS = 200

# These do not show in any word.
SILENT = {"fade", "fade-inside", "walk-fails", "nested-collection"}

# An activation holds value 0 while a destructor of the sweep passes it to Wasm once more: it is in both sets when they are merged.
IN_BOTH_SETS = """\
# drc trace v1 scope=everything chunk=2 objects=2 roots=2 slots=1 functions=1 arguments=1 contexts=7 destructors=1 table=0 segment=0
new layout=0 owns=[]
instantiate module=0 initial=null segment=0 active=0
clone value=0
call_wasm instance=0 function=0 args=[0]
call_import live=1 args=[]
new layout=1 owns=[]
call_wasm instance=0 function=0 args=[1]
return results=[]
gc
| clone value=0
| call_wasm instance=0 function=0 args=[0]
| return results=[]
| end
"""

# A destructor passes value 0 to Wasm twice: the second time the set has it, and no collection can make room.
TWICE_IN_ONE_SWEEP = """\
# drc trace v1 scope=everything chunk=2 objects=2 slots=2 arguments=1 contexts=5 destructors=1 destructor_ops=9 table=0 segment=0
new layout=0 owns=[]
instantiate module=0 initial=null segment=0 active=0
new layout=1 owns=[]
call_wasm instance=0 function=0 args=[1]
return results=[]
gc
| clone value=0
| call_wasm instance=0 function=0 args=[0]
| local_copy source=0 target=1
| return results=[]
| clone value=0
| call_wasm instance=0 function=0 args=[0]
| return results=[]
| end
"""

# Two walks are cut short: one after it has found value 0, one before.
CUT_SHORT = """\
# drc trace v1 scope=everything chunk=2 objects=2 roots=2 slots=1 functions=1 arguments=1 contexts=7 destructors=1 table=0 segment=0
new layout=0 owns=[]
instantiate module=0 initial=null segment=0 active=0
call_wasm instance=0 function=0 args=[0]
call_import live=1 args=[]
cut_walk frames=2
gc
call_wasm instance=0 function=0 args=[]
call_import live=0 args=[]
cut_walk frames=2
gc
return_import results=[]
"""


def kept(name: str) -> str:
    return (TRACES / f"{name}.drc").read_text(encoding="utf-8")


class Followed:
    """A driver whose runs are followed through the protocol."""

    def __init__(self, limits: Limits, steps: tuple[Step, ...] = STEPS) -> None:
        self.driver = Driver(limits, checked=True)
        self.conformance = Conformance(self.driver.runtime, steps)

    def reset(self) -> Driver:
        self.driver.reset()
        self.conformance.restart()
        self.driver.on_step = self.settle
        return self.driver

    def settle(self, row: Row, result: int) -> None:
        """Tell what the model knows: references of the host, and locals that may be read."""
        state, limits, addresses = self.driver.state, self.driver.limits, self.driver.addresses
        forgotten, roots, slots = self.driver.forgotten, limits.shape.roots, limits.shape.slots
        held = {addresses[name]: state[roots + name] + forgotten[name] for name in bits(state[LIVE])}
        read = [addresses[name] for name in state[slots : slots + state[DEPTH] * limits.slots] if name >= 0]
        self.conformance.settle(held, {address: read.count(address) for address in read})

    def runs(self, count: int) -> int:
        """Do that many random runs, and return how many operations they had."""
        operations = 0
        for seed in range(count):
            operations += self.reset().run(Seeded(seed), OPERATIONS).steps
        return operations


def replayed(text: str, steps: tuple[Step, ...] = STEPS) -> Followed:
    trace = parse(text)
    followed = Followed(trace.limits, steps)
    outcome = followed.reset().replay(trace.rows)
    assert outcome.skipped == ()
    return followed


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_every_word_that_random_runs_write_is_a_step_of_the_protocol(scope: str) -> None:
    followed = Followed(SCOPES[scope])
    assert followed.runs(8) > 1500
    assert followed.conformance.simulation.changes > 1000


def short_traces() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in sorted(TRACES.rglob("*.drc")) if path.stat().st_size < BYTES_MAX]
    assert len(texts) > 30
    return [*texts, IN_BOTH_SETS, TWICE_IN_ONE_SWEEP, CUT_SHORT]


def test_every_step_that_shows_has_once_been_the_only_explanation() -> None:
    """A step that the code never takes would make the relation weaker than the code, unnoticed."""
    simulations = [replayed(text).conformance.simulation for text in short_traces()]
    for scope in ("reentrancy", "calls"):
        tight = Followed(replace(SCOPES[scope], chunk=1))
        tight.runs(12)
        simulations.append(tight.conformance.simulation)
    taken = {step.name: sum(simulation.taken[step.name] for simulation in simulations) for step in STEPS}
    assert {name for name, times in taken.items() if not times} == SILENT | {"insert-again"}


def without(name: str) -> tuple[Step, ...]:
    left = tuple(step for step in STEPS if step.name != name)
    assert len(left) == len(STEPS) - 1
    return left


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("insert-again", TWICE_IN_ONE_SWEEP),
        ("land-inside", TWICE_IN_ONE_SWEEP),
        ("fade", kept("defects/canary-not-found")),
        ("newcomer-given-back", IN_BOTH_SETS),
        ("walk-fails", CUT_SHORT),
        ("release", TWICE_IN_ONE_SWEEP),
    ],
)
def test_a_protocol_that_lacks_a_step_does_not_explain_the_run(name: str, text: str) -> None:
    with pytest.raises(Divergence) as caught:
        replayed(text, without(name))
    assert caught.value.verdict == "Nonconforming"


def mutated(function: Callable[..., Any], *changes: tuple[str, str]) -> Callable[..., Any]:
    """The same function with pieces of its text replaced."""
    text = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    namespace: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + text, "planted", "exec"), function.__globals__, namespace)  # noqa: S102
    planted: Callable[..., Any] = namespace[function.__name__]
    return planted


def plant(monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], *changes: tuple[str, str]) -> None:
    """Replace a function wherever it was imported to."""
    planted = mutated(function, *changes)
    places = [module for name, module in sorted(sys.modules.items()) if name.startswith("impl.")]
    places = [module for module in places if getattr(module, function.__name__, None) is function]
    assert places
    for module in places:
        monkeypatch.setattr(module, function.__name__, planted)


COUNT = "increment_ref_count(mem, externref)"
RESERVE = "reserve(mem, host, table, mem[REGISTRY], count)"
ONE_BY_ONE = (
    "from impl.collector import insert_with_gc; x = mem[address]; mem[address] = 0; insert_with_gc(mem, host, table, mem[REGISTRY], x)"
)
STORED_FIRST = "    mem[cell] = externref\n    if old != 0:\n        drop(mem, host, old)"
DROPPED_FIRST = "    if old != 0:\n        drop(mem, host, old)\n    mem[cell] = externref"


PLANTED: list[tuple[str, str, Callable[..., Any], list[tuple[str, str]]]] = [
    (
        "a collection between two arguments",
        kept("advisories/CVE-2021-39216-arguments"),
        transfers.move_into_table,
        [(RESERVE, "pass"), ("insert_without_gc(mem, table, mem[address])", ONE_BY_ONE)],
    ),
    ("a root not counted", IN_BOTH_SETS, activations_table.insert_precise_stack_root, [(COUNT, "pass")]),
    (
        "a duplicate keeps its count",
        TWICE_IN_ONE_SWEEP,
        activations_table.insert_slow_without_gc,
        [("decrement_ref_count(mem, externref)", "pass")],
    ),
    (
        "merged and given back",
        TWICE_IN_ONE_SWEEP,
        activations_table.sweep,
        [("if set_insert(mem, over, externref) == 0:", "if set_insert(mem, over, externref) >= 0:")],
    ),
    (
        "the chunk open during the sweep",
        TWICE_IN_ONE_SWEEP,
        activations_table.sweep,
        [("mem[table + NEXT] = mem[table + END]", "mem[table + NEXT] = start")],
    ),
    ("a slot not emptied", TWICE_IN_ONE_SWEEP, activations_table.sweep_slot, [("mem[slot] = 0", "pass")]),
    (
        "a panic leaves the sweep",
        kept("defects/destructor-panics-in-the-sweep-of-the-chunk"),
        activations_table.sweep_slot,
        [("return 1", "raise")],
    ),
    (
        "no guard",
        kept("upstream/destructor-collects"),
        collector.gc,
        [("if mem[table + COLLECTING] != 0:", "if mem[table + COLLECTING] > 1:")],
    ),
    ("a sweep after a failed walk", CUT_SHORT, collector.gc, [("canary) != 0:", "canary) >= 0:")]),
    (
        "a map misses a local",
        IN_BOTH_SETS,
        collector.scan_frame,
        [("bits = mem[entry + BITS]", "bits = mem[entry + BITS] & (mem[entry + BITS] - 1)")],
    ),
    ("a release before the store", kept("defects/wt-1923-table-set-by-the-host"), instance.store_moved, [(STORED_FIRST, DROPPED_FIRST)]),
    ("a store without a barrier", kept("defects/wt-11416-table-init-counts"), instance.replace_step, [(COUNT, "pass")]),
    ("unrooting does nothing", TWICE_IN_ONE_SWEEP, externref.drop, [("mem[externref] = count - 1", "pass")]),
]


@pytest.mark.parametrize(("text", "function", "changes"), [row[1:] for row in PLANTED], ids=[row[0] for row in PLANTED])
def test_a_planted_defect_is_no_step_of_the_protocol(
    text: str, function: Callable[..., Any], changes: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, function, *changes)
    with pytest.raises(Divergence) as caught:
        replayed(text)
    assert caught.value.verdict == "Nonconforming", caught.value


def test_what_the_host_is_said_to_hold_is_compared_between_operations() -> None:
    followed = Followed(SCOPES["counting"])
    driver = followed.reset()
    driver.step((0, 0), lambda state, limits: (0,))
    externref = driver.addresses[0]
    followed.conformance.settle({externref: 1}, {})
    with pytest.raises(Nonconforming, match="holds it 2 times"):
        followed.conformance.settle({externref: 2}, {})
    with pytest.raises(Nonconforming, match="should exist"):
        followed.conformance.settle({externref + 2: 1}, {})


def test_a_change_that_no_step_makes_is_refused_and_told() -> None:
    born = EMPTY._replace(phase=IDLE, room=1)
    alive = EMPTY._replace(life=1, ref_count=1, held=1, room=1)
    simulation = Simulation()
    states = simulation.begin(born, seen_of(alive))
    with pytest.raises(Nonconforming, match=r"count 1, owned 1 by the host; no collection, room for 1.*now it exists, count 3, nowhere"):
        simulation.follow(states, seen_of(alive._replace(ref_count=3)))


def test_only_a_checked_memory_can_be_watched() -> None:
    with pytest.raises(TypeError, match="checked memory"):
        Conformance(Driver(SCOPES["counting"]).runtime)
