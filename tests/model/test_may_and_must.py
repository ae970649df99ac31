"""What may die and what must, rule by rule: each has a case in which the model is content and one in which it objects."""

import pytest

from model.books import destruction_begins, destruction_ends
from model.limits import DYING, LIVE
from model.properties import Sometimes
from model.state import Violation
from model.step import check_end
from tests.model.world import INSTANCE, World, world

IN_WASM = f"new layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0]\n"
"""Value 0 stands in slot 0 of an activation, and nowhere else."""
DEAD_SLOT = f"{IN_WASM}call_import live=0 args=[]\n"
"""The same activation in a host call after which nobody reads the slot."""


def objects(what: str) -> "pytest.RaisesExc[Violation]":
    return pytest.RaisesExc(Violation, match=what)


def test_the_last_owner_lets_go_and_the_value_dies() -> None:
    made = world("new layout=0")
    made.do("drop value=0", 0)
    assert made.alive() == []


def test_a_value_must_die_when_its_last_owner_lets_go() -> None:
    with objects("value 0 must be dead: its last owner let go, and it is not deferred by any activation"):
        world("new layout=0\ndrop value=0")


def test_a_value_may_not_die_while_the_host_holds_it() -> None:
    made = world("new layout=0\nclone value=0")
    made.begin("drop value=0")
    with objects("value 0 is destroyed while it must live: held by the host"):
        made.die(0)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("instantiate module=0 initial=0 segment=0 active=0", "global 0 of instance 0"),
        (f"{INSTANCE}host_table_set table=0 element=0 value=0", "element 0 of table 0"),
        (
            "instantiate module=0 initial=0 segment=2 active=0\nhost_global_set instance=0 global=0 value=null",
            "element segment 0",
        ),
        ("new layout=0 owns=[0]", "value 1"),
        ("forget value=0", "a forgotten handle"),
        (f"{INSTANCE}call_wasm instance=0 function=0 args=[0]\ncall_import live=1 args=[]", "slot 0 of activation 1"),
    ],
)
def test_a_value_may_not_die_in_a_collection_while_something_holds_it(text: str, owner: str) -> None:
    made = world(f"new layout=0\n{text}")
    made.begin("gc")
    with objects(f"value 0 is destroyed while it must live: held by {owner}"):
        made.die(0)


def test_a_value_may_not_die_while_it_is_on_its_way() -> None:
    made = world(f"new layout=0\n{INSTANCE}")
    made.begin("call_wasm instance=0 function=0 args=[0]")
    with objects("value 0 is destroyed while it must live: held by a transfer under way"):
        made.die(0)


def test_a_deferred_value_need_not_die_before_a_collection() -> None:
    made = world(f"{IN_WASM}return results=[]")
    assert made.alive() == [0]


def test_a_deferred_value_may_not_die_when_nothing_is_released() -> None:
    made = world(f"{IN_WASM}return results=[]\nnew layout=0")
    made.begin("drop value=1")
    with objects("value 0 is destroyed by an operation that neither let go of it nor may collect here"):
        made.die(0)


def test_a_value_may_not_die_outside_any_operation_that_can_release() -> None:
    made = world(f"{IN_WASM}return results=[]")
    with objects("value 0 is destroyed by an operation that can release nothing"):
        made.die(0)


def test_a_collection_must_destroy_what_nobody_owns_or_reads() -> None:
    made = world(f"{IN_WASM}return results=[]")
    made.begin("gc")
    with objects("value 0 must be dead: nothing owned it and no activation could read it when the collection began"):
        made.end()


def test_a_collection_must_destroy_what_stands_in_dead_slots_alone() -> None:
    made = world(DEAD_SLOT)
    made.begin("gc")
    with objects("value 0 must be dead"):
        made.end()


def test_a_collection_must_destroy_what_only_the_dead_own() -> None:
    made = world(f"new layout=0\nnew layout=0 owns=[0]\n{INSTANCE}call_wasm instance=0 function=0 args=[1]\nreturn results=[]")
    made.do("gc", 1, 0)
    assert made.alive() == []
    assert made.seen(Sometimes.DIED_WITH_OWNER)


def test_what_a_dead_value_owned_may_not_be_left() -> None:
    made = world(f"new layout=0\nnew layout=0 owns=[0]\n{INSTANCE}call_wasm instance=0 function=0 args=[1]\nreturn results=[]")
    made.begin("gc")
    made.die(1)
    with objects("value 0 must be dead"):
        made.end()


def test_a_value_may_not_die_before_its_owner() -> None:
    made = world("new layout=0\nnew layout=0 owns=[0]")
    made.begin("drop value=1")
    with objects("value 0 is destroyed while it must live: held by value 1"):
        made.die(0)


def test_a_value_dies_once() -> None:
    made = world("new layout=0")
    made.begin("drop value=0")
    made.die(0)
    with objects("value 0 is destroyed, but it is dead already"):
        made.die(0)


def test_a_value_may_not_die_in_its_own_destructor() -> None:
    made = world("new layout=0")
    made.begin("drop value=0")
    destruction_begins(made.state, made.limits, 0)
    assert (made.state[LIVE], made.state[DYING]) == (0, 1)
    with objects("value 0 is destroyed, but it is being destroyed already"):
        made.die(0)


def test_a_collection_whose_walk_is_cut_short_destroys_nothing() -> None:
    made = world(DEAD_SLOT)
    made.play("cut_walk frames=0\ngc")
    assert made.seen(Sometimes.WALK_CUT)
    assert made.alive() == [0]
    made.do("cut_walk frames=0")
    made.begin("gc")
    with objects("neither let go of it nor may collect here"):
        made.die(0)


def test_a_walk_cut_short_is_forgotten_after_one_operation() -> None:
    made = world(f"{DEAD_SLOT}cut_walk frames=0\nnew layout=0")
    made.do("gc", 0)
    assert made.alive() == [1]


def test_a_nested_collection_destroys_nothing() -> None:
    made = world(f"new layout=0\nnew layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0 1]\nreturn results=[]")
    made.begin("gc")
    destruction_begins(made.state, made.limits, 0)
    made.begin("gc")
    assert made.seen(Sometimes.COLLECTION_NESTED)
    with objects("value 1 is destroyed by an operation that neither let go of it nor may collect here"):
        made.die(1)


def test_what_a_destructor_passes_to_wasm_again_need_not_die() -> None:
    made = world(f"new layout=0\nnew layout=0 owns=[0]\n{INSTANCE}call_wasm instance=0 function=0 args=[1]\nreturn results=[]")
    made.begin("gc")
    destruction_begins(made.state, made.limits, 1)
    made.play("get_field field=0\ncall_wasm instance=0 function=0 args=[0]\nreturn results=[]")
    destruction_ends(made.state, made.limits, 1, acted=True, panicked=False)
    made.end()
    assert made.alive() == [0]
    assert made.seen(Sometimes.COLLECTION_RESCUED)
    assert made.seen(Sometimes.DESTRUCTOR_REENTERED_WASM_IN_SWEEP)
    assert made.seen(Sometimes.DESTRUCTOR_INSERTED_IN_SWEEP)


def test_after_a_complete_collection_the_host_counts_plainly_again() -> None:
    """What survived in storage alone is deferred no longer, so it must die when the store overwrites it."""
    made = world(f"{IN_WASM}global_set instance=0 global=0 source=0 live=0\nreturn results=[]\ngc")
    with objects("value 0 must be dead: its last owner let go"):
        made.do("host_global_set instance=0 global=0 value=null")


def test_what_a_frame_held_in_the_last_collection_is_deferred_still() -> None:
    made = world(f"{IN_WASM}call_import live=1 args=[0]\ngc\nreturn_import results=[]\nreturn results=[]\ndrop value=0")
    assert made.alive() == [0]
    made.do("gc", 0)


def test_a_name_is_free_again_only_after_the_destruction() -> None:
    made = world("new layout=0")
    made.begin("drop value=0")
    destruction_begins(made.state, made.limits, 0)
    assert made.do("new layout=0") == 1
    destruction_ends(made.state, made.limits, 0, acted=True, panicked=False)
    made.end()
    assert made.do("new layout=0") == 0


def test_a_destructor_beyond_the_bound_does_not_act() -> None:
    made = world("new layout=0", destructors=0)
    made.begin("drop value=0")
    assert not destruction_begins(made.state, made.limits, 0)


def test_a_panic_in_a_collection_stops_no_other_death() -> None:
    made = world(f"new layout=0\nnew layout=0\n{INSTANCE}call_wasm instance=0 function=0 args=[0 1]\nreturn results=[]")
    made.begin("gc")
    made.die(0, panicked=True)
    with objects("value 1 must be dead"):
        made.end()
    assert made.seen(Sometimes.DESTRUCTOR_PANICKED_IN_COLLECTION)


def test_a_panic_in_a_drop_stops_nothing_that_the_value_owned() -> None:
    made = world("new layout=0\nnew layout=0 owns=[0]")
    made.begin("drop value=1")
    made.die(1, panicked=True)
    with objects("value 0 must be dead"):
        made.end()


def closed(made: World) -> World:
    """Let go of everything but what the store and values own."""
    made.do("teardown_store")
    return made


def test_at_the_end_a_cycle_may_be_left() -> None:
    made = world("new layout=0\nclone value=0\nset_field owner=0 field=0 value=0\ndrop value=0")
    check_end(made.state, made.limits)
    assert made.seen(Sometimes.CYCLE_LEFT)


def test_at_the_end_what_was_forgotten_may_be_left_with_what_it_owns() -> None:
    made = world("new layout=0\nnew layout=0 owns=[0]\nforget value=1")
    check_end(made.state, made.limits)
    assert not made.seen(Sometimes.CYCLE_LEFT)


def test_at_the_end_nothing_else_may_be_left() -> None:
    made = world(f"{IN_WASM}return results=[]")
    with objects("value 0 is left after everything was let go of, though it was not forgotten and is in no cycle"):
        check_end(made.state, made.limits)


def test_the_store_takes_everything_that_it_owned_with_it() -> None:
    made = world("new layout=0\ninstantiate module=0 initial=0 segment=3 active=1")
    with objects("value 0 must be dead"):
        closed(made)
    made = world("new layout=0\ninstantiate module=0 initial=0 segment=3 active=1")
    made.do("teardown_store", 0)
    assert made.alive() == []
    assert made.seen(Sometimes.STORE_TORN_DOWN_WITH_VALUES)


def test_what_a_destructor_of_a_collection_lets_go_of_is_dead_when_the_collection_ends() -> None:
    """The collection ends its deferral, and nobody owns it any more: no later operation would owe its death."""
    for dies in (True, False):
        made = world(f"new layout=0\nnew layout=0\n{INSTANCE}host_global_set instance=0 global=0 value=0")
        made.play("call_wasm instance=0 function=0 args=[1]\nglobal_get instance=0 global=0 target=1 live=0\nreturn results=[]")
        made.begin("gc")
        assert destruction_begins(made.state, made.limits, 1)
        made.do("host_global_set instance=0 global=0 value=null")
        made.do("end")
        destruction_ends(made.state, made.limits, 1, acted=True, panicked=False)
        if dies:
            made.die(0)
            made.end()
            assert made.alive() == []
        else:
            with objects("value 0 must be dead: its last owner let go"):
                made.end()


def test_what_a_destructor_lets_go_of_while_the_store_is_torn_down_is_dead_when_it_is() -> None:
    for dies in (True, False):
        made = world(f"new layout=0\nnew layout=0\n{INSTANCE}host_global_set instance=0 global=0 value=0")
        made.play("clone value=1\ncall_wasm instance=0 function=0 args=[1]\nreturn results=[]")
        made.begin("teardown_store")
        assert destruction_begins(made.state, made.limits, 0)
        made.do("drop value=1")
        made.do("end")
        destruction_ends(made.state, made.limits, 0, acted=True, panicked=False)
        if dies:
            made.die(1)
            made.end()
            assert made.alive() == []
        else:
            with objects("value 1 must be dead: its last owner let go"):
                made.end()
