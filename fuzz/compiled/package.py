"""The generated file: written once for each state of the sources, compiled once, and loaded from disk from then on."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz.compiled import kernel
from fuzz.compiled.seams import CUTS, VIEWS, draw_functions, seams
from fuzz.compiled.translate import Translator
from fuzz.driver import Driver
from fuzz.results import MissingExtra
from impl.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_HEAD: Final = '''"""Generated from the sources of impl, model and fuzz; see fuzz.compiled.translate. Not to be edited."""

from llvmlite import ir
from numba import cfunc, njit, types
from numba.extending import intrinsic
from numba.np import arrayobj

from impl.errors import AllocationFailed, OutOfBounds, Panicked, RegistrationRefused
from model.choose import Exhausted


class CompiledVerdict(Exception):
    """What ends a run; the world says what it is."""


jit = njit(boundscheck=True, _nrt=False)
# What returns a part of the world: without reference counts, numba returns no array that it was not given.
jit_inline = njit(boundscheck=True, _nrt=False, inline="always")
# These check each address by themselves, or make none of their own.
jit_unchecked = njit(boundscheck=False, _nrt=False)
entry = njit(boundscheck=False, nogil=True, cache=True, _nrt=False)
words = types.Array(types.int64, 1, "C")


@intrinsic
def call_at(typing_context, address, mem, mem_words, w, w_words, first, second):
    signature = types.int64(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)

    def generate(context, builder, signature, arguments):
        word = ir.IntType(64)
        function = ir.FunctionType(word, [word] * 6)
        return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])

    return signature, generate


@intrinsic
def array_at(typing_context, address, length):
    def generate(context, builder, signature, arguments):
        array = arrayobj.make_array(words)(context, builder)
        size = context.get_constant(types.intp, 8)
        data = builder.inttoptr(arguments[0], array.data.type)
        arrayobj.populate_array(array, data=data, shape=[arguments[1]], strides=[size], itemsize=size, meminfo=None, parent=None)
        return array._getvalue()

    return words(types.int64, types.int64), generate


'''
_TAIL: Final = """

@cfunc(types.int64(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64), cache=True, _nrt=False)
def drop_at(mem_at, mem_words, w_at, w_words, externref, _unused):
    try:
        impl__externref__drop_and_dealloc__itself(array_at(mem_at, mem_words), array_at(w_at, w_words), externref)
    except Exception:
        return 1
    return 0


@cfunc(types.int64(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64), cache=True, _nrt=False)
def perform_at(mem_at, mem_words, w_at, w_words, row_at, row_words):
    try:
        fuzz__driver__Driver__perform__itself(array_at(mem_at, mem_words), array_at(w_at, w_words), array_at(row_at, row_words))
    except Exception:
        return 1
    return 0
"""
ENTRIES: Final[tuple[Callable[..., Any], ...]] = (
    kernel.search,
    kernel.decode,
    kernel.encode,
    kernel.digest,
    kernel.insert,
    kernel.rehash,
    kernel.ready,
)
"""What Python calls: compiled whole, with everything that they call, and kept on disk."""
UNCHECKED: Final = ("impl__audit", "impl__scan", "fuzz__compiled__kernel")
"""Functions whose names begin like this run without bounds checks."""


@cache
def source() -> str:
    """Return the generated file."""
    translator = Translator(seams(), {"driver": Driver, "runtime": Runtime})
    for function in ENTRIES:
        translator.add(function)
    for function in CUTS:
        translator.add_itself(function)
    draws = draw_functions(translator)
    functions = translator.translate()
    for function in ENTRIES:
        name = translator.add(function)
        functions = functions.replace(f"@jit\ndef {name}(", f"@entry\ndef {name}(")
    for function in VIEWS:
        name = translator.add(function)
        functions = functions.replace(f"@jit\ndef {name}(", f"@jit_inline\ndef {name}(")
    for prefix in UNCHECKED:
        functions = functions.replace(f"@jit\ndef {prefix}", f"@jit_unchecked\ndef {prefix}")
    return _HEAD + functions + "\n\n" + draws + _TAIL


def cache_folder() -> Path:
    """Return where generated files and compiled code are kept: `DRC_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("DRC_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drc-check"


@cache
def load() -> ModuleType:
    """Return the compiled module: its functions are dispatchers that compile at their first call, or load what is on disk.

    Raises:
        MissingExtra: numba is not installed.
    """
    if importlib.util.find_spec("numba") is None:
        raise MissingExtra("numba", "fast")
    text = source()
    name = f"drc_compiled_{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"
    folder = cache_folder() / name
    path = folder / f"{name}.py"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{name}.{os.getpid()}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled twin of an entry."""
    found: Callable[..., Any] = getattr(load(), f"{function.__module__}.{function.__qualname__}".replace(".", "__"))
    return found
