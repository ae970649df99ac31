"""The state is one flat row: equal histories give equal rows, and every question about it is answered from the row."""

from model.limits import DEPTH, SEEN
from model.ops import Context
from model.state import context_at, describe, initial, kept_by, mask_of, on_stack, owned, owners_of, unreachable
from model.words import bits
from tests.model.world import INSTANCE, world


def test_bits_are_numbered_from_the_lowest() -> None:
    assert [list(bits(mask)) for mask in (0, 1, 6, 1 << 40 | 1)] == [[], [0], [1, 2], [0, 40]]


def test_a_mask_takes_names_and_nothing_else() -> None:
    assert mask_of([-1, 3, -2, 0, 3], 0, 5) == 0b1001


def test_the_first_state_is_the_host_alone() -> None:
    made = world()
    assert made.state[DEPTH] == 1
    assert context_at(made.state, made.limits.shape, 0) == (Context.HOST, 0, 0)
    assert describe(made.state, made.limits) == ["values:", "host holds: nothing"]
    assert len(made.state) == made.limits.shape.size


def test_a_state_that_is_reached_again_is_the_same_row() -> None:
    made = world(INSTANCE)
    before = [word for index, word in enumerate(made.state) if index != SEEN]
    made.do("new layout=0")
    made.play("call_wasm instance=0 function=1 args=[0]\ncall_function instance=0 function=0 live=3 args=[0]\ncall_import live=0 args=[0]")
    made.play("return_import results=[null]\nreturn results=[0]\nreturn results=[]\ndrop value=0")
    made.do("gc", 0)
    assert [word for index, word in enumerate(made.state) if index != SEEN] == before


def test_a_state_is_told_in_words() -> None:
    made = world("new layout=0\nclone value=0\nnew layout=0 owns=[0]")
    made.play("instantiate module=0 initial=0 segment=2 active=0\ncall_wasm instance=0 function=1 args=[1 null]")
    made.play("call_import live=1 args=[0]")
    assert describe(made.state, made.limits) == [
        "values: 0 1",
        "host holds: 1x1",
        "value 1 owns: [0 null]",
        "instance 0: globals [0 null], table [null], segment [null 0]",
        "activation of function 1, instance 0: slots [1 dead dead]",
        "host import",
    ]


def test_each_owner_is_named() -> None:
    made = world("new layout=0\nclone value=0\nclone value=0\nforget value=0\ninstantiate module=0 initial=0 segment=1 active=0")
    made.play("host_table_set table=0 element=0 value=0")
    assert owners_of(made.state, made.limits, 0) == [
        "a forgotten handle",
        "global 0 of instance 0",
        "element 0 of table 0",
        "element segment 0",
    ]
    assert owned(made.state, made.limits.shape, 0)
    assert not on_stack(made.state, made.limits.shape, 0)


def test_what_is_in_a_live_slot_is_on_the_stack_and_not_owned() -> None:
    made = world(f"new layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0]")
    shape = made.limits.shape
    assert (owned(made.state, shape, 0), on_stack(made.state, shape, 0)) == (False, True)
    made.do("call_import live=0 args=[]")
    assert (owned(made.state, shape, 0), on_stack(made.state, shape, 0)) == (False, False)


def test_ownership_is_followed_through_values_and_cycles() -> None:
    made = world("new layout=0\nnew layout=0 owns=[0]\nnew layout=0 owns=[1]\nnew layout=0")
    assert kept_by(made.state, made.limits, 1 << 2) == 0b111
    made = world("new layout=0\nclone value=0\nnew layout=0 owns=[0]\nset_field owner=0 field=0 value=1")
    assert kept_by(made.state, made.limits, 1) == 0b11


def test_members_of_a_cycle_are_reachable_from_each_other() -> None:
    made = world(f"{INSTANCE}new layout=0\nclone value=0\nset_field owner=0 field=0 value=0\ncall_wasm instance=0 function=0 args=[0]")
    made.play("return results=[]")
    assert unreachable(made.state, made.limits, 0) == 0


def test_what_only_unreachable_values_own_is_unreachable() -> None:
    made = world(f"{INSTANCE}new layout=0\nnew layout=0 owns=[0]\nnew layout=0 owns=[1]\ncall_wasm instance=0 function=0 args=[2]")
    assert unreachable(made.state, made.limits, 0) == 0
    made.do("return results=[]")
    assert unreachable(made.state, made.limits, 0) == 0b111
    assert unreachable(made.state, made.limits, 1 << 1) == 0b100


def test_the_row_is_as_long_as_the_limits_say() -> None:
    limits = world().limits
    assert initial(limits) == initial(limits)
    assert limits.shape.roots < limits.shape.fields < limits.shape.slots < limits.shape.contexts < limits.shape.books
