"""What is drawn is what is possible, exactly: no operation is left out, none is drawn twice, and none fails its own test."""

from itertools import combinations, product

import pytest

from fuzz.choosers import Odometer, Recorded, Seeded
from fuzz.driver import Driver
from model.books import destruction_begins
from model.choose import Exhausted, choose_op, choose_operands, fitting, impossible, kinds_possible, needs_met
from model.domains import DOMAINS, SUBSETS, has, values_of
from model.limits import SCOPES, Limits, with_numbers
from model.ops import BY_KIND, Context, Domain, Kind, Need, Row
from model.state import State, initial
from tests.model.world import INSTANCE, World, world

TINY = {
    "objects": 2,
    "roots": 2,
    "slots": 1,
    "functions": 1,
    "arguments": 1,
    "contexts": 3,
    "destructors": 1,
    "destructor_ops": 1,
    "instances": 1,
    "globals": 1,
    "table": 2,
    "segment": 1,
    "fields": 1,
    "layouts": 1,
    "orders": 2,
    "modules": 2,
}
HELD = f"{INSTANCE}new layout=0\n"


def drawn(state: State, limits: Limits) -> list[Row]:
    """Every operation that some choices lead to."""
    odometer = Odometer()
    rows = []
    while True:
        rows.append(choose_op(state, limits, odometer))
        if not odometer.advance():
            return rows


def possible(state: State, limits: Limits) -> set[Row]:
    """Every row of small numbers that is not impossible."""
    found = set()
    for kind in Kind:
        spec = BY_KIND[kind]
        for scalars in product(range(-1, 4), repeat=len(spec.operands)):
            if impossible(state, limits, (kind, *scalars)) is not None:
                continue
            found.add((kind, *scalars))
            if spec.items is not None:
                for length in (1, 2, 3):
                    rows = [(kind, *scalars, *items) for items in product(range(-1, 3), repeat=length)]
                    found |= {row for row in rows if impossible(state, limits, row) is None}
    return found


def dying(made: World, name: int = 0) -> World:
    """Drop a value and stop inside its destructor."""
    made.begin(f"drop value={name}")
    destruction_begins(made.state, made.limits, name)
    return made


@pytest.mark.parametrize(
    "text",
    [
        "",
        HELD,
        f"{HELD}clone value=0",
        f"{HELD}new layout=0 owns=[0]",
        "new layout=0\ninstantiate module=1 initial=0 segment=1 active=0",
        f"{HELD}call_wasm instance=0 function=0 args=[0]",
        f"{HELD}call_wasm instance=0 function=0 args=[0]\ncall_import live=1 args=[]",
        f"{HELD}call_wasm instance=0 function=0 args=[0]\ncall_import live=0 args=[0]",
        f"{HELD}call_wasm instance=0 function=0 args=[0]\ncall_function instance=0 function=0 live=0 args=[0]",
        f"{HELD}call_wasm instance=0 function=0 args=[0]\nlocal_null target=0\ncut_walk frames=0",
        f"{HELD}fail_allocation after=1",
    ],
)
def test_what_is_drawn_is_what_is_possible(text: str) -> None:
    made = world(text, **TINY)
    rows = drawn(made.state, made.limits)
    assert len(rows) == len(set(rows))
    assert set(rows) == possible(made.state, made.limits)


def test_what_is_drawn_in_a_destructor_is_what_is_possible() -> None:
    made = dying(world("new layout=0\nnew layout=0 owns=[0]", **TINY), 1)
    assert made.why_not("get_field field=0") is None
    rows = drawn(made.state, made.limits)
    assert set(rows) == possible(made.state, made.limits)


def test_a_destructor_without_budget_can_only_leave() -> None:
    made = dying(world(f"{HELD}", **{**TINY, "destructor_ops": 0}))
    assert kinds_possible(made.state, made.limits) == (Kind.PANIC, Kind.END)


def test_a_destructor_pays_for_what_the_wasm_that_it_calls_does() -> None:
    made = dying(world(HELD, **{**TINY, "destructor_ops": 2}))
    made.play("call_wasm instance=0 function=0 args=[]\nlocal_null target=0")
    assert kinds_possible(made.state, made.limits) == (Kind.RETURN, Kind.TRAP)


@pytest.mark.parametrize("scope", SCOPES)
def test_whatever_a_run_draws_is_possible_and_enabled(scope: str) -> None:
    limits = SCOPES[scope]
    driver = Driver(limits, verify=False)
    chooser = Seeded(3)
    ways_out = {Kind.END, Kind.RETURN, Kind.RETURN_IMPORT}

    def draw(state: State, limits: Limits) -> Row:
        if len(driver.rows) >= 300:
            raise Exhausted
        row = choose_op(state, limits, chooser)
        if impossible(state, limits, row) is not None or row[0] not in limits.kinds | ways_out:
            raise AssertionError(row)
        return row

    assert driver.run_source(draw).steps >= 300


def test_a_draw_among_one_alternative_is_not_drawn() -> None:
    """No choice, no nondeterminism: an exhaustive search would count it as a branch."""
    limits = with_numbers(SCOPES["everything"], TINY)
    chooser = Recorded([])
    assert choose_operands(Kind.NEW, initial(with_numbers(limits, {"fields": 0})), with_numbers(limits, {"fields": 0}), chooser) == (0, 0)
    assert choose_operands(Kind.GC, initial(limits), limits, chooser) == (Kind.GC,)


def test_an_exhausted_chooser_ends_the_draw() -> None:
    limits = SCOPES["everything"]
    with pytest.raises(Exhausted):
        choose_op(initial(limits), limits, Recorded([]))


@pytest.mark.parametrize(
    ("text", "operation", "reason"),
    [
        ("", "end", "not in a host context"),
        ("", "return results=[]", "not in a host context"),
        ("", "drop value=0", "needs root"),
        ("new layout=0", "drop value=1", "value is out of its domain"),
        ("new layout=0", "drop value=null", "value is out of its domain"),
        ("new layout=0\nnew layout=0", "new layout=0", "needs root_room|name_room"),
        ("new layout=0\nclone value=0", "clone value=0", "needs root_room"),
        ("", "new layout=1", "layout is out of its domain"),
        ("new layout=0", "new layout=0 owns=[0 0]", "too many owns"),
        ("new layout=0", "set_field owner=0 field=0 value=0", "value is out of its domain"),
        ("", "call_wasm instance=0 function=0 args=[]", "needs instance"),
        (HELD, "call_wasm instance=1 function=0 args=[]", "instance is out of its domain"),
        (HELD, "call_wasm instance=0 function=0 args=[0 0]", "too many args"),
        (HELD, "host_table_get table=0 element=2", "element is out of its domain"),
        (HELD, INSTANCE.strip(), "needs instance_room"),
        ("new layout=0\nforget value=0\nnew layout=0", "forget value=1", "needs leak_room"),
        ("fail_allocation after=0", "fail_allocation after=0", "needs calm"),
        ("", "cut_walk frames=0", "needs wasm_below"),
        ("", "panic", "not in a host context"),
        (f"{INSTANCE}call_wasm instance=0 function=0 args=[]\ncall_import live=0 args=[]", "teardown_store", "not in a import context"),
        (
            f"{INSTANCE}call_wasm instance=0 function=0 args=[]\ncall_import live=0 args=[]",
            "teardown_instance instance=0",
            "needs idle_instance",
        ),
        (
            f"{INSTANCE}call_wasm instance=0 function=0 args=[]\ncall_import live=0 args=[]\nreturn_import results=[]",
            "spill target=1",
            "target is out",
        ),
        (f"{INSTANCE}call_wasm instance=0 function=0 args=[]", "spill target=0", "needs dead_slot"),
        (
            f"{INSTANCE}call_wasm instance=0 function=0 args=[]",
            "global_get instance=0 global=0 target=0 live=1",
            "live is out of its domain",
        ),
        (f"{INSTANCE}call_wasm instance=0 function=0 args=[]", "call_import live=2 args=[]", "live is out of its domain"),
    ],
)
def test_what_is_not_possible_is_refused_with_its_reason(text: str, operation: str, reason: str) -> None:
    made = world(text, **TINY)
    found = made.why_not(operation)
    assert found is not None
    assert found.startswith(reason)


def test_a_kind_that_is_not_enabled_is_not_drawn_but_replays() -> None:
    limits = SCOPES["counting"]
    state = initial(limits)
    assert Kind.INSTANTIATE not in kinds_possible(state, limits)
    assert impossible(state, limits, (Kind.INSTANTIATE, 0, -1, 0, 0)) is None


def test_the_host_can_move_a_reference_only_as_often_as_it_holds_it() -> None:
    made = world(f"{INSTANCE}new layout=0\nclone value=0\nnew layout=0")
    assert made.why_not("call_wasm instance=0 function=0 args=[0 0 1]") is None
    assert made.why_not("call_wasm instance=0 function=0 args=[0 0 0]") == "args is out of its domain"
    assert made.why_not("call_wasm instance=0 function=0 args=[null 1 null]") is None


def test_needs_are_read_from_the_state() -> None:
    made = world("new layout=0", **TINY)
    assert Need(needs_met(made.state, made.limits)) == (
        Need.ROOT
        | Need.FIELD
        | Need.ROOT_ROOM
        | Need.NAME_ROOM
        | Need.CONTEXT_ROOM
        | Need.LEAK_ROOM
        | Need.CALM
        | Need.NO_WASM
        | Need.BUDGET
        | Need.STORE
        | Need.INSTANCE_ROOM
        | Need.SEGMENT
        | Need.TABLE
        | Need.GLOBAL
    )


@pytest.mark.parametrize("context", Context)
def test_a_kind_fits_if_it_is_enabled_and_all_that_it_needs_is_met(context: Context) -> None:
    everything, all_kinds = sum(Need), sum(1 << kind for kind in Kind)
    pairs = [one | other for one, other in combinations(Need, 2)]
    for lacking in (0, *Need, *pairs, everything):
        wanted = 0
        for kind, spec in enumerate(BY_KIND):
            needs = spec.needs if spec.closing else spec.needs | Need.BUDGET
            if context in spec.contexts and not needs & lacking:
                wanted |= 1 << kind
        assert fitting(everything & ~lacking, context, all_kinds) == wanted
        assert fitting(everything & ~lacking, context, wanted & -wanted) == wanted & -wanted


def test_values_of_domains_come_in_their_order() -> None:
    made = world(f"new layout=0\nclone value=0\nnew layout=0\nforget value=1\nnew layout=0\n{INSTANCE}{INSTANCE}", fields=2)

    def values(domain: Domain, *row: int) -> list[int]:
        function, form = DOMAINS[domain]
        found = function(made.state, made.limits, row)
        assert all(has(found, form, value) == (value in values_of(found, form)) for value in range(-3, 12))
        return values_of(found, form)

    assert values(Domain.ROOT, Kind.DROP) == [0, 2]
    assert values(Domain.ROOT_OR_NULL, Kind.HOST_GLOBAL_SET, 0, 0) == [-1, 0, 2]
    assert values(Domain.ROOT_OR_NULL, Kind.SET_FIELD, 2, 0) == [-1, 0]
    assert values(Domain.ROOT_OR_NULL, Kind.SET_FIELD, 0, 0) == [-1, 0, 2]
    assert values(Domain.OWNED_ROOTS, Kind.NEW, 0, 0, 2) == [0]
    assert values(Domain.MOVED_ROOTS, Kind.CALL_WASM, 0, 0, 0, -1, 0) == [-1, 2]
    assert values(Domain.INITIAL, Kind.INSTANTIATE, 0) == [-1, 0, 2, 6, 7]
    assert values(Domain.IDLE_INSTANCE, Kind.TEARDOWN_INSTANCE) == [0, 1]
    made.do("call_wasm instance=1 function=0 args=[2]")
    assert values(Domain.READABLE_SLOT, Kind.LOCAL_COPY) == [0, 1, 2]
    made.do("global_get instance=0 global=0 target=1 live=1")
    assert values(Domain.READABLE_SLOT, Kind.LOCAL_COPY) == [0, 1]
    assert values(Domain.DEAD_SLOT, Kind.SPILL) == [2]
    assert values(Domain.LIVE, Kind.CALL_IMPORT) == [0, 1, 2, 3]
    assert values(Domain.LIVE_BUT_TARGET, Kind.GLOBAL_GET, 0, 0, 0) == [0, 2]
    made.do("call_import live=1 args=[]")
    assert values(Domain.IDLE_INSTANCE, Kind.TEARDOWN_INSTANCE) == [0]
    assert values(Domain.FRAMES, Kind.CUT_WALK) == [0, 1, 2]


def test_submasks_are_all_of_them_and_the_empty_one_comes_first() -> None:
    assert values_of(0, SUBSETS) == [0]
    assert values_of(0b101, SUBSETS) == [0, 1, 4, 5]
    assert values_of(0b11111, SUBSETS) == list(range(32))


def test_the_context_on_top_decides() -> None:
    made = world(f"{INSTANCE}call_wasm instance=0 function=0 args=[]", **TINY)
    kinds = kinds_possible(made.state, made.limits)
    assert all(Context.WASM in BY_KIND[kind].contexts for kind in kinds)
    assert Kind.RETURN in kinds
