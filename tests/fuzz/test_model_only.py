"""A search of the model alone counts what is there, on any number of processes, and says what is wrong with a model."""

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest

import model.books
import model.calls
import model.hosting
import model.limits
import model.step
from fuzz.check_scopes import CHECK_SCOPES
from fuzz.choosers import Seeded
from fuzz.driver import Driver
from fuzz.explore import Bounds, Search, SearchLoop
from fuzz.model_search import ModelExplorer
from fuzz.model_states import ModelStates, blind
from fuzz.small_steps import first_state, mortal, names_at, pending, size
from fuzz.workers import Workers
from model.books import destruction_begins
from model.limits import BOOK_WORDS, CONTEXT_KIND, CONTEXT_OF, CONTEXT_WORDS, DEPTH, FULL, SEEN, UNDER_WAY, Limits, with_numbers
from model.ops import Context, Kind, Row
from model.state import State, Violation

PEERS = with_numbers(CHECK_SCOPES["peers"], {"objects": 2, "roots": 2})
# States, steps and depth of each scope without symmetry.
PINS = {
    "counting": (1986, 4514, 16),
    "calls": (348, 1600, 8),
    "globals": (203, 641, 8),
    "storage": (158, 945, 7),
    "stores": (704, 1483, 17),
    "panics": (196, 513, 18),
    "segments": (92, 1306, 5),
    "reentrancy": (384, 1408, 10),
    "nesting": (150, 271, 18),
    "rescue": (352, 815, 17),
    "sweeps": (460, 1912, 12),
    "registry": (314, 1300, 8),
    "layouts": (27, 59, 10),
    "transfers": (223, 900, 10),
    "slots": (302, 1271, 8),
    "copies": (70, 1191, 6),
    "modules": (9, 41, 2),
    "faults": (236, 689, 8),
    "peers": (169, 432, 7),
}
SYMMETRIC = {"counting": 1006, "nesting": 78, "rescue": 192, "sweeps": 276}


def search(limits: Limits, *, symmetry: bool = False, exact: bool = False, finale: bool = False, **bounds: Any) -> ModelExplorer:
    states = ModelStates(limits, symmetry=symmetry, exact=exact, finale=finale)
    explorer = ModelExplorer(states, Search(exact=exact), Bounds(**bounds))
    explorer.run()
    return explorer


def counts(explorer: SearchLoop) -> tuple[int, int, int]:
    return explorer.search.states, explorer.search.transitions, explorer.search.depth


@pytest.mark.parametrize("name", CHECK_SCOPES)
def test_each_scope_has_the_states_that_it_has_and_can_let_go_of_everything(name: str) -> None:
    explorer = search(CHECK_SCOPES[name], finale=True)
    assert explorer.violation is None
    assert explorer.search.complete
    assert counts(explorer) == PINS[name]


def test_the_protocol_that_three_checkers_know_has_as_many_states_as_they_say() -> None:
    """TLC and Spin count the same: `make bench-peers`."""
    assert counts(search(PEERS)) == (2403, 5826, 14)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetry_saves_states_and_shows_the_same(name: str) -> None:
    whole, reduced = search(CHECK_SCOPES[name]).search, search(CHECK_SCOPES[name], symmetry=True).search
    assert reduced.states == SYMMETRIC[name]
    assert reduced.complete
    assert [count > 0 for count in whole.counts] == [count > 0 for count in reduced.counts]
    assert [count > 0 for count in whole.shown] == [count > 0 for count in reduced.shown]


def renamed(state: State, limits: Limits, names: tuple[int, ...]) -> State:
    """Give each value another name, word by word: what a permutation means, without any cleverness."""
    shape = limits.shape
    new = list(state)

    def mask(word: int) -> int:
        return sum(1 << names[name] for name in range(limits.objects) if word >> name & 1)

    def cell(word: int) -> int:
        return names[word] if word >= 0 else word

    for at in range(4):
        new[at] = mask(state[at])
    for name in range(limits.objects):
        new[shape.roots + names[name]] = state[shape.roots + name]
        for index in range(limits.fields):
            new[shape.fields + names[name] * limits.fields + index] = cell(state[shape.fields + name * limits.fields + index])
    for at in (*range(shape.globals, shape.slots_end), *range(names_at(limits), size(limits))):
        new[at] = cell(state[at])
    for index in range(state[DEPTH]):
        at = shape.contexts + index * CONTEXT_WORDS
        if state[at + CONTEXT_KIND] == Context.DESTRUCTOR:
            new[at + CONTEXT_OF] = names[state[at + CONTEXT_OF]]
    for index in range(state[UNDER_WAY]):
        book = shape.books + index * BOOK_WORDS
        for word in (0, 1, 2, 3, 5):
            new[book + word] = mask(state[book + word])
    return new


def pack(state: State) -> bytes:
    return bytes(word & 255 for word in state)


def unpack(data: bytes) -> State:
    return [byte - 256 if byte > 127 else byte for byte in data]


def all_states(limits: Limits) -> list[State]:
    """Every state of a scope, from the keys of an exact search."""
    return [unpack(data) for data in search(limits, exact=True).search.seen]


@pytest.mark.parametrize("name", ["counting", "rescue", "sweeps", "peers"])
def test_two_states_are_one_if_and_only_if_a_permutation_says_so(name: str) -> None:
    limits = with_numbers(CHECK_SCOPES[name], {"objects": 2, "roots": 2})
    permutations = list(itertools.permutations(range(limits.objects)))
    classes: dict[bytes, set[bytes]] = {}
    for state in all_states(limits)[::3]:
        least = min(pack(renamed(state, limits, names)) for names in permutations)
        classes.setdefault(least, set()).add(blind(pack(state), limits))
    assert len(classes) > 50
    assert {len(found) for found in classes.values()} == {1}
    assert len(set.union(*classes.values())) == len(classes)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("counting", {"objects": 3, "roots": 2, "fields": 1, "leaks": 0, "destructors": 0}),
        # Two destructors act, one inside the other, and one of their values owns something.
        ("nesting", {"objects": 3, "roots": 2, "destructor_ops": 1}),
    ],
)
def test_three_names_are_told_apart_as_permutations_tell_them(name: str, bounds: dict[str, int]) -> None:
    limits = with_numbers(CHECK_SCOPES[name], bounds)
    states = all_states(limits)
    permutations = list(itertools.permutations(range(3)))
    least = {min(pack(renamed(state, limits, names)) for names in permutations) for state in states}
    assert len({blind(pack(state), limits) for state in states}) == len(least)
    assert len(least) < len(states) / 2


def test_an_exact_search_and_two_processes_number_everything_alike() -> None:
    one, exact = search(PEERS).search, search(PEERS, exact=True).search
    assert (exact.parents, exact.ordinals, exact.counts, exact.shown) == (one.parents, one.ordinals, one.counts, one.shown)
    assert {hashlib.blake2b(key, digest_size=16).digest() for key in exact.seen} == one.seen
    with Workers(2) as workers:
        for symmetry in (False, True):
            two = ModelExplorer(ModelStates(PEERS, symmetry=symmetry), workers=workers)
            assert two.run() == search(PEERS, symmetry=symmetry).search
        cut = ModelExplorer(ModelStates(PEERS, symmetry=False), bounds=Bounds(states=500), workers=workers)
        cut.run()
        assert cut.search == search(PEERS, states=500).search
        assert cut.reached == "500 states"
        cut.bounds = Bounds()
        rest = ModelExplorer(ModelStates(PEERS, symmetry=False), cut.search, workers=workers)
        assert rest.run() == one


def test_a_state_takes_few_bytes() -> None:
    found = search(PEERS, depth=8).search
    assert found.queue > found.states // 4
    assert sum(map(len, (*found.frontier, *found.following))) / found.queue < 100


@pytest.mark.parametrize("name", ["counting", "nesting", "rescue", "sweeps", "peers"])
def test_the_values_that_may_die_are_those_that_the_books_let_die(name: str) -> None:
    limits = PEERS if name == "peers" else CHECK_SCOPES[name]
    compared = 0
    for state in all_states(limits):
        if not pending(state):
            continue
        allowed = 0
        for value in range(limits.objects):
            try:
                destruction_begins(list(state), limits, value)
            except Violation:
                continue
            allowed |= 1 << value
        assert mortal(list(state), limits) == allowed
        compared += allowed > 0
    assert compared > 10


@pytest.mark.parametrize("name", ["counting", "calls", "globals", "reentrancy", "sweeps", "faults", "peers"])
def test_whatever_the_two_sides_do_together_the_model_can_do_alone(name: str) -> None:
    """Every state at rest of a lockstep run is among those that the search of the model finds."""
    limits = CHECK_SCOPES[name]
    known = search(limits, exact=True).search.seen
    rest = first_state(limits)[limits.shape.size :]
    driver = Driver(limits)
    met = set()

    def look(_row: Row, _result: int) -> None:
        if not driver.state[UNDER_WAY] and not driver.closing:
            state = [*driver.state, *rest]
            state[SEEN] = state[FULL] = 0
            met.add(pack(state))

    for seed in range(12):
        driver.reset()
        driver.on_step = look
        driver.run(Seeded(seed), 100)
    assert len(met) > 15
    assert met <= known


# Planted defects.


def not_deferred(state: State, limits: Limits, name: int) -> None:
    """Take up a value that is passed to Wasm, and forget to defer its death."""
    model.books.touch(state, limits, name)


def closed_silently(state: State, limits: Limits, row: Row, result: int) -> None:
    """Forget the deferrals of a store that is torn down, and ask nothing of the values."""
    state[model.limits.CLOSED] = state[model.limits.DEFERRED] = 0


def nobody(_state: State, _limits: Limits, _names: int) -> int:
    """Except nothing from what a collection owes."""
    return 0


PASSED = ["new layout=0 owns=[]", "instantiate module=0 initial=null segment=0 active=0", "call_wasm instance=0 function=0 args=[0]"]
DEFECTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Limits, str, str, list[str]]] = {
    "a transfer that defers nothing": (
        lambda patch: patch.setattr(model.calls, "defer", not_deferred),
        PEERS,
        "Property",
        "value 0 is lost: nobody owns it, no activation reads it, and its death is not deferred",
        [*PASSED, "global_get instance=0 global=0 target=0 live=0"],
    ),
    "a collection that excepts nothing": (
        lambda patch: patch.setattr(model.books, "kept_by", nobody),
        CHECK_SCOPES["rescue"],
        "Deadlock",
        "an operation is under way that can neither destroy anything nor end",
        [],
    ),
    "an old promise of the model: deferrals end unseen": (
        lambda patch: patch.setattr(
            model.step, "FINISH", [closed_silently if kind == Kind.TEARDOWN_STORE else model.step.FINISH[kind] for kind in Kind]
        ),
        with_numbers(CHECK_SCOPES["reentrancy"], {"objects": 2, "roots": 2, "destructor_ops": 1}),
        "Property",
        "value 1 is lost: nobody owns it, no activation reads it, and its death is not deferred",
        [],
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_of_the_model_is_found_with_and_without_symmetry(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, limits, verdict, text, story = DEFECTS[name]
    plant(monkeypatch)
    explorer = search(limits)
    violation = explorer.violation
    assert violation is not None
    assert (violation.divergence.verdict, violation.divergence.text) == (verdict, text)
    reduced = search(limits, symmetry=True).violation
    assert reduced is not None
    assert (reduced.steps, reduced.divergence.verdict) == (violation.steps, verdict)
    assert search(limits, depth=violation.steps - 1).violation is None
    assert len(violation.lines) == violation.steps
    if story:
        assert list(violation.lines) == story


def test_a_planted_defect_shows_in_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is too lenient breaks no property of these, but the number of states is another."""
    monkeypatch.setattr(model.books, "touch", lambda *_: None)
    monkeypatch.setattr("fuzz.model_states.broken", lambda *_: "")
    explorer = search(PEERS)
    assert counts(explorer) != (2403, 5826, 14)


def test_a_finale_finds_what_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.model_states.broken", lambda *_: "")
    monkeypatch.setattr(model.hosting, "release", lambda *_: None)
    assert search(PEERS, symmetry=True).violation is None
    violation = search(PEERS, symmetry=True, finale=True).violation
    assert violation is not None
    assert "is left after everything was let go of" in violation.divergence.text
