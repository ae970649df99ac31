"""One face for every release of the `wasmtime` package: what a host does with one store, over the C API inside.

The Python API of the package makes a new box each time an object is passed to the engine, so that the engine never sees one value
twice. Hence values are passed through the C API that the package carries, where a handle is cloned as a host would: what is counted is
what is meant. For the rest (engines, modules, types, traps) the Python API suffices.

Here is what all releases share. Two families differ: up to 0.27 a store is kept alive by everything made in it
(`fuzz.releases.counted`); from 0.28 on it is an argument (`fuzz.releases.contextual`). What differs within a family is read off the
functions at hand, not off version numbers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, NoReturn

NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()

Raw = Any
"""A value as the C API has it: `wasm_val_t` or `wasmtime_val_t`."""
Thing = Any
"""An object of the package, or a struct of its C API: an engine, a module, an instance, something exported."""
Package = Any
"""The `wasmtime` package under test. No two releases have the same types, so there are none here."""

Imported = Callable[[list[Raw], int], list[Raw]]
"""Answers a call from Wasm: parameters, owned by the callee, and a number of results in; so many results out, which leave its ownership."""


KEY_BASE: Final = 256
"""An import of P parameters and R results is known to C as P * KEY_BASE + R."""
HARNESS_FAILED: Final = 70
"""Exit code of a mistake in the runner or in what it was given, as opposed to one of the engine."""


class RefusedError(Exception):
    """The engine, or its API, refused: no trap, and no bug as such."""


class TrappedError(Exception):
    """A call or an instantiation trapped. The message is the engine's."""


class RaisedError(Exception):
    """The program wants this import to trap."""


def give_up() -> NoReturn:
    """End the process with a traceback: the runner is wrong, not the engine."""
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(HARNESS_FAILED)


def guarded(answer: Callable[..., int]) -> Callable[..., int]:
    """Return a callback for C that ends the process if Python raises: else ctypes would print that and return garbage to the engine."""

    def callback(env: int | None, *rest: Thing) -> int:
        try:
            return answer(env or 0, *rest)
        except BaseException:  # noqa: BLE001
            give_up()

    return callback


class Adapter(ABC):
    """What all releases have in common: the engine, its settings, and how compiled modules are kept.

    Args:
        package: the `wasmtime` package under test.
        destroyed: told the number of each value, inside the engine's finalizer.
        imported: answers a call from Wasm; it may raise `RaisedError`.
        opt_level: of Cranelift: `none`, `speed` or `speed_and_size`.
    """

    collects = True
    """Whether there is a function that collects."""
    in_destructors: frozenset[str] = frozenset()
    """Kinds of actions that the API allows inside a finalizer."""
    without_store: frozenset[str] = frozenset()
    """Kinds of actions that need no store."""

    def __init__(
        self,
        package: Package,
        destroyed: Callable[[int], None],
        imported: Imported,
        opt_level: str,
    ) -> None:
        self.package = package
        self.ffi: Any = package._ffi  # noqa: SLF001 - the C API is the point
        self.imported = imported
        self.store: Any = None
        self.functions: dict[tuple[int, int], Any] = {}
        self.types: dict[tuple[int, int], Any] = {}

        def finalize(data: int) -> int:
            destroyed(data - 1)
            return 0

        self.finalizer = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(guarded(finalize))
        config = package.Config()
        for name in ("wasm_reference_types", "wasm_bulk_memory", "wasm_multi_value"):
            setattr(config, name, True)
        config.cranelift_opt_level = opt_level
        # One small module at a time: handing it to a thread pool costs more than compiling it.
        if hasattr(type(config), "parallel_compilation"):
            config.parallel_compilation = False
        self.engine = package.Engine(config)

    def compile(self, wat: str) -> tuple[Any, list[Any]]:
        """The module and what it imports, in order. Raises `RefusedError`."""
        try:
            module = self.package.Module(self.engine, wat)
        except self.package.WasmtimeError as error:
            raise RefusedError(str(error)) from None
        return module, list(module.imports)

    def function_type(self, parameters: int, results: int) -> Thing:
        """The type of a function over references alone."""
        key = (parameters, results)
        if key not in self.types:
            externref = self.package.ValType.externref
            self.types[key] = self.package.FuncType([externref()] * parameters, [externref()] * results)
        return self.types[key]

    def pointer(self, thing: Thing) -> Thing:
        """The C pointer inside an object of the package."""
        return thing.ptr() if hasattr(thing, "ptr") else thing._ptr  # noqa: SLF001

    def give_trap(self, trap: Thing) -> int:
        """The address of a trap that is handed over to the engine."""
        if hasattr(trap, "_consume"):
            pointer = trap._consume()  # noqa: SLF001
        else:
            pointer = trap._ptr  # noqa: SLF001
            del trap._ptr  # noqa: SLF001
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0

    def raise_error(self, error: Thing) -> None:
        """Raise `RefusedError` for an error that the C API returned, if it did."""
        if error:
            raise RefusedError(str(self.package.WasmtimeError._from_ptr(error)))  # noqa: SLF001

    def raise_trap(self, trap: Thing) -> None:
        """Raise `TrappedError` for a trap that the C API returned, if it did."""
        if trap:
            raise TrappedError(str(self.package.Trap._from_ptr(trap).message))  # noqa: SLF001

    @staticmethod
    def key(name: str) -> tuple[int, int]:
        """Numbers of parameters and results in the name of a host import. Raises `RefusedError`."""
        parameters, _, results = name.removeprefix("h").partition("_")
        if not (name.startswith("h") and parameters.isdecimal() and results.isdecimal()):
            raise RefusedError(f"no such import: host {name}")
        return int(parameters), int(results)

    def open(self) -> None:
        """Make the store."""
        self.store = self.package.Store(self.engine)

    @abstractmethod
    def close(self) -> None:
        """Let go of the store and of what the adapter has in it; finalizers run as soon as nothing else is left of it."""

    @abstractmethod
    def null(self) -> Raw:
        """Return the null reference."""

    @abstractmethod
    def integer(self, kind: str, number: int) -> Raw:
        """Return a number as an argument; `kind` is `i32` or `i64`."""

    @abstractmethod
    def new(self, number: int) -> Raw:
        """Return the first handle to a new value, in a box of its own. Raises `RefusedError`."""

    @abstractmethod
    def clone(self, value: Raw) -> Raw:
        """Return one more handle."""

    @abstractmethod
    def release(self, value: Raw) -> None:
        """Give up a handle."""

    @abstractmethod
    def look(self, value: Raw) -> int | list[Any] | None:
        """Return what a value is: the number in its box, None for null, or an integer with its kind."""

    @abstractmethod
    def host_function(self, name: str) -> Thing:
        """Return the import ("host", name) of this store. Raises `RefusedError`."""

    @abstractmethod
    def new_global(self, kind: Thing, value: Raw) -> Thing:
        """Return a new global of a type, for an import. Raises `RefusedError`."""

    @abstractmethod
    def new_table(self, kind: Thing, value: Raw) -> Thing:
        """Return a new table of a type, full of copies of a value, for an import. Raises `RefusedError`."""

    @abstractmethod
    def instantiate(self, module: Thing, imports: list[Thing]) -> Thing:
        """Return a new instance. Raises `TrappedError` or `RefusedError`."""

    @abstractmethod
    def export(self, instance: Thing, name: str) -> Thing:
        """Return what an instance exports under a name. Raises `RefusedError`."""

    @abstractmethod
    def call(self, function: Thing, arguments: list[Raw]) -> list[Raw]:
        """Call, and own the results. Raises `TrappedError` or `RefusedError`."""

    @abstractmethod
    def global_get(self, item: Thing) -> Raw:
        """Return the content of a global, owned."""

    @abstractmethod
    def global_set(self, item: Thing, value: Raw) -> None:
        """Store a copy of a value in a global. Raises `RefusedError`."""

    @abstractmethod
    def table_get(self, table: Thing, index: int) -> Raw:
        """Return an element, owned. Raises `RefusedError`."""

    @abstractmethod
    def table_set(self, table: Thing, index: int, value: Raw) -> None:
        """Store a copy of a value in an element. Raises `RefusedError`."""

    @abstractmethod
    def table_size(self, table: Thing) -> int:
        """Return how many elements a table has."""

    @abstractmethod
    def table_grow(self, table: Thing, delta: int, value: Raw) -> int:
        """Let a table grow by copies of a value. Return its size before, or -1 if it did not."""

    @abstractmethod
    def gc(self) -> None:
        """Collect."""
