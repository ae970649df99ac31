"""Releases up to 0.27: whatever is made in a store keeps the store alive, and a finalizer may do all that a host may."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from fuzz.releases.adapter import (
    KEY_BASE,
    NO_FINALIZER,
    Adapter,
    Imported,
    Package,
    RaisedError,
    Raw,
    RefusedError,
    Thing,
    TrappedError,
    guarded,
)


class Counted(Adapter):
    """Releases up to 0.27: whatever is made in a store keeps it alive, and finalizers may do all that a host may."""

    in_destructors = frozenset(
        {"new", "drop", "instantiate", "drop_instance", "gc", "call"}
        | {"global_get", "global_set", "table_get", "table_set", "table_grow", "table_size"}
    )
    without_store = frozenset({"new", "drop"})

    def __init__(
        self,
        package: Package,
        destroyed: Callable[[int], None],
        imported: Imported,
        opt_level: str,
    ) -> None:
        super().__init__(package, destroyed, imported, opt_level)
        ffi = self.ffi
        self.collects = hasattr(ffi, "wasmtime_store_gc")
        # Up to 0.22 values are passed as plain arrays, later as vectors.
        self.plain = len(package._bindings._wasmtime_func_call.argtypes) == 6  # noqa: SLF001

        def answer(env: int, parameters: Thing, results: Thing) -> int:
            key = divmod(env, KEY_BASE)
            if not self.plain:
                parameters, results = parameters.contents.data, results.contents.data
            try:
                given = self.imported([self.clone(parameters[index]) for index in range(key[0])], key[1])
            except RaisedError as raised:
                return self.give_trap(self.package.Trap(self.store, str(raised)))
            for index, value in enumerate(given):
                results[index] = value
            return 0

        self.callback = ffi.wasm_func_callback_with_env_t(guarded(answer))

    def close(self) -> None:
        """Let go of the store and of what the adapter has in it; finalizers run as soon as nothing else is left of it."""
        store, self.store = self.store, None
        self.functions.clear()
        del store

    def null(self) -> Raw:
        """Return the null reference."""
        value = self.ffi.wasm_val_t(self.ffi.WASM_ANYREF)
        value.of.ref = None
        return value

    def new(self, number: int) -> Raw:
        """Return the first handle to a new value, in a box of its own. Raises `RefusedError`."""
        value = self.null()
        self.ffi.wasmtime_externref_new_with_finalizer(ctypes.c_void_p(number + 1), self.finalizer, ctypes.byref(value))
        return value

    def integer(self, kind: str, number: int) -> Raw:
        """Return a number as an argument; `kind` is `i32` or `i64`."""
        value = self.ffi.wasm_val_t(self.ffi.WASM_I32 if kind == "i32" else self.ffi.WASM_I64)
        setattr(value.of, kind, number)
        return value

    def clone(self, value: Raw) -> Raw:
        """Return one more handle."""
        other = self.null()
        self.ffi.wasm_val_copy(ctypes.byref(other), ctypes.byref(value))
        return other

    def release(self, value: Raw) -> None:
        """Give up a handle."""
        self.ffi.wasm_val_delete(ctypes.byref(value))

    def look(self, value: Raw) -> int | list[Any] | None:
        """Return what a value is: the number in its box, None for null, or an integer with its kind."""
        if value.kind == self.ffi.WASM_I32.value:
            return ["i32", value.of.i32]
        if value.kind == self.ffi.WASM_I64.value:
            return ["i64", value.of.i64]
        if not value.of.ref:
            return None
        data = ctypes.c_void_p()
        self.ffi.wasmtime_externref_data(ctypes.byref(value), ctypes.byref(data))
        return (data.value or 0) - 1

    def host_function(self, name: str) -> Thing:
        """The import ("host", name) of this store."""
        key = self.key(name)
        if key not in self.functions:
            env = ctypes.c_void_p(key[0] * KEY_BASE + key[1])
            pointer = self.ffi.wasm_func_new_with_env(
                self.pointer(self.store), self.pointer(self.function_type(*key)), self.callback, env, NO_FINALIZER
            )
            self.functions[key] = self.package.Func._from_ptr(pointer, None)  # noqa: SLF001
        return self.functions[key]

    def new_global(self, kind: Thing, value: Raw) -> Thing:
        """Return a new global of a type, for an import. Raises `RefusedError`."""
        pointer = ctypes.POINTER(self.ffi.wasm_global_t)()
        error = self.ffi.wasmtime_global_new(self.pointer(self.store), self.pointer(kind), ctypes.byref(value), ctypes.byref(pointer))
        self.raise_error(error)
        return self.package.Global._from_ptr(pointer, None)  # noqa: SLF001

    def new_table(self, kind: Thing, value: Raw) -> Thing:
        """Return a new table of a type, full of copies of a value, for an import. Raises `RefusedError`."""
        pointer = self.ffi.wasm_table_new(self.pointer(self.store), self.pointer(kind), value.of.ref)
        if not pointer:
            raise RefusedError("no table")
        return self.package.Table._from_ptr(pointer, None)  # noqa: SLF001

    def instantiate(self, module: Thing, imports: list[Thing]) -> Thing:
        """Return a new instance. Raises `TrappedError` or `RefusedError`."""
        try:
            return self.package.Instance(self.store, module, imports)
        except self.package.Trap as trap:
            raise TrappedError(trap.message) from None
        except self.package.WasmtimeError as error:
            raise RefusedError(str(error)) from None

    def export(self, instance: Thing, name: str) -> Thing:
        """Return what an instance exports under a name. Raises `RefusedError`."""
        try:
            return instance.exports[name]
        except KeyError:
            raise RefusedError(f"no export {name}") from None

    def call(self, function: Thing, arguments: list[Raw]) -> list[Raw]:
        """Call, and own the results. Raises `TrappedError` or `RefusedError`."""
        ffi, pointer = self.ffi, function._ptr  # noqa: SLF001
        parameters = (ffi.wasm_val_t * len(arguments))(*arguments)
        count = ffi.wasm_func_result_arity(pointer)
        results = (ffi.wasm_val_t * count)()
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        if self.plain:
            error = ffi.wasmtime_func_call(pointer, parameters, len(arguments), results, count, ctypes.byref(trap))
        else:
            given, taken = ffi.wasm_val_vec_t(len(arguments), parameters), ffi.wasm_val_vec_t(count, results)
            error = ffi.wasmtime_func_call(pointer, ctypes.byref(given), ctypes.byref(taken), ctypes.byref(trap))
        self.raise_error(error)
        self.raise_trap(trap)
        return list(results)

    def global_get(self, item: Thing) -> Raw:
        """Return the content of a global, owned."""
        value = self.null()
        self.ffi.wasm_global_get(item._ptr, ctypes.byref(value))  # noqa: SLF001
        return value

    def global_set(self, item: Thing, value: Raw) -> None:
        """Store a copy of a value in a global. Raises `RefusedError`."""
        self.raise_error(self.ffi.wasmtime_global_set(item._ptr, ctypes.byref(value)))  # noqa: SLF001

    def table_get(self, table: Thing, index: int) -> Raw:
        """Return an element, owned. Raises `RefusedError`."""
        if index >= self.table_size(table):
            raise RefusedError("out of bounds")
        value = self.null()
        value.of.ref = self.ffi.wasm_table_get(table._ptr, index)  # noqa: SLF001
        return value

    def table_set(self, table: Thing, index: int, value: Raw) -> None:
        """Store a copy of a value in an element. Raises `RefusedError`."""
        if not self.ffi.wasm_table_set(table._ptr, index, value.of.ref):  # noqa: SLF001
            raise RefusedError("out of bounds")

    def table_size(self, table: Thing) -> int:
        """Return how many elements a table has."""
        return int(self.ffi.wasm_table_size(table._ptr))  # noqa: SLF001

    def table_grow(self, table: Thing, delta: int, value: Raw) -> int:
        """Let a table grow by copies of a value. Return its size before, or -1 if it did not."""
        before = self.table_size(table)
        return before if self.ffi.wasm_table_grow(table._ptr, delta, value.of.ref) else -1  # noqa: SLF001

    def gc(self) -> None:
        """Collect."""
        self.ffi.wasmtime_store_gc(self.pointer(self.store))
