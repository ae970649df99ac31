"""Whoever wove a recipe gets a program, and what has to be observed when it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fuzz.choosers import Seeded
from fuzz.releases import woven
from fuzz.releases.program import ENTRY, Program
from fuzz.releases.recipe import Item, Recipe
from fuzz.releases.wat import Module
from fuzz.releases.weave import Weaver
from fuzz.releases.woven import PLAIN, Emission

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fuzz.releases.program import Action, Place


@dataclass(frozen=True, slots=True)
class Built:
    """A program with its origin.

    Args:
        program: what an engine runs.
        expected: what has to be observed.
        recipe: its items are those that were possible.
    """

    program: Program
    expected: woven.Expected
    recipe: Recipe


def build(recipe: Recipe, number: int = 0, emission: Emission = PLAIN) -> Built:
    """Make the program of a recipe.

    Args:
        recipe: what to make it from; items that are not possible when their turn comes are left out.
        number: the program's id.
        emission: what its code and its host do besides.
    """
    weaver = Weaver(recipe, emission)
    items = tuple(item for item in recipe.items if weaver.perform(item))
    return collecting(finish(weaver, items, number), recipe.collections, frozenset(weaver.rooms))


def finish(weaver: Weaver, items: tuple[Item, ...], number: int) -> Built:
    """Close a weaver and write its module."""
    weaver.close()
    mask, active = weaver.shape_of_module or (0, 0)
    destructors_call = any(action[0] == "call" for actions in weaver.destructors.values() for action in actions)
    module = Module(
        weaver.limits,
        segments=weaver.segments,
        segment_mask=mask,
        active=bool(active),
        initial=weaver.imports_initial,
        destructors_call=destructors_call,
        emission=weaver.emission,
    )
    # Whoever is called was entered later.
    for activation in reversed(weaver.activations):
        module.add(activation)
    actions = [action for part in (weaver.script, *weaver.imports, *weaver.destructors.values()) for action in part]
    needs = _exports(actions)
    needs |= _exports_of_links(actions, {name for name, used in (("m", "$m"), ("t", "$lt")) if used in module.used})
    text = module.text(sorted(needs))
    imported = {name for name in ("g", "m", "t") if f'"env" "{name}"' in text}
    for action in actions:
        if action[0] == "call" and isinstance(action[2], woven.Activation):
            action[2] = action[2].name
        elif action[0] == "instantiate":
            functions = _functions(module, action[2])
            action[2] = {name: source for name, source in action[2].items() if name in imported} | functions
    program = Program(
        number, text, len(weaver.expected.needed), tuple(weaver.script), tuple(map(tuple, weaver.imports)), dict(weaver.destructors)
    )
    if weaver.destructors or weaver.emission.kept:
        # A destructor that reads takes up what would have been due, and so does a global that keeps what a slot has had.
        weaver.expected.due.clear()
    return Built(program, weaver.expected, Recipe(weaver.limits, items, weaver.segments))


def collecting(built: Built, collections: int, beside: frozenset[Place] = frozenset()) -> Built:
    """Return a program in which the host collects more often; the module is the same.

    Args:
        built: a program whose recipe has no such collections.
        collections: as `Recipe.collections` says.
        beside: places of actions that the recipe does not have, and that nothing is drawn for.
    """
    if not collections:
        return built
    chooser = Seeded(collections)
    program, old = built.program, built.expected
    new = woven.Expected(optional=old.optional)
    moved: dict[Place, int] = {}
    added: set[Place] = set()

    def widened(path: Place, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        more: list[Action] = []
        for number, action in enumerate(actions):
            drawn = action[0] not in {"return", "raise"} and (*path, number) not in beside
            if drawn and (collections == 1 or chooser.choose(2)):
                added.add((*path, number))
                more.append(["gc"])
            moved[(*path, number)] = len(more)
            more.append(action)
        return tuple(more)

    script = widened(("script",), program.script)
    imports = tuple(widened(("import", number), actions) for number, actions in enumerate(program.imports))

    def place(before: Place) -> Place:
        return before if before[-1] == ENTRY else (*before[:-1], moved[before])

    positions = []
    for before in old.places:
        at = place(before)
        if before in added:
            new.places.append((*at[:-1], int(at[-1]) - 1))
            new.collections.add(new.places[-1])
        positions.append(len(new.places))
        new.places.append(at)
    new.got = {place(key): seen for key, seen in old.got.items()}
    new.sizes = {place(key): size for key, size in old.sizes.items()}
    new.traps = {place(key) for key in old.traps}
    new.collections |= {place(key) for key in old.collections}
    new.needed = [positions[number] if number >= 0 else number for number in old.needed]
    new.due = {positions[number]: values for number, values in old.due.items()}
    changed = replace(program, script=script, imports=imports)
    return Built(changed, new, replace(built.recipe, collections=collections))


def _functions(module: Module, sources: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return where the functions come from that a module imports: where its table does, or else from the host, which is never asked."""
    kind, link, _ = sources["t"]
    return {
        name: ["function", link, name] if kind == "table" else ["host", f"h{parameters}_{results}"]
        for name, (parameters, results) in module.links.items()
    }


def _exports(actions: Iterable[Action]) -> set[str]:
    """Return the names of globals and tables that the host needs, as the module calls them."""
    found = set()
    for action in actions:
        if action[0] in {"global_get", "global_set"}:
            found.add(f"${action[2]}")
        elif action[0].startswith("table_"):
            found.add("$t")
        elif action[0] == "instantiate" and action[2]["g"][0] == "global":
            found.add("$gi")
    return found


def _exports_of_links(actions: Iterable[Action], imported: set[str]) -> set[str]:
    """Return the names of globals and tables that another instance imports."""
    given = [pair for action in actions if action[0] == "instantiate" for pair in action[2].items()]
    return {f"${source[2]}" for name, source in given if name in imported and source[0] in {"global", "table"}}
