"""An exhaustive search counts what is there, misses nothing that symmetry hides, and finds shortest traces."""

import math
from dataclasses import replace
from typing import Any

import pytest

from fuzz.check_scopes import CHECK_SCOPES
from fuzz.choosers import Odometer
from fuzz.driver import Divergence, Driver
from fuzz.explore import Bounds, Explorer, Search
from fuzz.states import JointStates
from impl import activation, collector, instance, transfers
from impl.errors import Panicked
from impl.externref import drop, increment_ref_count
from impl.header import REGISTRY, TABLE
from impl.runtime import Runtime
from impl.stack_maps import END as MODULE_END
from impl.stack_maps import ENTRIES, ENTRY_COUNT, ENTRY_WORDS, MODULE_WORDS, MODULES, MODULES_COUNT, PC, START
from model.limits import Limits, with_numbers
from model.ops import Kind
from model.properties import Sometimes
from model.trace import format_row, parse

# States, transitions and depth of each scope that is searched to its end.
PINS = {
    "counting": (648, 13314, 12),
    "layouts": (840, 3255, 15),
    "calls": (4372, 28936, 12),
    "transfers": (711, 3514, 11),
    "globals": (1102, 6930, 12),
    "storage": (698, 11409, 12),
    "slots": (450, 5327, 10),
    "stores": (458, 1971, 10),
    "panics": (382, 1545, 12),
    "segments": (106, 2716, 5),
    "copies": (178, 7729, 8),
    "reentrancy": (1676, 26636, 13),
    "nesting": (20, 1156, 5),
    "sweeps": (2508, 12284, 15),
    "registry": (4388, 24040, 16),
    "modules": (11, 55, 2),
    "faults": (972, 15917, 16),
    "peers": (628, 3154, 11),
}
RESCUE_DEPTH = 7
RESCUE_PIN = (420, 1660)


def search(limits: Limits, *, symmetry: bool = True, **bounds: Any) -> Explorer:
    explorer = Explorer(JointStates(limits, symmetry=symmetry), bounds=Bounds(**bounds))
    explorer.run()
    return explorer


@pytest.fixture(scope="module")
def searched() -> dict[str, Search]:
    """Every scope, searched once."""
    found = {name: search(CHECK_SCOPES[name]) for name in PINS}
    found["rescue"] = search(CHECK_SCOPES["rescue"], depth=RESCUE_DEPTH)
    assert [explorer.violation for explorer in found.values()] == [None] * len(found)
    return {name: explorer.search for name, explorer in found.items()}


def test_each_scope_has_the_states_that_it_has(searched: dict[str, Search]) -> None:
    assert {name: (found.states, found.transitions, found.depth) for name, found in searched.items() if name in PINS} == PINS
    assert all(searched[name].complete for name in PINS)
    assert set(PINS) | {"rescue"} == set(CHECK_SCOPES)


def test_a_search_that_reaches_its_depth_is_not_complete(searched: dict[str, Search]) -> None:
    found = searched["rescue"]
    assert not found.complete
    assert (found.depth, found.deepest) == (RESCUE_DEPTH, RESCUE_DEPTH)
    assert (found.states, found.transitions) == RESCUE_PIN


def test_the_scopes_together_execute_every_operation_and_show_every_sometimes_property(searched: dict[str, Search]) -> None:
    counts = [sum(column) for column in zip(*(found.counts for found in searched.values()), strict=True)]
    shown = [sum(column) for column in zip(*(found.shown for found in searched.values()), strict=True)]
    assert [kind.name for kind in Kind if not counts[kind]] == []
    assert [what.name for what in Sometimes if not shown[what]] == []


def test_an_exact_search_counts_the_same(searched: dict[str, Search]) -> None:
    explorer = Explorer(JointStates(CHECK_SCOPES["faults"], symmetry=True), Search(exact=True))
    exact, digests = explorer.run(), searched["faults"]
    assert (exact.states, exact.transitions, exact.depth) == (digests.states, digests.transitions, digests.depth)
    assert (exact.parents, exact.ordinals, exact.counts, exact.shown) == (digests.parents, digests.ordinals, digests.counts, digests.shown)
    assert exact.collision_probability() == 0
    assert 0 < digests.collision_probability() < 1e-30


def test_a_frontier_takes_few_bytes() -> None:
    """At most 200 bytes a state beyond its digest and its way back, even where nearly all states wait."""
    found = search(CHECK_SCOPES["calls"], depth=8).search
    assert found.queue > found.states // 4
    assert sum(map(len, (*found.frontier, *found.following))) / found.queue < 200
    assert found.parents.itemsize + found.ordinals.itemsize <= 16


@pytest.mark.parametrize(("name", "states"), [("counting", 1842), ("nesting", 46), ("sweeps", 3564), ("faults", 972)])
def test_symmetry_saves_states_and_shows_the_same(searched: dict[str, Search], name: str, states: int) -> None:
    """Two values can be named in two ways, and lie in two ways. One value has only one."""
    whole = search(CHECK_SCOPES[name], symmetry=False).search
    reduced = searched[name]
    assert whole.complete
    assert whole.states == states
    assert whole.states / math.factorial(CHECK_SCOPES[name].objects) ** 2 <= reduced.states <= whole.states
    assert [count > 0 for count in whole.counts] == [count > 0 for count in reduced.counts]
    assert [count > 0 for count in whole.shown] == [count > 0 for count in reduced.shown]


def test_an_identity_does_not_depend_on_names_under_symmetry_alone() -> None:
    limits = with_numbers(CHECK_SCOPES["counting"], {"roots": 3})
    orders = ("new layout=0 owns=[]\nnew layout=0 owns=[]\nclone value=1\n", "new layout=0 owns=[]\nclone value=0\nnew layout=0 owns=[]\n")
    found = {}
    for symmetry in (True, False):
        states = JointStates(limits, symmetry=symmetry)
        identities = []
        for text in orders:
            states.open(states.root())
            states.reload()
            for row in parse(f"# drc trace v1 scope=counting\n{text}").rows:
                states.driver.perform(row)
            identities.append(states.identity())
        found[symmetry] = len(set(identities))
    assert found == {True: 1, False: 2}


def fuzzy_lookup(mem: Any, registry: int, pc: int) -> int:
    """Take the map of the nearest safepoint that is not after the pc, as releases before 0.30 do."""
    for number in range(mem[registry + MODULES_COUNT]):
        module = mem[registry + MODULES] + number * MODULE_WORDS
        if mem[module + START] <= pc < mem[module + MODULE_END]:
            first = mem[module + ENTRIES]
            entries = range(first, first + mem[module + ENTRY_COUNT] * ENTRY_WORDS, ENTRY_WORDS)
            return max((entry for entry in entries if mem[entry + PC] <= pc), default=0)
    return 0


def one_by_one(self: Runtime, refs: Any) -> None:
    """Move references into the table with a collection between two of them, as releases before 0.30 do."""
    mem = self.memory
    for ref in refs:
        if ref:
            collector.insert_with_gc(mem, self.host, mem[TABLE], mem[REGISTRY], ref)


def released_first(mem: Any, host: Any, cell: int, ref: int) -> None:
    """Release the old reference before the new one is stored, as releases before 0.19 do."""
    old = mem[cell]
    if ref:
        increment_ref_count(mem, ref)
    if old:
        drop(mem, host, old)
    mem[cell] = ref


def uncounted(mem: Any, target: int, source: int, kept: int) -> None:
    """Copy an element and do not count it."""
    mem[kept] = mem[target]
    mem[target] = mem[source]


def half_a_panic(self: Runtime, ref: int) -> None:
    """Forget that a destructor panicked."""
    try:
        drop(self.memory, self.host, ref)
    except Panicked:
        return


FIND = collector.find_precise_stack_roots


def unasked(*arguments: Any) -> int:
    """Sweep whether the walk has reached the canary or not."""
    FIND(*arguments)
    return 1


TWO_ARGUMENTS = replace(
    with_numbers(CHECK_SCOPES["calls"], {"objects": 2, "roots": 2, "arguments": 2, "slots": 2, "contexts": 2}),
    kinds=frozenset({Kind.NEW, Kind.INSTANTIATE, Kind.CALL_WASM, Kind.RETURN}),
)
DEFECTS: dict[str, tuple[object, str, Any, Limits, str, list[str]]] = {}


def planted(name: str, owner: object, what: str, change: Any, limits: Limits, verdict: str, *shortest: str) -> None:
    DEFECTS[name] = (owner, what, change, limits, verdict, list(shortest))


planted(
    "fuzzy lookup (CVE-2021-39218)",
    collector,
    "lookup_stack_map",
    fuzzy_lookup,
    CHECK_SCOPES["calls"],
    "Violation",
    "new layout=0 owns=[]",
    "instantiate module=0 initial=null segment=0 active=0",
    "call_wasm instance=0 function=0 args=[0]",
    "call_import live=0 args=[]",
    "gc",
)
planted(
    "collection in a transfer (CVE-2021-39216)",
    Runtime,
    "_move_into_table",
    one_by_one,
    TWO_ARGUMENTS,
    "Violation",
    "new layout=0 owns=[]",
    "new layout=0 owns=[]",
    "instantiate module=0 initial=null segment=0 active=0",
    "call_wasm instance=0 function=0 args=[0 1]",
)
planted(
    "release before store (wt#1969)",
    activation,
    "store_borrowed",
    released_first,
    CHECK_SCOPES["reentrancy"],
    "Disagreement",
    "new layout=0 owns=[]",
    "instantiate module=0 initial=0 segment=0 active=0",
    "call_wasm instance=0 function=0 args=[]",
    "global_set instance=0 global=0 source=0 live=0",
    "gc",
)
planted(
    "no barrier in table.init (wt#11416)",
    instance,
    "replace_step",
    uncounted,
    CHECK_SCOPES["segments"],
    "InvariantViolated",
    "new layout=0 owns=[]",
    "instantiate module=0 initial=0 segment=1 active=1",
)
planted(
    "the canary is not asked for",
    collector,
    "find_precise_stack_roots",
    unasked,
    CHECK_SCOPES["calls"],
    "Violation",
    "new layout=0 owns=[]",
    "instantiate module=0 initial=null segment=0 active=0",
    "call_wasm instance=0 function=0 args=[0]",
    "call_import live=0 args=[]",
    "cut_walk frames=0",
    "gc",
)
planted(
    "a panic is lost",
    Runtime,
    "drop",
    half_a_panic,
    CHECK_SCOPES["counting"],
    "Disagreement",
    "new layout=0 owns=[]",
    "drop value=0",
    "panic",
)
planted(
    "a store is not torn down",
    Runtime,
    "teardown_store",
    lambda _self: None,
    CHECK_SCOPES["sweeps"],
    "Disagreement",
    "gc",
)
planted(
    "the canary stays",
    transfers,
    "reset_stack_canary",
    lambda *_: None,
    CHECK_SCOPES["globals"],
    "InvariantViolated",
    "instantiate module=0 initial=null segment=0 active=0",
    "call_wasm instance=0 function=0 args=[]",
)


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_has_a_shortest_trace(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With and without symmetry it has the same length, it replays, and one operation less is not enough."""
    owner, what, change, limits, verdict, shortest = DEFECTS[name]
    monkeypatch.setattr(owner, what, change)
    explorer = search(limits)
    found = explorer.violation
    assert found is not None
    assert [format_row(row, limits) for row in found.rows] == shortest
    with pytest.raises(Divergence) as raised:
        Driver(limits).replay(found.rows)
    assert (raised.value.verdict, raised.value.text) == (verdict, found.divergence.text)
    whole = search(limits, symmetry=False).violation
    assert whole is not None
    assert whole.steps == found.steps
    assert search(limits, depth=found.steps - 1).violation is None


def test_a_step_that_does_not_end_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(_self: Runtime) -> None:
        while True:
            pass

    monkeypatch.setattr(Runtime, "gc", spin)
    monkeypatch.setattr("fuzz.explore.STEP_SECONDS_MAX", 0.2)
    found = search(CHECK_SCOPES["nesting"]).violation
    assert found is not None
    assert (found.divergence.verdict, [Kind(row[0]) for row in found.rows][-1]) == ("Hang", Kind.GC)


def test_hidden_state_is_said_and_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The odometer refuses a system whose alternatives change behind its back."""
    odometer = Odometer()
    odometer.choose(3)
    odometer.choose(2)
    assert odometer.advance()
    odometer.choose(3)
    with pytest.raises(BaseException, match="no function of its choices"):
        odometer.choose(4)


@pytest.mark.parametrize(
    ("bounds", "reached"),
    [({"states": 100}, "100 states"), ({"depth": 3}, "depth 3"), ({"seconds": 0.0}, "0 seconds"), ({"megabytes": 1}, "1 MB of memory")],
)
def test_a_bound_that_is_reached_is_said(bounds: dict[str, Any], reached: str) -> None:
    explorer = search(CHECK_SCOPES["calls"], **bounds)
    assert explorer.reached == reached
    assert not explorer.search.complete


def test_a_bound_on_states_cuts_at_the_same_place_every_time() -> None:
    first, second = (search(CHECK_SCOPES["calls"], states=300).search for _ in range(2))
    assert 300 <= first.states < 400
    assert first == second
