"""What the translator writes is plain Python before it is compiled; run so, it counts what the interpreted search counts."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fuzz.check_scopes import CHECK_SCOPES
from fuzz.compiled import package
from fuzz.compiled.machine import Machine
from fuzz.compiled.rewriting import Untranslatable
from fuzz.compiled.rows import Row
from fuzz.compiled.seams import seams
from fuzz.compiled.search import CompiledExplorer
from fuzz.compiled.translate import Translator
from fuzz.compiled.world import BOUND_NAMES, DIRTY_AT, DIRTY_SHIFT, REGISTERS, bound_at, name_of
from fuzz.driver import Driver
from fuzz.explore import Explorer
from fuzz.states import JointStates
from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused
from impl.runtime import Runtime
from model.choose import Exhausted

LOW_64 = (1 << 64) - 1


def wrapped(number: int) -> int:
    """The signed word with the lowest 64 bits of a number."""
    number &= LOW_64
    return number - (1 << 64) if number >> 63 else number


class Word(int):
    """A word whose arithmetic wraps, as in C."""

    def __add__(self, other: int) -> Word:
        return Word(wrapped(int(self) + int(other)))

    def __mul__(self, other: int) -> Word:
        return Word(wrapped(int(self) * int(other)))

    def __xor__(self, other: int) -> Word:
        return Word(int(self) ^ int(other))

    def __rshift__(self, other: int) -> Word:
        return Word(int(self) >> int(other))

    def __and__(self, other: int) -> Word:
        return Word(int(self) & int(other))


class Words:
    """A row of words: a part of it is a view, and what is written wraps."""

    def __init__(self, words: memoryview[int]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[int]:
        return iter(self.words)

    def __getitem__(self, index: int | slice) -> Any:
        return Words(self.words[index]) if isinstance(index, slice) else self.words[index]

    def __setitem__(self, index: int, word: int) -> None:
        self.words[index] = wrapped(word)


class MarkedWords(Words):
    """The memory: what is written leaves a mark in the world."""

    def __init__(self, words: memoryview[int], world: memoryview[int]) -> None:
        super().__init__(words)
        self.world = world

    def __setitem__(self, index: int, word: int) -> None:
        place = DIRTY_AT + (index >> DIRTY_SHIFT + 6)
        self.world[place] = wrapped(self.world[place] | 1 << (index >> DIRTY_SHIFT & 63))
        super().__setitem__(index, word)


class CompiledVerdict(Exception):
    """What ends a run."""


def namespace() -> dict[str, Any]:
    """The generated functions as Python."""
    exceptions = (AllocationFailed, OutOfBounds, Panicked, RegistrationRefused, Exhausted, CompiledVerdict)
    space: dict[str, Any] = {kind.__name__: kind for kind in exceptions}
    exec(compile(package.text(), "generated", "exec"), space)  # noqa: S102  # the generated file itself
    for name in ("mix", "remix"):
        inner = space[f"fuzz__compiled__joint__{name}"]
        space[f"fuzz__compiled__joint__{name}"] = lambda *words, inner=inner: inner(*map(Word, words))
    return space


@pytest.fixture(scope="module")
def uncompiled() -> dict[str, Any]:
    return namespace()


def test_every_name_that_the_generated_file_uses_is_there(uncompiled: dict[str, Any]) -> None:
    tree = ast.parse(package.text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 450
    for function in functions:
        known = {argument.arg for argument in function.args.args}
        known |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert not {name for name in used - known if name not in uncompiled and not hasattr(builtins, name)}, function.name


def test_no_message_and_no_object_is_left() -> None:
    for node in ast.walk(ast.parse(package.text())):
        assert not isinstance(node, ast.JoinedStr | ast.Dict | ast.Set | ast.Lambda | ast.GeneratorExp), ast.unparse(node)
        assert not isinstance(node, ast.Attribute), ast.unparse(node)


@pytest.mark.parametrize(("scope", "symmetry"), [("segments", False), ("modules", False), ("copies", False), ("nesting", True)])
def test_run_as_python_it_counts_what_the_interpreted_search_counts(
    scope: str, symmetry: bool, uncompiled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(machine: Machine, function: Callable[..., Any], *values: Row | int) -> int:
        rows = [Words(value.words) if isinstance(value, Row) else value for value in values]
        takes = inspect.signature(uncompiled[name_of(function)]).parameters
        arrays = {"mem": MarkedWords(machine.mem, machine.w), "w": Words(machine.w)}
        return int(uncompiled[name_of(function)](*(arrays[name] for name in ("mem", "w") if name in takes), *rows) or 0)

    monkeypatch.setattr(Machine, "call", call)
    explorer = CompiledExplorer(CHECK_SCOPES[scope], symmetry=symmetry)
    found = explorer.run()
    oracle = Explorer(JointStates(CHECK_SCOPES[scope], symmetry=symmetry)).run()
    assert found.complete
    assert explorer.violation is None
    assert (found.states, found.transitions, found.depth) == (oracle.states, oracle.transitions, oracle.depth)
    assert found.counts == oracle.counts
    assert list(map(bool, found.shown)) == list(map(bool, oracle.shown))


def test_what_has_no_compiled_meaning_is_named() -> None:
    translator = Translator(seams(), {"driver": Driver, "runtime": Runtime})
    translator.add(Driver.divergence)
    with pytest.raises(Untranslatable, match=r"Driver\.divergence, its line 3"):
        translator.translate()


def test_a_bound_has_one_place_in_the_world() -> None:
    assert len({bound_at(name) for name in BOUND_NAMES}) == len(BOUND_NAMES)
    assert bound_at("roots") != bound_at("shape.roots")
    with pytest.raises(KeyError):
        bound_at("moons")
    assert len(set(REGISTERS.values())) == len(REGISTERS)
