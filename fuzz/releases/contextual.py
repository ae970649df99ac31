"""Releases since 0.28: the store is an argument, and a finalizer has none to give."""

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


class Contextual(Adapter):
    """Releases since 0.28: the store is an argument, and a finalizer has none to give."""

    def __init__(
        self,
        package: Package,
        destroyed: Callable[[int], None],
        imported: Imported,
        opt_level: str,
    ) -> None:
        super().__init__(package, destroyed, imported, opt_level)
        ffi, bindings = self.ffi, package._bindings  # noqa: SLF001
        self.collects = True
        self.null_value = ffi.wasmtime_val_t(ffi.WASMTIME_EXTERNREF)
        # A reference is a pointer up to 21 and a struct since; from 20 to 37 the store is needed to give up a handle.
        boxed = isinstance(self.null_value.of.externref, ctypes._Pointer)  # noqa: SLF001
        self.make = bindings._wasmtime_externref_new  # noqa: SLF001
        self.make_form = len(self.make.argtypes)
        drop = bindings._wasmtime_externref_delete if boxed else bindings._wasmtime_externref_unroot  # noqa: SLF001
        self.boxed, self.freely = boxed, len(drop.argtypes) == 1
        self.let_go, self.copy, self.data = drop, bindings._wasmtime_externref_clone, bindings._wasmtime_externref_data  # noqa: SLF001
        self.data_form = len(self.data.argtypes)
        # Up to 36 such C APIs neither give up the handles that they make for parameters nor those that come back as results.
        # Since 37 a handle carries a third word, and dropping it on the C API's side gives it up.
        self.keeps = not self.freely and (boxed or ctypes.sizeof(self.null_value.of.externref) == 16)
        self.returned: list[Raw] = []
        if self.freely:
            self.in_destructors = self.without_store = frozenset({"new", "drop"} if self.make_form == 2 else {"drop"})

        def answer(env: int, _caller: Thing, parameters: Thing, _count: int, results: Thing, _results_count: int) -> int:
            key = divmod(env, KEY_BASE)
            self.settle()
            try:
                given = self.imported([self.take(parameters[index]) for index in range(key[0])], key[1])
            except RaisedError as raised:
                return self.give_trap(self.package.Trap(str(raised)))
            for index, value in enumerate(given):
                results[index] = value
            if self.keeps and not self.boxed:
                self.returned += given
            return 0

        self.callback = ffi.wasmtime_func_callback_t(guarded(answer))

    def take(self, parameter: Raw) -> Raw:
        """A handle of our own for a parameter, in exchange for the one that this C API would never give up."""
        own = self.clone(parameter)
        if self.keeps and self.is_reference(parameter):
            self.release(parameter)
            parameter.kind = self.ffi.WASMTIME_I32
        return own

    def settle(self) -> None:
        """Give up the handles that moved out as results earlier: by now the engine has taken them."""
        returned, self.returned = self.returned, []
        for value in returned:
            self.release(value)

    def is_reference(self, value: Raw) -> bool:
        """Whether a value is a reference other than null."""
        if value.kind != self.ffi.WASMTIME_EXTERNREF.value:
            return False
        reference = value.of.externref
        return bool(reference) if self.boxed else reference.store_id != 0

    @property
    def context(self) -> Thing:
        """The store, as an argument."""
        context = self.store._context  # noqa: SLF001
        return context() if callable(context) else context

    def close(self) -> None:
        """Let go of the store and of what the adapter has in it; finalizers run as soon as nothing else is left of it."""
        self.settle()
        store, self.store = self.store, None
        self.functions.clear()
        del store

    def null(self) -> Raw:
        """Return the null reference."""
        return self.ffi.wasmtime_val_t(self.ffi.WASMTIME_EXTERNREF)

    def new(self, number: int) -> Raw:
        """Return the first handle to a new value, in a box of its own. Raises `RefusedError`."""
        value, data = self.null(), ctypes.c_void_p(number + 1)
        if self.make_form == 2:
            value.of.externref = self.make(data, self.finalizer)
        elif self.make_form == 3:
            value.of.externref = self.make(self.context, data, self.finalizer)
        elif not self.make(self.context, data, self.finalizer, ctypes.byref(value.of.externref)):
            raise RefusedError("no room for a new reference")
        return value

    def integer(self, kind: str, number: int) -> Raw:
        """Return a number as an argument; `kind` is `i32` or `i64`."""
        value = self.ffi.wasmtime_val_t(self.ffi.WASMTIME_I32 if kind == "i32" else self.ffi.WASMTIME_I64)
        setattr(value.of, kind, number)
        return value

    def clone(self, value: Raw) -> Raw:
        """Return one more handle."""
        other = self.null()
        if not self.is_reference(value):
            return other
        context = () if self.freely else (self.context,)
        if self.boxed:
            other.of.externref = self.copy(*context, value.of.externref)
        else:
            self.copy(*context, ctypes.byref(value.of.externref), ctypes.byref(other.of.externref))
        return other

    def release(self, value: Raw) -> None:
        """Give up a handle."""
        if self.is_reference(value):
            context = () if self.freely else (self.context,)
            self.let_go(*context, value.of.externref if self.boxed else ctypes.byref(value.of.externref))

    def look(self, value: Raw) -> int | list[Any] | None:
        """Return what a value is: the number in its box, None for null, or an integer with its kind."""
        if value.kind == self.ffi.WASMTIME_I32.value:
            return ["i32", value.of.i32]
        if value.kind == self.ffi.WASMTIME_I64.value:
            return ["i64", value.of.i64]
        if not self.is_reference(value):
            return None
        reference = value.of.externref if self.boxed else ctypes.byref(value.of.externref)
        context = () if self.data_form == 1 else (self.context,)
        return (self.data(*context, reference) or 0) - 1

    def host_function(self, name: str) -> Thing:
        """The import ("host", name) of this store."""
        key = self.key(name)
        if key not in self.functions:
            env = ctypes.c_void_p(key[0] * KEY_BASE + key[1])
            item = self.ffi.wasmtime_extern_t(self.ffi.WASMTIME_EXTERN_FUNC)
            made = self.ffi.wasmtime_func_t()
            self.ffi.wasmtime_func_new(
                self.context, self.pointer(self.function_type(*key)), self.callback, env, NO_FINALIZER, ctypes.byref(made)
            )
            item.of.func = made
            self.functions[key] = item
        return self.functions[key]

    def new_global(self, kind: Thing, value: Raw) -> Thing:
        """Return a new global of a type, for an import. Raises `RefusedError`."""
        made = self.ffi.wasmtime_global_t()
        self.raise_error(self.ffi.wasmtime_global_new(self.context, self.pointer(kind), ctypes.byref(value), ctypes.byref(made)))
        item = self.ffi.wasmtime_extern_t(self.ffi.WASMTIME_EXTERN_GLOBAL)
        item.of.global_ = made
        return item

    def new_table(self, kind: Thing, value: Raw) -> Thing:
        """Return a new table of a type, full of copies of a value, for an import. Raises `RefusedError`."""
        made = self.ffi.wasmtime_table_t()
        self.raise_error(self.ffi.wasmtime_table_new(self.context, self.pointer(kind), ctypes.byref(value), ctypes.byref(made)))
        item = self.ffi.wasmtime_extern_t(self.ffi.WASMTIME_EXTERN_TABLE)
        item.of.table = made
        return item

    def instantiate(self, module: Thing, imports: list[Thing]) -> Thing:
        """Return a new instance. Raises `TrappedError` or `RefusedError`."""
        ffi = self.ffi
        instance, trap = ffi.wasmtime_instance_t(), ctypes.POINTER(ffi.wasm_trap_t)()
        given = (ffi.wasmtime_extern_t * len(imports))(*imports)
        error = ffi.wasmtime_instance_new(
            self.context, self.pointer(module), given, len(imports), ctypes.byref(instance), ctypes.byref(trap)
        )
        self.raise_error(error)
        self.raise_trap(trap)
        return instance

    def export(self, instance: Thing, name: str) -> Thing:
        """Return what an instance exports under a name. Raises `RefusedError`."""
        item, text = self.ffi.wasmtime_extern_t(), name.encode()
        if not self.ffi.wasmtime_instance_export_get(
            self.context, ctypes.byref(instance), ctypes.create_string_buffer(text), len(text), ctypes.byref(item)
        ):
            raise RefusedError(f"no export {name}")
        return item

    def call(self, function: Thing, arguments: list[Raw]) -> list[Raw]:
        """Call, and own the results. Raises `TrappedError` or `RefusedError`."""
        ffi, item = self.ffi, function.of.func
        kind = ffi.wasmtime_func_type(self.context, ctypes.byref(item))
        count = ffi.wasm_functype_results(kind).contents.size
        ffi.wasm_functype_delete(kind)
        parameters = (ffi.wasmtime_val_t * len(arguments))(*arguments)
        results = (ffi.wasmtime_val_t * count)()
        trap = ctypes.POINTER(ffi.wasm_trap_t)()
        error = ffi.wasmtime_func_call(self.context, ctypes.byref(item), parameters, len(arguments), results, count, ctypes.byref(trap))
        self.settle()
        # Up to some release an import's own error is a trap, later an error. What the host got wrong has been refused before.
        if error:
            raise TrappedError(str(self.package.WasmtimeError._from_ptr(error)))  # noqa: SLF001
        self.raise_trap(trap)
        return list(results)

    def global_get(self, item: Thing) -> Raw:
        """Return the content of a global, owned."""
        value = self.null()
        self.ffi.wasmtime_global_get(self.context, ctypes.byref(item.of.global_), ctypes.byref(value))
        return value

    def global_set(self, item: Thing, value: Raw) -> None:
        """Store a copy of a value in a global. Raises `RefusedError`."""
        self.raise_error(self.ffi.wasmtime_global_set(self.context, ctypes.byref(item.of.global_), ctypes.byref(value)))

    def table_get(self, table: Thing, index: int) -> Raw:
        """Return an element, owned. Raises `RefusedError`."""
        value = self.null()
        if not self.ffi.wasmtime_table_get(self.context, ctypes.byref(table.of.table), index, ctypes.byref(value)):
            raise RefusedError("out of bounds")
        return value

    def table_set(self, table: Thing, index: int, value: Raw) -> None:
        """Store a copy of a value in an element. Raises `RefusedError`."""
        self.raise_error(self.ffi.wasmtime_table_set(self.context, ctypes.byref(table.of.table), index, ctypes.byref(value)))

    def table_size(self, table: Thing) -> int:
        """Return how many elements a table has."""
        return int(self.ffi.wasmtime_table_size(self.context, ctypes.byref(table.of.table)))

    def table_grow(self, table: Thing, delta: int, value: Raw) -> int:
        """Let a table grow by copies of a value. Return its size before, or -1 if it did not."""
        before = self.table_size(table)
        word = self.package._bindings._wasmtime_table_grow.argtypes[4]._type_()  # noqa: SLF001
        error = self.ffi.wasmtime_table_grow(self.context, ctypes.byref(table.of.table), delta, ctypes.byref(value), ctypes.byref(word))
        if error:
            self.package.WasmtimeError._from_ptr(error)  # noqa: SLF001 - owns it from here
            return -1
        return before

    def gc(self) -> None:
        """Collect."""
        self.ffi.wasmtime_context_gc(self.context)
