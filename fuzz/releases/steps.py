"""What each operation asks of a real host and engine; a new kind does not import without its entry here or in `recipe.SUPPORTED`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fuzz.releases import recipe
from fuzz.releases.program import Action
from fuzz.releases.woven import Activation, HostPart
from model.limits import DEPTH, LIVE
from model.ops import Kind, Row
from model.state import dead_slots, unreachable
from model.words import bits

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.releases.recipe import Item
    from fuzz.releases.weave import Weaver

FRESH_MAX: Final = 200
"""Most rounds of a loop that asks for fresh references; each costs the host two calls."""
DEPTH_MAX: Final = 64
"""Deepest recursion; the host's own stack is in it."""
CHURN_MAX: Final = 1 << 14


def _new(weaver: Weaver, _row: Row, _item: Item) -> Callable[[int], None]:
    value = weaver.new_value()
    weaver.act(["new", value])

    def made(name: int) -> None:
        weaver.value[name] = value

    return made


def _drop(weaver: Weaver, row: Row, _item: Item) -> None:
    if weaver.state[weaver.limits.shape.roots + row[1]] == 1:
        weaver.act(["drop", weaver.value[row[1]]])


def _given_up(weaver: Weaver, names: Row) -> list[int]:
    """Return the values whose last handle goes with these names."""
    roots = weaver.limits.shape.roots
    return sorted({weaver.value[name] for name in names if name >= 0 and weaver.state[roots + name] == names.count(name)})


def _call_wasm(weaver: Weaver, row: Row, item: Item) -> Callable[[int], None]:
    args = row[3:]
    activation = Activation(row[1], len(args), True, item.pressure, item.layout)
    values = [weaver.of(name) for name in args]
    weaver.make_room(values)
    weaver.act(["call", weaver.instances[row[1]], activation, values, _given_up(weaver, args)])

    def entered(_result: int) -> None:
        weaver.activations.append(activation)
        weaver.parts.append(activation)

    return entered


def _call_function(weaver: Weaver, row: Row, item: Item) -> Callable[[int], None]:
    activation = Activation(row[1], len(row) - 4, False, item.pressure, item.layout)
    weaver.code("call", weaver.owner(row[1]), activation, row[4:], [], item.wrap)

    def entered(_result: int) -> None:
        weaver.activations.append(activation)
        weaver.parts.append(activation)

    return entered


def _call_import(weaver: Weaver, row: Row, item: Item) -> Callable[[int], None]:
    slots = weaver.slots()
    weaver.code("import", row[2:], [], item.wrap)
    part = weaver.arrive([weaver.of(slots[index]) for index in row[2:]])

    def arrived(_result: int) -> None:
        weaver.parts.append(part)

    return arrived


def _targets(weaver: Weaver, count: int) -> list[int]:
    """Return the slots of the calling activation that results go to."""
    return dead_slots(weaver.state, weaver.limits, weaver.state[DEPTH] - 2)[:count]


def _caller_takes(weaver: Weaver, count: int) -> None:
    caller = weaver.parts[-2]
    if isinstance(caller, Activation):
        caller.code[-1][-2].extend(_targets(weaver, count))


def _return_import(weaver: Weaver, row: Row, _item: Item) -> None:
    names = row[1:]
    if names:
        values = [weaver.of(name) for name in names]
        weaver.make_room(values)
        weaver.act(["return", values, _given_up(weaver, names)])
        _caller_takes(weaver, len(names))


def _return(weaver: Weaver, row: Row, _item: Item) -> None:
    activation, caller = weaver.parts[-1], weaver.parts[-2]
    if not isinstance(activation, Activation):
        return
    activation.results = row[1:]
    if isinstance(caller, HostPart):
        slots = weaver.slots()
        place = (*caller.place, len(caller.actions) - 1)
        weaver.expected.got[place] = [weaver.of(slots[index]) for index in row[1:]]
    else:
        _caller_takes(weaver, len(row) - 1)


def _panic(weaver: Weaver, _row: Row, _item: Item) -> None:
    weaver.act(["raise"])
    outermost = weaver.parts[0]
    if isinstance(outermost, HostPart):
        weaver.expected.traps.add((*outermost.place, len(outermost.actions) - 1))


def _trap(weaver: Weaver, _row: Row, item: Item) -> None:
    weaver.code("trap", item.wrap)
    weaver.trapped()


def _gc(weaver: Weaver, _row: Row, _item: Item) -> Callable[[int], None]:
    weaver.expected.collections.add(weaver.act(["gc"]))

    def collected(_result: int) -> None:
        if len(weaver.parts) > 1:
            return
        alive = {weaver.value[name] for name in bits(weaver.state[LIVE] & ~unreachable(weaver.state, weaver.limits, 0))}
        alive |= weaver.kept | weaver.settled | set(weaver.initials.values())
        due = [value for value in range(len(weaver.expected.needed)) if value not in alive]
        weaver.settled.update(due)
        weaver.expected.due[len(weaver.expected.places) - 1] = tuple(due)

    return collected


def _instantiate(weaver: Weaver, row: Row, item: Item) -> Callable[[int], None]:
    """The form says which instance the new one is linked to."""
    limits, number = weaver.limits, weaver.instances_made
    given_up = False
    if row[2] >= limits.objects:
        source = row[2] - limits.objects
        initial_value = weaver.initials.get(source)
        sources: dict[str, list[Any]] = {"g": ["global", weaver.instances[source], "gi"]}
    else:
        initial_value = weaver.of(row[2])
        sources = {"g": ["value", initial_value]}
        given_up = row[2] >= 0 and weaver.state[limits.shape.roots + row[2]] == 1
    linked = sorted(weaver.instances)
    link = linked[item.form % len(linked)] if linked and item.form % 4 else None
    if link is None:
        sources |= {"m": ["value", None], "t": ["fresh", 1, None]}
    else:
        sources |= {"m": ["global", weaver.instances[link], "g0"], "t": ["table", weaver.instances[link], "t"]}
    weaver.act(["instantiate", number, sources])
    if given_up and initial_value is not None:
        weaver.act(["drop", initial_value])

    def made(instance: int) -> None:
        weaver.instances[instance] = number
        weaver.instances_made += 1
        if link is not None:
            weaver.links[instance] = link
        if initial_value is not None:
            weaver.initials[instance] = initial_value
        if weaver.shape_of_module is None or (weaver.shape_of_module[0] == 0 and row[3]):
            weaver.shape_of_module = (row[3] if initial_value is not None else 0, row[4])
        weaver.imports_initial |= initial_value is not None

    return made


def _teardown_instance(weaver: Weaver, row: Row, _item: Item) -> None:
    instance = row[1]
    weaver.act(["drop_instance", weaver.instances.pop(instance)])
    # A store keeps its instances, so what this one owned may live on until the store is dropped.
    state, shape, limits = weaver.state, weaver.limits.shape, weaver.limits
    for first, count in ((shape.globals, limits.globals), (shape.elements, limits.table), (shape.segments, limits.segment)):
        weaver.kept |= {weaver.value[name] for name in state[first + instance * count : first + (instance + 1) * count] if name >= 0}
    weaver.links.pop(instance, None)
    if instance in weaver.initials:
        weaver.kept.add(weaver.initials.pop(instance))


def _host_global_get(weaver: Weaver, row: Row, _item: Item) -> Callable[[int], None]:
    place = weaver.act(["global_get", weaver.instances[row[1]], f"g{row[2]}"])
    return lambda name: weaver.expected.got.update({place: [weaver.of(name)]})


def _host_table_get(weaver: Weaver, row: Row, _item: Item) -> Callable[[int], None]:
    place = weaver.act(["table_get", weaver.instances[row[1]], "t", row[2]])
    return lambda name: weaver.expected.got.update({place: [weaver.of(name)]})


def _moved_in(weaver: Weaver, action: Action, name: int) -> None:
    """Do an action that takes a reference from the host: the handle goes right afterwards."""
    weaver.act(action)
    if name >= 0 and weaver.state[weaver.limits.shape.roots + name] == 1:
        weaver.act(["drop", weaver.value[name]])


def _host_global_set(weaver: Weaver, row: Row, _item: Item) -> None:
    _moved_in(weaver, ["global_set", weaver.instances[row[1]], f"g{row[2]}", weaver.of(row[3])], row[3])


def _host_table_set(weaver: Weaver, row: Row, _item: Item) -> None:
    _moved_in(weaver, ["table_set", weaver.instances[row[1]], "t", row[2], weaver.of(row[3])], row[3])


def _host_table_grow(weaver: Weaver, row: Row, _item: Item) -> Callable[[int], None]:
    part = weaver.parts[-1]
    place = (*part.place, len(part.actions)) if isinstance(part, HostPart) else ()
    _moved_in(weaver, ["table_grow", weaver.instances[row[1]], "t", row[2], weaver.of(row[3])], row[3])
    return lambda size: weaver.expected.sizes.update({place: size})


# Wasm.


def _local_copy(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("copy", row[1], row[2], item.wrap)


def _local_null(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("null", row[1], item.wrap)


def _global_get(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("global_get", weaver.owner(row[1]), row[2], row[3], item.wrap)


def _global_set(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("global_set", weaver.owner(row[1]), row[2], row[3], item.wrap)


def _table_get(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_get", weaver.owner(row[1]), row[2], row[3], item.wrap)


def _table_set(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_set", weaver.owner(row[1]), row[2], row[3], item.wrap)


def _table_grow(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_grow", weaver.owner(row[1]), row[2], row[3], item.wrap)


def _table_fill(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_fill", weaver.owner(row[1]), row[2], row[3], row[4], item.wrap)


def _table_copy(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_copy", weaver.owner(row[1]), weaver.owner(row[2]), row[3], row[4], row[5], item.wrap)


def _table_init(weaver: Weaver, row: Row, item: Item) -> None:
    weaver.code("table_init", weaver.owner(row[1]), row[3], row[4], row[5], item.wrap)


def _elem_drop(weaver: Weaver, _row: Row, item: Item) -> None:
    weaver.code("elem_drop", item.wrap)


# What is no operation of the model.


def _churn(weaver: Weaver, item: Item) -> bool:
    """Load from a cell that holds a reference now. The model is not told: a load changes nothing that it knows."""
    _, source, index, count = item.row
    own = weaver.own()
    instance = own if source in {recipe.OWN_TABLE, recipe.OWN_GLOBAL} else weaver.links.get(own, -1)
    if instance < 0 or not 0 < count <= CHURN_MAX:
        return False
    shape, limits = weaver.limits.shape, weaver.limits
    if source in {recipe.OWN_TABLE, recipe.LINKED_TABLE}:
        if index >= weaver.state[shape.table_sizes + instance] or weaver.state[shape.elements + instance * limits.table + index] < 0:
            return False
    elif index >= limits.globals or (index and instance != own) or weaver.state[shape.globals + instance * limits.globals + index] < 0:
        return False
    what = "table" if source in {recipe.OWN_TABLE, recipe.LINKED_TABLE} else "global"
    weaver.code("churn", what, weaver.owner(instance), index, count, item.wrap)
    return True


def _fresh(weaver: Weaver, item: Item) -> bool:
    """Ask an import for references and hand them to another, which must get the same."""
    _, results, count = item.row
    if weaver.own() < 0 or not 0 < results <= weaver.limits.arguments or not 0 < count <= FRESH_MAX:
        return False
    weaver.code("fresh", results, count, item.wrap)
    for _ in range(count):
        weaver.parts.append(weaver.arrive([]))
        made = []
        for _ in range(results):
            made.append(weaver.new_value())
            weaver.act(["new", made[-1]])
        weaver.make_room(made)
        weaver.act(["return", list(made), list(made)])
        weaver.parts[-1] = weaver.arrive(list(made))
        for value in made:
            weaver.expected.needed[value] = len(weaver.expected.places) - 1
        for value in made:
            weaver.act(["drop", value])
        weaver.parts.pop()
    weaver.note()
    return True


def _ghost(weaver: Weaver, item: Item) -> bool:
    """Put in code that is never executed."""
    if weaver.own() < 0 or not 0 < item.row[1] <= weaver.limits.arguments:
        return False
    weaver.code("ghost", item.row[1], item.wrap)
    return True


def _recurse(weaver: Weaver, item: Item) -> bool:
    """Let the references in the slots wait in several frames of one function while the host collects."""
    depth = item.row[1]
    if weaver.own() < 0 or not 0 < depth <= DEPTH_MAX:
        return False
    slots = weaver.slots()
    taken = [index for index, name in enumerate(slots) if name >= 0][: weaver.limits.arguments]
    if not taken:
        return False
    weaver.code("recurse", depth, tuple(taken), item.wrap)
    weaver.parts.append(weaver.arrive([]))
    weaver.expected.collections.add(weaver.act(["gc"]))
    names = [slots[index] for index in taken]
    for _ in range(depth):
        weaver.parts[-1] = weaver.arrive([weaver.value[name] for name in names])
        for name in sorted(set(names)):
            weaver.expected.needed[weaver.value[name]] = len(weaver.expected.places) - 1
        for name in sorted(set(names)):
            if not weaver.held(name):
                weaver.act(["drop", weaver.value[name]])
    weaver.parts.pop()
    weaver.note()
    return True


def _acts(weaver: Weaver, item: Item) -> bool:
    """Let a destructor act. Nothing that it does may change what the rest of the program has to show."""
    _, what, subject = item.row
    value = len(weaver.expected.needed) - 1
    if value < 0 or value in weaver.destructors or what >= len(_DESTRUCTIONS) or (what and not weaver.instances):
        return False
    instance = weaver.instances[sorted(weaver.instances)[subject % len(weaver.instances)]] if what else 0
    weaver.destructors[value] = tuple(_DESTRUCTIONS[what](weaver, instance))
    return True


def _takes(weaver: Weaver, instance: int) -> list[Action]:
    """Return what passes a fresh value to Wasm."""
    value = weaver.new_value()
    weaver.expected.optional.add(value)
    return [["new", value], ["call", instance, "take", [value], [value]]]


_DESTRUCTIONS: Final[tuple[Callable[[Weaver, int], list[Action]], ...]] = (
    lambda _w, _i: [["gc"]],
    lambda _w, i: [["global_get", i, "g0"]],
    lambda _w, i: [["table_get", i, "t", 0]],
    lambda _w, i: [["call", i, "touch", [], []]],
    _takes,
    lambda _w, i: [["call", i, "touch", [], []], ["gc"]],
)
DESTRUCTIONS: Final = len(_DESTRUCTIONS)

BEFORE: Final[dict[int, Callable[[Weaver, Row, Item], Callable[[int], None] | None]]] = {
    Kind.NEW: _new,
    Kind.CLONE: lambda _w, _r, _i: None,
    Kind.DROP: _drop,
    Kind.CALL_WASM: _call_wasm,
    Kind.HOST_GLOBAL_GET: _host_global_get,
    Kind.HOST_GLOBAL_SET: _host_global_set,
    Kind.HOST_TABLE_GET: _host_table_get,
    Kind.HOST_TABLE_SET: _host_table_set,
    Kind.HOST_TABLE_GROW: _host_table_grow,
    Kind.GC: _gc,
    Kind.INSTANTIATE: _instantiate,
    Kind.TEARDOWN_INSTANCE: _teardown_instance,
    Kind.PANIC: _panic,
    Kind.RETURN_IMPORT: _return_import,
    Kind.LOCAL_COPY: _local_copy,
    Kind.LOCAL_NULL: _local_null,
    Kind.GLOBAL_GET: _global_get,
    Kind.GLOBAL_SET: _global_set,
    Kind.TABLE_GET: _table_get,
    Kind.TABLE_SET: _table_set,
    Kind.TABLE_GROW: _table_grow,
    Kind.TABLE_FILL: _table_fill,
    Kind.TABLE_COPY: _table_copy,
    Kind.TABLE_INIT: _table_init,
    Kind.ELEM_DROP: _elem_drop,
    Kind.CALL_FUNCTION: _call_function,
    Kind.CALL_IMPORT: _call_import,
    Kind.RETURN: _return,
    Kind.TRAP: _trap,
}
if frozenset(BEFORE) != recipe.SUPPORTED:
    raise ImportError("fuzz.releases.steps and recipe.SUPPORTED do not know the same kinds")
EXTRAS: Final[dict[int, Callable[[Weaver, Item], bool]]] = {
    recipe.CHURN: _churn,
    recipe.FRESH: _fresh,
    recipe.GHOST: _ghost,
    recipe.ACTS: _acts,
    recipe.RECURSE: _recurse,
}
