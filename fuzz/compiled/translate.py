"""The text of a function is rewritten, statement by statement, into one that C can say; nothing is written twice.

The plain reading has objects: a driver with its model's state and its bounds, a runtime with its memory. The compiled one has two
arrays of signed 64-bit words: `mem`, the memory that `impl` works on, and `w`, the *world*, where everything else has a fixed
place (`fuzz.compiled.world`). What is rewritten:

* `state[i]`, `limits.slots`, `driver.addresses[i]` become words of the world; parameters of such kinds become `w`, or `mem` and `w`.
* Constants, members of enumerations and words of constant tuples become numbers.
* Every function gets one name in one file, and a method of `Driver` or `Runtime` becomes a function.
* A dispatch, ``return TABLE[kind](...)``, becomes a tree of comparisons.
* Messages are dropped. What raises leaves a number in the memory or the world, which tells exceptions apart.
* Whatever only records or reports is dropped: lists of rows, callbacks, what belongs to the checked memory.

What comes out is Python still, and a test runs it. A function that uses anything else cannot be compiled, and is named.
Elementary functions that the two readings must say differently are *seams* (`fuzz.compiled.seams`), each with a test that compares both.
"""

from __future__ import annotations

import ast
import textwrap
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

from fuzz.compiled.rewriting import Rewriting, Untranslatable, without_docstring
from fuzz.compiled.world import name_of

PACKAGES: Final = ("impl", "model", "fuzz")
"""Whose functions are translated."""


class Translator:
    """Collects the functions that are reached from the first ones, each under one name, and writes them as one source file.

    Args:
        seams: for a function, the source of what stands in for it: a function of any name over the lowered parameters.
        methods: classes by tag whose methods are functions over that tag.
    """

    def __init__(self, seams: dict[Callable[..., Any], str], methods: dict[str, type]) -> None:
        self.seams = seams
        self.methods = methods
        self._names: dict[Callable[..., Any], str] = {}
        self._pending: list[Callable[..., Any]] = []
        self.sources: dict[str, str] = {}
        self.tables: dict[str, tuple[int, ...]] = {}

    def add(self, function: Callable[..., Any]) -> str:
        """Return the name of a function in the generated file; it will be in it."""
        name = self._names.get(function)
        if name is None:
            name = name_of(function)
            self._names[function] = name
            self._pending.append(function)
        return name

    def add_itself(self, function: Callable[..., Any]) -> None:
        """Translate a function although it has a seam, under its name with `__itself`: the seam is how it is called."""
        name = f"{self.add(function)}__itself"
        self.sources[name] = ast.unparse(Rewriting(self, function, name).lowered())

    def table(self, name: str, words: tuple[int, ...]) -> str:
        """Return the name of a constant tuple in the generated file."""
        self.tables[name] = words
        return name

    def translate(self) -> str:
        """Translate everything that is reached, and return the generated file's functions."""
        while self._pending:
            function = self._pending.pop()
            name = self._names[function]
            if function in self.seams:
                self.sources[name] = _renamed(self.seams[function], name)
                self.reach(self.seams[function])
            else:
                self.sources[name] = ast.unparse(Rewriting(self, function, name).lowered())
        tables = [f"{name} = {words!r}" for name, words in sorted(self.tables.items())]
        return "\n".join(tables) + "\n\n\n" + "\n\n\n".join(self.sources[name] for name in sorted(self.sources)) + "\n"

    def reach(self, source: str) -> None:
        """A seam may call functions by their generated names, which must then be reached."""
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name) and "__" in node.id.strip("_"):
                module, _, rest = node.id.partition("__")
                found = _find(module, rest)
                if found is not None:
                    self.add(found)


def _find(package: str, rest: str) -> Callable[..., Any] | None:
    if package not in PACKAGES:
        return None
    module_name, _, name = rest.partition("__")
    import importlib

    found: Any = importlib.import_module(f"{package}.{module_name}")
    for part in name.split("__"):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _renamed(source: str, name: str) -> str:
    tree = ast.parse(textwrap.dedent(source))
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef):
        raise Untranslatable(f"{name}: the seam is no function")
    function.name = name
    function.body = without_docstring(function.body)
    function.returns = None
    for argument in function.args.args:
        argument.annotation = None
    return ast.unparse(tree)
